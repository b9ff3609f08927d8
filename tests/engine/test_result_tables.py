"""results.csv and results.json: what is in them, and that nothing of the user's is ever overwritten by them."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import json_schema
import pytest

from cloudsend_cli.core.model import JobGroup, JobSpec
from cloudsend_cli.core.state import JobRecord, RunRecord, RunState
from cloudsend_cli.engine import result_tables
from cloudsend_cli.engine.result_tables import CSV, JSON, MARKER, write_tables
from cloudsend_cli.errors import ResultError
from cloudsend_cli.store.sqlite import SqliteStore

RUN = "abc123"
NASTY = "\x1b]0;x\x07\x9b2J\u202e\udc80é"


def record(number: int, name: str, params: dict[str, str] | None = None, **values: Any) -> JobRecord:
    spec = JobSpec(name, ("true",), "true", params=tuple((params or {}).items()))
    return JobRecord(number, spec, "0" * 32, 1000.0, **values)


def ended(number: int, name: str, params: dict[str, str] | None = None, **values: Any) -> JobRecord:
    times = {"started_at": 1000.0, "ended_at": 1001.5, "attempt": 1, "node": "local-0", "exit_code": 0}
    return record(number, name, params, **{"state": "succeeded", **times, **values})


JOBS = (
    ended(1, "sweep/0", {"lr": "0.10", "": "-v"}, metrics=(("loss", "-1"), ("acc", "nan"), ("", "3"))),
    ended(2, "sweep/1", {"lr": "=1+1"}, metrics=(("top/5", "@SUM(1)"),), state="failed", reason="exit 3", exit_code=3),
    record(3, "waits"),
    ended(4, "old", superseded_by=5),
    record(5, "old", state="running", started_at=1002.0, attempt=2),
)


@pytest.fixture
def open_run(tmp_path: Path) -> Iterator[Callable[..., SqliteStore]]:
    opened = []

    def make(*jobs: JobRecord, groups: tuple[JobGroup, ...] = ()) -> SqliteStore:
        state = tmp_path / f"state-{len(opened)}"
        state.mkdir(mode=0o700)
        store = SqliteStore.open(state)
        opened.append(store)
        store.create_run(RunState(RunRecord(RUN, "p", "/c.yml", 1000.0, groups=groups), jobs))
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / RUN


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


OpenRun = Callable[..., SqliteStore]


def test_a_row_for_each_job_with_its_parameters_and_metrics(open_run: OpenRun, folder: Path) -> None:
    assert write_tables(open_run(*JOBS), RUN, folder) == [folder / CSV, folder / JSON]
    text = (folder / CSV).read_text()
    assert text.splitlines() == [
        "id,name,state,reason,exit_code,attempt,instance,started_at,ended_at,duration,section,group,slot,"
        "param.lr,param.,metric.loss,metric.acc,metric.top/5",
        "abc123.1,sweep/0,succeeded,,0,1,local-0,1970-01-01T00:16:40.000Z,1970-01-01T00:16:41.500Z,1.5,,,,"
        "0.10,-v,-1,nan,",
        "abc123.2,sweep/1,failed,exit 3,3,1,local-0,1970-01-01T00:16:40.000Z,1970-01-01T00:16:41.500Z,1.5,,,,"
        "'=1+1,,,,'@SUM(1)",
        "abc123.3,waits,pending,,,0,,,,,,,,,,,,",
        "abc123.5,old,running,,,2,,1970-01-01T00:16:42.000Z,,,,,,,,,,",
    ]
    rows = json.loads((folder / JSON).read_text())
    json_schema.check(rows, "results_file")
    assert [row["id"] for row in rows] == ["abc123.1", "abc123.2", "abc123.3", "abc123.5"]
    assert rows[0] == {
        "id": "abc123.1",
        "name": "sweep/0",
        "state": "succeeded",
        "reason": None,
        "exit_code": 0,
        "attempt": 1,
        "instance": "local-0",
        "started_at": "1970-01-01T00:16:40.000Z",
        "ended_at": "1970-01-01T00:16:41.500Z",
        "duration": 1.5,
        "section": None,
        "group": None,
        "slot": None,
        "params": {"lr": "0.10", "": "-v"},
        "metrics": {"loss": "-1", "acc": "nan"},
    }
    assert rows[1]["params"] == {"lr": "=1+1"}, "only a spreadsheet has to be kept from reckoning"
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, CSV, JSON]


def test_tasks_have_their_places(open_run: OpenRun, folder: Path) -> None:
    """By the names that `list jobs -o csv` has."""
    group = JobGroup(
        "Search/GTX", slots=((("--machine", "0"), ("--gpu", "0,1")), (("--gpu", "=1"),)), section="Search"
    )
    tasks = [ended(n, f"Search/GTX/{n}", {"--lr": "1"}, slot=n - 1) for n in (1, 2)]
    write_tables(open_run(*tasks, record(3, "Search/GTX/3"), groups=(group,)), RUN, folder)
    rows = read_csv(folder / CSV)
    assert [(row["section"], row["group"], row["slot"]) for row in rows] == [
        ("Search", "Search/GTX", "machine=0 gpu=0,1"),
        ("Search", "Search/GTX", "gpu==1"),
        ("Search", "Search/GTX", ""),
    ]
    objects = json.loads((folder / JSON).read_text())
    json_schema.check(objects, "results_file")
    assert [row["slot"] for row in objects] == ["machine=0 gpu=0,1", "gpu==1", None]


def test_an_empty_run(open_run: OpenRun, folder: Path) -> None:
    write_tables(open_run(), RUN, folder)
    assert (json.loads((folder / JSON).read_text()), len((folder / CSV).read_text().splitlines())) == ([], 1)


def test_hostile_texts_are_cells_and_nothing_else(open_run: OpenRun, folder: Path) -> None:
    odd = ended(1, f'a,"b\n{NASTY}', {NASTY: NASTY}, state="failed", reason=f"=cmd|' /C calc'!A0{NASTY}")
    write_tables(open_run(odd), RUN, folder)
    (row,) = read_csv(folder / CSV)
    assert row["reason"].startswith("'=cmd")
    assert row["name"].startswith('a,"b\n')
    text = (folder / CSV).read_text(encoding="utf-8") + (folder / JSON).read_text(encoding="ascii")
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert json.loads((folder / JSON).read_text())[0]["params"] == {NASTY: NASTY}


def test_tables_are_written_again_in_their_place(open_run: OpenRun, folder: Path) -> None:
    store = open_run(*JOBS)
    for _ in range(2):
        write_tables(store, RUN, folder)
    more = ended(3, "waits", metrics=(("loss", "2"),))
    assert write_tables(open_run(*JOBS[:2], more), RUN, folder) == [folder / CSV, folder / JSON]
    assert read_csv(folder / CSV)[2]["metric.loss"] == "2"
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, CSV, JSON]


@pytest.mark.parametrize("marker", ["kept", "lost", "damaged", "other words"])
def test_a_table_that_was_edited_is_left_alone(open_run: OpenRun, folder: Path, marker: str) -> None:
    write_tables(open_run(*JOBS), RUN, folder)
    with (folder / CSV).open("a") as file:
        file.write("my own line\n")
    edited = (folder / CSV).read_bytes()
    words = {"damaged": '{"resul', "other words": '{"results.csv": [1, null], "x": 3}'}
    if marker == "lost":
        (folder / MARKER).unlink()
        (folder / JSON).unlink()
    elif marker in words:
        (folder / MARKER).write_text(words[marker])
        (folder / JSON).unlink()
    for jobs in (JOBS, JOBS[:2]):
        assert write_tables(open_run(*jobs), RUN, folder) == [folder / "results~1.csv", folder / JSON]
        assert len(read_csv(folder / "results~1.csv")) == len({job.spec.name for job in jobs})
    assert (folder / CSV).read_bytes() == edited


def identify(path: Path) -> tuple[int, ...]:
    """All that writing would change. Reading may change the time of the last access."""
    info = os.lstat(path)
    return info.st_dev, info.st_ino, info.st_mode, info.st_nlink, info.st_uid, info.st_size, info.st_mtime_ns


@pytest.mark.parametrize("what", ["file", "folder", "link", "dangling link", "fifo"])
def test_what_the_user_has_there_is_left_alone(open_run: OpenRun, folder: Path, what: str) -> None:
    folder.mkdir(parents=True)
    mine, place = folder.parent / "mine", folder / CSV
    mine.write_text("mine")
    make: dict[str, Callable[[], object]] = {
        "file": lambda: place.write_text("mine"),
        "folder": place.mkdir,
        "link": lambda: place.symlink_to(mine),
        "dangling link": lambda: place.symlink_to(folder / "nothing"),
        "fifo": lambda: os.mkfifo(place),
    }
    make[what]()
    before = identify(place)
    assert write_tables(open_run(*JOBS), RUN, folder)[0] == folder / "results~1.csv"
    assert identify(place) == before
    assert mine.read_text() == "mine"


def test_a_job_of_that_name_keeps_its_place(open_run: OpenRun, folder: Path) -> None:
    store = open_run(ended(1, CSV), ended(2, f"{JSON}/deeper"))
    assert write_tables(store, RUN, folder) == [folder / "results~1.csv", folder / "results~1.json"]
    assert not (folder / CSV).exists() and not (folder / JSON).exists()


def test_names_do_not_go_on_for_ever(open_run: OpenRun, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in (CSV, *(f"results~{n}.csv" for n in range(1, 100))):
        (folder / name).write_text("mine")
    with pytest.raises(ResultError, match="were edited"):
        write_tables(open_run(*JOBS), RUN, folder)


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["_mark", "_write", "_rename_new"])
def test_a_crash_leaves_a_whole_table_or_none_and_the_next_one_is_in_its_place(
    open_run: OpenRun, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    owner = result_tables if step == "_rename_new" else result_tables._Folder
    real = getattr(owner, step)
    for after in (False, True):

        def crash(*arguments: Any, after: bool = after) -> Any:
            if after:
                real(*arguments)
            raise Crash

        monkeypatch.setattr(owner, step, crash)
        with pytest.raises(Crash):
            write_tables(open_run(*JOBS), RUN, folder)
        monkeypatch.setattr(owner, step, real)
        assert not (folder / CSV).exists() or len(read_csv(folder / CSV)) == 4
        assert write_tables(open_run(*JOBS[:2]), RUN, folder) == [folder / CSV, folder / JSON]
        assert len(read_csv(folder / CSV)) == 2
        (folder / CSV).unlink()
        (folder / JSON).unlink()


def test_a_full_disk_is_an_error_and_leaves_what_was_there(
    open_run: OpenRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tables(open_run(*JOBS), RUN, folder)
    store = open_run(*JOBS[:1])
    before = (folder / CSV).read_bytes()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_tables(store, RUN, folder)
    assert (folder / CSV).read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, CSV, JSON]


def test_without_links_a_table_still_comes_to_its_place(
    open_run: OpenRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_run(*JOBS)

    def none(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    assert write_tables(store, RUN, folder)[0] == folder / CSV
    assert len(read_csv(folder / CSV)) == 4


def test_many_columns_end_somewhere_in_csv_and_nowhere_in_json(open_run: OpenRun, folder: Path) -> None:
    jobs = [ended(n, f"j{n}", metrics=tuple((f"m{n}.{i}", "1") for i in range(200))) for n in range(1, 11)]
    write_tables(open_run(*jobs), RUN, folder)
    assert len(read_csv(folder / CSV)[0]) == len(result_tables.FIXED) + result_tables.Names().most
    assert sum(len(row["metrics"]) for row in json.loads((folder / JSON).read_text())) == 2000


def test_metrics_of_another_job_in_the_second_reading_do_no_harm(open_run: OpenRun, folder: Path) -> None:
    store = open_run(*JOBS)
    state = store.load(RUN)
    changed = replace(state.jobs[3], metrics=(("new", "1"),))

    class Changing:
        """A store whose run goes on between the two readings."""

        run_row = store.run_row

        def __init__(self) -> None:
            self.read = 0

        def list_jobs(self, run: str, *, superseded: bool) -> Any:
            self.read += 1
            if self.read == 2:
                from cloudsend_cli.core.state import Changes

                store.commit(run, state.run.version, Changes(jobs={3: changed}))
            return store.list_jobs(run, superseded=superseded)

    write_tables(Changing(), RUN, folder)  # type: ignore[arg-type]
    assert "metric.new" not in read_csv(folder / CSV)[0]
    assert json.loads((folder / JSON).read_text())[2]["metrics"] == {}

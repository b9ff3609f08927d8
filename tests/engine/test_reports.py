"""What jobs report is read where their logs lie, brought home from other machines, and told once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.engine import hostpool, reports
from cloudsend_cli.engine.asking import Ahead
from cloudsend_cli.engine.homelogs import bring_logs, is_home, log_path, parse_sizes
from cloudsend_cli.engine.reports import FILE_MOST, LogFiles, files_at_home, files_here, read_metrics

from .engine_machine import Machine

ATTEMPT = "r00000.1.1"
SAY = (
    "echo CLOUDSEND_METRIC loss=0.5 acc=1; echo CLOUDSEND_METRIC acc=2 err=1 >&2; echo loss=0.25 >> $CLOUDSEND_METRICS"
)
SAID = (("acc", "1"), ("err", "1"), ("loss", "0.25"))


# ---- files ---------------------------------------------------------------------------------------------------------


def test_the_file_of_metrics_counts_then_stdout_then_stderr(tmp_path: Path) -> None:
    files = LogFiles(f"{tmp_path}/")
    assert (read_metrics(files), files.size()) == ((), 0)
    (tmp_path / "stderr").write_text("CLOUDSEND_METRIC a=err b=err c=err")
    (tmp_path / "stdout").write_text("CLOUDSEND_METRIC a=out b=out")
    (tmp_path / "metrics").write_text("a=file\nb\n")
    assert read_metrics(files) == (("a", "file"), ("b", "out"), ("c", "err"), ("", "1"))


@pytest.mark.parametrize("what", ["fifo", "folder", "link", "dangling", "device"])
def test_what_lies_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path, what: str) -> None:
    (tmp_path / "elsewhere").write_text("CLOUDSEND_METRIC a=1\na=1\n")
    for name in ("stderr", "stdout", "metrics"):
        place = tmp_path / name
        make: dict[str, Callable[[], object]] = {
            "fifo": lambda place=place: os.mkfifo(place),
            "folder": lambda place=place: place.mkdir(),
            "link": lambda place=place: place.symlink_to(tmp_path / "elsewhere"),
            "dangling": lambda place=place: place.symlink_to(tmp_path / "nothing"),
            "device": lambda place=place: place.symlink_to("/dev/zero"),
        }
        make[what]()
    assert read_metrics(LogFiles(f"{tmp_path}/")) == ()


def test_a_file_of_metrics_is_read_up_to_its_bound(tmp_path: Path) -> None:
    with (tmp_path / "metrics").open("wb") as file:
        file.write(b"first=1\n")
        file.seek(FILE_MOST - 4)
        file.write(b"\nlast=1\n")
    found = dict(read_metrics(LogFiles(f"{tmp_path}/")))
    assert found["first"] == "1"
    assert "last" not in found


def test_places(tmp_path: Path) -> None:
    assert files_here("/s/agent", ATTEMPT).path("stdout") == f"/s/agent/attempts/{ATTEMPT}/stdout"
    for stream in ("stdout", "stderr", "metrics"):
        assert files_at_home(tmp_path, ATTEMPT).path(stream) == str(log_path(tmp_path, ATTEMPT, stream))


# ---- coming home ---------------------------------------------------------------------------------------------------

LOGS = {"stdout_size": 3, "stderr_size": 0}


@pytest.mark.parametrize(
    ("told", "size"),
    [(None, None), (0, None), (5, 5), (-1, None), (True, None), ("5", None), (1 << 59, FILE_MOST), (10**400, None)],
)
def test_sizes_that_an_end_tells(told: object, size: int | None) -> None:
    wire = {**LOGS, **({} if told is None else {"metrics_size": told})}
    sizes = parse_sizes(wire)
    assert sizes is not None
    assert (sizes["stdout"], sizes["stderr"], sizes.get("metrics")) == (3, 0, size)
    assert parse_sizes({"metrics_size": 5}) is None


def bring(logs: Path, sizes: Any, files: dict[str, bytes], known: tuple[str, ...] = ()) -> tuple[str, list[str]]:
    """What comes of a machine that has these files; and the streams that were asked for."""
    asked = []
    talk = bring_logs({ATTEMPT: sizes}, logs)
    replies: list[Frame] | None = None
    try:
        while True:
            wish = next(talk) if replies is None else talk.send(replies)
            replies = []
            for ask in wish.asks if isinstance(wish, Ahead) else wish:
                stream, length, offset = (ask.fields[key] for key in ("stream", "length", "offset"))
                asked.append(str(stream))
                if stream not in files:
                    code = "bad-request" if known and stream not in known else "not-found"
                    replies.append(Frame(ok=False, error={"code": code, "message": "no"}))
                    continue
                reply = Frame(ok=True, total=len(files[str(stream)]))
                reply.payload = files[str(stream)][offset : offset + length]  # type: ignore[operator,misc]
                replies.append(reply)
    except StopIteration as end:
        return str(end.value), asked


def test_metrics_come_before_the_mark(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    files = {"stdout": b"out", "stderr": b"", "metrics": b"a=1\n"}
    assert bring(logs, {"stdout": 3, "stderr": 0, "metrics": 4}, files) == ("", ["metrics", "stdout"])
    assert is_home(logs, ATTEMPT)
    assert read_metrics(files_at_home(logs, ATTEMPT)) == (("a", "1"),)
    assert bring(logs, {"stdout": 3, "stderr": 0}, files) == ("", []), "it is home"


def test_a_file_that_became_shorter_is_not_taken_for_whole(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    problem, _ = bring(logs, {"stdout": 3, "stderr": 0, "metrics": 9}, {"stdout": b"out", "metrics": b"a=1\n"})
    assert "became shorter" in problem
    assert not is_home(logs, ATTEMPT)


@pytest.mark.parametrize("known", [(), ("stdout", "stderr")])
def test_where_sizes_are_not_told_they_are_asked_for_also_of_an_older_agent(
    tmp_path: Path, known: tuple[str, ...]
) -> None:
    logs = tmp_path / "logs"
    assert bring(logs, None, {"stdout": b"out", "stderr": b"err"}, known)[0] == ""
    assert is_home(logs, ATTEMPT)
    assert sorted(p.suffix for p in (logs / "r00000").iterdir()) == [".stderr", ".stdout"]


# ---- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [False, True])
def test_an_end_tells_what_its_job_reported(machine: Machine, far: bool) -> None:
    machine.connect(far=far)
    machine.start(machine.job(1, SAY), machine.job(2, "true"), machine.job(3, f"{SAY}; exit 3"))
    assert sorted(machine.ended(1).metrics) == sorted(SAID)
    assert (machine.ended(2).metrics, machine.ended(3).exit_code) == ((), 3)
    assert sorted(machine.ended(3).metrics) == sorted(SAID)
    assert machine.told.count((f"{machine.run}.1.1", "exited")) == 1
    before = machine.attempts[f"{machine.run}.1.1"]
    machine.attempts.clear()
    machine.hosts.forget()
    assert machine.ended(1) == before, "told again in a full report"


def test_large_logs_here_are_read_apart_and_whole(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "LARGE", 1000)
    machine.connect()
    noise = "yes | head -c 2000000; echo"
    machine.start(machine.job(1, f"{noise}; {SAY}"), machine.job(2, SAY))
    assert sorted(machine.ended(1).metrics) == sorted(machine.ended(2).metrics) == sorted(SAID)
    assert machine.told.count((f"{machine.run}.1.1", "exited")) == 1


@pytest.mark.parametrize("large", [False, True])
def test_what_a_large_log_reports_comes_with_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(hostpool, "SMALL", 1000)
    monkeypatch.setattr(hostpool, "LARGE", 1000 if large else 1 << 30)
    machine.connect(far=True)
    machine.start(machine.job(1, f"yes | head -c 100000; echo; {SAY}"))
    ended = machine.ended(1)
    assert ended.logs > 1000
    assert ended.metrics == ()
    assert machine.fetch(1) == ""
    machine.until(lambda: f"{machine.run}.1.1" in machine.metrics)
    assert sorted(machine.metrics.pop(f"{machine.run}.1.1")) == sorted(SAID)
    assert machine.fetch(1) == ""  # as after a maestro that died before it committed what came
    assert sorted(machine.metrics[f"{machine.run}.1.1"]) == sorted(SAID)


def test_logs_in_which_nothing_was_written_are_not_opened(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(files: object) -> object:
        raise AssertionError("read")

    monkeypatch.setattr(reports, "read_metrics", unread)
    machine.connect()
    machine.start(machine.job(1, "true"))
    assert machine.ended(1).exit_code == 0, "nor do jobs that wrote nothing"

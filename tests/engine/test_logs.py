"""The job's own bytes, exactly: from the beginning, the last lines, followed, and merged for a whole run."""

from __future__ import annotations

import random
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudsend_cli.core.model import FAILED, PENDING, RUNNING, SUCCEEDED, EnvironmentBuild, JobSpec
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import BuildRecord, Changes, JobRecord, RunRecord, RunState
from cloudsend_cli.engine import logs
from cloudsend_cli.engine.homelogs import bring_logs
from cloudsend_cli.errors import NotFoundError
from cloudsend_cli.store.sqlite import SqliteStore

RUN = "r00000"


@pytest.fixture
def store(state_dir: Path) -> Iterator[SqliteStore]:
    with SqliteStore.open(state_dir) as store:
        yield store


class Run:
    """A run in the store whose jobs live as the test says."""

    def __init__(self, store: SqliteStore, directory: Path, jobs: int = 1) -> None:
        self.store = store
        self.attempts = logs.local_attempts(directory)
        self.open_source = logs.open_local(directory)
        specs = [JobSpec(f"j{n}", ("true",), "true", retries=1) for n in range(1, jobs + 1)]
        self.jobs = {n: JobRecord(n, spec, f"{n:032x}", 1.0) for n, spec in enumerate(specs, 1)}
        environment = EnvironmentBuild("k1", "tools", "true")
        self.version = store.create_run(
            RunState(RunRecord(RUN, "p", "", 1.0), self.jobs.values(), environments=[environment])
        )

    def put(self, number: int, state: str, attempt: int = 1, reason: str = "") -> None:
        from dataclasses import replace

        kind = "job-reopened" if state == PENDING else "job-ended" if state != RUNNING else "other"
        job = replace(self.jobs[number], state=state, attempt=attempt, reason=reason, started_at=2.0, node="local-0")
        self.jobs[number] = job
        event = Event(kind, f"{RUN}.{number}", state)
        self.version = self.store.commit(RUN, self.version, Changes(jobs={number: job}), [event])

    def build(self, state: str) -> None:
        record = BuildRecord("local-0", "k1", state=state)
        self.version = self.store.commit(RUN, self.version, Changes(builds={("local-0", "k1"): record}), [])

    def write(self, attempt: str, data: bytes, stream: str = "stdout") -> None:
        folder = self.attempts / f"{RUN}.{attempt}"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / stream, "ab") as file:
            file.write(data)

    def read(self, *, follow: bool = False, lines: int | None = None, stop: threading.Event | None = None) -> bytes:
        want = logs.Reading("stdout", follow, lines, stop or threading.Event())
        return b"".join(logs.read_log(self.store, self.row(), self.open_source, want))

    def row(self, number: int = 1) -> logs.JobRow:
        return self.store.find_jobs(run=RUN, number=number)[0]

    def merged(self) -> logs.MergedLogs:
        return logs.MergedLogs(self.store, RUN, self.open_source)


@pytest.fixture
def run(store: SqliteStore, state_dir: Path) -> Run:
    return Run(store, state_dir)


def test_the_last_lines_are_those_of_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BLOCK", 7)
    chance = random.Random(4)
    path = tmp_path / "log"
    for _ in range(2000):
        data = bytes(chance.choice(b"ab\n\0\xff") for _ in range(chance.randrange(40)))
        path.write_bytes(data)
        for lines in (0, 1, 2, 3, 50):
            offset = logs._last_lines(logs.FileSource(path), lines)
            found = data[offset:]
            want = b"".join(x + b"\n" for x in data.split(b"\n")[-lines - 1 :])[:-1] if data.endswith(b"\n") else (
                b"\n".join(data.split(b"\n")[-lines:])
            )  # fmt: skip
            assert found == (want if lines else b""), (data, lines)


def test_of_a_huge_line_only_the_end_is_read_and_little_memory_used(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open(path, "wb") as file:
        file.write(b"first\n")
        file.truncate(300_000_000)
        file.seek(0, 2)
        file.write(b"end")
    tracemalloc.start()
    tail = logs.read_tail(logs.FileSource(path), 10)
    assert (len(tail), tail[-4:]) == (logs.BLOCK, b"\0end")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_few_last_lines_of_a_large_log_cost_few_reads(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a line of the log\n" * 500_000)
    reads = []

    class Counting(logs.FileSource):
        def read(self, offset: int, length: int) -> bytes:
            reads.append(offset)
            return super().read(offset, length)

    assert logs.read_tail(Counting(path), 3) == b"a line of the log\n" * 3
    assert len(reads) <= 2


def test_a_log_is_read_to_the_byte(run: Run) -> None:
    data = b"\0\xff\r\n\x1b[31mred" + bytes(range(256)) * 1000 + b"no newline"
    run.write("1.1", data)
    run.put(1, RUNNING)
    assert run.read() == data
    assert run.read(lines=1) == data[data.rindex(b"\n") + 1 :]
    run.put(1, SUCCEEDED)
    assert run.read(follow=True) == data


def test_a_job_that_has_not_started_has_no_log(run: Run) -> None:
    with pytest.raises(NotFoundError, match="has not started"):
        run.read()
    run.put(1, RUNNING)
    assert run.read() == b""


def test_following_goes_over_to_the_next_attempt_and_ends_with_the_job(run: Run, state_dir: Path) -> None:
    run.put(1, RUNNING)
    run.write("1.1", b"one\n")
    found: list[bytes] = []

    def follow() -> None:
        with SqliteStore.open(state_dir, readonly=True) as store:
            want = logs.Reading("stdout", True, 1, threading.Event())
            found.extend(logs.read_log(store, run.row(), run.open_source, want))

    # A connection belongs to one thread: the row is read before.
    row = run.row()
    run.row = lambda number=1: row  # type: ignore[method-assign]
    thread = threading.Thread(target=follow)
    thread.start()

    def until(text: bytes) -> None:
        deadline = time.monotonic() + 30
        while b"".join(found) != text:
            assert time.monotonic() < deadline, found
            time.sleep(0.005)

    until(b"one\n")
    run.write("1.1", b"two\n")
    until(b"one\ntwo\n")
    run.put(1, PENDING, reason="retry after exit 1")
    run.put(1, RUNNING, attempt=2)
    run.write("1.2", b"three\nfour\n")
    until(b"one\ntwo\nthree\nfour\n")
    run.write("1.2", b"last")
    run.put(1, FAILED, attempt=2)
    thread.join(30)
    assert b"".join(found) == b"one\ntwo\nthree\nfour\nlast"


def test_a_log_that_its_job_cuts_off_is_followed_from_its_new_beginning(run: Run, state_dir: Path) -> None:
    """Seen: nothing more was shown until the log was as long as before, and then from the middle."""
    run.put(1, RUNNING)
    run.write("1.1", b"one\ntwo\n")
    source = run.open_source(logs.place_of(run.row(), f"{RUN}.1.1", "stdout"))
    notes: list[str] = []
    want = logs.Reading("stdout", True, None, threading.Event(), notes.append)
    blocks = logs.read_log(run.store, run.row(), lambda _: source, want)
    merged = run.merged()
    assert next(blocks) == b"one\ntwo\n"
    assert list(merged.new_lines()) == [("j1", "stdout", b"one\ntwo\n")]
    (run.attempts / f"{RUN}.1.1/stdout").write_bytes(b"new\n")
    assert next(blocks) == b"new\n"
    assert notes == ["j1 has cut off its log; what follows is the log from its new beginning"]
    assert list(merged.new_lines()) == [("j1", "stdout", b"new\n")]
    (run.attempts / f"{RUN}.1.1/stdout").write_bytes(b"")
    run.put(1, SUCCEEDED)
    assert list(blocks) == [] and list(merged.new_lines()) == []
    assert run.read() == b""


def test_stopping_ends_the_following(run: Run) -> None:
    run.put(1, RUNNING)
    stop = threading.Event()
    stop.set()
    assert run.read(follow=True, stop=stop) == b""


# ---- merged --------------------------------------------------------------------------------------------------------


def test_merged_lines_are_whole_and_told_once(run: Run) -> None:
    merged = run.merged()
    run.put(1, RUNNING)
    run.write("1.1", b"one\ntw")
    assert list(merged.new_lines()) == [("j1", "stdout", b"one\n")]
    run.write("1.1", b"o\nthree")
    run.write("1.1", b"oops\n", "stderr")
    assert list(merged.new_lines()) == [("j1", "stdout", b"two\n"), ("j1", "stderr", b"oops\n")]
    assert list(merged.new_lines()) == []
    run.put(1, SUCCEEDED)
    assert list(merged.new_lines()) == [("j1", "stdout", b"three\n")]
    assert list(merged.new_lines()) == []


def test_merged_logs_show_attempts_that_came_and_went_between_two_looks(run: Run) -> None:
    merged = run.merged()
    assert list(merged.new_lines()) == []
    run.put(1, RUNNING)
    run.write("1.1", b"first\n")
    run.put(1, PENDING, reason="retry after exit 1")
    run.put(1, RUNNING, attempt=2)
    run.write("1.2", b"second\n")
    run.put(1, SUCCEEDED, attempt=2)
    assert [t for _, _, t in merged.new_lines()] == [b"first\n", b"second\n"]


def test_merged_logs_leave_out_what_was_over_before(store: SqliteStore, state_dir: Path) -> None:
    run = Run(store, state_dir, 2)
    run.put(1, RUNNING)
    run.write("1.1", b"old\n")
    run.put(1, FAILED)
    run.put(2, RUNNING)
    run.write("2.1", b"running\n")
    merged = run.merged()
    merged.skip_past()
    assert [t for _, _, t in merged.new_lines()] == [b"running\n"]
    run.put(1, RUNNING, attempt=2)
    run.write("1.2", b"new\n")
    assert [t for _, _, t in merged.new_lines()] == [b"new\n"]


def test_merged_logs_show_builds(run: Run) -> None:
    run.build(RUNNING)
    run.write("env-k1.1", b"Collecting\n")
    merged = run.merged()
    assert list(merged.new_lines()) == [("environment tools", "stdout", b"Collecting\n")]
    run.write("env-k1.1", b"done\n")
    run.build("succeeded")
    assert [t for _, _, t in merged.new_lines()] == [b"done\n"]


def test_a_line_without_end_is_shown_in_pieces(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BLOCK", 1000)
    run.put(1, RUNNING)
    run.write("1.1", b"x" * 10_000)
    pieces = [t for _, _, t in run.merged().new_lines()]
    assert b"".join(pieces) == b"x" * 10_000
    assert max(map(len, pieces)) <= 2000


def test_a_job_that_writes_without_end_does_not_starve_the_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BLOCK", 10)
    run.put(1, RUNNING)
    run.write("1.1", b"endless..\n" * 1000)
    assert len(list(run.merged().new_lines())) == logs.BLOCKS_AT_ONCE


def test_looking_for_new_lines_does_not_cost_more_with_many_jobs_done(store: SqliteStore, state_dir: Path) -> None:
    run = Run(store, state_dir, 5000)
    done = {n: JobRecord(n, j.spec, j.hash, 1.0, state=SUCCEEDED, attempt=1) for n, j in run.jobs.items() if n > 1}
    events = [Event("job-ended", f"{RUN}.{n}") for n in done]
    run.version = store.commit(RUN, run.version, Changes(jobs=done), events)
    merged = run.merged()
    merged.skip_past()
    run.put(1, RUNNING)
    run.write("1.1", b"x\n")
    opened = []
    merged.open_source = lambda place: opened.append(place.attempt) or run.open_source(place)  # type: ignore[func-returns-value]
    assert len(list(merged.new_lines())) == 1
    assert opened == [f"{RUN}.1.1"] * 2


def test_logs_of_a_state_directory_that_is_gone_do_not_make_it_again(tmp_path: Path) -> None:
    """Seen: a removed one was there again, with mode 0755 and nothing but logs in it."""
    with pytest.raises(StopIteration) as told:
        next(bring_logs({"rtest1.1.1": {"stdout": 4, "stderr": 0}}, tmp_path / "gone" / "logs"))
    assert "cannot be kept in" in told.value.value
    assert not (tmp_path / "gone").exists()

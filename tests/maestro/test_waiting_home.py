"""What `wait` waits for when all jobs have ended, and where that ends."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from real_stack import Stack, wait_for

from cloudsend_cli.api import watching
from cloudsend_cli.engine.result_tables import CSV
from cloudsend_cli.errors import UnreachableError, WaitTimeout

COMING = "results of 1 job are on the way home"


def submit(stack: Stack) -> tuple[str, Path]:
    """A run whose results cannot come home as long as the file at the second path is in their way."""
    results = stack.files / "r"
    results.write_text("in the way")
    job = {"name": "n-{x}", "run": "echo 7 > o", "output": "o", "matrix": {"x": [1]}}
    run = stack.submit(results_dir=str(results), jobs=[job, {"name": "m", "run": "true"}])
    wait_for(lambda: stack.jobs(run)["n-1"].state == "succeeded")
    return run, results


@pytest.mark.parametrize("what", ["run", "job"])
def test_wait_returns_when_results_are_home_and_of_a_run_also_its_tables(stack: Stack, what: str) -> None:
    run, results = submit(stack)
    ref = run if what == "run" else f"{run}.1"
    told: list[str] = []
    awaited = threading.Event()
    seen: list[tuple[str, ...]] = []

    def note(text: str) -> None:
        told.append(text)
        awaited.set()

    def wait() -> None:
        views = stack.client.wait([ref], 60, note=note)
        files = [results / run / "n-1" / "o", *([results / run / CSV] if what == "run" else [])]
        seen.append((*(view.outputs for view in views), *(file.name for file in files if file.is_file())))

    waiter = threading.Thread(target=wait)
    waiter.start()
    try:
        assert awaited.wait(60)
    finally:
        results.unlink()
        waiter.join()
    assert told == [COMING]
    assert seen == [("home", "", "o", CSV)] if what == "run" else [("home", "o")]
    assert stack.client.wait([ref], note=told.append)[0].outputs == "home"
    assert told == [COMING]


def test_a_job_without_results_is_not_waited_for_longer_than_it_runs(stack: Stack) -> None:
    run, results = submit(stack)
    told: list[str] = []
    assert [view.name for view in stack.client.wait(["m"], 60, note=told.append)] == ["m"]
    assert (told, stack.jobs(run)["n-1"].outputs) == ([], "wanted")
    results.unlink()


def test_waiting_for_results_has_an_end(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    run, results = submit(stack)
    text = f"results of 1 job of run {run}, which have ended, are not home after 0.05 s"
    for ref in (run, f"{run}.1"):
        with pytest.raises(WaitTimeout, match=text):
            stack.client.wait([ref], 0.05)
    stack.kill_maestro()  # nothing is heard of any machine
    told: list[str] = []
    coming = watching._ComingHome(stack.client._home, run, told.append)
    coming.begin()
    with monkeypatch.context() as patch:
        patch.setattr(watching, "SILENT_MOST", 0.0)
        with pytest.raises(UnreachableError, match=f"results of 1 job of run {run} are not home: "):
            coming.look(watching._list_away(stack.client._home, run, {1}))
    assert told == [COMING]
    results.unlink()
    assert stack.client.wait([run], 60)[0].outputs == "home"

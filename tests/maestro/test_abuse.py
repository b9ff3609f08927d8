"""Many jobs, many murders: each line once, all succeeded, nothing left running."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import pick
from real_stack import Stack, find_processes, is_alive, wait_for

from cloudsend_cli.maestro.client import ensure_maestro

JOBS = pick(60, 200)
KILLS = pick(14, 50)


class Murderer(threading.Thread):
    """Lets some jobs go on, waits until some of those have written, kills maestro or agent, and again.

    A job goes on when it gets a token through a pipe, so that jobs wait, run and end at each of the kills.
    """

    def __init__(self, stack: Stack, ledger: Path, tokens: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.stack = stack
        self.ledger = ledger
        self.tokens = tokens
        self.random = random.Random(seed)
        self.killed: list[str] = []
        self.problem: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            given = 0
            for share in self.shares():
                before, given = given, given + share
                os.write(self.tokens, b"\n" * share)
                moment = self.random.randint(before, given)
                wait_for(lambda moment=moment: self.lines() >= moment)
                self.kill(*self.random.choice([("maestro", self.stack.maestro), ("agent", self.stack.agent)]))
        except Exception as problem:  # noqa: BLE001 - the test shows it
            self.problem = problem
        finally:
            os.write(self.tokens, b"\n" * JOBS)

    def shares(self) -> list[int]:
        """How many jobs go on before each kill; some are left for the end."""
        cuts = sorted(self.random.randrange(JOBS - 10) for _ in range(KILLS - 1))
        return [high - low for low, high in zip([0, *cuts], [*cuts, JOBS - 10], strict=True)]

    def lines(self) -> int:
        return self.ledger.read_bytes().count(b"\n") if self.ledger.exists() else 0

    def kill(self, name: str, find: Callable[[], int | None]) -> None:
        pid = wait_for(find)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(pid))
        self.killed.append(name)
        if name == "maestro":  # as the next command would; the follower does it as well
            ensure_maestro(self.stack.state).close()


@pytest.mark.slow
@pytest.mark.campaign("abuse")
@pytest.mark.parametrize("seed", pick([1], [1, 2, 3]))
def test_every_job_runs_once_while_maestro_and_agent_are_killed(
    stack: Stack, seed: int, summary_line: Callable[[str], None]
) -> None:
    ledger = stack.files / "ledger"
    pipe = stack.files / "tokens"
    os.mkfifo(pipe)
    tokens = os.open(pipe, os.O_RDWR)
    # The shell reads one byte, then opens with O_APPEND and writes a short line with one call.
    command = f"read token < {pipe}; echo $CLOUDSEND_JOB >> {ledger}"
    run = stack.submit(jobs=[{"name": "w", "run": command, "repeat": JOBS, "cpus": 0.5}])
    murderer = Murderer(stack, ledger, tokens, seed)
    stack.settle(run, 120)
    murderer.join(60)
    os.close(tokens)
    assert murderer.problem is None, murderer.problem
    assert len(murderer.killed) == KILLS
    assert {j.state for j in stack.jobs(run).values()} == {"succeeded"}
    lines = ledger.read_text().splitlines()
    assert len(lines) == len(set(lines)) == JOBS
    assert [j.name for j in stack.jobs(run).values() if j.attempt > 1] == []
    stack.client.maestro_stop()
    commands = find_processes(stack.directory)
    assert not [c for c in commands.values() if b"agent" not in c and b"maestro" not in c], commands
    agents, maestros = murderer.killed.count("agent"), murderer.killed.count("maestro")
    counts = f"maestro killed {maestros} and agent {agents} times"
    summary_line(f"abuse: {len(lines)} lines of {JOBS} jobs, {counts}, seed {seed}")

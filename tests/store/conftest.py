"""Runs to store: small, rich, and as equal or different as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudsend_cli.core.model import EnvironmentBuild, JobSpec, Output, Resources, Upload
from cloudsend_cli.core.naming import job_hash
from cloudsend_cli.core.state import BuildRecord, JobRecord, NodeRecord, RunRecord, RunState
from cloudsend_cli.store.sqlite import SqliteStore

Records = tuple[object, ...]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def store(directory: Path) -> Iterator[SqliteStore]:
    with SqliteStore.open(directory, clock=lambda: 1234.5) as opened:
        yield opened


@pytest.fixture
def make_run() -> Callable[..., RunState]:
    def make(run: str = "abc123", jobs: int = 3, **fields: object) -> RunState:
        specs = [
            JobSpec(
                name=f"train/{n}",
                argv=("python", "train.py", "--lr", str(n)),
                display=f"python train.py --lr {n}",
                env=(("LR", str(n)), ("HOME", "/home/u")),
                secrets=("TOKEN",),
                environment="e" * 8,
                resources=Resources(2.5, 1 << 33, 1),
                slots=("gpu-0",),
                uploads=(Upload("a/b.txt", "0" * 64, 12, 0o755, "/home/u/a/b.txt"),),
                outputs=(Output("out/*.csv"), Output("log", optional=True)),
                timeout=60.0,
                retries=2,
                params=(("lr", str(n)),),
                repeat_index=n,
            )
            for n in range(1, jobs + 1)
        ]
        records = [
            JobRecord(n, spec, job_hash(spec), 1000.0, after=(1,) if n > 1 else ()) for n, spec in enumerate(specs, 1)
        ]
        return RunState(
            RunRecord(run, "project", "/home/u/config.yml", 1000.0, base_env=(("PATH", "/bin"),), **fields),  # type: ignore[arg-type]
            records,
            [NodeRecord("local-0", "local", Resources(4, 1 << 34, 0), '{"type": "local"}', state="running")],
            [BuildRecord("local-0", "e" * 8, 2, "failed", "boot", "exit 3", 1)],
            [EnvironmentBuild("e" * 8, "ml", "#!/bin/sh\n", ("tool-conda",), (("A", "b"),))],
        )

    return make


@pytest.fixture
def run(store: SqliteStore, make_run: Callable[..., RunState]) -> RunState:
    """A run that is stored, as it was loaded."""
    store.create_run(make_run())
    return store.load("abc123")


@pytest.fixture
def records() -> Callable[[RunState], Records]:
    """All that is stored of a run, for comparing."""
    return lambda state: (state.run, state.jobs, state.nodes, state.builds, state.environments)

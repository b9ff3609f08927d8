"""Row 1: whatever a job is called, its files lie where they belong, and nothing else is touched."""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from fence import snapshot
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from lies import Lie, entry, fetch
from real_stack import Stack

from cloudsend_cli.config.names import describe_bad_name
from cloudsend_cli.core.naming import safe_component
from cloudsend_cli.engine.results import Home, job_directory
from cloudsend_cli.errors import ConfigError

PIECES = [
    "..", ".", "/", "//", "../", "../../x", "~", "~root", "-rf", "--", " ", "\t", "\n", "\r", "\0", "\x1b[2J",
    "\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "CON", "nul.txt", "COM1", "aux", "a:b", "a\\b",
    "..\\..\\x", "%2e%2e%2f", "$HOME", "`id`", "$(id)", ";id", "|", "&", ">", "<", "'", '"', "*", "?", "[a]",
    "{a}", "!", "#", "@", "=", ",", "+", ".git", ".cloudsend.json", ".partial-job-r.1.1", "job~1", "é",
    "e\u0301", "日本", "🦄", "ß", "İ", "ﬁ", "x" * 90, "x" * 210, "x" * 4000, "A", "a", "1", ".x", "x.", "con.",
    "\ud800", "\u0000a", "a" * 250 + "/b",
]  # fmt: skip
names = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), min_size=1, max_size=4).map("".join) | st.text(
    string.printable, max_size=30
)


@fuzz(500)
@given(name=names)
def test_results_of_any_name_lie_below_their_run(fenced: Path, name: str) -> None:
    """Names that a config could not have as well: they come back from hosts in a rebuild."""
    home = Home(str(fenced / "results"), "rabcde", name)
    run = Path(home.results_dir, home.run)
    place = job_directory(home)
    assert place.is_relative_to(run) and place != run
    for part in place.relative_to(run).parts:
        assert part not in {"", ".", ".."}
        assert not part.startswith("."), part
        assert len(os.fsencode(part)) <= 120


@fuzz(300)
@given(one=names, other=names)
def test_results_of_two_names_lie_apart(one: str, other: str) -> None:
    places = {job_directory(Home("results", "rabcde", name)) for name in (one, other)}
    assert len(places) == len({one, other})


@fuzz(25)
@given(many=st.lists(names, min_size=20, max_size=20, unique=True))
def test_files_of_any_names_are_written_there_and_nowhere_else(fenced: Path, many: list[str]) -> None:
    results = fenced / "results"
    before = snapshot(fenced, leave_out=results)
    came = 0
    for number, name in enumerate(many, 1):
        home = Home(str(results), "rabcde", name)
        problem = fetch(Lie([entry("out", b"mine")], sent={"out": b"mine"}), home, f"rabcde.{number}.1")
        if not problem:
            came += 1
            assert (job_directory(home) / "out").read_bytes() == b"mine"
    assert snapshot(fenced, leave_out=results) == before
    assert came >= len(many) - sum(name.count("/") > 3 or len(name) > 3000 for name in many)


def test_names_that_a_config_takes_are_run_and_touch_nothing_else(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, summary_line: Callable[[str], None]
) -> None:
    """Through the config, the database, a real agent and back."""
    monkeypatch.setenv("CLOUDSEND_AGENT_IDLE", "1")
    candidates = list(dict.fromkeys([*PIECES, *(f"{a}{b}" for a in PIECES[:40] for b in ("x", "/y", "..", " z"))]))
    good = [name for name in candidates if not describe_bad_name(name)]
    stack = Stack(state_dir)
    try:
        project = stack.files
        (project / "precious").write_text("the user's own")
        refused = 0
        for name in candidates:
            if name not in good:
                with pytest.raises(ConfigError):
                    stack.client.validate(stack.config(jobs=[{"run": "true", "name": name}]))
                refused += 1
        jobs = [{"run": f"echo {n} > out; echo {n}", "name": name, "output": "out"} for n, name in enumerate(good)]
        config = stack.config(jobs=jobs, provider="local")
        before = snapshot(project, leave_out=project / "results")
        run = stack.client.submit(config).run
        stack.settle(run)
        assert snapshot(project, leave_out=project / "results") == before
        views = stack.jobs(run)
        assert {name for name, job in views.items() if job.state != "succeeded" or job.outputs != "home"} == set()
        for n, name in enumerate(good):
            assert (job_directory(Home(str(project / "results"), run, name)) / "out").read_text() == f"{n}\n"
        known = {"agent", "files", "logs", "state"}
        assert {path.name for path in state_dir.iterdir()} <= known, list(state_dir.iterdir())
        summary_line(f"names of jobs: {len(good)} run, {refused} refused")
    finally:
        stack.close()


@fuzz(500)
@given(name=st.text(max_size=300))
def test_a_component_can_be_created_anywhere(name: str) -> None:
    made = safe_component(name)
    assert made not in {"", ".", ".."}
    assert made.isascii() and made.isprintable() and not set(made) & set('/\\:*?"<>| \0')
    assert len(made) <= 100

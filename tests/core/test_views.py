"""The json forms are stable; words for jobs and runs are taken apart as the command line promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudsend_cli.core import submission, views
from cloudsend_cli.core.model import JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.reasons import REASONS
from cloudsend_cli.core.refs import JobRef, not_found, parse_job_ref
from cloudsend_cli.core.state import Changes, RunState


def make() -> RunState:
    spec = RunSpec("p", "/c.yml", tuple(JobSpec(f"j{i}", ("true",), "true") for i in (1, 2, 3)))
    return plan_run(spec, [NodePlan("n-0", "fake", (Offer("{}", Resources(2.0)),))], "rtest1", 0.0)


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ({"pending": 1, "failed": 1}, "running"),
        ({"running": 1}, "running"),
        ({"failed": 1, "cancelled": 2}, "failed"),
        ({"cancelled": 1, "succeeded": 1}, "cancelled"),
        ({"succeeded": 1}, "succeeded"),
        ({}, "succeeded"),
    ],
)
def test_state_of_a_run(counts: dict[str, int], word: str) -> None:
    assert views.run_state_word(counts) == word


def test_superseded_jobs_are_not_counted() -> None:
    state = make()
    state.apply(Changes(jobs={2: replace(state.jobs[2], state="cancelled", superseded_by=3)}))
    counts = views.live_counts(state)
    assert counts == {"pending": 2, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}


def make_view(started_at: float | None, ended_at: float | None) -> views.JobView:
    return views.JobView(
        "rtest1.1", "j1", "rtest1", 1, "succeeded", "DONE", "", 0, 1, "rtest1.1.1", "n-0", "fake", "f00", "true",
        0.0, started_at, ended_at, {"lr": "0.1"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("started_at", "ended_at", "seconds"),
    [(1.0, 2.5, 1.5), (2.0, 1.0, 0.0), (1.0, None, None), (None, 2.0, None), (None, None, None)],
)
def test_duration_of_a_job_is_known_with_both_its_times(
    started_at: float | None, ended_at: float | None, seconds: float | None
) -> None:
    shown = make_view(started_at, ended_at).as_json()
    assert shown["duration"] == seconds
    assert (shown["reason"], shown["section"], shown["outputs"], shown["params"]) == (None, None, None, {"lr": "0.1"})


def test_what_waits_in_a_queue_is_told_as_pending() -> None:
    counts = {"running": 3, "succeeded": 1}
    run = views.RunView("r", "p", "", "running", counts, 1, "", 0.0, None, queued=2)
    assert run.told_counts == {"running": 1, "pending": 2, "succeeded": 1}
    assert (run.as_json()["counts"], run.as_json()["queued"]) == (counts, 2)
    assert views.tell_counts(counts, 0) == counts


def test_other_things_in_json() -> None:
    things = [
        views.RunView("r", "p", "", "running", {"pending": 1}, 1, "", 0.0, None),
        views.EnvironmentView("k", "e", "r", "", "failed", ""),
        views.MaestroView(True, 1, 0.0, 2, ("r",)),
    ]
    for thing in things:
        assert "" not in thing.as_json().values(), "what is not known is null"
    progress = views.Progress("r", "running", {}, (), (), (), settled=False)
    assert progress.sequence == 0
    assert submission.SubmitOptions().overrides == ()
    assert "exit N" in REASONS


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("@last", JobRef("@last", last=True)),
        ("abc123.4", JobRef("abc123.4", run="abc123", number=4)),
        ("abc123.4.2", JobRef("abc123.4.2", run="abc123", number=4)),
        ("train/*", JobRef("train/*", pattern=True)),
        ("train", JobRef("train")),
        ("dead", JobRef("dead", maybe_hash=True)),
    ],
)
def test_words_for_jobs(text: str, ref: JobRef) -> None:
    assert parse_job_ref(text) == ref


def test_what_is_not_found_names_near_matches() -> None:
    assert not_found("job", "trian", ["train", "train", "test"]).hint == "did you mean train?"
    assert "list jobs" in not_found("job", "x", []).hint

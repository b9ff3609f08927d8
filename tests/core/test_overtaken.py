"""What is said of jobs that are kept although what they wait for is done again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.model import JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.overtaken import NAMED, warn_of_overtaken
from cloudsend_cli.core.plan import Continued, NodePlan, plan_continue, plan_run
from cloudsend_cli.core.state import Changes, RunState

DO = "edit {} (a variable will do) or run all with --fresh"
NODE = NodePlan("n-0", "fake", (Offer("{}", Resources(4.0)),))


def job(name: str, **values: Any) -> JobSpec:
    return replace(JobSpec(name, ("run", name), name), **values)


def edited(name: str, **values: Any) -> JobSpec:
    return job(name, argv=("run", name, "otherwise"), **values)


def end(state: RunState, at: float, **states: str) -> None:
    """All that are open end; each starts later than the one before, the first at `at`."""
    open_jobs = [job for job in state.live_jobs() if not job.final]
    state.apply(
        Changes(
            jobs={
                job.number: replace(
                    job,
                    state=states.get(job.spec.name, "succeeded"),
                    attempt=job.attempt + 1,
                    started_at=at + n,
                    ended_at=at + n + 0.5,
                )
                for n, job in enumerate(open_jobs)
            }
        )
    )


def ran(*jobs: JobSpec, **states: str) -> RunState:
    state = plan_run(RunSpec("p", "/c.yml", jobs), (NODE,), "rtest1", 1.0)
    end(state, 10.0, **states)
    return state


def again(state: RunState, *jobs: JobSpec) -> Continued:
    changes, continued = plan_continue(state, RunSpec("p", "/c.yml", jobs), (NODE,), 9.0)
    state.apply(changes)
    return continued


def told(state: RunState, *jobs: JobSpec) -> list[str]:
    return [state.jobs[n].spec.name for n in again(state, *jobs).overtaken]


@pytest.mark.parametrize("key", ["after", "after_any"])
@pytest.mark.parametrize(
    "now",
    [
        (job("t-1"), edited("t-2")),
        (job("t-1"), job("t-2"), job("t-3")),
        (job("t-0"), job("t-1"), job("t-2")),
    ],
)
def test_a_job_that_is_kept_while_what_it_waits_for_is_edited_or_new(key: str, now: tuple[JobSpec, ...]) -> None:
    report = job("report", **{key: ("t-*",)})
    found = again(ran(job("t-1"), job("t-2"), report), *now, report)
    assert (found.kept[-1], found.overtaken) == (3, (3,))


def test_a_job_that_is_kept_while_what_it_waits_for_is_tried_again() -> None:
    train, report = job("train"), job("report", after_any=("train",))
    state = ran(train, report, train="failed")
    assert told(state, train, report) == ["report"]
    assert told(state, train, report) == ["report"], "it has not ended yet"
    end(state, 20.0)
    assert told(state, train, report) == ["report"], "it was done again since"
    assert again(state, train, job("report", argv=("new",), after_any=("train",))).overtaken == ()
    end(state, 30.0)
    assert again(state, train, job("report", argv=("new",), after_any=("train",))) == Continued(kept=(1, 3))


def test_what_waited_for_the_new_ones_is_not_told() -> None:
    """Its submission is the older one, and it was done after them."""
    train, report = job("train"), job("report", after=("train",))
    state = ran(train, report, train="failed", report="pending")
    assert again(state, train, report) == Continued(reopened=(1,), attached=(2,))
    end(state, 20.0)
    assert state.jobs[1].batch > state.jobs[2].batch
    assert again(state, train, report) == Continued(kept=(1, 2))


def test_what_waits_for_such_a_job_is_told_as_well() -> None:
    jobs = [
        job("last", after=("report",)),
        job("report", after=("train",)),
        job("alone"),
        job("other", after=("alone",)),
    ]
    found = again(ran(*jobs, job("train")), *jobs, edited("train"))
    assert (found.kept, found.overtaken) == ((1, 2, 3, 4), (1, 2))


def test_a_later_section_is_told_where_an_earlier_one_grows() -> None:
    search = [job(f"Search/g/{n}", stage=1, group="Search/g") for n in range(3)]
    also = job("Report/g/1", stage=2, group="Report/g")
    report, end_ = job("Report/g/0", stage=2, group="Report/g"), job("End/g/0", stage=3, group="End/g")
    other = job("other")
    state = ran(*search[:2], report, also, end_, other)
    assert again(state, *search[:2], report, also, end_, other, job("more")).overtaken == (), "jobs are of no section"
    assert told(state, *search, report, end_, other) == ["Report/g/0", "End/g/0"]


def test_the_warning_names_them_and_what_to_do() -> None:
    assert warn_of_overtaken(()) == ()
    (one,) = warn_of_overtaken(("report",))
    what = "done again, or was since"
    assert one.message == f"kept, although what it waits for is {what}: report; {DO.format('it')}"
    (many,) = warn_of_overtaken([f"j{n}" for n in range(NAMED + 2)])
    assert many.message.endswith(f"they wait for is {what}: j0, j1, j2, j3, j4 and 2 more; {DO.format('them')}")

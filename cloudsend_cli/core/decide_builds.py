"""What happens to environments: each is built once on each machine that needs it. Pure."""

from __future__ import annotations

from collections import Counter

from .actions import AttemptStart
from .decide_jobs import DISK_FULL, PREEMPTED, reason_of
from .draft import Draft
from .losses import LIFETIMES, describe_outlived
from .model import RUNNING, SUCCEEDED, AttemptStatus, HostView, JobSpec, Resources
from .naming import build_id
from .records import replace
from .renting import is_rented_node
from .state import BuildRecord

LOSSES_MOST = 2  # builds that died with their machine and are repeated
FAILED_MOST = 2  # machines on which a build failed: then another one is not rented to try it again


def take_builds(draft: Draft) -> None:
    """Settle news of builds. Their ids are few: one for each environment and node."""
    for build in draft.state.builds.values():
        view = draft.seen.hosts.get(build.node)
        reported = view is not None and view.reported is not None
        if build.state == SUCCEEDED and view is not None and reported and build.key not in view.environments:
            _again(draft, build)  # the machine lost its disk, or somebody deleted it
        if build.state != RUNNING:
            continue
        status = draft.seen.attempts.get(build.node, {}).get(_attempt(draft, build))
        if view is not None and build.key in view.environments:
            draft.put_build(replace(build, state="succeeded", reason=""))
        elif status is not None:
            _settle(draft, build, status)
        elif view is not None and reported:
            _compare(draft, build, view)


def _compare(draft: Draft, build: BuildRecord, view: HostView) -> None:
    """A build with a full report of its host."""
    is_there = _attempt(draft, build) in (view.reported or ())
    if not is_there and build.boot != view.boot:
        _again(draft, build)
    elif build.cancel:
        draft.cancel(build.node, _attempt(draft, build))
    elif not is_there:
        _start(draft, build)


def end_builds(draft: Draft) -> None:
    """With no job left that waits: what hangs would hold its place, and its name, for all that comes later."""
    for node, key in draft.state.builds:
        build, view = draft.build(node, key), draft.seen.hosts.get(node)
        if build is not None and build.state == RUNNING and not build.cancel and view is not None and view.connected:
            draft.put_build(replace(build, cancel=True))
            draft.cancel(node, _attempt(draft, build))


def is_ending_build(draft: Draft, node: str) -> bool:
    """Whether the end of a build was asked for there and is not told yet."""
    return any(
        where == node and (b := draft.build(where, key)) is not None and b.state == RUNNING and b.cancel
        for where, key in draft.state.builds
    )


def _attempt(draft: Draft, build: BuildRecord) -> str:
    return build_id(draft.run.id, build.key, build.attempt)


def _settle(draft: Draft, build: BuildRecord, status: AttemptStatus) -> None:
    if status.state == "exited" and status.exit_code == 0 and not status.cause and not status.signal:
        draft.put_build(replace(build, state="succeeded", reason=""))
    elif build.cancel and status.state not in {"queued", "running"}:
        _again(draft, build)
    elif status.state in {"exited", "refused"} and status.cause == DISK_FULL:
        _again(draft, build)  # it was not begun
    elif status.state in {"exited", "lost"} and status.cause in LIFETIMES and build.losses >= LOSSES_MOST:
        draft.put_build(replace(build, state="failed", reason=describe_outlived(LIFETIMES[status.cause])))
    elif status.state == "exited" and status.cause in {PREEMPTED, *LIFETIMES}:
        _again(draft, build, lost=status.cause in LIFETIMES)
    elif status.state == "exited" and status.cause != "upload-missing":
        draft.put_build(replace(build, state="failed", reason=reason_of(status)))
    elif status.state == "refused" and status.cause not in {"", "wrong-boot"}:
        draft.put_build(replace(build, state="failed", reason=status.cause))
    elif status.state == "lost" and build.losses >= LOSSES_MOST:
        draft.put_build(replace(build, state="failed", reason="lost"))
    elif status.state not in {"queued", "running"}:
        _again(draft, build, lost=status.state == "lost")


def _again(draft: Draft, build: BuildRecord, *, lost: bool = False) -> None:
    attempt, losses = build.attempt + 1, build.losses + lost
    draft.put_build(replace(build, state="wanted", attempt=attempt, losses=losses, cancel=False))


def _start(draft: Draft, build: BuildRecord) -> None:
    environment = draft.state.environments[build.key]
    spec = JobSpec(
        name=f"environment {environment.name}",
        argv=("/bin/sh", "-c", environment.script, "environment"),
        display=f"environment {environment.name}",
        env=environment.variables,
        environment=build.key,
        resources=Resources(cpus=0.0),
        slots=(f"env-{build.key}", *environment.slots),
    )
    draft.start(build.node, AttemptStart(_attempt(draft, build), spec, build=True))


def environment_ready(draft: Draft, node: str, key: str, view: HostView) -> bool:
    """Whether jobs that need `key` may start on `node`; asks for the build where it was not asked for yet."""
    build = draft.build(node, key)
    if key in view.environments or (build is not None and build.state == "succeeded"):
        return True
    if build is None or build.state == "wanted":
        build = replace(build or BuildRecord(node, key), state=RUNNING, boot=view.boot)
        draft.put_build(build)
        _start(draft, build)
    return False


def build_failed_everywhere(draft: Draft, key: str, need: Resources) -> str | None:
    """The reason if every node that is large enough has failed to build `key`. No more are rented to try it again."""
    nodes = [n for n in draft.usable_nodes() if need.fits_in(draft.capacity(n))]
    if key in list_failed_often(draft):
        nodes = [n for n in nodes if n.state != "wanted" or not is_rented_node(n)]
    builds = [draft.build(n.name, key) for n in nodes]
    failed = [b for b in builds if b is not None and b.state == "failed"]
    return failed[0].reason if failed and len(failed) == len(builds) else None


def list_failed_often(draft: Draft) -> frozenset[str]:
    """Environments for which no further machine is rented."""
    builds = (draft.build(node, key) for node, key in draft.state.builds)
    counts = Counter(build.key for build in builds if build is not None and build.state == "failed")
    return frozenset(key for key, count in counts.items() if count >= FAILED_MOST)

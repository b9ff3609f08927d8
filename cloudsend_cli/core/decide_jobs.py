"""What happens to jobs: news of their attempts, requests of the user, dependencies. Pure."""

from __future__ import annotations

from .draft import Draft
from .growth import grow
from .losses import LIFETIMES, describe_outlived
from .model import CANCELLED, FAILED, PENDING, RUNNING, SUCCEEDED, AttemptStatus, HostView
from .naming import attempt_id, parse_attempt_id, parse_build_id, run_of_attempt
from .records import replace
from .state import RESUME, JobRecord

ENDED = frozenset({"exited", "lost", "cancelled", "stale", "refused"})
ALIVE = frozenset({"queued", "running"})
RESTARTED = "lost: the host was restarted"
DELETED = "lost: the agent's directory on the host was deleted"
SHUT_DOWN = "lost: the host ended all that ran there, as it does when it shuts down"
LOSSES = {"rebooted": RESTARTED, "home-deleted": DELETED, "shut-down": SHUT_DOWN}  # in the agent's words
PREEMPTED = "preempted"
OOM = "oom"
DISK_FULL = "disk-full"  # alone only of attempts that were never executed
RETRY = "retry after "
RETRY_FULL = f"{RETRY}{DISK_FULL}"
SIGNAL_NAMES = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
    10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU",
    25: "SIGXFSZ", 31: "SIGSYS",
}  # fmt: skip


def take_requests(draft: Draft) -> None:
    """Carry the user's requests into the records; a request whose id is known is not carried out again."""
    done = draft.run.requests_done
    for request in draft.seen.requests:
        if request.id in done:
            continue
        # What this tick carries out is remembered as a whole, however much it is: none of it is carried out again.
        done = (*done, request.id)[-max(200, len(draft.seen.requests)) :]
        if request.kind == "cancel":
            numbers = request.jobs if request.jobs is not None else tuple(draft.state.jobs)
            for number in numbers:
                cancel_job(draft, number)
            if request.jobs is None:
                draft.new_run = replace(draft.run, cancelled=True)
        elif request.kind == "gone":
            draft.gone.append(request.node)
    if done is not draft.run.requests_done:
        draft.new_run = replace(draft.run, requests_done=done)


def cancel_job(draft: Draft, number: int) -> None:
    """Give a job up, by the user's wish or because the run is given up."""
    job = draft.job(number)
    if job is None or job.final:
        return
    if job.state == PENDING:
        draft.put_job(
            replace(job, state=CANCELLED, reason=cancel_reason(draft), cancel=True, ended_at=draft.seen.now, fetch="")
        )
    elif not job.cancel:
        draft.put_job(replace(job, cancel=True))
        draft.cancel(job.node, attempt_id(draft.run.id, number, job.attempt))


def cancel_reason(draft: Draft) -> str:
    return draft.run.stopped or "cancelled by the user"


def take_attempts(draft: Draft) -> None:
    """Settle what hosts said of attempts. Only the newest attempt of a running job counts; others are late news.

    An end is acknowledged to the host that told it: what it means is part of the commit that comes first. What this
    state knows nothing of is another maestro's, which has not committed it yet or has made us stale. One whose results
    are to come home is acknowledged when they have: a rented machine waits for us until then.
    """
    for node, news in draft.seen.attempts.items():
        for attempt, status in news.items():
            if run_of_attempt(attempt) != draft.run.id:
                continue
            parsed = parse_attempt_id(attempt)
            job = draft.job(parsed[1]) if parsed is not None else None
            if job is not None and parsed is not None:
                known = parsed[2] < job.attempt or (parsed[2] == job.attempt and job.node == node)
                # INVARIANT: an attempt number that is not the newest is fenced: its end changes nothing. Nor does what
                # a machine says of an attempt that another one was given.
                if job.attempt == parsed[2] and job.state == RUNNING and job.node == node:
                    _settle(draft, job, status)
                elif parsed[2] < job.attempt and status.state in ALIVE:
                    # Its machine was given up and has come back: what a newer attempt does is not done twice for long.
                    draft.cancel(node, attempt)
            else:
                known = _knows_build(draft, node, attempt)
            if known and status.state in ENDED and not is_coming_home(draft, attempt):
                draft.ack(node, attempt)


def is_coming_home(draft: Draft, attempt: str) -> bool:
    """Whether the results of this attempt are still to be fetched."""
    parsed = parse_attempt_id(attempt)
    job = draft.job(parsed[1]) if parsed is not None else None
    return job is not None and job.fetch == "wanted" and attempt_id(draft.run.id, job.number, job.attempt) == attempt


def _knows_build(draft: Draft, node: str, attempt: str) -> bool:
    """Whether this is the newest build that this state asked for, or an older one."""
    parsed = parse_build_id(attempt)
    build = draft.build(node, parsed[1]) if parsed is not None else None
    return build is not None and parsed is not None and parsed[2] <= build.attempt


def _settle(draft: Draft, job: JobRecord, status: AttemptStatus) -> None:
    if status.metrics:
        job = replace(job, metrics=status.metrics)
    if status.state == "running":
        if job.started_at is None and status.started is not None:
            draft.put_job(replace(job, started_at=status.started))
    elif status.state == "exited":
        _settle_exit(draft, job, status)
    elif status.state == "lost":
        _settle_loss(draft, job, status)
    elif status.state == "cancelled" and job.cancel:
        _finish(draft, job, CANCELLED, cancel_reason(draft), None)
    elif status.state == "refused" and status.cause == DISK_FULL:
        never_started(draft, job, RETRY_FULL, delay=draft.policy.retry_delay)
    elif status.state == "refused" and status.cause not in {"", "wrong-boot", PREEMPTED}:
        _finish(draft, job, FAILED, status.cause, None)
    elif status.state in ENDED:
        never_started(draft, job)


def _settle_loss(draft: Draft, job: JobRecord, status: AttemptStatus) -> None:
    if status.cause == "never-started":
        never_started(draft, job, delay=draft.policy.retry_delay)
    elif status.cause == PREEMPTED:  # its watcher went down while it was being ended
        preempt(draft, job)
    elif status.cause in LIFETIMES:
        outlive(draft, job, status)
    else:
        # A host that shuts down still answers for a moment: what began there then would be lost with it once more.
        later = draft.seen.now + draft.policy.look_again if status.cause == "shut-down" else 0.0
        reason = LOSSES.get(status.cause, status.cause or "lost")
        lose(draft, job, reason, ended_at=status.ended, not_before=later)


def _settle_exit(draft: Draft, job: JobRecord, status: AttemptStatus) -> None:
    job = replace(
        job,
        started_at=status.started if status.started is not None else job.started_at,
        ended_at=status.ended,
        maxrss=status.maxrss,
        cpu_seconds=status.cpu_seconds,
    )
    if status.cause == "cancelled":
        _finish(draft, job, CANCELLED, cancel_reason(draft), status)
    elif status.cause == PREEMPTED:
        preempt(draft, job)
    elif status.cause in LIFETIMES:
        outlive(draft, job, status)
    elif status.cause == DISK_FULL:
        never_started(draft, job, RETRY_FULL, delay=draft.policy.retry_delay)
    elif status.cause == "upload-missing":
        lose(draft, job, "upload-missing")
    elif status.cause == "" and status.exit_code == 0 and not status.signal and not status.missing:
        _finish(draft, job, SUCCEEDED, "", status)
    else:
        _fail(draft, job, reason_of(status), status)


def reason_of(status: AttemptStatus) -> str:
    """The reason of a bad end, in the words of DESIGN's list."""
    if status.cause:
        return status.cause
    full = f", {DISK_FULL}" if status.disk_full else ""
    if status.signal:
        return f"killed by {SIGNAL_NAMES.get(status.signal, f'signal {status.signal}')}{full}"
    if status.exit_code:
        return f"exit {status.exit_code}{full}"
    return f"output-missing: {', '.join(status.missing)}"


def _fail(draft: Draft, job: JobRecord, reason: str, status: AttemptStatus) -> None:
    failures = job.failures + 1
    if failures <= job.spec.retries and not job.cancel:
        delay = min(draft.policy.retry_delay * 2 ** (failures - 1), draft.policy.retry_delay_most)
        if reason == OOM:
            job, reason = grow(draft, job, reason)
        draft.put_job(
            replace(
                job,
                state=PENDING,
                reason=f"{RETRY}{reason}",
                failures=failures,
                exit_code=status.exit_code,
                not_before=draft.seen.now + delay,
            )
        )
    else:
        _finish(draft, replace(job, failures=failures), FAILED, reason, status)


def _finish(draft: Draft, job: JobRecord, state: str, reason: str, status: AttemptStatus | None) -> None:
    ended = status.ended if status is not None and status.ended is not None else draft.seen.now
    left = status is not None and ((job.spec.outputs and state != CANCELLED) or status.logs)
    wanted = "wanted" if left else ""
    draft.put_job(
        replace(
            job,
            state=state,
            reason=reason,
            exit_code=status.exit_code if status is not None else None,
            ended_at=ended,
            fetch=wanted,
            fetch_tries=0,
        )
    )


def lose(draft: Draft, job: JobRecord, reason: str, *, ended_at: float | None = None, not_before: float = 0.0) -> None:
    """The attempt is proved dead with its outcome unknown: a new attempt up to `retries_lost`, else failed."""
    losses = job.losses + 1
    if job.cancel:
        _finish(draft, replace(job, losses=losses), CANCELLED, cancel_reason(draft), None)
    elif losses <= job.spec.retries_lost:
        _try_again(draft, replace(job, not_before=max(job.not_before, not_before)), reason)
    else:
        ended = draft.seen.now if ended_at is None else ended_at
        draft.put_job(replace(job, losses=losses, state=FAILED, reason=reason, ended_at=ended))


def _try_again(draft: Draft, job: JobRecord, reason: str) -> None:
    losses = job.losses + 1
    draft.put_job(
        replace(job, state=PENDING, losses=losses, reason=f"{RETRY}{reason}", started_at=None, ended_at=None)
    )


def outlive(draft: Draft, job: JobRecord, status: AttemptStatus) -> None:
    """It was at work when its machine's time was over, and was told so before: what it has left can still be had.

    A loss, not a preemption: a job that takes longer than machines live would have one rented after the other.
    """
    reason = describe_outlived(LIFETIMES[status.cause])
    if not job.cancel and job.losses < job.spec.retries_lost:
        _try_again(draft, job, reason)
        _await_persisted(draft, job)
    else:
        state = CANCELLED if job.cancel else FAILED
        final = cancel_reason(draft) if job.cancel else reason
        _finish(draft, replace(job, losses=job.losses + 1), state, final, status)


def never_started(draft: Draft, job: JobRecord, reason: str = "", *, delay: float = 0.0) -> None:
    """The attempt is proved to be without effect, or was preempted: a new one follows and nothing is counted."""
    later = draft.seen.now + delay if delay else 0.0
    if job.cancel:
        _finish(draft, job, CANCELLED, cancel_reason(draft), None)
    else:
        draft.put_job(replace(job, state=PENDING, reason=reason, started_at=None, ended_at=None, not_before=later))


def preempt(draft: Draft, job: JobRecord) -> None:
    """Its machine is taken back: a new attempt follows, nothing is counted, and what it persists comes along."""
    never_started(draft, job)
    _await_persisted(draft, job)


def _await_persisted(draft: Draft, job: JobRecord) -> None:
    """What the job left, given as it was while it ran, can still be had: it is waited for, but not for long."""
    pending = draft.jobs[job.number]
    if job.spec.persist and pending.state == PENDING and job.started_at is not None:
        until = draft.seen.now + draft.policy.resume_limit
        draft.put_job(replace(pending, fetch=RESUME, fetch_tries=0, not_before=until))


def go_on_without(job: JobRecord) -> JobRecord:
    """A job that waited for what its preempted attempt left waits no longer."""
    return replace(job, fetch="", not_before=0.0)


def take_report(draft: Draft, node: str, view: HostView) -> None:
    """Compare a full report of a host with what should be there."""
    reported = view.reported or frozenset()
    for job in draft.running_jobs(node):
        attempt = attempt_id(draft.run.id, job.number, job.attempt)
        if attempt in reported:
            if job.cancel:
                draft.cancel(node, attempt)
        elif job.boot == view.boot:
            # The request never arrived, or its reply was lost: the same attempt again is exclusive on the host.
            if job.cancel:
                draft.cancel(node, attempt)
            else:
                draft.start_job(job)
        else:
            # PROOF: another boot id; nothing of the earlier boot runs any more. Or the same one and another directory
            # of the agent: what runs on without its directory is in the report.
            lose(draft, job, DELETED if boot_of(job.boot) == boot_of(view.boot) else RESTARTED)


def boot_of(told: str) -> str:
    """The kernel's boot id of what an agent tells, which has the id of its directory after a dot."""
    return told.partition(".")[0]


def fail_doomed(draft: Draft) -> None:
    """A job whose dependency ended badly never becomes ready."""
    names: dict[int, str] = {}  # by the identity of the list: many that wait for the same share one
    for number in draft.state.doomed:
        job = draft.job(number)
        if job is None or job.state != PENDING:
            continue
        if id(job.after) not in names:
            others = (draft.job(dependency) for dependency in job.after)
            names[id(job.after)] = next(
                o.spec.name for o in others if o is not None and o.final and o.state != SUCCEEDED
            )
        reason = f"dependency-failed: {names[id(job.after)]}"
        draft.put_job(replace(job, state=FAILED, reason=reason, ended_at=draft.seen.now))

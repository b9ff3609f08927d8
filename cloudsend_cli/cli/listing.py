"""`list`, `info`, `getstate`, `explain`: what there is and how it is. None of these needs a maestro."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudsend_cli.errors import AuthError, MaestroError, NotFoundError, UsageError

from .parameters import Job, Most, OfProvider, OfRun, OfState, Run, whole_number
from .render import Column, Listing, Screen, column, duration
from .sanitise import one_line
from .session import Session, session_of

if TYPE_CHECKING:
    from cloudsend_cli.core.cost_views import JobCost
    from cloudsend_cli.core.explain import Explanation
    from cloudsend_cli.core.views import JobView, Json, RunView

TABLES = ("table", "wide")
COLUMNS_MOST = 24  # of parameters and metrics in a wide table
TABLE_ROWS = 1000  # more are a file, not a table: they are had with -n, or in the other formats
STATES = ("pending", "running", "succeeded", "failed", "cancelled")
SPREAD_COLUMNS = {"params": "param.", "metrics": "metric."}  # of a job, in CSV
COUNTED = ("running", "pending", "succeeded", "failed", "cancelled")  # in the order in which they are told
UNWATCHED = "no maestro runs: open jobs are shown as last known, and none is started; `cloudsend wait` starts one"
PHASES = {  # the seeds' words, each with the stored states in which it can be shown
    "UNKNOWN": ("running",),
    "WAIT": ("pending",),
    "QUEUE": ("pending",),
    "IDLE": ("running",),
    "RUNNING": ("running",),
    "DONE": ("succeeded",),
    "ABORTED": ("failed", "cancelled"),
}


def job_time(job: JobView, screen: Screen) -> str:
    """How long it ran, or has been running."""
    if job.started_at is None:
        return ""
    end = job.ended_at if job.ended_at is not None else screen.now
    return duration(end - job.started_at)


def state_word(job: JobView) -> str:
    """The seeds' word, with the reason in brackets."""
    why = why_not_home(job)
    reason = f"results not home: {why}" if why else job.reason or (job.silence if job.phase == "UNKNOWN" else "")
    return f"{job.phase} ({reason})" if reason else job.phase


def why_not_home(job: JobView) -> str:
    """Why the results of a job that succeeded could not be brought home; empty for any other."""
    if job.state != "succeeded" or not job.outputs.startswith("failed"):
        return ""
    return job.outputs.removeprefix("failed").removeprefix(":").strip() or "no reason is known"


def is_good(job: JobView) -> bool:
    """It succeeded, and its results are not lost."""
    return job.state == "succeeded" and not why_not_home(job)


def status_of(jobs: Iterable[JobView]) -> int:
    """Exit status of a command that waited for them. What only depends on jobs that were denied says no more."""
    from cloudsend_cli.core.silence import DENIED

    reasons = {job.reason.partition(":")[0] if job.state == "failed" else "" for job in jobs if not is_good(job)}
    if DENIED in reasons and reasons <= {DENIED, "dependency-failed"}:
        return AuthError.exit_status
    return 1 if reasons else 0


def say_if_unwatched(session: Session, shown: Iterable[JobView | RunView]) -> None:
    """Without a maestro nobody starts jobs, or hears of those that run: what is shown may be old."""
    if any(view.state in {"pending", "running"} for view in shown) and not _maestro_runs(session):
        session.screen.say(UNWATCHED)


def _maestro_runs(session: Session) -> bool:
    try:
        return session.client.maestro_status().running
    except MaestroError:
        return False


def counts_text(counts: Mapping[str, int]) -> str:
    """Such as `2 running, 5 succeeded`."""
    return ", ".join(f"{counts[word]:,} {word}" for word in COUNTED if counts.get(word)) or "no jobs"


def run_cost(run: RunView) -> str:
    """Empty where nothing was rented."""
    if run.cost is None:
        return ""
    from cloudsend_cli.core.costs import describe_cost

    return describe_cost(run.cost)


def reported_columns(jobs: Sequence[JobView]) -> tuple[tuple[Column, ...], int]:
    """A column for each parameter and each metric of these jobs, as far as there is room; how many are left out."""
    from cloudsend_cli.core.result_rows import Names

    params, metrics = Names(), Names()
    for job in jobs:
        params.take(job.params)
        metrics.take(job.metrics)
    columns = [_param_column(name) for name in params.kept]
    columns += [_metric_column(name, f"metric.{name}" if name in params.kept else name) for name in metrics.kept]
    left_out = len(columns[COLUMNS_MOST:]) + params.more + metrics.more
    slots = (column("SLOT", "slot"),) if any(job.slot is not None for job in jobs) else ()
    return (*columns[:COLUMNS_MOST], *slots), left_out


def _param_column(name: str) -> Column:
    return Column(name or "PARAMETER", lambda job, screen: job.params.get(name, ""))


def _metric_column(name: str, header: str) -> Column:
    return Column(header, lambda job, screen: job.metrics.get(name, ""))


JOBS = Listing(
    "jobs",
    (
        column("ID", "id"),
        column("NAME", "name"),
        Column("STATE", lambda job, screen: state_word(job), prose=True),
        column("INSTANCE", "instance"),
        Column("TIME", job_time),
        Column("CREATED", lambda job, screen: screen.moment(job.created_at)),
        column("ATTEMPT", "attempt", wide=True),
        column("UID", "uid", wide=True),
        column("PROVIDER", "provider", wide=True),
        column("HASH", "hash", wide=True),
        column("COMMAND", "command", wide=True),
    ),
    lambda job: str(job.id),
    reported_columns,
    SPREAD_COLUMNS,
)
RUNS = Listing(
    "runs",
    (
        column("ID", "id"),
        column("PROJECT", "project"),
        column("STATE", "state"),
        Column("JOBS", lambda run, screen: counts_text(run.told_counts)),
        Column("CREATED", lambda run, screen: screen.moment(run.created_at)),
        Column("ENDED", lambda run, screen: screen.moment(run.ended_at)),
        Column("COST", lambda run, screen: run_cost(run), wide=True),
        column("CONFIG", "config", wide=True),
        column("RESULTS", "results_dir", wide=True),
    ),
    lambda run: str(run.id),
)
ENVIRONMENTS = Listing(
    "environments",
    (
        column("NAME", "name"),
        column("NODE", "node"),
        column("STATE", "state"),
        column("REASON", "reason", prose=True),
        column("KEY", "key"),
    ),
    lambda environment: str(environment.key),
)


# ---- list ----------------------------------------------------------------------------------------------------------


def list_jobs(
    ctx: typer.Context, run: OfRun = None, state: OfState = None, provider: OfProvider = None, limit: Most = None
) -> None:
    """List jobs, the newest run first. Tables stop at 1,000 rows, unless -n says otherwise."""
    session = session_of(ctx)
    most = whole_number(limit, "--limit")
    cut = most is None and session.screen.format in TABLES
    if cut:
        most = TABLE_ROWS
    words = [_known_state(word) for word in state or ()]
    phases = {word for word in words if word in PHASES}
    stored = sorted({s for word in words for s in PHASES.get(word, (word,))})
    jobs = session.client.list_jobs(run, states=stored, provider=provider, limit=None if phases else most)
    if phases:
        jobs = [job for job in jobs if job.phase in phases or job.state in words][:most]
    if cut and len(jobs) == TABLE_ROWS:
        session.screen.say(f"the newest {TABLE_ROWS:,} jobs; -n N for more, -o csv or -o json for all")
    say_if_unwatched(session, jobs)
    session.screen.list(jobs, JOBS)


def list_runs(ctx: typer.Context, limit: Most = None) -> None:
    """List runs, the newest first."""
    session = session_of(ctx)
    runs = session.client.list_runs(whole_number(limit, "--limit"))
    session.screen.list(runs, RUNS)
    say_if_unwatched(session, runs)


def list_environments(ctx: typer.Context, run: OfRun = None) -> None:
    """List software set-ups and where they stand."""
    session = session_of(ctx)
    session.screen.list(session.client.list_environments(run), ENVIRONMENTS)


def _known_state(word: str) -> str:
    """A stored state or a seeds' word, however it is written."""
    if word in PHASES or word in STATES:
        return word
    if word.lower() in STATES or word.upper() in PHASES:
        return word.lower() if word.lower() in STATES else word.upper()
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), STATES, 1) or get_close_matches(word.upper(), PHASES, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join((*STATES, *PHASES))}"
    raise UsageError(f"there is no state '{word}'", hint=hint)


# ---- info ----------------------------------------------------------------------------------------------------------


def info_job(ctx: typer.Context, job: Job) -> None:
    """Show all that is known of a job, with its attempts."""
    session = session_of(ctx)
    found = session.client.find_job(job)
    attempts = session.client.attempts(found.id)
    cost = session.client.find_job_cost(found.id)
    say_if_unwatched(session, [found])
    if session.screen.machine:
        dollars = cost.as_json()["cost"] if cost is not None else None
        show_one(session, found, JOBS, {"attempts": attempts, "cost": dollars})
        return
    screen = session.screen
    screen.facts(
        [
            ("id", found.id),
            ("name", found.name),
            ("run", found.run),
            ("state", state_word(found)),
            ("command", found.command),
            ("parameters", pairs_text(found.params)),
            ("slot", found.slot or ""),
            ("metrics", metrics_text(found)),
            ("instance", found.instance or ""),
            ("provider", found.provider or ""),
            ("attempt", f"{found.attempt} ({found.uid})" if found.uid else "none yet"),
            ("created", screen.moment(found.created_at)),
            ("started", screen.moment(found.started_at)),
            ("ended", screen.moment(found.ended_at)),
            ("time", job_time(found, screen)),
            ("memory", _bytes(found.maxrss)),
            ("CPU time", duration(found.cpu_seconds) if found.cpu_seconds is not None else ""),
            ("cost", job_cost_text(cost)),
            ("outputs", found.outputs),
            ("hash", found.hash),
            ("superseded", "by an edited job of its name" if found.superseded else ""),
        ]
    )
    earlier = [attempt for attempt in attempts if attempt["attempt"] != found.attempt]
    if earlier:
        screen.write("\n")
        rows = [
            (
                f"{found.id}.{a['attempt']}",
                attempt_word(a),
                *(str(a[k] or "") for k in ("node", "started_at", "ended_at")),
            )
            for a in earlier
        ]
        screen.rows(("EARLIER ATTEMPT", "STATE", "INSTANCE", "STARTED", "ENDED"), rows)
    for text in losses_of(attempts):
        screen.write(f"  - {one_line(text)}")


def pairs_text(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" if key else value for key, value in pairs.items())


def metrics_text(job: JobView) -> str:
    """With a word on what was not taken of them."""
    ignored = f"{job.metrics_ignored:,} not taken" if job.metrics_ignored else ""
    return "; ".join(filter(None, (pairs_text(job.metrics), ignored)))


def losses_of(attempts: Iterable[Json]) -> tuple[str, ...]:
    """What to say of attempts whose results went with their machines."""
    from cloudsend_cli.core.losses import Earlier, describe_losses

    return describe_losses(Earlier(int(str(a["attempt"])), str(a["node"]), str(a["reason"])) for a in attempts)


def job_cost_text(cost: JobCost | None) -> str:
    if cost is None:
        return ""
    from cloudsend_cli.core.costs import describe_cost

    return f"{describe_cost(cost.cost)}: its share of its machine while it ran"


def info_run(ctx: typer.Context, run: Run) -> None:
    """Show a run: its counts, what it has cost, and where its results are."""
    session = session_of(ctx)
    found = session.client.find_run(run)
    if session.screen.machine:
        show_one(session, found, RUNS)
        return
    screen = session.screen
    screen.facts(
        [
            ("id", found.id),
            ("project", found.project),
            ("config", found.config),
            ("state", found.state),
            ("jobs", counts_text(found.told_counts)),
            ("submissions", str(found.batch)),
            ("created", screen.moment(found.created_at)),
            ("ended", screen.moment(found.ended_at)),
            ("cost", run_cost(found)),
            ("results", found.results_dir),
        ]
    )


def show_one(session: Session, view: Any, listing: Listing, more: dict[str, Any] | None = None) -> None:
    """One thing for a program: an object, not a list of one."""
    if session.screen.format in {"name", "csv"}:
        session.screen.list([view], listing)
    else:
        session.screen.data({**view.as_json(), **(more or {})})


def _bytes(count: int | None) -> str:
    from cloudsend_cli.core.explain import describe_bytes

    return describe_bytes(count) if count is not None else ""


# ---- getstate and explain ------------------------------------------------------------------------------------------


def getstate(
    ctx: typer.Context,
    job: Job,
    uid: Annotated[str | None, typer.Argument(metavar="UID", help="One attempt: its id or its number.")] = None,
) -> None:
    """Print a job's state, with the reason in brackets."""
    session = session_of(ctx)
    found = session.client.find_job(job)
    if uid is not None and uid not in {found.uid, str(found.attempt)}:
        attempt = _attempt(session.client.attempts(found.id), found, uid)
        if session.screen.format in {"json", "yaml"}:
            session.screen.data({"job": found.id, **attempt})
        else:
            session.screen.write(one_line(attempt_word(attempt)))
        return
    say_if_unwatched(session, [found])
    if session.screen.machine:
        show_one(session, found, JOBS)
    else:
        session.screen.write(one_line(state_word(found)))


def attempt_word(attempt: Json) -> str:
    """The seeds' word of an earlier attempt, with the reason in brackets."""
    words = {"succeeded": "DONE", "running": "RUNNING", "pending": "WAIT"}
    word = words.get(str(attempt["state"]), "ABORTED")
    return f"{word} ({attempt['reason']})" if attempt["reason"] else word


def _attempt(attempts: list[Json], job: JobView, uid: str) -> Json:
    uids = {f"{job.id}.{attempt['attempt']}": attempt for attempt in attempts}
    found = uids.get(uid) or uids.get(f"{job.id}.{uid}")
    if found is None:
        known = f"there are: {', '.join(uids)}" if uids else "it has none yet"
        raise NotFoundError(f"{job.id} has no attempt '{uid}'", hint=known)
    return found


def explain(ctx: typer.Context, job: Job) -> None:
    """Say why a job is not running: what it asks for, and what each node has."""
    session = session_of(ctx)
    session.screen.refuse("csv", "name")
    found = session.client.find_job(job)
    why = session.client.explain(found.id)
    if session.screen.machine:
        session.screen.data(_explanation_json(found, why))
        return
    session.screen.write(f"{found.id} ({one_line(found.name)}): {one_line(why.headline)}")
    for reason in why.reasons:
        session.screen.write(f"  - {one_line(reason)}")
    session.screen.write(f"  asks for: {one_line(why.asks)}")
    if why.nodes:
        session.screen.rows(("NODE", "HAS", "FREE", "REMARK"), why.nodes)
    say_if_unwatched(session, [found])


def _explanation_json(job: JobView, why: Explanation) -> dict[str, Any]:
    return {
        "job": job.id,
        "name": job.name,
        "state": job.state,
        "phase": job.phase,
        "headline": why.headline,
        "reasons": list(why.reasons),
        "asks": why.asks,
        "nodes": [dict(zip(("name", "has", "free", "remark"), node, strict=True)) for node in why.nodes],
    }

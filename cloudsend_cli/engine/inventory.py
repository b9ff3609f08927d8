"""What a host remembers of attempts, whoever started them: read to rebuild a state directory that is lost.

All of it is the word of that host. It is checked for form here; what it may lead to is decided in rebuild.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.model import (
    AttemptStatus,
    EnvironmentBuild,
    JobSpec,
    Output,
    Resources,
    Upload,
)
from cloudsend_cli.core.naming import attempt_id, build_id, parse_attempt_id, parse_build_id
from cloudsend_cli.errors import CloudsendError

from .direct import Direct
from .places import Place
from .wire import SLOT, parse_status

Json = Mapping[str, object]
ATTEMPTS_MOST = 2_000_000  # of one host
NUMBER_MOST = 1 << 31
GRACE = 10.0
SLOTS_MOST = 1 << 16
OURS = frozenset({"CLOUDSEND_RUN", "CLOUDSEND_JOB", "CLOUDSEND_ATTEMPT_NUMBER"})  # put into every job's environment
_RUN = re.compile(r"[a-z][0-9a-z]{5}")


@dataclass(frozen=True, slots=True)
class JobFound:
    """One attempt of a job. `hash` is what its client said, "" where it said nothing."""

    run: str
    number: int
    attempt: int
    owner: str
    boot: str
    status: AttemptStatus
    spec: JobSpec
    hash: str
    slot: int = -1

    @property
    def uid(self) -> str:
        return attempt_id(self.run, self.number, self.attempt)


@dataclass(frozen=True, slots=True)
class BuildFound:
    """One attempt at building an environment."""

    run: str
    attempt: int
    owner: str
    boot: str
    status: AttemptStatus
    environment: EnvironmentBuild

    @property
    def uid(self) -> str:
        return build_id(self.run, self.environment.key, self.attempt)


@dataclass(frozen=True, slots=True)
class RunFound:
    """What attempts say of their run."""

    id: str
    project: str = ""
    config: str = ""
    results: str = ""
    created: float | None = None


@dataclass(slots=True)
class HostFound:
    """All that one host told, or why it told nothing."""

    place: Place
    jobs: list[JobFound] = field(default_factory=list)
    builds: list[BuildFound] = field(default_factory=list)
    runs: dict[str, RunFound] = field(default_factory=dict)
    claims: tuple[str, ...] = ()  # owners that have claimed it
    problem: CloudsendError | None = None

    def attempts(self) -> list[tuple[str, str]]:
        """(id, owner) of each."""
        jobs = [(job.uid, job.owner) for job in self.jobs]
        return jobs + [(build.uid, build.owner) for build in self.builds]

    def owners(self) -> set[str]:
        return {owner for _, owner in self.attempts()}


def read_host(place: Place, talk: Direct) -> HostFound:
    """UnreachableError when the answer breaks off: half of it would look like the whole."""
    found = HostFound(place, claims=tuple(_owners(talk.hello.get("claims"))))
    for entry in _list_entries(talk):
        _take(found, entry)
    return found


def _list_entries(talk: Direct) -> Iterator[Json]:
    after: str | None = None
    count = 0
    while count < ATTEMPTS_MOST:
        page: Frame = talk.ask("inventory", after=after)
        entries = page.get("attempts")
        for entry in entries if isinstance(entries, list) else []:
            count += 1
            if isinstance(entry, dict):
                yield entry
        onward = page.get("next")
        if not isinstance(onward, str) or (after is not None and onward <= after):
            return
        after = onward


def _owners(claims: object) -> Iterator[str]:
    for claim in claims if isinstance(claims, list) else []:
        if isinstance(claim, dict) and isinstance(claim.get("owner"), str):
            yield claim["owner"]


def _take(found: HostFound, entry: Json) -> None:
    """One entry; what has not the form of ours is passed over."""
    ident, spec = entry.get("id"), entry.get("spec")
    if not isinstance(ident, str) or not isinstance(spec, dict):
        return
    about = spec.get("about")
    told: Json = about if isinstance(about, dict) else {}
    owner, boot = _text(entry.get("owner")), _text(entry.get("boot"))
    status = _plausible(parse_status(entry.get("status")))
    job, build = parse_attempt_id(ident), parse_build_id(ident)
    if job is not None and _RUN.fullmatch(job[0]) and 0 < job[1] < NUMBER_MOST and 0 < job[2] < NUMBER_MOST:
        parsed = parse_spec(told, spec, ident.rpartition(".")[0])
        found.jobs.append(JobFound(*job, owner, boot, status, parsed, _text(told.get("hash")), _slot(spec.get("env"))))
    elif build is not None and _RUN.fullmatch(build[0]) and 0 < build[2] < NUMBER_MOST:
        environment = _parse_environment(build[1], told, spec)
        found.builds.append(BuildFound(build[0], build[2], owner, boot, status, environment))
    else:
        return
    run = (job or build or ("",))[0]
    if told or run not in found.runs:
        found.runs[run] = RunFound(
            run,
            _text(told.get("project")),
            _text(told.get("config")),
            _text(told.get("results")),
            _time(told.get("created")),
        )


def _plausible(status: AttemptStatus) -> AttemptStatus:
    """JSON as Python reads it knows NaN and infinities."""
    values = {f.name: getattr(status, f.name) for f in fields(AttemptStatus)}
    return AttemptStatus(**{**values, "started": _time(status.started), "ended": _time(status.ended)})


# ---- specs ---------------------------------------------------------------------------------------------------------


def parse_spec(about: Json, wire: Json, ident: str) -> JobSpec:
    """The job in its client's words; where they are missing, as far as the host's own spec tells."""
    kept = about.get("spec")
    told: Json = kept if isinstance(kept, dict) else {}
    argv = _texts(told.get("argv")) or _texts(wire.get("argv"))
    name = _text(told.get("name")) or _text(about.get("name")) or f"job {ident}"
    source = told if told else wire
    return JobSpec(
        name=name,
        argv=argv,
        display=_text(told.get("display")) or " ".join(argv),
        env=_pairs(told.get("env")) if told else _environ(wire.get("env")),
        environment=_text(source.get("environment")),
        resources=_resources(told.get("resources") if told else wire),
        slots=_texts(source.get("slots")),
        uploads=tuple(_uploads(told.get("uploads"))),
        private_uploads=told.get("private_uploads") is True,
        outputs=tuple(_outputs(source.get("outputs"))),
        workdir=_text(told.get("workdir") if told else wire.get("cwd")),
        timeout=_positive(source.get("timeout")),
        grace=_positive(source.get("grace")) or GRACE,
        params=_pairs(told.get("params")),
        after=_texts(told.get("after")),
        after_any=_texts(told.get("after_any")),
        stage=_whole(told.get("stage")),
        group=_text(told.get("group")),
        slot_args=told.get("slot_args") is True,
        memory_factor=_positive(told.get("memory_factor")) or 1.0,
        repeat_index=_whole(told.get("repeat_index")),
    )


def _parse_environment(key: str, about: Json, wire: Json) -> EnvironmentBuild:
    kept = about.get("spec")
    told: Json = kept if isinstance(kept, dict) else {}
    argv = _texts(wire.get("argv")) or _texts(told.get("argv"))
    name = _text(about.get("name")).removeprefix("environment ") or key
    slots = tuple(s for s in _texts(wire.get("slots")) if s != f"env-{key}")
    return EnvironmentBuild(key, name, argv[2] if len(argv) > 2 else "", slots, _environ(wire.get("env")))


def _environ(value: object) -> tuple[tuple[str, str], ...]:
    """The variables that the client gave, without those that every job gets."""
    known = value if isinstance(value, dict) else {}
    pairs = ((k, v) for k, v in known.items() if isinstance(k, str) and isinstance(v, str))
    return tuple((k, v) for k, v in pairs if k not in OURS and not k.startswith(SLOT))


def _slot(environ: object) -> int:
    """The place that an attempt was given: while it runs it is given to no other."""
    told = environ.get(SLOT) if isinstance(environ, dict) else None
    number = int(told) if isinstance(told, str) and re.fullmatch("[0-9]{1,6}", told) else -1
    return number if number < SLOTS_MOST else -1


def _uploads(value: object) -> Iterator[Upload]:
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            # Where it was read from is this client's affair: a host does not choose what is read here.
            mode = _whole(item.get("mode")) & 0o777
            yield Upload(_text(item.get("path")), _text(item.get("sha256")), _whole(item.get("size")), mode, "")


def _outputs(value: object) -> Iterator[Output]:
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict) and isinstance(item.get("pattern"), str):
            yield Output(item["pattern"], item.get("optional") is True)


def _resources(value: object) -> Resources:
    known = value if isinstance(value, dict) else {}
    cpus = _positive(known.get("cpus"))
    return Resources(1.0 if cpus is None else cpus, _whole(known.get("memory")), _whole(known.get("gpus")))


# ---- words ---------------------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    known: Sequence[object] = value if isinstance(value, list) else ()
    return tuple(v for v in known if isinstance(v, str))


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    known: Sequence[object] = value if isinstance(value, list) else ()
    pairs = (v for v in known if isinstance(v, list) and len(v) == 2)
    return tuple((str(k), str(v)) for k, v in pairs)


def _number(value: object) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None  # type: ignore[arg-type]


def _positive(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number < 1e9 else None


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else 0


def _time(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and 0 < number < 1e11 else None

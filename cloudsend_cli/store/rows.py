"""Records to rows and back. Equal parts of loaded records are one object, so that large runs stay small."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, TypeVar

from cloudsend_cli.core.model import (
    JOB_STATES,
    EnvironmentBuild,
    JobGroup,
    JobSpec,
    Offer,
    Output,
    ProviderDefinition,
    Resources,
    Upload,
)
from cloudsend_cli.core.naming import digest
from cloudsend_cli.core.state import BuildRecord, JobRecord, NodeRecord, RentalRecord, RunRecord

from .schema import RUN_SHIFT

NUMBER_MASK: Final = (1 << RUN_SHIFT) - 1
OWN_FIELDS: Final = ("name", "argv", "display", "env", "params", "repeat_index")
SHARED_FIELDS: Final = tuple(f.name for f in fields(JobSpec) if f.name not in OWN_FIELDS)
# What changes while a job lives, in the order of the columns after `key`.
HOT: Final = (
    "created_at", "state", "reason", "exit_code", "attempt", "failures", "losses", "node", "boot", "after",
    "not_before", "handed_at", "started_at", "ended_at", "cancel", "fetch", "fetch_tries", "superseded_by", "batch",
    "maxrss", "cpu_seconds", "resume", "more",
)  # fmt: skip
# What few jobs have, in one column. Their defaults are those of JobRecord, and are not written.
MORE: Final = ("after_any", "slot", "memory", "expected", "metrics")
_NO_MORE: Final = {f.name: f.default for f in fields(JobRecord) if f.name in MORE}
_CACHE_LIMIT = 4096
_scan = json.JSONDecoder().raw_decode
Row = tuple[Any, ...]
T = TypeVar("T")


def job_key(run: int, number: int) -> int:
    return run << RUN_SHIFT | number


# ---- text ----------------------------------------------------------------------------------------------------------


def pack(text: str) -> str:
    """Text as SQLite can hold it: what is not Unicode (parts of file names) is written as JSON after a NUL."""
    if text.isascii() and not text.startswith("\0"):
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "\0" + json.dumps(text)
    return "\0" + json.dumps(text) if text.startswith("\0") else text


def unpack(text: str) -> str:
    return str(json.loads(text[1:])) if text.startswith("\0") else text


def _plain(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def freeze(value: Any) -> Any:
    return tuple(freeze(v) for v in value) if isinstance(value, list) else value


def _resources(value: Mapping[str, Any]) -> Resources:
    return Resources(**value)


def _offer(value: Mapping[str, Any]) -> Offer:
    capacity = value.get("capacity")
    return Offer(**{**value, "capacity": None if capacity is None else _resources(capacity)})


def _uploads(values: Iterable[Mapping[str, Any]]) -> tuple[Upload, ...]:
    return tuple(Upload(**v) for v in values)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "resources": _resources,
    "capacity": _resources,
    "uploads": _uploads,
    "providers": lambda values: tuple(ProviderDefinition(**v) for v in values),
    "offers": lambda values: tuple(_offer(v) for v in values),
    "outputs": lambda values: tuple(Output(**v) for v in values),
    "groups": lambda values: tuple(JobGroup(**{k: freeze(v) for k, v in value.items()}) for value in values),
}


def _record(kind: type[T], body: str, **known: Any) -> T:
    """Fields that an older version did not write get their defaults; those of a newer one are left out."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    values = {k: _DECODERS.get(k, freeze)(v) for k, v in json.loads(body).items() if k in names}
    return kind(**{**values, **known})


def decode_run(body: str, version: int) -> RunRecord:
    return _record(RunRecord, body, version=version)


def decode_node(body: str) -> NodeRecord:
    return _record(NodeRecord, body)


def decode_build(body: str) -> BuildRecord:
    return _record(BuildRecord, body)


def decode_rental(body: str) -> RentalRecord:
    return _record(RentalRecord, body)


def decode_environment(body: str) -> EnvironmentBuild:
    return _record(EnvironmentBuild, body)


# ---- jobs ----------------------------------------------------------------------------------------------------------


def hot_row(job: JobRecord) -> Row:
    """The columns of HOT."""
    return (
        job.created_at,
        job.state,
        pack(job.reason),
        job.exit_code,
        job.attempt,
        job.failures,
        job.losses,
        pack(job.node),
        pack(job.boot),
        encode(job.after) if job.after else "",
        job.not_before,
        job.handed_at,
        job.started_at,
        job.ended_at,
        job.cancel,
        pack(job.fetch),
        job.fetch_tries,
        job.superseded_by,
        job.batch,
        job.maxrss,
        job.cpu_seconds,
        encode(job.resume) if job.resume else "",
        _more(job),
    )


def _more(job: JobRecord) -> str:
    values = {name: value for name, default in _NO_MORE.items() if (value := getattr(job, name)) != default}
    return encode(values) if values else ""


def decode_more(text: str) -> dict[str, Any]:
    """The fields of MORE that are not as they are without a word. Those of a newer version are left out."""
    return {k: freeze(v) for k, v in json.loads(text).items() if k in _NO_MORE} if text else {}


def own_row(job: JobRecord) -> Row:
    """name, hash, argv, display, env, params, repeat_index: what is this job's alone and does not change."""
    spec = job.spec
    return (
        pack(spec.name),
        job.hash,
        encode(spec.argv),
        pack(spec.display),
        encode(spec.env) if spec.env else "",
        encode(spec.params) if spec.params else "",
        spec.repeat_index,
    )


def shared_part(spec: JobSpec) -> tuple[str, str]:
    """(digest, JSON) of what this spec may have in common with others."""
    body = encode({name: getattr(spec, name) for name in SHARED_FIELDS})
    return digest(body), body


def identity_of_shared(spec: JobSpec) -> tuple[object, ...]:
    """Cheap to compare: equal while the objects live means equal parts. Short values themselves, long ones by id."""
    return tuple(
        value if isinstance(value, (str, int, float, type(None))) else id(value)
        for value in (getattr(spec, name) for name in SHARED_FIELDS)
    )


class JobDecoder:
    """Builds records from rows of one run. Parts that repeat are decoded once and shared."""

    def __init__(self, specs: Iterable[tuple[int, str]]) -> None:
        self._shared: dict[int, dict[str, Any]] = {i: self._decode_shared(body) for i, body in specs}
        self._in_order = self._positional()
        self._tuples: dict[str, tuple[Any, ...]] = {"": ()}
        self._texts: dict[str, str] = {}
        self._created_at = 0.0

    @staticmethod
    def _decode_shared(body: str) -> dict[str, Any]:
        values = json.loads(body)
        shared = {}
        for f in fields(JobSpec):
            if f.name in SHARED_FIELDS:
                if f.name in values:
                    shared[f.name] = _DECODERS.get(f.name, freeze)(values[f.name])
                elif f.default is not MISSING:
                    shared[f.name] = f.default
        return shared

    def _positional(self) -> dict[int, tuple[Any, ...]] | None:
        """The shared values as JobSpec's arguments between `env` and `params`, if that is how it is declared."""
        names = tuple(f.name for f in fields(JobSpec))
        if names != (*OWN_FIELDS[:4], *SHARED_FIELDS, *OWN_FIELDS[4:]):
            return None
        return {i: tuple(shared[name] for name in SHARED_FIELDS) for i, shared in self._shared.items()}

    def _tuple(self, text: str) -> tuple[Any, ...]:
        found = self._tuples.get(text)
        if found is None:
            if len(self._tuples) > _CACHE_LIMIT:  # all different: keeping them would cost more than it gives
                self._tuples = {"": ()}
            found = self._tuples[text] = self._frozen(_scan(text)[0])
        return found

    def _frozen(self, values: list[Any]) -> tuple[Any, ...]:
        """Lists of strings, of pairs of strings, or of numbers."""
        if len(self._texts) > _CACHE_LIMIT:
            self._texts = {}
        share = self._texts.setdefault
        return tuple([
            share(v, v) if v.__class__ is str else self._frozen(v) if v.__class__ is list else v for v in values
        ])  # fmt: skip

    def _text(self, text: str) -> str:
        found = self._texts.get(text)
        if found is None:
            if len(self._texts) > _CACHE_LIMIT:
                self._texts = {}
            found = self._texts[text] = unpack(text)
        return found

    def spec(self, row: Row) -> JobSpec:
        """Of (spec, name, argv, display, env, params, repeat_index)."""
        shared, name, argv, display, env, params, repeat_index = row
        name, arguments, display = self._text(name), self._tuple(argv), self._text(display)
        if self._in_order is not None:
            own: Row = (name, arguments, display, self._tuple(env))
            every: Row = (*own, *self._in_order[shared], self._tuple(params), repeat_index)
            return JobSpec(*every)
        return JobSpec(
            name=name, argv=arguments, display=display, env=self._tuple(env), params=self._tuple(params),
            repeat_index=repeat_index, **self._shared[shared],
        )  # fmt: skip

    def job(self, row: Row) -> JobRecord:
        """Of (key, hash, HOT..., spec's columns...)."""
        (
            key, content, created_at, state, reason, exit_code, attempt, failures, losses, node, boot, after,
            not_before, handed_at, started_at, ended_at, cancel, fetch, fetch_tries, superseded_by, batch, maxrss,
            cpu_seconds, resume, more,
        ) = row[:25]  # fmt: skip
        if state not in JOB_STATES:
            raise ValueError(f"a job in the state {state!r}")
        if created_at != self._created_at:  # one object for the jobs of one batch
            self._created_at = created_at
        return JobRecord(
            key & NUMBER_MASK, self.spec(row[25:]), content, self._created_at, JOB_STATES[JOB_STATES.index(state)],
            self._text(reason), exit_code, attempt, failures, losses, self._text(node), self._text(boot),
            self._tuple(after), not_before or 0.0, handed_at, started_at, ended_at, bool(cancel), self._text(fetch),
            fetch_tries, superseded_by, batch, maxrss, cpu_seconds,
            _uploads(json.loads(resume)) if resume else (), **decode_more(more),
        )  # fmt: skip

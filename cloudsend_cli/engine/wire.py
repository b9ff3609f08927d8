"""Between the core's words and the agent's JSON. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.limits import REQUEST_MOST
from cloudsend_cli.core.losses import LIFETIMES
from cloudsend_cli.core.model import AttemptStatus, HostView, JobSpec, Resources, Slot, Upload, Vitals
from cloudsend_cli.core.naming import job_hash, parse_attempt_id
from cloudsend_cli.environments.activate import wrap_command

Json = dict[str, object]
SLOT = "CLOUDSEND_SLOT"  # begins the names of the variables that tell a job its place
DEVICES = frozenset({"gpu", "--gpu"})  # names in slots whose values are those of CUDA_VISIBLE_DEVICES
RESUME_DIR = ".cloudsend-resume"  # in the run directory; globs of outputs do not match its name
LOGOUT_WARNING = "jobs end there when the connection closes: `loginctl enable-linger` on that machine prevents it"
HOLDS = {
    "held_by_claim": "cloudsend of another user has it; jobs wait until that one has gone",
    "held_by_load": "its load is above max_load; jobs wait until it falls",
}
STATES = frozenset({"queued", "running", "exited", "lost", "cancelled", "stale", "refused"})
# What a machine says of itself is bounded before anything is reckoned with it, stored, or shown.
WHOLE_MOST = 1 << 60
TIME_MOST = 1e11
CPUS_MOST = 1e5
GPUS_MOST = 1 << 16
TEXT_MOST = 300
MISSING_MOST = 100


def render_spec(
    start: AttemptStart,
    base_env: Mapping[str, str],
    secrets: Mapping[str, str],
    run: str,
    about_run: Mapping[str, object] | None = None,
) -> Json:
    """One attempt as the agent's `start` takes it. With `about_run` a host can tell a rebuild what the job was."""
    spec = start.spec
    words = (*spec.argv, *render_slot(start.pairs)) if spec.slot_args else spec.argv
    argv = list(wrap_command(words, bool(spec.environment) and not start.build))
    # A job may submit others: what tells it of its own place is not told to them.
    env = {name: value for name, value in base_env.items() if not name.startswith(SLOT)}
    env.update(_devices(start))
    env.update(spec.env)
    env.update(_slot_variables(start))
    env["CLOUDSEND_RUN"] = run
    env["CLOUDSEND_JOB"] = spec.name
    parsed = parse_attempt_id(start.attempt)
    if parsed is not None:
        env["CLOUDSEND_ATTEMPT_NUMBER"] = str(parsed[2])
    wire: Json = {
        "id": start.attempt,
        "argv": argv,
        "env": env,
        "secrets": {name: secrets[name] for name in spec.secrets if name in secrets},
        "cwd": spec.workdir or None,
        "cpus": spec.resources.cpus,
        "memory": spec.resources.memory,
        "gpus": spec.resources.gpus,
        "slots": list(spec.slots),
        "environment": spec.environment or None,
        "files": [*map(_render_file, spec.uploads), *(_render_file(u, f"{RESUME_DIR}/") for u in start.resume)],
        "private_files": spec.private_uploads,
        "outputs": [{"pattern": o.pattern, "optional": o.optional} for o in spec.outputs],
        "timeout": spec.timeout,
        "grace": spec.grace,
        "kind": "build" if start.build else "job",
        "keep_children": False,
    }
    if start.resume:
        wire["resume_dir"] = RESUME_DIR
    if spec.on_preempt:
        wire["on_preempt"] = spec.on_preempt
    if about_run:
        wire["about"] = render_about(spec, about_run)
    return wire


def render_slot(pairs: Slot) -> tuple[str, ...]:
    """The arguments that tell a command its place; a value without a name stands alone."""
    return tuple(word for name, value in pairs for word in ((name, value) if name else (value,)))


def _slot_variables(start: AttemptStart) -> dict[str, str]:
    if start.slot < 0:
        return {}
    named = ((re.sub("[^A-Z0-9_]", "_", name.lstrip("-").upper()), value) for name, value in start.pairs)
    return {SLOT: str(start.slot), **{f"{SLOT}_{name}": value for name, value in named if name}}


def _devices(start: AttemptStart) -> dict[str, str]:
    """A job that asks the host for GPUs is told by the host which ones."""
    told = [value for name, value in start.pairs if name in DEVICES]
    return {"CUDA_VISIBLE_DEVICES": told[-1]} if told and not start.spec.resources.gpus else {}


def _render_file(upload: Upload, below: str = "") -> Json:
    return {"path": below + upload.path, "sha256": upload.sha256, "mode": upload.mode}


def render_about(spec: JobSpec, about_run: Mapping[str, object]) -> Json:
    """The run and the job in the client's own words, opaque to the host. Long lists of files are left out."""
    about: Json = {**about_run, "name": spec.name, "hash": job_hash(spec)}
    plain = {k: v for k, v in asdict(spec).items() if k != "secrets"}
    return next(
        (
            a
            for a in ({**about, "spec": plain}, {**about, "spec": {**plain, "uploads": []}})
            if wire_size(a) < MOST_ABOUT
        ),
        about,
    )


MOST_ABOUT = 8000


def wire_size(wire: Json) -> int:
    """How many bytes of a frame this attempt takes."""
    return len(json.dumps(wire)) + 2


def split_frames(wires: list[Json]) -> list[list[Json]]:
    """Attempts in frames of a size that the agent takes."""
    frames: list[list[Json]] = []
    room = 0
    for wire in wires:
        size = wire_size(wire)
        if size > room:
            frames.append([])
            room = REQUEST_MOST
        frames[-1].append(wire)
        room -= size
    return frames


def parse_status(wire: object) -> AttemptStatus:
    """What a host says of an attempt. Words and shapes that we do not know become harmless, never an exception."""
    if not isinstance(wire, dict):
        return AttemptStatus("unknown")
    state = wire.get("state")
    missing = wire.get("missing")
    utime, stime = _amount(wire.get("utime")), _amount(wire.get("stime"))
    return AttemptStatus(
        state=state if isinstance(state, str) and state in STATES else "unknown",
        started=_time(wire.get("started")),
        ended=_time(wire.get("ended")),
        exit_code=_whole(wire.get("exit_code"), least=-WHOLE_MOST),
        signal=_whole(wire.get("signal")) or None,
        cause=clip(wire["cause"]) if isinstance(wire.get("cause"), str) else "",
        missing=tuple(_missing(missing)) if isinstance(missing, list) else (),
        maxrss=_whole(wire.get("maxrss")),
        cpu_seconds=None if utime is None or stime is None else utime + stime,
        disk_full=wire.get("disk_full") is True,
    )


def _missing(names: list[object]) -> list[str]:
    texts = [clip(name) for name in names[:MISSING_MOST] if isinstance(name, str)]
    return texts + [f"and {len(names) - MISSING_MOST:,} more"] * (len(names) > MISSING_MOST)


def clip(text: str, most: int = TEXT_MOST) -> str:
    """A machine's words, not longer than a person reads."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def parse_boot(wire: object) -> str:
    return clip(wire) if isinstance(wire, str) else ""


def parse_resources(wire: object) -> Resources | None:
    if not isinstance(wire, dict):
        return None
    cpus, memory, gpus = _amount(wire.get("cpus")), _whole(wire.get("memory")), _whole(wire.get("gpus"))
    if cpus is None:
        return None
    return Resources(min(cpus, CPUS_MOST), memory or 0, min(gpus or 0, GPUS_MOST))


def parse_vitals(wire: Mapping[str, object]) -> Vitals:
    others = _whole(wire.get("others")) or 0
    warning = LOGOUT_WARNING if wire.get("survives_logout") is False else ""
    free = parse_resources(wire.get("free"))
    held = next((text for name, text in HOLDS.items() if wire.get(name) is True), "")
    return Vitals(_amount(wire.get("load")), _whole(wire.get("disk_free")), others, warning, free, held)


def take_rented(view: HostView, wire: Mapping[str, object]) -> HostView:
    """The view with what a rented machine says of its own end; others say nothing."""
    told = wire.get("rented")
    rented = told if isinstance(told, dict) else {}
    armed, leaving = rented.get("armed") is True, isinstance(rented.get("notice"), dict)
    leased = _amount(rented.get("lease")) is not None
    action = rented["notice"].get("action") if leaving else None
    outlives = action if isinstance(action, str) and action in LIFETIMES.values() else ""
    if (armed, leaving, outlives, leased) == (view.armed, view.leaving, view.outlives, view.leased):
        return view
    return replace(view, armed=armed, leaving=leaving, outlives=outlives, leased=leased)


def _amount(value: object) -> float | None:
    """A number from 0 on. JSON as Python reads it knows NaN, infinities, and integers that are no float."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < WHOLE_MOST else None


def _time(value: object) -> float | None:
    number = _amount(value)
    return number if number is not None and number < TIME_MOST else None


def _whole(value: object, least: int = 0) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and least <= value < WHOLE_MOST else None  # type: ignore[operator,return-value]

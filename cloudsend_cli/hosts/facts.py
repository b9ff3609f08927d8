"""What is asked of a machine before it is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .stage_talk import StageTalk

CLOCK_ROUNDS = 3
TEXT_LIMIT = 200


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A machine's own words, but for the last three, which were measured from here."""

    python: str
    executable: str
    hostname: str
    user: str
    os: str
    boot: str
    cpus: float
    memory: int  # bytes
    gpus: int
    load: float  # of the last minute
    home: str  # the agent's directory, which need not exist
    disk_free: int  # bytes there
    connect_ms: float
    round_trip_ms: float
    clock_offset: float  # seconds that its clock is ahead of ours, to within half a round trip


def ask_facts(talk: StageTalk, home: str, connect_ms: float) -> HostFacts:
    talk.begin({"verb": "probe", "home": home})
    told = talk.next_word().get("facts")
    facts: dict[str, Any] = told if isinstance(told, dict) else {}
    round_trip, offset = _measure_clock(talk, time.time, time.monotonic)
    return HostFacts(
        python=_text(facts.get("python")),
        executable=_text(facts.get("executable")),
        hostname=_text(facts.get("hostname")),
        user=_text(facts.get("user")),
        os=_text(facts.get("os")),
        boot=_text(facts.get("boot")),
        cpus=_number(facts.get("cpus")),
        memory=int(_number(facts.get("memory"))),
        gpus=int(_number(facts.get("gpus"))),
        load=_number(facts.get("load")),
        home=_text(facts.get("home")),
        disk_free=int(_number(facts.get("disk_free"))),
        connect_ms=connect_ms,
        round_trip_ms=round_trip * 1000,
        clock_offset=offset,
    )


def _measure_clock(talk: StageTalk, clock: Callable[[], float], monotonic: Callable[[], float]) -> tuple[float, float]:
    """(round trip, offset) of the quickest of a few questions: its answer is the least uncertain."""
    rounds = []
    for _ in range(CLOCK_ROUNDS):
        before, began = clock(), monotonic()
        talk.ask(b"time")
        theirs = _number(talk.next_word().get("time"))
        took = monotonic() - began
        rounds.append((took, theirs - (before + took / 2)))
    return min(rounds)


def _text(value: object) -> str:
    shown = value if isinstance(value, str) else ""
    return "".join(c if c.isprintable() else "?" for c in shown)[:TEXT_LIMIT]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0

"""What the maestro answers, as data. Fields that are missing or odd become "unknown", never an exception."""

from __future__ import annotations

from dataclasses import asdict

from cloudsend_cli.core.model import HostView, Resources, Vitals
from cloudsend_cli.core.views import Progress


def render_view(view: HostView, vitals: Vitals) -> dict[str, object]:
    resources = view.resources
    return {
        **asdict(vitals),
        "connected": view.connected,
        "boot": view.boot,
        "since": view.since,
        "error": view.error,
        "error_code": view.error_code,
        "full": view.full,
        "leaving": view.leaving,
        "outlives": view.outlives,
        "armed": view.armed,
        "resources": [resources.cpus, resources.memory, resources.gpus] if resources else None,
    }


def parse_view(wire: object) -> HostView:
    if not isinstance(wire, dict):
        return HostView(connected=False)
    resources = wire.get("resources")
    return HostView(
        connected=wire.get("connected") is True,
        boot=str(wire.get("boot", "")),
        since=float(wire.get("since") or 0.0),
        resources=Resources(*resources) if isinstance(resources, list) else None,
        error=str(wire.get("error", "")),
        error_code=str(wire.get("error_code", "")),
        vitals=_parse_vitals(wire),
        full=wire.get("full") is True,
        leaving=wire.get("leaving") is True,
        outlives=str(wire.get("outlives", "")),
        armed=wire.get("armed") is True,
    )


def _parse_vitals(wire: dict[str, object]) -> Vitals:
    load, disk, others, free = wire.get("load"), wire.get("disk_free"), wire.get("others"), wire.get("free")
    return Vitals(
        float(load) if isinstance(load, (int, float)) else None,
        disk if isinstance(disk, int) else None,
        others if isinstance(others, int) else 0,
        str(wire.get("warning", "")),
        Resources(**free) if isinstance(free, dict) else None,
        str(wire.get("held", "")),
    )


def parse_progress(wire: object) -> Progress | None:
    return Progress(**wire) if isinstance(wire, dict) else None

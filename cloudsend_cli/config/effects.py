"""Which keys do something, and where: a key that is accepted and does nothing is told with the reason."""

from __future__ import annotations

from .check import Report
from .given import Values

RENTED_TYPES = frozenset({"aws"})
PLACES = ("region", "zone", "vpc", "subnet")
PARTS = ("type", "image", "user", "disk", "disk_type")
MONEY = ("spot", "eco_life", "max_price", "explode", "idle", "life")
RENTING = frozenset({*PLACES, *PARTS, *MONEY})
RENTING_RUN = (
    "profile",
    "dev",
    "auto_stop",
    "budget",
)  # keys of the top level that only machines that cost money heed

# What is accepted and checked but does nothing in this version: (table, key) -> why. Remove a row with its reason.
NO_EFFECT_YET: dict[tuple[str, str], str] = {
    ("", "debug"): "use the command line's options",
    ("", "maestro"): "other maestros come in a later version; this machine watches the run",
    ("", "print_deploy"): "the log of an environment is always kept",
    ("", "notify"): "notices come in a later version",
}
# Values that ask for what happens anyway: no warning.
HARMLESS: dict[tuple[str, str], object] = {
    ("", "dev"): False,
    ("", "auto_stop"): True,
    ("", "debug"): 1,
    ("", "maestro"): "local",
    ("", "print_deploy"): False,
    ("instances", "spot"): False,
    ("instances", "explode"): False,
    ("instances", "labels"): [],
}


def warn_no_effect(report: Report, values: Values, where: str) -> None:
    """A warning for each key that does nothing in this version."""
    for name in values:
        reason = NO_EFFECT_YET.get((where, name))
        if reason is not None:
            _warn(report, values, where, name, f"no effect yet: {reason}")


def warn_wrong_type(report: Report, values: Values, kind: str) -> None:
    """A warning for each key of one of `instances` that means nothing for machines of this type."""
    for name in values:
        if name in RENTING and kind not in RENTED_TYPES:
            what = f"no effect: machines of type {kind!r} are not rented"
            _warn(report, values, "instances", name, what, "provider: aws rents machines")
        elif name == "labels" and kind != "ssh":
            _warn(report, values, "instances", name, f"no effect: machines of type {kind!r} have no labels")


def warn_nothing_rented(report: Report, top: Values) -> None:
    """A warning for each key of the top level that only rented machines heed, in a run that has none."""
    for name in RENTING_RUN:
        if name in top:
            _warn(report, top, "", name, "no effect: this run rents no machines")


def _warn(report: Report, values: Values, where: str, name: str, what: str, hint: str = "") -> None:
    given = values[name]
    if given.value is not None and HARMLESS.get((where, name), values) != given.value:
        report.warn(f"{given.path} has {what}", given.key.place, hint, given.path)

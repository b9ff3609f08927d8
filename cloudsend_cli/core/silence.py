"""What to say of a machine that does not answer, or that answers and refuses. Pure."""

from __future__ import annotations

from datetime import datetime, timezone

from .model import HostView

# What a machine answers that will not change by itself: a job is given to another one rather than made to wait.
REFUSALS = frozenset({"auth", "host-key", "unfit"})
REFUSED = "refused: "  # begins the reason of a node that is left out for it
UNANSWERED = "never reached: "  # ... and of one whose machines, one after another, never answered
SHORT_LIVED = "too short a life: "  # ... and of one whose machines, one after another, ended before a job began
DENIED = "denied"  # ... of one that the account's credentials or permissions do not allow, and of the jobs then
TAKEN = "capacity"
SILENT = "unreachable"


def describe_silence(node: str, view: HostView) -> str:
    """Such as `no answer since 09:14:03Z: timed out`, or what the machine says, with the way out."""
    if view.error_code in REFUSALS:
        return f"{view.error or 'it refuses'}; {way_out(node)}"
    if view.error_code == TAKEN:
        return f"{view.error}; waiting"
    if not view.since:
        return "connecting"
    return f"no answer since {clock(view.since)}" + (f": {view.error}" if view.error else "")


def describe_unanswered(count: int, provider: str) -> str:
    """What keeps machines that run from being reached is in what they were all asked for with."""
    return (
        f"{UNANSWERED}{count} machines in a row did not answer; look at the security group "
        f"(`cloudsend check -p {provider} --fix`), at the subnet's route, and at the user of the image"
    )


def describe_short_lived(count: int, setting: str) -> str:
    longer = f"a longer {f'`{setting}`' if setting else '`life` or `eco_life`'} under `instances`"
    write = "a larger `budget`" if setting == "budget" else longer
    return f"{SHORT_LIVED}the time of {count} machines in a row was over before a job began there; write {write}"


def way_out(node: str) -> str:
    return f"`cloudsend check {node}` says what to do"


def clock(seconds: float) -> str:
    """The time of day, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M:%SZ")

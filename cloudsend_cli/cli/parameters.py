"""Arguments and options that several commands take, numbers on the command line, and questions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from cloudsend_cli.errors import UsageError

from .sanitise import untrusted

if TYPE_CHECKING:
    from .session import Session

Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Its id, name (the newest so called), glob (in the newest run that fits), hash, unique prefix, or @last: "
        "the newest job of the run that was submitted last, new or continued.",
    ),
]
Jobs = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB…",
        help="Ids, names (the newest so called), globs (in the newest run that fits), hashes, prefixes, or @last: "
        "the newest job of the run that was submitted last, new or continued.",
    ),
]
JobOrRun = Annotated[str, typer.Argument(metavar="JOB|RUN", help="A job or a run.")]
JobsOrRuns = Annotated[list[str], typer.Argument(metavar="JOB|RUN…", help="Jobs or runs.")]
RUN_HELP = "Its id, any unique prefix, or @last: the one that was submitted last, new or continued."
Run = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)]
Instance = Annotated[str, typer.Argument(metavar="INSTANCE", help="Its name or id.")]
Instances = Annotated[list[str], typer.Argument(metavar="INSTANCE…", help="Their names or ids.")]
Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="Its name.")]
Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML, JSON or Python file.")]

OfRun = Annotated[
    str | None, typer.Option("--run", "-r", metavar="RUN", help="Only of this run; @last: the one submitted last.")
]
OfProvider = Annotated[str | None, typer.Option("--provider", "-p", metavar="P", help="Only of this provider.")]
OfState = Annotated[
    list[str] | None,
    typer.Option("--state", "-s", metavar="S", help="Only in this state: pending, running, failed, DONE, …"),
]
Most = Annotated[str | None, typer.Option("--limit", "-n", metavar="N", help="The newest N.")]

UseProvider = Annotated[str | None, typer.Option("--provider", "-p", metavar="P", help="Where to run.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one value of the config; may be repeated."),
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without a question.")]


def whole_number(text: str | None, option: str, *, least: int = 0) -> int | None:
    """The value of an option that counts something."""
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(f"option '{option}' needs a whole number from {least}, not '{text}'")
    return number


def seconds(text: str | None, option: str) -> float | None:
    """The value of an option that is a time: `90`, `1.5`, `90s`, `5m`, `2h`, `1d`."""
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    unit = units.get(text[-1:], 0.0)
    try:
        number = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        number = math.nan
    if not (0 <= number < math.inf):
        raise UsageError(f"option '{option}' needs seconds or a time such as 90s, 5m or 2h, not '{text}'")
    return number


def confirm(session: Session, question: str, *, default: bool) -> bool:
    """A question on stderr; stdout stays for data."""
    session.screen.out.flush()
    return typer.confirm(untrusted(question), default=default, err=True)

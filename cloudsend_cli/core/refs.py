"""What a user's word for a job or a run can mean. Pure: looking things up is the caller's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from cloudsend_cli.errors import NotFoundError

_NUMBERED = re.compile(r"(?P<run>[a-z0-9]{1,6})\.(?P<number>[0-9]{1,9})(?:\.(?P<attempt>[0-9]{1,9}))?")
_HASH = re.compile(r"[0-9a-f]{4,32}")


@dataclass(frozen=True, slots=True)
class JobRef:
    """A word taken apart. Every reading that is possible is filled in."""

    text: str
    run: str = ""
    number: int = 0
    last: bool = False
    pattern: bool = False
    maybe_hash: bool = False


def parse_job_ref(text: str) -> JobRef:
    """`RUN.N` (or `RUN.N.A`, the attempt's uid), `@last`, a glob, a name, or the beginning of a hash."""
    if text == "@last":
        return JobRef(text, last=True)
    numbered = _NUMBERED.fullmatch(text)
    if numbered is not None:
        return JobRef(text, run=numbered["run"], number=int(numbered["number"]))
    return JobRef(text, pattern=any(c in text for c in "*?["), maybe_hash=_HASH.fullmatch(text) is not None)


def not_found(kind: str, text: str, known: list[str]) -> NotFoundError:
    """An error that names near matches."""
    near = get_close_matches(text, list(dict.fromkeys(known)), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"`cloudsend list {kind}s` shows what there is"
    return NotFoundError(f"no {kind} {text!r}", hint=hint)

"""What tables show, read without loading a run."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from cloudsend_cli.core.state import RunRecord

from .rows import Row, decode_more, unpack


class JobRow(NamedTuple):
    """One job as tables show it, read without loading its run."""

    run: str
    number: int
    name: str
    hash: str
    display: str
    params_json: str
    environment: str
    provider: str
    instance_id: str
    created_at: float
    state: str
    reason: str
    exit_code: int | None
    attempt: int
    node: str
    boot: str
    after_json: str
    not_before: float
    handed_at: float | None
    started_at: float | None
    ended_at: float | None
    cancel: int
    fetch: str
    superseded_by: int
    batch: int
    maxrss: int | None
    cpu_seconds: float | None
    more_json: str

    @property
    def more(self) -> dict[str, Any]:
        """The fields of rows.MORE that are not as they are without a word."""
        return decode_more(self.more_json)

    @property
    def params(self) -> dict[str, str]:
        return dict(json.loads(self.params_json)) if self.params_json else {}

    @property
    def after(self) -> tuple[int, ...]:
        return tuple(json.loads(self.after_json)) if self.after_json else ()


class RunRow(NamedTuple):
    """One run with its jobs counted by state, superseded ones left out."""

    run: RunRecord
    counts: dict[str, int]
    queued: int = 0  # of those that are running: handed over, and not begun


class AttemptRow(NamedTuple):
    """An attempt that a later one, or the user's reopening, has left behind."""

    attempt: int
    state: str
    reason: str
    exit_code: int | None
    node: str
    handed_at: float | None
    started_at: float | None
    ended_at: float | None
    maxrss: int | None
    cpu_seconds: float | None


class EventRow(NamedTuple):
    """One line of the audit trail."""

    seq: int
    at: float
    actor: str
    kind: str
    subject: str
    text: str


def readable(row: Row) -> Row:
    """A row with its packed text unpacked."""
    return tuple(unpack(v) if isinstance(v, str) else v for v in row)


def job_row(row: Row) -> JobRow:
    """Almost never is anything packed, and never in a column alone that is not looked at here."""
    if "\0" in row[2] or "\0" in row[4] or "\0" in row[11] or "\0" in row[14] or "\0" in row[22]:
        row = readable(row)
    return JobRow._make(row)

"""Changed copies are those of the standard library, which takes longer."""

from __future__ import annotations

import dataclasses

import pytest

from cloudsend_cli.core.model import AttemptStatus, HostView, JobSpec, Resources
from cloudsend_cli.core.records import replace
from cloudsend_cli.core.state import BuildRecord, JobRecord, NodeRecord, RentalRecord, RunRecord

RECORDS = [
    JobRecord(1, JobSpec("a", ("x",), "x"), "h", 1.0),
    NodeRecord("n", "p", Resources(), "{}"),
    BuildRecord("n", "k"),
    RentalRecord("r", "i", "n", "p", 1.0, 2.0),
    RunRecord("abc123", "p", "/c.yml", 1.0),
    JobSpec("a", ("x",), "x"),
    AttemptStatus("queued"),
    HostView(True),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_each_field_can_be_another(record: JobRecord) -> None:
    before = dataclasses.astuple(record)
    for field in dataclasses.fields(record):
        other = object()
        changed = replace(record, **{field.name: other})  # type: ignore[arg-type]
        assert type(changed) is type(record) and getattr(changed, field.name) is other
        rest = [f.name for f in dataclasses.fields(record) if f != field]
        assert all(getattr(changed, name) is getattr(record, name) for name in rest)
    assert replace(record) == record == dataclasses.replace(record) and replace(record) is not record
    assert dataclasses.astuple(record) == before


def test_a_copy_is_as_frozen_as_the_record() -> None:
    copy = replace(RECORDS[0], attempt=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        copy.attempt = 3


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(KeyError, match="color"):
        replace(RECORDS[0], color=1)  # type: ignore[call-arg]

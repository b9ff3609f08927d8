"""Notes of what machines cost that belong to no run, in `<state directory>/paid`: their provider forgets them soon.

Commands that ask for machines bring them up to date. What cannot be written is left out: it is no reason to fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from cloudsend_cli.core.model import Rented
from cloudsend_cli.core.paid import Paid, Period, lose_machine, see_machine

FOLDER = "paid"
KEPT_FOR = 60 * 86400.0  # seconds after its end for which a machine is told of
_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")


def open_bill(state_dir: Path, machine: Rented, name: str) -> None:
    """From now on its times are noted. `name`: what users call it."""
    known = list_bills(state_dir).get(machine.instance_id)
    bill = known or Paid(machine.instance_id, machine.provider, name)
    _write(state_dir, see_machine(bill, machine, time.time()))


def note_use(state_dir: Path, instance_id: str) -> None:
    """Somebody has worked there until now: it was not idle."""
    bill = list_bills(state_dir).get(instance_id)
    if bill is not None and bill.until is None:
        _write(state_dir, replace(bill, seen=time.time()))


def note_machines(state_dir: Path, provider: str, machines: Iterable[Rented]) -> None:
    """`machines`: all that the provider shows. Others of it are gone."""
    bills = list_bills(state_dir)
    shown = {machine.instance_id: machine for machine in machines} if bills else {}
    for bill in bills.values():
        machine = shown.get(bill.instance_id)
        if machine is not None:
            seen = see_machine(bill, machine, time.time())
        else:
            seen = lose_machine(bill) if bill.provider == provider else bill
        if seen.periods != bill.periods or (machine is not None and bill.until is None):
            _write(state_dir, seen)


def list_bills(state_dir: Path) -> dict[str, Paid]:
    """By the machine's id, the oldest first. What cannot be read is left alone; what ended long ago is removed."""
    found = []
    for path in (state_dir / FOLDER).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            words = json.loads(path.read_text("utf-8"))
            bill = Paid(**{**words, "periods": tuple(Period(**period) for period in words["periods"])})
            if bill.until is not None and time.time() - bill.until > KEPT_FOR:
                path.unlink()
            else:
                found.append(bill)
    return {bill.instance_id: bill for bill in sorted(found, key=lambda bill: bill.since or 0.0)}


def _write(state_dir: Path, bill: Paid) -> None:
    if not _NAME.fullmatch(bill.instance_id):
        return
    folder = state_dir / FOLDER
    temporary = folder / f".{bill.instance_id}-{secrets.token_hex(6)}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(asdict(bill), file)
        os.replace(temporary, folder / f"{bill.instance_id}.json")

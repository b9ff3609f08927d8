"""Commands about accounts and what was left over, on a provider that rents without a cloud."""

from __future__ import annotations

import json
from pathlib import Path

from json_schema import check
from rented_machines import Ask, Line, put_run

from cloudsend_cli.core.model import Finding, Leftover
from cloudsend_cli.core.renting import KEPT
from cloudsend_cli.errors import AuthError, UnreachableError
from cloudsend_cli.testing.fake_renter import REGION, REQUESTS, FakeRenter


def test_nothing_is_asked_where_nothing_was_ever_rented(line: Line, renter: FakeRenter, state_dir: Path) -> None:
    (state_dir / "aws" / "regions").unlink()
    assert line("list", "instances") == (0, "", "no instances\n")
    for words in (("gc",), ("gc", "--yes")):
        _, _, err = line(*words)
        assert err.startswith("nothing was ever rented with this state directory; what one that is gone has left")
        assert err.count("\n") == 1 and "Name=key,Values=cloudsend:owner" in err
    assert line("cost")[2] == "no runs that rented anything\n"
    assert renter.calls == []


def test_gc_shows_first_and_removes_when_told(line: Line, data: Ask, renter: FakeRenter, state_dir: Path) -> None:
    put_run(state_dir, renter, ended=True)
    renter.create_instance(KEPT, "aws-abc", 1, "t", REQUESTS[0])
    renter.leftovers = {
        "vol-1": Leftover("aws", "volume", "vol-1", REGION, "no machine uses it", price=0.003),
        "vol-2": Leftover("aws", "volume", "vol-2", REGION, "i-2 uses it", removable=False),
        "sg-1": Leftover("aws", "group", "sg-1", REGION, "made again"),
    }
    found = data("gc")
    check(found, "leftovers")
    assert [(one["kind"], one["id"]) for one in found] == [("machine", "i-1"), ("volume", "vol-1")]
    status, out, err = line("gc")
    assert status == 0 and "run rtest1 has ended" in out
    assert "2 things left over, $0.0230/h together; nothing was removed" in err
    assert "2 things of machines that are there" in err
    assert "1 machine waits for a run" in err
    assert len(renter.alive) == 2
    renter.refusals["remove"] = [AuthError("you may not")]
    status, out, err = line("gc", "--yes")
    assert status == 4
    assert "machine i-1 small spot in here-1: removed" in out
    assert "volume vol-1 in here-1: failed: you may not" in out
    assert "1 thing removed, which cost $0.0200/h; 1 left" in err
    assert [one["outcome"] for one in data("gc", "--yes")] == ["removed"]
    assert "nothing is left over" in line("gc", "--yes")[2]
    assert [machine.node for machine in renter.alive] == ["aws-abc"]


def test_gc_leaves_what_is_young_and_what_runs_use(line: Line, renter: FakeRenter, state_dir: Path) -> None:
    put_run(state_dir, renter)
    renter.create_instance("rlost1", "aws-0", 1, "t", REQUESTS[0])
    status, out, err = line("gc", "--yes")
    assert (status, out) == (0, "")
    assert "younger than 10 minutes" in err
    assert len(renter.alive) == 2


def test_an_account_is_checked_and_mended(line: Line, data: Ask, renter: FakeRenter) -> None:
    renter.findings = [
        Finding("credentials", True, "arn:aws:iam::1:user/me"),
        Finding("firewall", False, "the group is open to another address", "cloudsend check --fix", "auth"),
    ]
    status, out, _ = line("check", "-p", "aws")
    assert status == 4
    assert "help: cloudsend check --fix" in out
    views = data("check", "-p", "aws", "--fix")
    check(views, "checks")
    assert all(view["ok"] for view in views)
    renter.refusals["check"] = [UnreachableError("no route", hint="is the network up?")]
    assert line("check", "-p", "aws")[0] == 6
    assert "aws" not in line("check")[1]  # nobody has named it


def test_the_policy(line: Line) -> None:
    status, out, _ = line("aws", "policy")
    assert status == 0
    assert json.loads(out)["Statement"]

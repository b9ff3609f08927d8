"""Commands that rent machines, use them and give them back, on a provider that rents without a cloud."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from json_schema import check
from rented_machines import Ask, Line, put_run

from cloudsend_cli.api.money import Kept
from cloudsend_cli.cli.leaving import going_on_text
from cloudsend_cli.core.renting import KEPT
from cloudsend_cli.core.state import Changes
from cloudsend_cli.errors import AuthError, CapacityError, QuotaError, UnreachableError
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.testing.fake_renter import REGION, REQUESTS, FakeRenter


def test_a_job_whose_machine_ended_with_its_results_says_so(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    put_run(state_dir, renter)
    steps: tuple[dict[str, Any], ...] = (
        {"state": "running", "attempt": 1, "node": "aws-0", "started_at": 5.0},
        {"state": "pending", "reason": "retry after lost: the machine was shut down from within", "started_at": None},
        {"state": "running", "attempt": 2, "reason": "", "started_at": 9.0},
    )
    with SqliteStore.open(state_dir) as store:
        for step in steps:
            store.write_run("rtest1", lambda state, s=step: Changes(jobs={2: replace(state.jobs[2], **s)}))
    lost = "  - attempt 1 was lost with its machine aws-0, which was shut down from within: "
    for words in ("info job report", "explain report"):
        _, out, _ = line(*words.split())
        assert lost in out and "give machines a longer `idle`" in out
    reasons = data("explain", "report")["reasons"]
    assert [text.partition(" was")[0] for text in reasons[:2]] == ["attempt 2 on aws-0", "attempt 1"]
    assert "lost with" not in line("info", "job", "train")[1]


def test_a_machine_is_rented_waited_for_and_given_back(line: Line, data: Ask, renter: FakeRenter) -> None:
    view = data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")
    check(view, "instance")
    assert (view["instance_id"], view["state"], view["price_per_hour"]) == ("i-1", "kept", 0.02)
    assert ("create", view["name"]) in renter.calls
    assert view["idle_seconds"] == 600
    assert ("keep", "i-1") in renter.calls  # from now on a run of its project may take it
    (done,) = data("terminate", "instance", view["name"])
    check([done], "released")
    assert (done["rented"], done["released"]) == (True, True)
    assert renter.alive == []
    assert line("terminate", "instance", "i-1")[1] == f"{view['name']} (i-1) has ended already\n"


def test_one_machine_is_created_at_a_time(line: Line, renter: FakeRenter) -> None:
    """Seen: `--set number=3` made one, and said nothing."""
    for words in ("number=3", "count=3"):
        status, _, err = line("create", "instance", "-p", "aws", "--set", "region=eu-west-3", "--set", words)
        assert status == 2
        assert "these settings ask for 3 machines, and one is created at a time" in err
    assert renter.machines == {}
    words = ["create", "instance", "-p", "aws", "--set", "region=eu-west-3", "--set", "number=1"]
    assert line(*words)[0] == 0


def test_what_becomes_of_machines_whose_jobs_end_slowly() -> None:
    assert going_on_text(Kept(ending=2)) == "2 machines are given back once the jobs have ended"
    assert going_on_text(Kept(seconds=600.0, ending=1)) == (
        "once the jobs have ended, 1 machine waits 10m00s for the next run of this project; "
        "`cloudsend terminate instance --all` ends it then"
    )


def test_what_is_wanted_is_noted_before_it_is_asked_for(data: Ask, renter: FakeRenter, state_dir: Path) -> None:
    noted: list[str] = []

    def clock() -> float:
        noted.extend(path.stem for path in (state_dir / "aws" / "created").glob("*.json"))
        return time.time()

    renter.clock = clock  # it is looked at when a machine is made
    view = data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")
    assert noted[0] == view["name"]
    assert ((state_dir / "aws" / "created" / f"{view['name']}.json").stat().st_mode & 0o777) == 0o600


def test_an_interrupted_create_is_gone_on_with(line: Line, data: Ask, renter: FakeRenter) -> None:
    words = ("create", "instance", "-p", "aws", "--set", "region=eu-west-3")
    renter.refusals["list"] = [KeyboardInterrupt()]  # type: ignore[list-item] # while it is waited for
    status, _, err = line(*words)
    assert status == 130
    assert "the same command waits for it" in err
    assert data(*words)["instance_id"] == "i-1"
    assert data(*words)["instance_id"] == "i-2"  # that one is there: this is another


def test_a_request_without_an_answer_is_repeated(data: Ask, renter: FakeRenter) -> None:
    lost = UnreachableError("no answer")
    lost.retry_after = 0.01
    renter.refusals["create"] = [lost]
    data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")
    assert [verb for verb, _ in renter.calls if verb == "create"] == ["create", "create"]
    assert len(renter.machines) == 1


def test_what_is_short_is_passed_over_and_a_limit_is_not_asked_twice(
    line: Line, data: Ask, renter: FakeRenter
) -> None:
    renter.refusals["create"] = [CapacityError("none of small is free")]
    assert data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")["place"] == REGION
    assert renter.machines["i-1"].request == REQUESTS[1]
    renter.refusals["create"] = [QuotaError("your limit is 0", hint="ask for more"), CapacityError("no large either")]
    status, _, err = line("create", "instance", "-p", "aws", "--set", "region=eu-west-3", "--set", "idle=1h")
    assert status == 5
    assert "your limit is 0" in err and "no large either" in err
    assert len(renter.machines) == 1


def test_credentials_that_do_not_serve(line: Line, renter: FakeRenter) -> None:
    renter.refusals["create"] = [AuthError("the token has expired", hint="aws sso login")]
    status, _, err = line("create", "instance", "-p", "aws", "--set", "region=eu-west-3")
    assert status == 4
    assert err.endswith("error: the token has expired\n  help: aws sso login\n")


def test_what_a_run_uses_is_not_ended_by_mistake(line: Line, data: Ask, renter: FakeRenter, state_dir: Path) -> None:
    put_run(state_dir, renter)
    for words in (("terminate", "instance", "aws-0"), ("stop", "instance", "aws-0"), ("stop", "instance", "i-1")):
        status, _, err = line(*words)
        assert status == 2
        assert "in use by run rtest1" in err and "--force" in err
    assert data("terminate", "instance", "--all", "--yes") == []
    assert renter.alive
    (done,) = data("terminate", "instance", "aws-0", "--force")
    assert done["instance_id"] == "i-1"
    assert renter.alive == []


def test_two_machines_of_one_name_are_not_confused(line: Line, renter: FakeRenter, state_dir: Path) -> None:
    put_run(state_dir, renter, "rtest1")
    put_run(state_dir, renter, "rtest2")
    status, _, err = line("terminate", "instance", "aws-0", "--force")
    assert status == 2
    assert "rtest1/aws-0" in err and "rtest2/aws-0" in err
    assert line("terminate", "instance", "rtest2/aws-0", "--force")[0] == 0
    assert [machine.id for machine in renter.alive] == ["i-1"]


def test_all_are_given_back_only_when_asked_for(line: Line, data: Ask, renter: FakeRenter, state_dir: Path) -> None:
    for number in range(3):
        renter.create_instance(KEPT, f"aws-a{number}", 1, f"t{number}", REQUESTS[0])
    status, _, err = line("terminate", "instance", "--all")
    assert status == 2
    assert "3 machines would end with all that is on them; nothing was ended" in err
    renter.refusals["terminate"] = [AuthError("you may not", hint="ask your administrator")]
    status, out, err = line("terminate", "instance", "--all", "--yes")
    assert status == 4
    assert (
        len(re.findall(r"^aws-a\d \(i-\d\) ends; it has cost \S+, and was \$0\.0200/h$", out, re.MULTILINE)) == 2
    )  # one that cannot be ended does not keep the others
    assert "ask your administrator" in err
    assert line("terminate", "instance", "aws-a0", "--all")[0] == 2
    assert line("terminate", "instance")[0] == 2


def test_long_words_of_a_provider_are_cut_in_tables_alone(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    put_run(state_dir, renter)
    words = "AWS would not do it: " + "because of this and that " * 20 + "END"
    with SqliteStore.open(state_dir) as store:
        store.write_run("rtest1", lambda state: Changes(nodes={"aws-0": replace(state.nodes["aws-0"], reason=words)}))
    assert "AWS would not" in line("list", "instances")[1] and "END" not in line("list", "instances")[1]
    assert "END" in line("list", "instances", "-o", "wide")[1]
    assert data("list", "instances")[0]["remark"] == words
    assert "END" in line("info", "instance", "aws-0")[1]


def test_power(line: Line, data: Ask, renter: FakeRenter) -> None:
    renter.create_instance(KEPT, "aws-abc", 1, "t", REQUESTS[2])
    (stopped,) = data("stop", "instance", "aws-abc")
    assert stopped["state"] == "stopped"
    assert line("list", "instances")[2] == "nothing that is rented runs now\n"
    assert line("ssh", "aws-abc", "--", "true")[0] == 6
    (started,) = data("start", "instance", "aws-abc")
    assert started["state"] == "kept"
    assert line("stop", "job", "x")[0] == 3  # as `kill job`


def test_the_console(line: Line, data: Ask, renter: FakeRenter) -> None:
    renter.create_instance(KEPT, "aws-abc", 1, "t", REQUESTS[0])
    renter.console = "booting\n\x1b[31mno init found\n"
    assert line("info", "instance", "aws-abc")[1].count("booting") == 0
    assert line("info", "instance", "aws-abc", "--console")[1].endswith("console:\n  | booting\n  | no init found\n")
    assert "booting" in data("info", "instance", "aws-abc", "--console")["console"]
    renter.machines["i-1"].state = "pending"
    renter.machines["i-1"].launched_at -= 300
    assert "booting" in line("info", "instance", "aws-abc")[1]  # it never came up

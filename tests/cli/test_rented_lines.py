"""Commands about rented machines, on a provider that rents without a cloud and a state directory that is real."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from json_schema import check

from cloudsend_cli.api import Client
from cloudsend_cli.api.directory import Directory
from cloudsend_cli.api.money import Kept
from cloudsend_cli.cli.execute import execute
from cloudsend_cli.cli.leaving import going_on_text
from cloudsend_cli.cli.plan import VERBS, announcement
from cloudsend_cli.cli.session import Session
from cloudsend_cli.cli.settings import Settings
from cloudsend_cli.core.model import Finding, InstanceSpec, JobSpec, Leftover, ProviderDefinition, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.renting import KEPT
from cloudsend_cli.core.state import Changes, RentalRecord, RunState
from cloudsend_cli.errors import AuthError, CapacityError, QuotaError, UnreachableError
from cloudsend_cli.maestro import wiring
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.testing.fake_renter import ASIDE, REGION, REQUESTS, FakeRenter

AWS = ProviderDefinition("aws", "aws", '{"profile":null,"region":"eu-west-3"}')
Line = Callable[..., tuple[int, str, str]]


@pytest.fixture
def renter(tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRenter:
    made = FakeRenter(tmp_path / "machines", "aws")
    # The place where implementations are chosen, as a provider of a later version would be.
    monkeypatch.setattr(wiring, "open_renter", lambda definition, state_dir: made)
    # A maestro is another process, which would ask AWS for these machines. See test_ec2_faults_clients for that.
    monkeypatch.setattr(Directory, "carry_on_rented", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    (state_dir / "aws").mkdir(mode=0o700)
    (state_dir / "aws" / "regions").write_text("eu-west-3\n")
    return made


@pytest.fixture
def line(renter: FakeRenter, state_dir: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Line]:
    """Carry out a line; its exit status, stdout and stderr."""
    client = Client(state_dir)
    session: Any = Session(Settings())
    session._clients = {None: client}

    def carry_out(*argv: str) -> tuple[int, str, str]:
        status = execute(argv, session)
        return status, *capfd.readouterr()

    yield carry_out
    client.close()


@pytest.fixture
def data(line: Line) -> Callable[..., Any]:
    def ask(*argv: str, status: int = 0) -> Any:
        found, out, err = line(*argv, "-o", "json")
        assert found == status, err
        return json.loads(out)

    return ask


def put_run(
    state_dir: Path, renter: FakeRenter, run: str = "rtest1", *, ended: bool = False, hours: float = 1.0
) -> str:
    """A run of two jobs, of which one has run for half the time that its machine is rented; the machine's id."""
    now = time.time()
    since = now - hours * 3600
    machine = renter.create_instance(run, "aws-0", 1, f"token of {run}", REQUESTS[0])
    renter.machines[machine].launched_at = since
    jobs = tuple(JobSpec(name, (name,), name) for name in ("train", "report"))
    spec = RunSpec("p", "", jobs, providers=(AWS,), budget=10.0)
    (plan,) = renter.plan_machines([InstanceSpec("aws")])
    state = plan_run(spec, [NodePlan("aws-0", "aws", plan.offers)], run, since)
    node = replace(state.nodes["aws-0"], state="running", instance_id=machine, generation=1, created_at=since)
    job = replace(
        state.jobs[1], state="succeeded", attempt=1, node="aws-0", started_at=since, ended_at=since + hours * 1800
    )
    rental = RentalRecord(f"{machine}@1", machine, "aws-0", "aws", 0.02, since, note="small, here-1a, spot")
    if ended:
        node = replace(node, state="released", instance_id="")
        rental = replace(rental, until=now)
        state.run = replace(state.run, ended_at=now)
        state.jobs[2] = replace(state.jobs[2], state="cancelled", ended_at=now)
    state.nodes["aws-0"], state.jobs[1], state.rentals[rental.id] = node, job, rental
    with SqliteStore.open(state_dir) as store:
        store.create_run(
            RunState(state.run, state.jobs.values(), state.nodes.values(), (), (), state.rentals.values())
        )
    return machine


def test_nothing_is_asked_where_nothing_was_ever_rented(line: Line, renter: FakeRenter, state_dir: Path) -> None:
    (state_dir / "aws" / "regions").unlink()
    assert line("list", "instances") == (0, "", "no instances\n")
    for words in (("gc",), ("gc", "--yes")):
        _, _, err = line(*words)
        assert err.startswith("nothing was ever rented with this state directory; what one that is gone has left")
        assert err.count("\n") == 1 and "Name=key,Values=cloudsend:owner" in err
    assert line("cost")[2] == "no runs that rented anything\n"
    assert renter.calls == []


# ---- what there is, and what it costs ------------------------------------------------------------------------------


def test_a_machine_of_a_run_with_its_price_age_and_cost(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    machine = put_run(state_dir, renter)
    (view,) = data("list", "instances")
    check(view, "instance")
    assert (view["name"], view["instance_id"], view["runs"]) == ("aws-0", machine, ["rtest1"])
    assert (view["type"], view["place"], view["market"], view["price_per_hour"]) == ("small", "here-1a", "spot", 0.02)
    assert view["cost"] == pytest.approx(0.02, rel=0.01)
    _, out, err = line("list", "instances")
    assert "$0.0200/h" in out and "1h00m" in out
    assert "1 rented machine costs $0.0200/h" in err
    assert line("info", "instance", "aws-0")[1].count("small, spot, here-1a") == 1


def test_machines_that_wait_and_that_nobody_knows(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    put_run(state_dir, renter, ended=True)
    renter.machines["i-1"].run = KEPT
    renter.create_instance("rlost1", "aws-0", 1, "t", REQUESTS[2])
    renter.machines["i-2"].launched_at -= 3600
    views = {view["name"]: view for view in data("list", "instances")}
    assert views["i-1"]["state"] == "kept" and views["i-1"]["kept"] and views["i-1"]["leftover"] is None
    assert views["i-2"]["leftover"] == "run rlost1 is not known here"
    assert "see `cloudsend gc`" in line("list", "instances")[1]


def test_the_cost_of_a_run_by_machine_and_job(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    put_run(state_dir, renter, ended=True, hours=2.0)
    cost = data("cost", "rtest1", "--jobs")
    check(cost, "run_cost")
    assert cost["cost"] == pytest.approx(0.04, rel=0.01)
    assert (cost["cost_per_hour"], cost["budget"]) == (0, 10.0)
    (job,) = cost["jobs"]  # what never started costs nothing, and is not told
    assert job["cost"] == pytest.approx(0.01, rel=0.01)  # one of two CPUs for half the time
    assert cost["unused"] == pytest.approx(0.03, rel=0.01)
    _, out, err = line("cost", "rtest1", "--jobs")
    assert "small" in out and "train" in out
    assert "of a budget of $10.00; $0.0300 of it while machines started, were set up or waited" in err
    assert "$0.0400" in line("list", "runs", "-o", "wide")[1]
    assert "$0.0400" in line("info", "run", "rtest1")[1]
    assert "its share of its machine" in line("info", "job", "rtest1.1")[1]
    assert line("cost", "--jobs")[0] == 2
    everything = data("cost")
    check(everything, "costs")
    assert [run["run"] for run in everything["runs"]] == ["rtest1"]


def test_a_job_whose_machine_ended_with_its_results_says_so(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
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


def test_the_machines_that_a_run_has_had(data: Callable[..., Any], renter: FakeRenter, state_dir: Path) -> None:
    put_run(state_dir, renter, ended=True)
    (view,) = data("list", "instances", "--run", "rtest1")
    assert (view["name"], view["state"], view["instance_id"]) == ("aws-0", "released", None)
    assert view["cost"] == pytest.approx(0.02, rel=0.01)


def test_a_run_that_rented_nothing(line: Line, renter: FakeRenter, state_dir: Path) -> None:
    with SqliteStore.open(state_dir) as store:
        store.create_run(plan_run(RunSpec("p", "", ()), [], "rtest2", 0.0))
    assert line("cost", "rtest2") == (0, "", "run rtest2 has rented nothing\n")


def test_a_provider_that_does_not_answer_is_a_remark(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    put_run(state_dir, renter)
    renter.refusals["list"] = [UnreachableError("no route")] * 4
    status, out, err = line("list", "instances")
    assert status == 0 and "aws-0" in out
    assert "warning: aws could not be asked for its machines: no route" in err
    assert data("cost")["remarks"] == ["aws could not be asked for its machines: no route"]
    assert line("terminate", "instance", "--all", "--yes")[0] == 6
    assert line("gc")[0] == 6


# ---- renting and giving back ---------------------------------------------------------------------------------------


def test_a_machine_is_rented_waited_for_and_given_back(
    line: Line, data: Callable[..., Any], renter: FakeRenter
) -> None:
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


def test_what_costs_less_and_is_not_taken_is_shown(
    line: Line, data: Callable[..., Any], renter: FakeRenter, tmp_path: Path
) -> None:
    (tmp_path / "c.yml").write_text("provider: aws\njobs: echo\ninstances: {region: eu-west-3}\n")
    plan = data("run", "c.yml", "--dry-run")
    check(plan, "plan")
    assert plan["nodes"][0]["not_taken"] == [
        {"type": "slow", "place": REGION, "market": "on-demand", "price_per_hour": 0.005, "why": ASIDE.why}
    ]
    assert re.search(
        r"aws-0 +- +slow +on-demand +here-1 +about \$0\.0050/h +cheaper; slowed down",
        line("run", "c.yml", "--dry-run")[1],
    )
    said = line("create", "instance", "-p", "aws", "--set", "region=eu-west-3")[2]
    assert "it ends itself when it is idle for 10 min, at the latest 20" in said
    assert "slow would fit for about $0.0050/h; it is slowed down now and then" in said


def test_what_is_rented_is_told_from_what_is_there(renter: FakeRenter) -> None:
    """Seen: `renting 2 machines` where a run was attached to, and where one that waited was taken."""
    (plan,) = renter.plan_machines([InstanceSpec("aws")])
    node = NodePlan("aws-0", "aws", plan.offers)
    has, waits = replace(node, at_hand=True), replace(node, waiting=True)

    def said(*nodes: NodePlan) -> str:
        return announcement(RunSpec("p", "", ()), nodes, VERBS).partition(":")[0]

    assert said(node) == "renting 1 machine for $0.0200/h"
    assert said(has, has) == "using 2 machines that the run has for $0.0400/h"
    assert said(waits, node, node) == "taking 1 machine that waits, renting 2 machines for $0.0600/h"
    assert said(replace(waits, at_hand=True), node, waits) == (
        "using 1 machine that the run has, taking 2 machines that wait for $0.0600/h"
    )


def test_what_becomes_of_machines_whose_jobs_end_slowly() -> None:
    assert going_on_text(Kept(ending=2)) == "2 machines are given back once the jobs have ended"
    assert going_on_text(Kept(seconds=600.0, ending=1)) == (
        "once the jobs have ended, 1 machine waits 10m00s for the next run of this project; "
        "`cloudsend terminate instance --all` ends it then"
    )


def test_what_is_wanted_is_noted_before_it_is_asked_for(
    data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    noted: list[str] = []

    def clock() -> float:
        noted.extend(path.stem for path in (state_dir / "aws" / "created").glob("*.json"))
        return time.time()

    renter.clock = clock  # it is looked at when a machine is made
    view = data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")
    assert noted[0] == view["name"]
    assert ((state_dir / "aws" / "created" / f"{view['name']}.json").stat().st_mode & 0o777) == 0o600


def test_an_interrupted_create_is_gone_on_with(line: Line, data: Callable[..., Any], renter: FakeRenter) -> None:
    words = ("create", "instance", "-p", "aws", "--set", "region=eu-west-3")
    renter.refusals["list"] = [KeyboardInterrupt()]  # type: ignore[list-item] # while it is waited for
    status, _, err = line(*words)
    assert status == 130
    assert "the same command waits for it" in err
    assert data(*words)["instance_id"] == "i-1"
    assert data(*words)["instance_id"] == "i-2"  # that one is there: this is another


def test_a_request_without_an_answer_is_repeated(data: Callable[..., Any], renter: FakeRenter) -> None:
    lost = UnreachableError("no answer")
    lost.retry_after = 0.01
    renter.refusals["create"] = [lost]
    data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")
    assert [verb for verb, _ in renter.calls if verb == "create"] == ["create", "create"]
    assert len(renter.machines) == 1


def test_what_is_short_is_passed_over_and_a_limit_is_not_asked_twice(
    line: Line, data: Callable[..., Any], renter: FakeRenter
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


def test_what_a_run_uses_is_not_ended_by_mistake(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
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


def test_all_are_given_back_only_when_asked_for(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
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


def test_waiting_is_paid_for_until_the_machine_is_given_back(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    machine = put_run(state_dir, renter, ended=True)
    renter.machines[machine].run = KEPT
    now = time.time()
    with SqliteStore.open(state_dir) as store:
        (paid,) = store.list_rentals("rtest1")["rtest1"]
        wait = replace(paid, id="wait", since=now - 60, until=now + 540, waiting=True, kept_at=now - 60)
        store.write_run("rtest1", lambda state: Changes(rentals={"wait": wait}))
    cost = data("cost", "rtest1")
    check(cost, "run_cost")
    waits = cost["machines"][1]
    assert (cost["cost_per_hour"], waits["waiting"], waits["until"]) == (0.02, True, None)
    ends = datetime.fromisoformat(waits["waits_until"]).timestamp()
    assert ends == pytest.approx(now + 540, abs=1)  # seen: as `until`, ten minutes from now
    assert "aws-0, waiting" in line("cost", "rtest1")[1]
    left = re.compile(
        r"1 machine waits 9m00s, until \d\d:\d\d, for the next run of this project; "
        r"`cloudsend terminate instance --all` ends it now\n"
    )
    for words in ("wait rtest1", "kill run rtest1"):  # seen: neither said that machines go on costing money
        assert left.fullmatch(line(*words.split())[2])
    assert re.search(r"\$10\.00 +1 +\d{4}-", line("cost")[1]), "one machine, which is paid for in two pieces"
    data("terminate", "instance", machine)
    assert line("wait", "rtest1")[2] == ""
    after = data("cost", "rtest1")
    assert (after["cost_per_hour"], after["machines"][1]["waits_until"]) == (0, None)
    assert after["machines"][1]["seconds"] == pytest.approx(60, abs=5)


def test_what_is_paid_for_later_began_not_later_than_now_and_nothing_is_told_of_no_waiting(
    data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    """Seen: `since` up to a minute ahead, and a row of 0.0 s for each machine that was taken at once."""
    put_run(state_dir, renter, ended=True)
    now = time.time()
    with SqliteStore.open(state_dir) as store:
        (paid,) = store.list_rentals("rtest1")["rtest1"]
        taken = replace(paid, id="taken", since=now + 50, until=None, taken_at=now - 5)
        never = replace(paid, id="never", since=now - 9, until=now - 9, waiting=True, kept_at=now - 9)
        store.write_run("rtest1", lambda state: Changes(rentals={"taken": taken, "never": never}))
    machines = data("cost", "rtest1")["machines"]
    assert [machine["waiting"] for machine in machines] == [False, False]
    since = [datetime.fromisoformat(machine["since"]).timestamp() for machine in machines]
    assert max(since) < now + 40


def test_a_machine_that_is_asked_for_costs_nothing_until_it_is_there_and_is_listed_once(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    """Seen: three planned machines as three rented ones; one that was launched as two lines."""
    put_run(state_dir, renter)
    with SqliteStore.open(state_dir) as store:
        store.write_run(
            "rtest1",
            lambda state: Changes(
                nodes={"aws-0": replace(state.nodes["aws-0"], state="creating", instance_id="")},
                rentals={},
            ),
        )
    (view,) = data("list", "instances")
    check(view, "instance")
    assert (view["name"], view["instance_id"], view["state"]) == ("aws-0", "i-1", "creating")
    assert view["cost"] == pytest.approx(0.02, rel=0.01)
    assert line("list", "instances")[2] == "1 rented machine costs $0.0200/h\n"
    renter.machines.clear()
    assert line("list", "instances")[2] == "nothing that is rented runs now\n"
    assert data("cost")["cost_per_hour"] == 0


def test_long_words_of_a_provider_are_cut_in_tables_alone(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    put_run(state_dir, renter)
    words = "AWS would not do it: " + "because of this and that " * 20 + "END"
    with SqliteStore.open(state_dir) as store:
        store.write_run("rtest1", lambda state: Changes(nodes={"aws-0": replace(state.nodes["aws-0"], reason=words)}))
    assert "AWS would not" in line("list", "instances")[1] and "END" not in line("list", "instances")[1]
    assert "END" in line("list", "instances", "-o", "wide")[1]
    assert data("list", "instances")[0]["remark"] == words
    assert "END" in line("info", "instance", "aws-0")[1]


def test_power(line: Line, data: Callable[..., Any], renter: FakeRenter) -> None:
    renter.create_instance(KEPT, "aws-abc", 1, "t", REQUESTS[2])
    (stopped,) = data("stop", "instance", "aws-abc")
    assert stopped["state"] == "stopped"
    assert line("list", "instances")[2] == "nothing that is rented runs now\n"
    assert line("ssh", "aws-abc", "--", "true")[0] == 6
    (started,) = data("start", "instance", "aws-abc")
    assert started["state"] == "kept"
    assert line("stop", "job", "x")[0] == 3  # as `kill job`


def test_what_is_rented_alone_costs_something_too_and_goes_on_costing_after_a_stop(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    """Seen: `cost` said nothing of machines of `create instance`; age and cost began anew after a stop and a start."""
    now = time.time()
    renter.clock = lambda: now - 7200
    name = data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")["name"]
    renter.clock = lambda: now - 3600
    data("stop", "instance", name)
    renter.clock = time.time
    everything = data("cost")
    check(everything, "costs")
    (alone,) = everything["alone"]
    assert (alone["instance"], alone["cost"]) == (name, pytest.approx(0.02, rel=0.01))
    data("start", "instance", name)
    (view,) = data("list", "instances")
    assert view["cost"] == pytest.approx(0.02, rel=0.01)
    assert time.time() - datetime.fromisoformat(view["rented_at"]).timestamp() == pytest.approx(7200, abs=60)
    data("terminate", "instance", name)
    del renter.machines["i-1"]  # its provider forgets it soon
    _, out, err = line("cost")
    assert "RENTED ALONE" in out and name in out
    assert "machines of no run: $0.02" in err


def test_a_run_that_takes_what_was_rented_alone_pays_for_it_from_then_on(
    data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
    now = time.time()
    renter.clock = lambda: now - 7200
    created = data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")["instance_id"]
    put_run(state_dir, renter, ended=True)
    taken = RentalRecord("taken", created, "aws-0", "aws", 0.02, now - 1800)
    with SqliteStore.open(state_dir) as store:
        store.write_run("rtest1", lambda state: Changes(rentals={"taken": taken}))
    (alone,) = data("cost")["alone"]
    assert alone["seconds"] == pytest.approx(5400, abs=60)


def test_the_console(line: Line, data: Callable[..., Any], renter: FakeRenter) -> None:
    renter.create_instance(KEPT, "aws-abc", 1, "t", REQUESTS[0])
    renter.console = "booting\n\x1b[31mno init found\n"
    assert line("info", "instance", "aws-abc")[1].count("booting") == 0
    assert line("info", "instance", "aws-abc", "--console")[1].endswith("console:\n  | booting\n  | no init found\n")
    assert "booting" in data("info", "instance", "aws-abc", "--console")["console"]
    renter.machines["i-1"].state = "pending"
    renter.machines["i-1"].launched_at -= 300
    assert "booting" in line("info", "instance", "aws-abc")[1]  # it never came up


# ---- what is left over ---------------------------------------------------------------------------------------------


def test_gc_shows_first_and_removes_when_told(
    line: Line, data: Callable[..., Any], renter: FakeRenter, state_dir: Path
) -> None:
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


# ---- accounts ------------------------------------------------------------------------------------------------------


def test_an_account_is_checked_and_mended(line: Line, data: Callable[..., Any], renter: FakeRenter) -> None:
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

"""A lost state directory from what hosts tell: what is made of it, and what of a host that lies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.model import HostAddress, JobSpec, Output, ProviderDefinition, Resources, Upload
from cloudsend_cli.core.naming import job_hash
from cloudsend_cli.engine.inventory import HostFound, read_host
from cloudsend_cli.engine.places import Place
from cloudsend_cli.engine.rebuild import rebuild
from cloudsend_cli.engine.wire import render_about
from cloudsend_cli.errors import UnreachableError
from cloudsend_cli.store.sqlite import SqliteStore

LAB = ProviderDefinition("lab", "ssh")
RUN = "abc123"
Entry = dict[str, Any]


def place(name: str = "gpu1") -> Place:
    request = json.dumps({"name": name, "host": f"{name}.lab"})
    return Place(LAB, f"lab-{name}", name, HostAddress("ssh", f"ssh:{name}", host=f"{name}.lab"), request)


class Host:
    """Answers as an agent does, a page at a time."""

    def __init__(self, *entries: Entry, page: int = 2) -> None:
        self.hello = Frame({"claims": []})
        self._entries = sorted(entries, key=lambda e: str(e.get("id")))
        self._page = page

    def ask(self, op: str, **fields: object) -> Frame:
        assert op == "inventory"
        left = [e for e in self._entries if str(e.get("id")) > str(fields["after"] or "")]
        onward = left[self._page - 1]["id"] if len(left) > self._page else None
        return Frame({"ok": True, "attempts": left[: self._page], "next": onward})


def entry(
    number: int, status: Entry, *, attempt: int = 1, name: str = "", folder: Path | str = "/nowhere", **spec: Any
) -> Entry:
    job = JobSpec(name or f"job-{number}", ("echo", str(number)), f"echo {number}", **spec)
    about = {
        "run": RUN,
        "project": "demo",
        "config": f"{folder}/c.yml",
        "results": f"{folder}/results",
        "created": 5.0,
    }
    return {
        "id": f"{RUN}.{number}.{attempt}",
        "owner": "lost",
        "boot": "b1",
        "status": status,
        "acknowledged": True,
        "spec": {"argv": list(job.argv), "about": json.loads(json.dumps(render_about(job, about)))},
    }


DONE = {"state": "exited", "exit_code": 0, "started": 10.0, "ended": 12.0}


def read(host: Host, where: Place | None = None) -> HostFound:
    return read_host(where or place(), host)  # type: ignore[arg-type]


@pytest.fixture
def store(state_dir: Path) -> Iterator[SqliteStore]:
    with SqliteStore.open(state_dir / "state") as made:
        yield made


Make = Callable[..., list[Any]]


@pytest.fixture
def make(store: SqliteStore, state_dir: Path) -> Make:
    """Rebuild from what these hosts told; no log can be had."""

    def carry_out(*hosts: HostFound) -> list[Any]:
        return rebuild(store, hosts, state_dir / "state", 100.0, lambda where, attempts: None)

    return carry_out


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ({"state": "running", "started": 10.0}, "running", ""),
        ({"state": "queued"}, "running", ""),
        (DONE, "succeeded", ""),
        ({**DONE, "exit_code": 3}, "failed", "exit 3"),
        ({**DONE, "exit_code": None, "signal": 9}, "failed", "killed by SIGKILL"),
        ({**DONE, "missing": ["r.txt"]}, "failed", "output-missing: r.txt"),
        ({**DONE, "cause": "timeout"}, "failed", "timeout"),
        ({**DONE, "exit_code": None, "cause": "cancelled"}, "cancelled", "cancelled by the user"),
        ({"state": "cancelled", "cause": "cancelled"}, "cancelled", "cancelled by the user"),
        ({"state": "lost"}, "failed", "lost"),
        ({"state": "lost", "cause": "rebooted"}, "failed", "rebooted"),
        ({"state": "stale"}, "failed", "never started"),
    ],
)
def test_states_are_those_that_hosts_tell(
    store: SqliteStore, make: Make, status: Entry, state: str, reason: str
) -> None:
    make(read(Host(entry(1, status))))
    (row,) = store.list_jobs(RUN)
    assert (row.state, row.reason, row.attempt, row.node) == (state, reason, 1, "lab-gpu1")


def test_a_run_is_made_again_from_several_hosts(store: SqliteStore, make: Make) -> None:
    one = read(
        Host(entry(1, DONE), entry(2, DONE, attempt=1, name="b"), entry(3, {"state": "running", "started": 9.0}))
    )
    two = read(Host(entry(2, {**DONE, "exit_code": 4}, attempt=2, name="b")), place("gpu2"))
    (outcome,) = make(one, two)
    assert (outcome.created, outcome.jobs, outcome.running) == (True, 3, 1)
    state = store.load(RUN)
    assert [(j.spec.name, j.attempt, j.node, j.reason) for j in state.jobs.values()] == [
        ("job-1", 1, "lab-gpu1", ""), ("b", 2, "lab-gpu2", "exit 4"), ("job-3", 1, "lab-gpu1", ""),
    ]  # fmt: skip
    assert state.run.project == "demo"
    assert state.run.providers == (LAB,)
    assert {n.name: n.state for n in state.nodes.values()} == {"lab-gpu1": "wanted", "lab-gpu2": "wanted"}


def test_rebuilding_again_changes_nothing(store: SqliteStore, make: Make) -> None:
    hosts = read(Host(entry(1, DONE), entry(2, {"state": "queued"})))
    make(hosts)
    before = store.load(RUN)
    assert make(hosts) == []
    assert store.load(RUN).run.version == before.run.version


def test_a_run_that_exists_is_only_completed(store: SqliteStore, make: Make) -> None:
    make(read(Host(entry(1, {"state": "running"}), entry(2, DONE))))
    more = Host(entry(1, DONE), entry(2, {**DONE, "exit_code": 1}, attempt=2), entry(7, DONE))
    (outcome,) = make(read(more, place("gpu2")))
    assert (outcome.created, outcome.jobs) == (False, 2)
    jobs = {r.number: (r.state, r.attempt, r.node) for r in store.list_jobs(RUN)}
    assert jobs == {
        1: ("running", 1, "lab-gpu1"),  # known as well: the maestro hears of its end by itself
        2: ("failed", 2, "lab-gpu2"),
        7: ("succeeded", 1, "lab-gpu2"),
    }


def test_the_content_of_a_job_is_known_again(store: SqliteStore, make: Make) -> None:
    upload = Upload("a.txt", "0" * 64, 3, 0o755, "/home/me/.ssh/id")
    told = entry(
        1, DONE, env=(("A", "1"),), params=(("lr", "1e-3"),), outputs=(Output("r", True),), uploads=(upload,),
        resources=Resources(2.0, 1 << 30, 1), timeout=60.0, after=("x",), retries=5, repeat_index=2,
    )  # fmt: skip
    make(read(Host(told)))
    (job,) = store.load(RUN).jobs.values()
    assert job.hash == told["spec"]["about"]["hash"] == job_hash(job.spec)
    assert (job.spec.resources, job.spec.timeout, job.spec.after) == (Resources(2.0, 1 << 30, 1), 60.0, ("x",))


def test_section_and_place_of_a_job_are_known_again(store: SqliteStore, make: Make) -> None:
    section = {"stage": 2, "group": "s/g", "slot_args": True, "after_any": ("y",), "memory_factor": 1.5}
    places = ("3", "-1", "70000", "many", 3, "00000001")
    entries = [entry(n, {"state": "running"}, **section) for n in range(1, len(places) + 1)]
    for told, slot in zip(entries, places, strict=True):
        told["spec"]["env"] = {"CLOUDSEND_SLOT": slot}
    make(read(Host(*entries, entry(9, DONE, memory_factor=-1.0))))
    state = store.load(RUN)
    spec = state.jobs[1].spec
    assert {name: getattr(spec, name) for name in section} == section
    assert [state.jobs[n].slot for n in range(1, len(places) + 1)] == [3, -1, -1, -1, -1, -1]
    assert state.jobs[9].spec.memory_factor == 1.0


def test_place_of_a_job_without_an_account_is_not_taken_for_its_own_variables(store: SqliteStore, make: Make) -> None:
    env = {"CLOUDSEND_SLOT": "2", "CLOUDSEND_SLOT_GPU": "1", "CLOUDSEND_RUN": RUN, "A": "1"}
    make(read(Host({"id": f"{RUN}.4.2", "status": DONE, "spec": {"argv": ["x"], "env": env}})))
    (job,) = store.load(RUN).jobs.values()
    assert (job.spec.env, job.slot) == ((("A", "1"),), 2)


def test_what_a_host_tells_starts_nothing_elsewhere_and_reads_nothing_here(store: SqliteStore, make: Make) -> None:
    upload = Upload("a", "0" * 64, 3, 0o644, "/home/me/.ssh/id")
    make(read(Host(entry(1, {"state": "running"}, retries=9, retries_lost=9, uploads=(upload,)))))
    state = store.load(RUN)
    (job,) = state.jobs.values()
    assert (job.spec.retries, job.spec.retries_lost, state.run.max_parallel) == (0, 0, 0)
    assert [u.source for u in job.spec.uploads] == [""]


def test_results_go_where_the_user_had_them_and_nowhere_that_a_host_says(
    store: SqliteStore, make: Make, tmp_path: Path, state_dir: Path
) -> None:
    (tmp_path / "c.yml").write_text("jobs: x\n")
    make(read(Host(entry(1, DONE, folder=tmp_path))))
    assert store.load(RUN).run.results_dir == str(tmp_path / "results")


@pytest.mark.parametrize("results", ["/etc/cron.d", "../../x", "", "/nowhere/../etc", 7, None])
def test_a_results_directory_of_a_hosts_choice_is_not_used(
    store: SqliteStore, make: Make, state_dir: Path, results: object
) -> None:
    told = entry(1, DONE)
    told["spec"]["about"]["results"] = results
    make(read(Host(told)))
    assert store.load(RUN).run.results_dir == str(state_dir / "state" / "results")


def test_a_job_without_any_account_of_itself_is_found_all_the_same(store: SqliteStore, make: Make) -> None:
    bare = {"id": f"{RUN}.4.2", "owner": "x", "boot": "b", "status": DONE, "spec": {"argv": ["ls", "-l"], "cpus": 2}}
    (outcome,) = make(read(Host(bare)))
    (job,) = store.load(RUN).jobs.values()
    assert (outcome.project, job.spec.name, job.spec.argv) == ("rebuilt", f"job {RUN}.4", ("ls", "-l"))
    assert job.spec.resources == Resources(2.0)


def test_environments_are_known_again(store: SqliteStore, make: Make) -> None:
    build = JobSpec("environment tools", ("/bin/sh", "-c", "make it", "environment"), "", environment="k1")
    about = render_about(build, {"run": RUN, "project": "demo", "created": 5.0})
    built = {
        "id": f"{RUN}.env-k1.2", "owner": "o", "boot": "b1", "status": DONE,
        "spec": {
            "argv": list(build.argv), "slots": ["env-k1", "apt"], "about": about, "kind": "build",
            "env": {"CLOUDSEND_RUN": RUN, "CLOUDSEND_JOB": "x", "A": "1"},
        },
    }  # fmt: skip
    make(read(Host(built, entry(1, DONE, environment="k1"), entry(2, DONE, environment="k2"))))
    state = store.load(RUN)
    tools = state.environments["k1"]
    assert (tools.name, tools.script, tools.slots, tools.variables) == ("tools", "make it", ("apt",), (("A", "1"),))
    assert "run the config again" in state.environments["k2"].script
    assert [(b.node, b.key, b.attempt, b.state) for b in state.builds.values()] == [("lab-gpu1", "k1", 2, "succeeded")]


def test_an_edited_job_supersedes_the_older_of_its_name(store: SqliteStore, make: Make) -> None:
    make(read(Host(entry(1, DONE, name="a"), entry(5, DONE, name="a"))))
    assert {r.number: r.superseded_by for r in store.list_jobs(RUN)} == {1: 5, 5: 0}


def test_a_host_that_did_not_answer_is_remembered_until_it_does(store: SqliteStore, make: Make) -> None:
    silent = HostFound(place("gpu2"), problem=UnreachableError("no route"))
    one = read(Host(entry(1, DONE)))
    make(one, silent)
    assert dict(store.load(RUN).run.settings) == {"unreached": "lab-gpu2"}
    make(one, read(Host(), place("gpu2")))
    assert store.load(RUN).run.settings == ()


@pytest.mark.parametrize(
    "nonsense",
    [
        {"id": 7},
        {"id": "abc123.1.1"},
        {"id": "abc123.1.1", "spec": []},
        {"id": "../../etc.1.1", "spec": {}},
        {"id": "ABC123.1.1", "spec": {}},
        {"id": "abc123.0.1", "spec": {}},
        {"id": f"abc123.{10**30}.1", "spec": {}},
        {"id": "abc123.env-k.x", "spec": {}},
        [],
        None,
    ],
)
def test_nonsense_is_passed_over(store: SqliteStore, make: Make, nonsense: Any) -> None:
    class Odd(Host):
        def ask(self, op: str, **fields: object) -> Frame:
            page = super().ask(op, **fields)
            return Frame({**page, "attempts": [nonsense, *page["attempts"]]})

    make(read(Odd(entry(2, DONE))))
    assert [r.number for r in store.list_jobs(RUN)] == [2]


def test_odd_values_do_no_harm(store: SqliteStore, make: Make) -> None:
    told = entry(
        1, {"state": "exited", "exit_code": "0", "started": float("nan"), "ended": float("inf"), "signal": {}}
    )
    told["spec"]["about"].update(project=["x"], created=float("-inf"), config=5, hash=None, name={"a": 1})
    told["spec"]["about"]["spec"].update(
        argv=[1, "a"], env=[["A"], "x", [1, 2]], resources={"cpus": "many", "memory": -1}, timeout=float("nan"),
        outputs=[{}, 3], uploads=[None, {"path": 1}], slots="abc", display=9, grace=-1,
    )  # fmt: skip
    make(read(Host(told)))
    (job,) = store.load(RUN).jobs.values()
    assert (job.state, job.spec.argv, job.spec.resources) == ("failed", ("a",), Resources())
    assert job.spec.timeout is None


def test_pages_without_an_end_end() -> None:
    class Turning(Host):
        def ask(self, op: str, **fields: object) -> Frame:
            return Frame({"ok": True, "attempts": [entry(1, DONE)], "next": "a"})

    assert len(read(Turning()).jobs) == 2


def test_what_a_job_reported_is_known_again_where_its_log_is_home(
    store: SqliteStore, make: Make, state_dir: Path
) -> None:
    logs = state_dir / "state" / "logs" / RUN
    logs.mkdir(parents=True)
    (logs / f"{RUN}.1.1.stderr").write_text("CLOUDSEND_METRIC loss=0.5\n")
    (logs / f"{RUN}.1.1.metrics").write_text("acc=1\n")
    (logs / f"{RUN}.1.1.stdout").touch()
    make(read(Host(entry(1, DONE), entry(2, DONE))))
    jobs = store.load(RUN).jobs
    assert jobs[1].metrics == (("loss", "0.5"), ("acc", "1"))
    assert (jobs[2].metrics, jobs[2].fetch) == ((), "wanted"), "the other's comes with its log"

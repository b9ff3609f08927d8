"""From a config to results through the Python interface, with a real maestro and a real agent."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from real_stack import Stack, find_processes, wait_for

from cloudsend_cli.core.plan import plan_fetch
from cloudsend_cli.core.state import Changes
from cloudsend_cli.core.views import Progress
from cloudsend_cli.errors import NotFoundError, ResultError, WaitTimeout
from cloudsend_cli.store.sqlite import SqliteStore


def results(stack: Stack, run: str) -> dict[str, str]:
    root = Path(stack.client.find_run(run).results_dir)
    return {
        str(p.relative_to(root)): p.read_text()
        for p in sorted(root.rglob("*"))
        if p.name != ".cloudsend.json" and p.is_file() and p.parent != root  # where the tables lie
    }


def test_uploads_go_there_and_results_come_home(shared: Stack) -> None:
    (shared.files / "in.txt").write_text("hello\n")
    job = {"name": "copy", "run": "tr a-z A-Z < in.txt > out.txt; echo done", "upload": "in.txt", "output": "out.txt"}
    run = shared.submit(jobs=[job])
    assert shared.settle(run).counts["succeeded"] == 1
    assert results(shared, run) == {"copy/out.txt": "HELLO\n"}
    assert shared.jobs(run)["copy"].outputs == "home"


def test_c19_an_upload_edited_after_the_submit_is_the_submitted_one(shared: Stack) -> None:
    (shared.files / "in.txt").write_text("submitted")
    gate = shared.files / "gate"
    os.mkfifo(gate)
    jobs = [
        {"name": "first", "run": f"read x < {gate}", "cpus": 0.1},
        {"name": "second", "run": "cat in.txt", "upload": "in.txt", "after": "first", "cpus": 0.1},
    ]
    run = shared.submit(jobs=jobs)
    (shared.files / "in.txt").write_text("edited")
    gate.write_text("\n")
    assert shared.settle(run).counts["succeeded"] == 2
    assert b"".join(shared.client.read_log("second")) == b"submitted"


def test_a_failed_job_leaves_its_results_and_a_missing_one_is_named(shared: Stack) -> None:
    run = shared.submit(
        jobs=[
            {"name": "bad", "run": "echo partly > out; exit 2", "output": "out"},
            {"name": "none", "run": "true", "output": "never"},
        ]
    )
    shared.settle(run)
    jobs = shared.jobs(run)
    assert (jobs["bad"].reason, jobs["none"].reason) == ("exit 2", "output-missing: never")
    assert results(shared, run)["bad/out"] == "partly\n"


def test_running_again_keeps_what_succeeded_and_retries_what_failed(shared: Stack) -> None:
    flag, ledger = shared.files / "flag", shared.files / "ledger"
    jobs = [
        {"name": "good", "run": f"echo good >> {ledger}"},
        {"name": "bad", "run": f"echo bad >> {ledger}; test -e {flag}"},
    ]
    run = shared.submit(jobs=jobs)
    assert shared.settle(run).counts["failed"] == 1
    flag.touch()
    assert shared.submit(jobs=jobs) == run
    assert shared.settle(run).counts["succeeded"] == 2
    assert sorted(ledger.read_text().split()) == ["bad", "bad", "good"]
    assert [a["reason"] for a in shared.client.attempts(f"{run}.2")] == ["exit 1", ""]


def test_c14_who_submits_the_same_config_at_the_same_time_continues_the_one_run(stack: Stack) -> None:
    """Seen: both looked before either had committed, and there were two runs, with machines for each."""
    config = stack.config(jobs=[{"name": "a", "run": "true"}])
    faster: list[str] = []

    def meanwhile(*plan: object) -> None:
        if not faster:
            faster.append("")
            faster[0] = stack.client.submit(config).run

    slower = stack.client.submit(config, announce=meanwhile)
    assert [slower.run] == faster == [run.id for run in stack.client.list_runs()]
    assert slower.continued is not None
    assert stack.settle(slower.run).counts["succeeded"] == 1


def test_results_of_a_renamed_job_go_by_its_new_name(shared: Stack) -> None:
    def jobs(*names: str) -> list[dict[str, str]]:
        return [{"name": name, "run": f"echo {n} > out", "output": "out"} for n, name in enumerate(names)]

    run = shared.submit(jobs=jobs("a", "b", "b/c"))
    shared.settle(run)
    assert shared.submit(jobs=jobs("x/y", "z", "b/c")) == run
    assert [job.attempt for job in shared.client.list_jobs(run)] == [1, 1, 1]
    found = {result.name: [path.read_text() for path in result.files] for result in shared.client.results(run)}
    # Results of another job lie among those of `b`: they stay together, and nothing of them is lost.
    assert found == {"x/y": ["0\n"], "z": [], "b/c": ["2\n"]}
    assert results(shared, run)["b/out"] == "1\n" and "a/out" not in results(shared, run)
    (there,) = shared.client.fetch("x/y")
    assert (there / "out").read_text() == "0\n"


def test_results_of_a_sweep_that_grows_are_kept_by_their_new_names(shared: Stack) -> None:
    ledger = shared.files / "ledger"

    def again(*values: str) -> dict[str, str]:
        call = f"sh -c 'echo $1 >> {ledger}; echo $1 > out' word"
        run = shared.submit(sections={"s": {"g": {"Call": call, "Param": {"": list(values)}, "output": "out"}}})
        assert shared.settle(run).counts["succeeded"] == len(values)
        return {result.name: result.files[0].read_text().strip() for result in shared.client.results(run)}

    assert again("a", "c", "e") == {"s/g/0": "a", "s/g/1": "c", "s/g/2": "e"}
    assert again(*"abcde") == {f"s/g/{n}": x for n, x in enumerate("abcde")}
    assert again(*"eda") == {"s/g/0": "e", "s/g/1": "d", "s/g/2": "a"}
    assert sorted(ledger.read_text().split()) == list("abcde")


def test_an_environment_is_built_once_its_failure_fails_its_jobs_and_a_fix_is_built_again(shared: Stack) -> None:
    ledger, flag = shared.files / "ledger", shared.files / "flag"
    environments = [
        {"name": "good", "command": f"echo built >> {ledger}"},
        {"name": "bad", "command": f"echo no tool here >&2; echo tried >> {ledger}; test -e {flag}"},
    ]
    jobs = [
        {"name": "uses", "run": "true", "env": "good", "repeat": 5},
        {"name": "lacks", "run": f"echo ran >> {ledger}", "env": "bad", "repeat": 3},
        {"name": "plain", "run": "true", "env": "none"},
    ]
    run = shared.submit(environments=environments, jobs=jobs)
    shared.settle(run)
    states = {name: (job.state, job.reason) for name, job in shared.jobs(run).items()}
    assert {s for n, s in states.items() if "lacks" not in n} == {("succeeded", "")}
    failed = {r for s, r in (s for n, s in states.items() if "lacks" in n)}
    assert len(failed) == 1 and failed.pop().startswith("environment-failed: ")
    assert sorted(ledger.read_text().split()) == ["built", "tried"]
    lacking = next(job for name, job in shared.jobs(run).items() if "lacks" in name)
    assert b"no tool here" in shared.client.log_tail(lacking.id)
    flag.touch()
    assert shared.submit(environments=environments, jobs=jobs) == run
    assert shared.settle(run).counts["succeeded"] == 9
    assert sorted(ledger.read_text().split()) == ["built", "ran", "ran", "ran", "tried", "tried"]


def test_cancelling_ends_what_runs_and_what_waits(shared: Stack) -> None:
    run = shared.submit(jobs=[{"name": "s", "run": "sleep 600", "repeat": 50}])
    wait_for(lambda: any(j.started_at for j in shared.client.list_jobs(run)))
    shared.client.cancel_run(run)
    shared.client.cancel_run(run)
    assert shared.settle(run).counts["cancelled"] == 50
    assert not any(b"sleep" in c for c in find_processes(shared.directory).values())


def test_one_job_of_many_is_cancelled(shared: Stack) -> None:
    run = shared.submit(
        jobs=[{"name": "s", "run": "sleep 600", "cpus": 0.1}, {"name": "q", "run": "true", "cpus": 0.1}]
    )
    shared.client.cancel([f"{run}.1"])
    assert shared.settle(run).counts["cancelled"] == 1
    assert shared.jobs(run)["q"].state == "succeeded"


def test_results_of_a_running_job_can_be_fetched_again_and_again(stack: Stack) -> None:
    gate, end = (
        stack.files / "gate",
        stack.files / "end",
    )  # of one for both the second reader may meet the first writer
    os.mkfifo(gate)
    os.mkfifo(end)
    command = f"echo 1 > out; read x < {gate}; echo 2 >> out; read x < {end}"
    run = stack.submit(jobs=[{"name": "j", "run": command, "output": "out"}])
    wait_for(lambda: [p for p in stack.home.glob("attempts/*/work/out") if p.read_text() == "1\n"])
    (home,) = stack.client.fetch("j")
    assert (home / "out").read_text() == "1\n"
    gate.write_text("\n")
    wait_for(lambda: next(stack.home.glob("attempts/*/work/out")).read_text() == "1\n2\n")
    stack.client.maestro_stop()  # the next one is asked before it is connected
    assert (stack.client.fetch(run)[0] / "out").read_text() == "1\n2\n"
    (elsewhere,) = stack.client.fetch("j", str(stack.files / "elsewhere"))
    assert (elsewhere / "out").read_text() == "1\n2\n"
    end.write_text("\n")
    assert stack.settle(run).counts["succeeded"] == 1


def test_results_on_their_way_are_waited_for(stack: Stack) -> None:
    run = stack.submit(jobs=[{"name": "j", "run": "echo 1 > out", "output": "out"}])
    stack.settle(run)
    (home,) = stack.client.fetch("j")
    stack.client.maestro_stop()
    (home / "out").unlink()
    with SqliteStore.open(stack.state) as store:
        store.write_run(run, lambda state: Changes(jobs={1: replace(state.jobs[1], fetch="failed: cut off")}))
        store.write_run(run, lambda state: plan_fetch(state, [1]))
    assert stack.client.fetch("j") == [home]
    assert (home / "out").read_text() == "1\n"


def test_waiting_has_an_end_and_the_jobs_go_on(shared: Stack) -> None:
    gate = shared.files / "gate"
    os.mkfifo(gate)
    run = shared.submit(jobs=[f"read x < {gate}"])
    with pytest.raises(WaitTimeout, match="not finished"):
        shared.client.wait([run], timeout=0.2)
    gate.write_text("\n")
    assert [j.state for j in shared.client.wait([run], timeout=60)] == ["succeeded"]


def test_logs_of_all_jobs_are_followed_whole(shared: Stack) -> None:
    config = shared.config(
        jobs=[{"name": "n", "run": "echo $CLOUDSEND_JOB; printf end", "repeat": 30}, "printf '\\0a\\n'"]
    )
    submitted = shared.client.submit(config)
    run = submitted.run
    text: dict[str, bytes] = {}
    moments = []
    for item in shared.client.follow_logs(run, since=submitted.since):
        if isinstance(item, Progress):
            moments.append(item)
        else:
            text[item[0]] = text.get(item[0], b"") + item[2]
    assert moments[-1].settled
    names = [j.name for j in shared.client.list_jobs(run)]
    assert text == {n: f"{n}\nend\n".encode() for n in names[:30]} | {names[30]: b"\0a\n"}


def test_the_log_of_a_job_that_ended_before_anybody_followed_is_shown_and_that_of_a_kept_one_is_not(
    shared: Stack,
) -> None:
    first = shared.client.submit(shared.config(jobs=[{"name": "old", "run": "echo old"}]))
    shared.settle(first.run)
    again = shared.client.submit(
        shared.config(jobs=[{"name": "old", "run": "echo old"}, {"name": "new", "run": "echo new"}])
    )
    shared.settle(again.run)
    shown = [item for item in shared.client.follow_logs(again.run, since=again.since) if isinstance(item, tuple)]
    assert shown == [("new", "stdout", b"new\n")]


def test_results_that_could_not_be_brought_home_are_fetched_again_from_where_they_are(shared: Stack) -> None:
    blocked = shared.files / "results"
    blocked.write_text("a file where a directory should be")
    jobs = [{"name": "j", "run": "echo kept > out", "output": "out"}]
    run = shared.submit(jobs=jobs, results_dir=str(blocked))
    shared.settle(run)
    assert shared.jobs(run)["j"].outputs.startswith("failed: ")
    with pytest.raises(ResultError, match="could not be brought home"):
        shared.client.fetch("j")
    blocked.unlink()
    assert [(p / "out").read_text() for p in shared.client.fetch("j")] == ["kept\n"]
    assert shared.jobs(run)["j"].outputs == "home"


def test_the_log_of_a_job_without_its_environment_is_that_of_the_build(shared: Stack) -> None:
    environment = {"name": "e", "setup": "echo the reason; exit 9"}
    run = shared.submit(environments=[environment], jobs=[{"name": "j", "run": "true"}, {"name": "k", "run": "true"}])
    shared.settle(run)
    assert b"the reason\n" in b"".join(shared.client.read_log("j"))
    assert b"".join(shared.client.read_log("j", lines=1)).count(b"\n") == 1


def test_a_job_that_never_started_says_why_it_has_no_log(shared: Stack) -> None:
    run = shared.submit(jobs=[{"name": "bad", "run": "false"}, {"name": "next", "run": "true", "after": "bad"}])
    shared.settle(run)
    for follow in (False, True):
        with pytest.raises(NotFoundError, match="next never started: dependency-failed: bad"):
            list(shared.client.read_log("next", follow=follow))


def test_a_limit_lists_the_newest_jobs_in_their_order(shared: Stack) -> None:
    run = shared.submit(jobs=[{"name": "n", "run": "true", "repeat": 5}])
    assert [j.name for j in shared.client.list_jobs(run, limit=2)] == ["n-3", "n-4"]
    assert [j.name for j in shared.client.list_jobs(limit=2)] == ["n-3", "n-4"]
    shared.settle(run)


def test_jobs_get_what_the_submitting_shell_has_and_secrets_never_lie_around(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudsend_cli.api import Client

    client = Client(stack.state, environ={**os.environ, "TOKEN": "s3cr3t-canary"})
    config = stack.config(jobs=[{"name": "j", "run": "printf %s ${#TOKEN}", "vars": {"TOKEN": None}}])
    run = client.submit(config).run
    stack.settle(run)
    assert b"".join(client.read_log(f"{run}.1")) == b"13"
    client.close()
    wait_for(lambda: not stack.client.maestro_status().runs)  # one that is stopped before leaves the rest to the next
    stack.client.maestro_stop()
    wait_for(lambda: stack.maestro() is None)
    assert not [p for p in stack.directory.rglob("*") if p.is_file() and b"s3cr3t-canary" in p.read_bytes()]


def test_a_run_continued_while_its_machine_is_given_back_gets_one_again(shared: Stack) -> None:
    for count in range(1, 16):  # the release takes milliseconds: some of the submits meet it
        jobs = [{"name": f"j{n}", "run": "true"} for n in range(count)]
        assert shared.settle(shared.submit(jobs=jobs)).counts == {
            "pending": 0, "running": 0, "succeeded": count, "failed": 0, "cancelled": 0,
        }  # fmt: skip


def test_a_glob_means_the_newest_run_that_it_fits(shared: Stack) -> None:
    """Seen: `kill job 'Search/*'` ended two tasks of the newest run, and those of a longer run that it has not."""
    long = shared.submit(name="long.json", project="long", jobs=[{"name": "s", "run": "sleep 600", "repeat": 4}])
    short = shared.submit(name="short.json", project="short", jobs=[{"name": "s", "run": "sleep 600", "repeat": 2}])
    assert [job.id for job in shared.client.find_jobs(["?-3"])] == [f"{long}.4"]
    assert [job.id for job in shared.client.cancel(["s-*"])] == [f"{short}.1", f"{short}.2"]
    assert shared.settle(short).counts["cancelled"] == 2
    assert {job.state for job in shared.client.list_jobs(long)} <= {"pending", "running"}
    shared.client.cancel_run(long)
    shared.settle(long)

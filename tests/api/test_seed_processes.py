"""Objects of the seeds' documents while jobs run: getters, waiting, ending, printing, fetching, clients at once."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from real_stack import wait_for
from seed_scripts import Scripts, gate

from cloudsend_cli.api.seeds import CloudRunJobState, CloudSendJobState, CloudSendProviderState, get_client
from cloudsend_cli.errors import ResultError, UsageError, WaitTimeout

DONE, ABORTED, RUNNING = CloudSendJobState.DONE, CloudSendJobState.ABORTED, CloudSendJobState.RUNNING
ENDED = DONE | ABORTED


# ---- objects -------------------------------------------------------------------------------------------------------


def test_getters_of_environments_jobs_and_processes(script: Scripts) -> None:
    jobs = [{"run_command": "true", "env_name": "e", "repeat": 2}, {"run_command": "exit 3", "env_name": "none"}]
    client = script(*jobs, environments=[{"name": "e", "command": "echo built", "env_aptget": None}])
    session = client.run_jobs(wait=True)
    (environment,) = client.get_environments()
    assert environment.get_name() == "e" and environment.get_config("command") == "echo built"
    assert environment.get_name_with_hash() == f"e-{environment.get_hash()}"
    assert json.loads(environment.json()) == {"name": "e", "command": "echo built", "env_aptget": None}
    first, second, bad = client.get_jobs()
    assert [job.get_rank() for job in client.get_jobs()] == [0, 1, 2]
    assert first.get_config("repeat") == second.get_config("repeat") == 2
    assert first.get_env() is environment and bad.get_env() is None
    assert first.get_hash() == session[0].get_job().get_hash() and first.get_command() == "true"
    (machine,) = client.get_instances()
    assert machine.get_environments() == [environment] and machine.get_data("provider") == "local"
    assert machine.get_cpus() == os.cpu_count() or machine.get_cpus() is not None
    process = bad.get_last_process()
    assert process is not None and process.get_job() is bad and process.get_instance() is machine
    assert process.get_uid() == f"{bad.get_id()}.1" and process.get_pid() is None
    assert (process.get_state(), process.get_aborted_reason()) == (ABORTED, "exit 3")
    assert process.get_state_object() == {
        "state": ABORTED, "substate": "exit 3", "aborted_reason": "exit 3", "uid": process.get_uid(),
        "job_id": bad.get_id(),
    }  # fmt: skip
    assert not process.is_active() and session.get_active_processes() == [] and session.get_instances() == [machine]
    assert first.has_completed() and not bad.has_completed() and bad.get_deployed_jobs() == [bad]


def test_uids_are_known_before_a_process_has_begun_and_a_retry_is_a_process_of_its_own(script: Scripts) -> None:
    hold, flag = gate(script.stack), script.stack.files / "flag"
    jobs = [
        {"name": "first", "run_command": f"read x <{hold}"},
        {
            "name": "again",
            "run_command": f"test -e {flag} || {{ touch {flag}; exit 3; }}",
            "after": "first",
            "retries": 1,
        },
    ]
    client = script(*jobs)
    session = client.run_jobs()
    waits = session[1]
    assert waits.get_uid() == f"{session.get_id()}.2.1"
    assert waits.get_state() & (CloudSendJobState.WAIT | CloudSendJobState.QUEUE)
    assert waits.get_pid() is None
    client.wait_for_jobs_state(RUNNING, session[0])
    pid = session[0].get_pid()
    assert pid is not None and b"read x" in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert script.stack.client.find_pid(str(session[1].get_job().get_id())) is None
    hold.write_text("\n")
    ended = client.wait_for_jobs_state(ENDED, session)
    assert [process.get_state() for process in ended] == [DONE, DONE]
    assert session[0].get_pid() == pid and ended[1].get_pid() is None
    assert ended[0] is session[0] and ended[1] is not waits and ended[1].get_uid() == f"{session.get_id()}.2.2"
    assert waits.get_state() == ABORTED and client.get_jobs()[1].get_processes() == [waits, ended[1]]


def test_one_job_is_run_alone_and_again(script: Scripts) -> None:
    out = script.stack.files / "out"
    client = script({"run_command": f"echo one >>{out}"}, {"run_command": f"echo two >>{out}", "repeat": 2})
    _, _, third = client.get_jobs()
    process = client.run_job(third, wait=True)
    assert process.get_state() == DONE and process.get_job() is third
    other = client.run_job(third)
    client.wait_for_jobs_state(other, ENDED)
    assert other.get_uid() != process.get_uid() and other.get_state() == DONE
    assert out.read_text() == "two\ntwo\n"
    assert third.get_processes() == [process, other]
    with pytest.raises(UsageError, match="which entry"):
        swept = script({"run_command": "echo {a}", "matrix": {"a": [1, 2]}})
        swept.run_job(swept.get_jobs()[0])


def test_one_job_of_a_file_has_the_files_beside_it_and_leaves_the_files_run_alone(script: Scripts) -> None:
    (script.stack.files / "sub").mkdir()
    (script.stack.files / "sub" / "in.txt").write_text("sent")
    entry = {"run_command": "cat in.txt", "upload_files": "in.txt", "name": "one"}
    text = json.dumps({"provider": "local", "jobs": [entry, {"run_command": "true"}]})
    (script.stack.files / "sub" / "c.json").write_text(text)
    client = script.open("sub/c.json")
    run = client.run_jobs(wait=True).get_id()
    process = client.run_job(client.get_jobs()[0], wait=True)
    assert process.get_state() == DONE and process.run != run
    assert b"".join(script.stack.client.read_log(f"{process.run}.1")) == b"sent"
    assert client.run_jobs(wait=True).get_id() == run


def test_the_directory_is_that_in_which_the_client_was_made(script: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    (script.stack.files / "in.txt").write_text("sent")
    client = script({"run_command": "cat in.txt", "upload_files": "in.txt"})
    monkeypatch.chdir("/")
    (process,) = client.run_jobs(wait=True)
    assert process.get_state() == DONE


# ---- waiting and ending --------------------------------------------------------------------------------------------


def test_waiting_for_a_state_that_cannot_come_ends_with_the_run(script: Scripts) -> None:
    client = script("exit 3")
    (process,) = client.wait_for_jobs_state(DONE, client.run_jobs())
    assert process.get_state() == ABORTED
    (process,) = client.wait(CloudRunJobState.DONE)
    assert process.get_aborted_reason() == "exit 3"


def test_waiting_has_a_limit_and_the_jobs_go_on(script: Scripts) -> None:
    hold = gate(script.stack)
    client = script(f"read x <{hold}")
    session = client.run_jobs()
    for mask in (ENDED, DONE):
        with pytest.raises(WaitTimeout):
            client.wait_for_jobs_state(mask, timeout=0.1)
    with pytest.raises(WaitTimeout, match=r"are IDLE\|DONE after"):
        client.wait_for_jobs_state(DONE | CloudSendJobState.IDLE, timeout=0.1)
    with pytest.raises(UsageError):
        client.wait_for_jobs_state(session)
    assert client.get_state() == CloudSendProviderState.RUNNING
    hold.write_text("\n")
    assert [p.get_state() for p in client.finalize()] == [DONE]


def test_what_is_killed_is_aborted_also_before_it_has_begun(script: Scripts, capfd) -> None:
    hold = gate(script.stack)
    jobs = [{"name": "a", "run_command": f"read x <{hold}"}, {"name": "b", "run_command": "true", "after": "a"}]
    client = script(*jobs)
    session = client.run_jobs()
    client.wait_for_jobs_state(RUNNING, session[0])
    client.kill(session[1])
    client.wait_for_jobs_state(ENDED, session[1])
    assert session[1].get_state() == ABORTED and session[0].is_active()
    client.kill(session.get_id())
    assert [p.get_state() for p in client.wait_for_jobs_state(ENDED)] == [ABORTED, ABORTED]
    client.print_aborted_logs()
    assert capfd.readouterr().out.count("has ABORTED") == 2
    assert client.watch(daemon=False) == client.watch(session) == list(session)


# ---- what is printed and fetched -----------------------------------------------------------------------------------


def test_what_is_printed_obeys_no_control_codes_and_names_processes(script: Scripts, capfd) -> None:
    client = script("printf '\\033[2Jhello\\n' >&2; exit 3  # \x1b[31m", "true")
    client.run_jobs(wait=True)
    client.print_jobs_summary()
    said = capfd.readouterr().out
    assert "STATE = ABORTED (exit 3)" in said and "STATE = DONE" in said and "\x1b" not in said
    client.print_jobs_summary(client.get_instances()[0])
    assert capfd.readouterr().out.count("|_ ") == 2
    client.print_aborted_logs()
    said = capfd.readouterr().out
    assert "hello" in said and "Job 0 has ABORTED: exit 3" in said and "\x1b" not in said and "Job 1" not in said
    client.print_aborted_logs(client.get_jobs()[1].get_processes())
    assert capfd.readouterr() == ("", "")


def test_results_lie_side_by_side_and_nothing_else_is_touched(script: Scripts) -> None:
    target = script.stack.files / "tmp"
    target.mkdir()
    (target / "mine").write_text("kept")
    client = script(
        {"run_command": "mkdir d; echo a >d/b; echo b >d_b", "output_file": ["d/b", "d_b"]},
        {"run_command": "echo c >b.dat; exit 1", "output_file": "b.dat"},
        "true",
    )
    session = client.run_jobs(wait=True)
    assert client.fetch_results("tmp") == "tmp"
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "mine": "kept", "job_000_d_b": "b\n", "job_000_d_b~1": "a\n", "job_001_b.dat": "c\n",
    }  # fmt: skip
    assert client.fetch_results() == str(script.stack.files / "results" / session.get_id())
    (script.stack.files / "full").mkdir()
    (script.stack.files / "full" / "job_001_b.dat").mkdir()
    with pytest.raises(ResultError, match="cannot be written"):
        client.fetch_results("full")
    assert (script.stack.files / "full" / "job_000_d_b~1").read_text() == "a\n"
    client.fetch_results("one", session[1])
    assert [path.name for path in (script.stack.files / "one").iterdir()] == ["job_001_b.dat"]


# ---- several -------------------------------------------------------------------------------------------------------


def test_several_clients_work_at_once_in_threads(script: Scripts) -> None:
    found: dict[int, list[str]] = {}

    def work(number: int) -> None:
        client = get_client(
            {"provider": "local", "project": f"p{number}", "jobs": [f"exit {number}", "true"]},
            state_dir=script.stack.state,
        )
        with client:
            found[number] = [str(p.get_aborted_reason()) for p in client.run_jobs(wait=True)]

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {number: [f"exit {number}", "None"] for number in (1, 2, 3)}


def test_a_second_client_sees_what_the_first_has_run(script: Scripts) -> None:
    config = {"provider": "local", "recover": True, "jobs": "true"}
    first = script.open(config).run_jobs(wait=True)
    second = script.open(config).run_jobs()
    assert second.get_id() == first.get_id() and [p.get_uid() for p in second] == [p.get_uid() for p in first]
    wait_for(lambda: not script.stack.client.maestro_status().runs)


def test_a_client_whose_jobs_another_one_replaces_is_never_given_that_ones_processes(script: Scripts) -> None:
    """Seen: the first was told that its job was done, and given the results of the second."""
    hold = gate(script.stack)
    first = script({"run_command": f"echo first >out; read x <{hold}", "output_file": "out"}, recover=True)
    session = first.run_jobs()
    (process,) = first.wait_for_jobs_state(RUNNING, session)
    second = script({"run_command": "echo second >out", "output_file": "out"}, recover=True)
    (other,) = second.run_jobs(wait=True)
    assert second.get_job(str(other.get_job().get_id())) is other.get_job() and other.get_state() == DONE
    assert first.wait_for_jobs_state(ENDED) == [process]
    assert (process.get_uid(), process.get_state()) == (f"{session.get_id()}.1.1", ABORTED)
    assert str(process.get_aborted_reason()).endswith("; its run was continued without it")
    assert other.get_uid() == f"{session.get_id()}.2.1"
    for directory in ("there", None):
        with pytest.raises(ResultError, match="continued by another client without"):
            first.fetch_results(directory)
    second.fetch_results("there")
    assert (script.stack.files / "there" / "job_000_out").read_text() == "second\n"
    (again,) = first.run_jobs(wait=False)
    assert again.get_uid() == f"{session.get_id()}.3.1" and second.get_jobs_states() == [other]
    hold.write_text("\n")
    assert first.wait_for_jobs_state(ENDED) == [again] and again.get_state() == DONE
    assert first.get_job(f"{session.get_id()}.3") is again.get_job()
    with pytest.raises(ResultError, match=f"the results of {other.get_uid()} gave way to those of"):
        second.fetch_results("there")


def test_clients_that_run_other_jobs_at_once_each_have_their_own(script: Scripts) -> None:
    together, found = threading.Barrier(3), {}

    def work(number: int) -> None:
        client = get_client(
            {"provider": "local", "recover": True, "jobs": [{"run_command": f"echo {number}; true"}]},
            state_dir=script.stack.state,
        )
        with client:
            client.start()
            together.wait()
            (process,) = client.run_jobs(wait=True)
            found[number] = (process, script.stack.client.find_job(str(process.get_job().get_id())).command)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {number: command for number, (_, command) in found.items()} == {n: f"echo {n}; true" for n in (1, 2, 3)}
    assert len({process.get_uid() for process, _ in found.values()}) == 3
    assert DONE in {process.get_state() for process, _ in found.values()}


# ---- the run of an earlier client ----------------------------------------------------------------------------------


@pytest.mark.parametrize("recover", [False, True])
def test_a_client_without_a_config_has_the_processes_of_the_run_that_goes_on(script: Scripts, recover: bool) -> None:
    """Seen: it told that no process was active, and waited for none, while all of them ran."""
    hold = gate(script.stack)
    first = script({"run_command": f"read x <{hold}; echo done >out", "output_file": "out"}, "true", recover=recover)
    session = first.run_jobs()
    first.wait_for_jobs_state(DONE, session[1])
    second = script.open()
    assert second.get_state() == CloudSendProviderState.RUNNING and second.get_num_active_processes() == 1
    assert [p.get_uid() for p in second.get_jobs_states()] == [p.get_uid() for p in session]
    assert [job.get_id() for job in second.get_jobs()] == [job.get_id() for job in first.get_jobs()]
    with pytest.raises(WaitTimeout):
        second.wait_for_jobs_state(ENDED, timeout=0.2)
    third = script.open()
    hold.write_text("\n")
    third.finalize()
    assert [p.get_state() for p in third.get_jobs_states()] == [DONE, DONE]
    assert script.open().fetch_results("there") == "there"
    assert (script.stack.files / "there" / "job_000_out").read_text() == "done\n"
    fourth = script.open()
    assert (fourth.run_jobs().get_id() == session.get_id()) is recover
    if not recover:  # as a dict that does not say so: all is done anew
        hold.write_text("\n")
    assert [p.get_state() for p in fourth.wait_for_jobs_state(ENDED)] == [DONE, DONE]


def test_a_run_that_an_earlier_client_has_left_is_killed_by_its_id(script: Scripts) -> None:
    hold = gate(script.stack)
    (process,) = script(f"read x <{hold}").run_jobs()
    client = script.open()
    client.kill(process.run)
    assert [p.get_state() for p in client.wait_for_jobs_state(ENDED)] == [ABORTED]
    assert client.get_run_session(process.run) == client.get_jobs_states()
    client.cfg_reset()
    assert client.get_state() == CloudSendProviderState.NEW and client.get_jobs_states() == []

"""What clients of the seeds' documents add to their configs before jobs run and while they do, and further calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from seed_scripts import Scripts, gate

from cloudsend_cli.api.seeds import CloudSendJobState, CloudSendProviderState
from cloudsend_cli.api.seeds.adding import extend, read_added, without_objects
from cloudsend_cli.api.seeds.opening import Source
from cloudsend_cli.errors import ConfigError, UsageError

DONE, RUNNING = CloudSendJobState.DONE, CloudSendJobState.RUNNING
ENDED = DONE | CloudSendJobState.ABORTED


# ---- what may be given ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"run_command": "true"},
        [{"run_command": "true"}],
        {"jobs": {"run_command": "true"}, "provider": "other", "instances": [{"type": "a"}]},
        '{"run_command": "true"}',
        ' [{"run_command": "true"}]',
        '{"jobs": [{"run_command": "true"}]}',
        "more.json",
        "more.py",
        Path("more.yml"),
    ],
)
def test_jobs_may_be_given_in_any_form(tmp_path: Path, given: object) -> None:
    (tmp_path / "more.json").write_text('{"jobs": [{"run_command": "true"}]}')
    (tmp_path / "more.py").write_text("config = {'jobs': [{'run_command': 'true'}]}")
    (tmp_path / "more.yml").write_text("jobs: {run_command: 'true'}")
    added = read_added(given, ("jobs",), Source({}, str(tmp_path)))  # type: ignore[arg-type]
    assert added == {"jobs": [{"run_command": "true"}]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{nothing", "JSON"),
        (None, "a NoneType is no config"),
        ("nowhere.py", "nowhere.py: no such file"),
        ({"provider": "local"}, "there are no instances, environments, jobs to add"),
        ({"jobs": ["true"], "provider": "aws", "debug": 1}, "'provider' cannot be added"),
    ],
)
def test_what_cannot_be_added_is_said(tmp_path: Path, given: object, words: str) -> None:
    source = Source({"provider": "local", "debug": 1}, str(tmp_path))
    with pytest.raises(ConfigError, match=words):
        read_added(given, ("instances", "environments", "jobs"), source)  # type: ignore[arg-type]


def test_entries_follow_those_that_are_there_and_a_file_gets_a_name() -> None:
    source = Source({"jobs": "true", "environments": None}, "/d", "/d/c.yml")
    more = extend(source, {"jobs": ["false"], "environments": [{"name": "e"}]})
    assert more.document == {"recover": True, "jobs": ["true", "false"], "environments": [{"name": "e"}]}
    assert (more.path, more.folder, more.name) == ("", "/d", "/d/c.yml and more")
    assert extend(more, {"jobs": ["x"]}).name == more.name
    assert source.document == {"jobs": "true", "environments": None}
    assert without_objects(Source({"jobs": "true", "provider": "p"}, "/d", name="n")).document == {"provider": "p"}


# ---- clients -------------------------------------------------------------------------------------------------------


def test_a_client_begins_with_nothing_and_is_given_all_piece_by_piece(script: Scripts) -> None:
    client = script.open({"provider": "local"})
    client.start()
    assert client.get_jobs() == [] and client.get_num_instances() == 1
    client.cfg_add_environments({"name": "e", "command": "echo built"})
    client.cfg_add_jobs(
        [{"run_command": 'test -n "$CLOUDSEND_ENV"', "env_name": "e"}, {"run_command": "exit 3", "env_name": "none"}]
    )
    client.deploy()
    first, second = client.get_jobs()
    assert first.get_env() is client.get_environments()[0] and second.get_env() is None
    assert client.get_environment(client.get_environments()[0].get_hash()) is first.get_env()
    session = client.run(wait=True)
    assert [p.get_aborted_reason() for p in session] == [None, "exit 3"]
    assert client.get_job(str(first.get_id())) is first and client.get_job("nothing") is None
    assert client.get_run_session(session.get_id()) == session and client.get_run_session("nothing") is None
    with pytest.raises(ConfigError, match="instanses"):
        client.cfg_add_jobs({"run_command": "true", "instanses": 1})
    assert client.get_jobs() == [first, second]


def test_what_is_added_while_jobs_run_joins_their_run(script: Scripts) -> None:
    hold, out = gate(script.stack), script.stack.files / "out"
    client = script(f"read x <{hold}; echo first >>{out}", recover=False)
    session = client.run_jobs()
    (process,) = client.wait_for_jobs_state(RUNNING, session)
    client.cfg_add_jobs({"run_command": f"echo second >>{out}"}, run_session=session)
    first, second = client.get_jobs()
    assert first is process.get_job() and second.get_id() == f"{session.get_id()}.2"
    assert client.get_num_active_processes() >= 1
    client.wait_for_jobs_state(DONE, second.get_last_process())
    hold.write_text("\n")
    assert [p.get_state() for p in client.wait_for_jobs_state(ENDED)] == [DONE, DONE]
    assert client.wait_for_jobs_state(ENDED, session) == [process] and process.get_state() == DONE
    assert out.read_text() == "second\nfirst\n"
    assert len(script.stack.client.list_runs()) == 1 and client.get_num_active_processes() == 0
    client.cfg_add_jobs('[{"run_command": "true"}]')  # nothing runs any more: it waits for the next run
    assert [job.get_id() for job in client.get_jobs()[:2]] == [first.get_id(), second.get_id()]
    assert client.get_jobs()[2].get_id() is None
    other = script("true")
    with pytest.raises(UsageError, match="not the newest"):
        other.cfg_add_jobs({"run_command": "true"}, run_session=session)


def test_a_file_is_added_to_before_its_jobs_run_and_edited_after(script: Scripts) -> None:
    (script.stack.files / "c.json").write_text('{"provider": "local", "jobs": ["true"]}')
    client = script.open("c.json")
    client.cfg_add_config('{"jobs": ["true"], "provider": "local"}')
    assert len(client.run_jobs(wait=True)) == 2
    assert len(client.run_jobs()) == 2 and len(script.stack.client.list_runs()) == 1
    plain = script.open("c.json")
    plain.run_jobs(wait=True)
    with pytest.raises(UsageError, match=r"run from .*c\.json"):
        plain.cfg_add_jobs({"run_command": "true"})


def test_a_reset_forgets_the_config_and_ends_nothing(script: Scripts) -> None:
    hold = gate(script.stack)
    client = script(f"read x <{hold}", debug=1)
    session = client.run_jobs()
    client.wait_for_jobs_state(RUNNING, session)
    client.cfg_reset()
    assert client.get_state() == CloudSendProviderState.NEW and client.get_jobs() == []
    with pytest.raises(ConfigError, match="none was submitted from"):
        script.open()
    client.cfg_add_jobs({"run_command": "true"})
    (process,) = client.run_jobs(wait=True)
    assert process.get_state() == DONE and process.run != session.get_id()
    hold.write_text("\n")
    assert script.stack.settle(session.get_id()).counts["succeeded"] == 1


# ---- the rest of their calls ---------------------------------------------------------------------------------------


def test_copies_are_taken_away_again_and_what_was_edited_stays(script: Scripts) -> None:
    target = script.stack.files / "tmp"
    client = script(
        {"run_command": "mkdir d; echo a >d/b", "output_file": "d/b"},
        {"run_command": "mkdir d; echo c >d/b; echo e >f", "output_file": ["d/b", "f"]},
    )
    client.run_jobs(wait=True)
    client.fetch_results(target, use_normal_output=True)
    assert {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()} == {
        "d/b": "a\n", "d/b~1": "c\n", "f": "e\n",
    }  # fmt: skip
    client.fetch_results(target, None, False)
    (target / "mine").write_text("kept")
    (target / "f").write_text("edited")
    (target / "job_001_f").unlink()
    script(project="other").clear_results_dir("tmp")
    assert sorted(p.name for p in target.rglob("*") if p.is_file()) == ["f", "mine"]
    client.clear_results_dir(target)
    assert (target / "f").read_text() == "edited"
    client.clear_results_dir(script.stack.files / "nowhere")


def test_objects_are_counted_printed_and_told(script: Scripts, capfd: pytest.CaptureFixture[str]) -> None:
    client = script("true", {"run_command": "exit 3  # \x1b[31m", "repeat": 2}, debug=2)
    session = client.run_jobs(wait=True)
    found = client.get_objects()
    assert list(found) == ["instances", "environments", "jobs"] and found["jobs"] == client.get_jobs()
    assert client.get_instance("local-0") is found["instances"][0] and client.get_instance("nothing") is None
    assert (client.get_num_instances(), client.get_num_active_processes(session), client.get_region()) == (1, 0, None)
    client.print_objects()
    said = capfd.readouterr().out
    assert said.startswith("STATE = IDLE\n") and said.count("CloudSendJob: ") == 3 and "\x1b" not in said
    client.debug(2, "seen", 1, "\x1b")
    client.debug(3, "not seen")
    assert capfd.readouterr().out == "seen 1 \\x1b\n"
    assert session.get_ran_processes() == list(session) and session.get_active_processes(found["instances"][0]) == []
    state = session[1].get_state_object(False, True)
    assert "job_id" not in state and state["job_config"] == {"run_command": "exit 3  # \x1b[31m", "repeat": 2}
    client.finalize()
    assert client.version().count(".") == 2 and not found["instances"][0].get_reachability()


def test_a_reset_of_a_machine_ends_what_is_there_and_a_batch_is_killed_by_its_uid(script: Scripts) -> None:
    hold = gate(script.stack)
    jobs = [{"name": "a", "run_command": f"read x <{hold}"}, {"name": "b", "run_command": "true", "after_any": "a"}]
    client = script(*jobs)
    session = client.run_jobs()
    client.wait_for_jobs_state(RUNNING, session[0])
    (machine,) = client.get_instances()
    assert machine.get_reachability()
    with pytest.raises(UsageError, match="local-0 is no rented machine"):
        client.hard_reset_instance(machine)
    client.reset_instance(machine)
    assert [p.get_state().name for p in client.wait_for_jobs_state(ENDED)] == ["ABORTED", "DONE"]
    again = client.run_jobs()
    client.wait_for_jobs_state(RUNNING, again[0])
    client.kill(again[0].get_batch_uid())
    assert [p.get_state().name for p in client.wait_for_jobs_state(ENDED, again)] == ["ABORTED", "ABORTED"]


def test_every_process_that_was_seen_may_be_asked_for(script: Scripts) -> None:
    flag = script.stack.files / "flag"
    client = script({"run_command": f"test -e {flag} || {{ touch {flag}; exit 3; }}", "retries": 1})
    client.wait_for_jobs_state(ENDED, client.run_jobs())
    assert [p.attempt for p in client.get_jobs_states()] == [2]
    assert [p.attempt for p in client.get_jobs_states(None, False)][-1] == 2

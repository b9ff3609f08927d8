"""The client of the seeds' documents beyond their own programs: its words, its steps, its configs."""

from __future__ import annotations

import json
import os
from datetime import timedelta

import pytest
from seed_scripts import Scripts, gate

import cloudsend_cli
from cloudsend_cli.api import seeds
from cloudsend_cli.api.seeds import CloudSendInstanceState, CloudSendJobState, CloudSendProviderState, get_client
from cloudsend_cli.core.explain import PHASES
from cloudsend_cli.errors import ConfigError

DONE, ABORTED, RUNNING = CloudSendJobState.DONE, CloudSendJobState.ABORTED, CloudSendJobState.RUNNING
ENDED = DONE | ABORTED


# ---- words ---------------------------------------------------------------------------------------------------------


def test_the_flags_have_the_values_of_the_one_table() -> None:
    assert {word: int(CloudSendJobState[word]) for word in PHASES} == {w: value for w, (value, _) in PHASES.items()}
    assert CloudSendJobState.ANY == 63 and int(ENDED) == 48 and CloudSendJobState(48) == ENDED


def test_every_name_of_every_age_stands_for_the_same() -> None:
    assert cloudsend_cli.get_client is get_client and cloudsend_cli.CloudSendJobState is CloudSendJobState
    for word in ("Job", "Process"):
        for age in ("CloudRun", "CloudSend"):
            assert getattr(seeds, f"{age}{word}State") is CloudSendJobState
    for name in seeds.__all__:
        age = next((age for age in ("CloudRun", "Katapult") if name.startswith(age)), None)
        ours = f"CloudSend{name.removeprefix(age)}" if age else name
        assert getattr(seeds, name) is getattr(seeds, "CloudSendJobState" if "CommandState" in name else ours)


# ---- steps ---------------------------------------------------------------------------------------------------------


def test_steps_that_are_left_out_are_done_and_nothing_is_printed(script: Scripts, capfd) -> None:
    client = script("true")
    assert client.get_state() == CloudSendProviderState.NEW
    processes = client.wait_for_jobs_state(client.run_jobs(), ENDED)
    assert [process.get_state() for process in processes] == [DONE]
    assert client.get_state() == CloudSendProviderState.IDLE
    assert capfd.readouterr() == ("", "")


def test_each_step_does_what_it_says_and_rents_or_starts_nothing_before_run(script: Scripts) -> None:
    hold = gate(script.stack)
    client = script(f"read x <{hold}", "true", project="p")
    client.start()
    assert client.get_state() == CloudSendProviderState.STARTED
    (machine,) = client.get_instances()
    assert (machine.get_name(), machine.get_id(), machine.get_rank()) == ("local-0", None, "1.1")
    assert machine.get_state() == CloudSendInstanceState.UNKNOWN and machine.get_ip_addr() is None
    first, second = client.get_jobs()
    assert first.get_instance() is None and first.get_id() is None and first.get_deployed_jobs() == []
    client.assign_jobs_to_instances()
    assert client.get_state() == CloudSendProviderState.ASSIGNED
    assert machine.get_jobs() == [first, second] and second.get_instance() is machine
    client.deploy()
    assert client.get_state() == CloudSendProviderState.DEPLOYED
    assert script.stack.client.list_runs() == [] and script.stack.maestro() is None
    client.wait_for_jobs_state(RUNNING, client.run_jobs()[0])
    assert machine.get_state() == CloudSendInstanceState.RUNNING and machine.get_ip_addr() == "127.0.0.1"
    assert machine.get_id() and machine.get_active_processes()
    hold.write_text("\n")
    client.finalize()
    given_back = CloudSendInstanceState.TERMINATING | CloudSendInstanceState.TERMINATED
    assert machine.get_state() & given_back and machine.get_id()
    assert first.get_instance() is machine and first.get_id() == f"{client.get_jobs_states().get_id()}.1"


def test_a_mistake_in_the_config_is_told_by_start(script: Scripts) -> None:
    client = script("true", instanses=[])
    with pytest.raises(ConfigError, match="instanses"):
        client.start()
    with pytest.raises(ConfigError, match="instanses"):
        client.run_jobs()


def test_reset_begins_anew_once(script: Scripts) -> None:
    client = script("true", recover=True)
    run = client.run_jobs(wait=True).get_id()
    assert client.run_jobs(wait=True).get_id() == run
    client.start(reset=True)
    anew = client.run_jobs(wait=True).get_id()
    assert anew != run
    assert client.run_jobs(wait=True).get_id() == anew


def test_starting_again_keeps_the_objects_and_an_edited_file_makes_new_ones(script: Scripts) -> None:
    path = script.stack.files / "c.json"
    path.write_text('{"provider": "local", "jobs": ["true"]}')
    client = script.open("c.json")
    job = client.run_jobs(wait=True)[0].get_job()
    client.start()
    assert client.get_jobs() == [job] and job.has_completed()
    path.write_text('{"provider": "local", "jobs": ["true", "exit 3"]}')
    states = [process.get_state() for process in client.run_jobs(wait=True)]
    assert states == [DONE, ABORTED] and len(client.get_jobs()) == 2
    assert [p.get_state() for p in client.wait_for_jobs_state(16 | 32)] == states


def test_a_session_is_continued_when_it_is_asked_for(script: Scripts) -> None:
    client = script("true")
    first = client.run(wait=True)
    more = client.run(continue_session=True, wait=True)
    assert (more.get_id(), more.get_number()) == (first.get_id(), first.get_number() + 1)
    assert client.run(wait=True).get_id() != first.get_id()


# ---- configs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.py", "from datetime import timedelta\nconfig = {'provider': 'local', 'jobs': [{'run_command': 'true'}]}"),
        ("c.json", '{"provider": "local", "jobs": [{"run_command": "true"}]}'),
        ("c.yml", "provider: local\njobs: [{run_command: 'true', cpus_req: 1, timeout: null}]\n"),
        ("c.yaml", "provider: local\njobs: 'true'\n"),
    ],
)
def test_a_config_may_be_a_file(script: Scripts, name: str, text: str) -> None:
    (script.stack.files / "sub").mkdir()
    (script.stack.files / "sub" / name).write_text(text)
    client = script.open(f"sub/{name}")
    session = client.run_jobs(wait=True)
    (job,) = client.get_jobs()
    assert job.get_config("run_command") == "true" and job.get_config("nothing", 7) == 7
    assert script.stack.client.find_run(session.get_id()).config == str(script.stack.files / "sub" / name)
    assert client.run_jobs(wait=True).get_id() == session.get_id()


def test_a_config_may_be_json_text_or_the_one_before(script: Scripts) -> None:
    with pytest.raises(ConfigError, match="none was submitted from"):
        script.open()
    config = {"provider": "local", "recover": True, "jobs": [{"run_command": "true", "timeout": 60}]}
    run = script.open(json.dumps(config)).run_jobs(wait=True).get_id()
    assert script.open().run_jobs(wait=True).get_id() == run
    config["jobs"][0]["timeout"] = timedelta(minutes=1)  # type: ignore[index]
    assert script.open(config).run_jobs(wait=True).get_id() == run
    assert script.open().get_jobs()[0].get_config("timeout") == 60.0
    with pytest.raises(ConfigError, match="JSON"):
        script.open("{nothing")
    with pytest.raises(ConfigError, match="a list is no config"):
        script.open(["true"])
    with pytest.raises(ConfigError, match=r"nowhere\.py: no such file"):
        script.open("nowhere.py")
    with pytest.raises(ConfigError, match=r"nowhere\.yml: no such file"):
        script.stack.client.submit("nowhere.yml")


def test_the_provider_may_be_said_beside_the_config(script: Scripts) -> None:
    config = {"provider": "aws", "instances": [{"type": "t2.micro"}], "jobs": "true"}
    (machine,) = script.open(config, provider="local").get_instances()
    assert machine.get_name() == "local-0" and machine.get_config("type") == "t2.micro"
    variables = {**os.environ, "CLOUDSEND_PROVIDER": "local"}
    assert [m.get_name() for m in script.open(config, environ=variables).get_instances()] == ["local-0"]

"""Files as the documents of the seeds name them: beside the script, and inputs that are names alone."""

from __future__ import annotations

from datetime import timedelta

from cloudsend_cli.config.load import load_mapping

SCRIPT = "jobs: {run_script: example/run.py 1 10, upload_files: [%s]}\n"


def paths(desk, text: str) -> list[str]:
    return [upload.path for upload in desk.job(text).uploads]


def test_an_upload_is_looked_for_beside_the_script_and_put_where_its_text_says(desk) -> None:
    for name in ("example/run.py", "example/sent.txt", "example/tree/a/b", "above.txt"):
        desk.write(name, name)
    assert paths(desk, SCRIPT % "sent.txt, tree") == ["example/run.py", "sent.txt", "tree/a/b"]
    assert paths(desk, SCRIPT % "../above.txt") == ["above.txt", "example/run.py"]
    assert "no such file: 'nowhere'" in desk.problems(SCRIPT % "nowhere")
    assert "no such file: 'sent.txt'" in desk.problems("jobs: {run: python example/run.py, upload: sent.txt}\n")


def test_what_is_below_the_configs_directory_comes_first(desk) -> None:
    for name in ("example/run.py", "example/sent.txt", "sent.txt"):
        desk.write(name, name)
    (upload,) = (one for one in desk.job(SCRIPT % "sent.txt").uploads if one.path == "sent.txt")
    assert upload.source == str(desk.folder / "sent.txt")


def test_two_scripts_have_each_their_own(desk) -> None:
    for name in ("one/run.py", "one/sent.txt", "two/run.py", "two/sent.txt"):
        desk.write(name, name)
    jobs = desk.jobs("jobs: [{script: one/run.py, upload: sent.txt}, {script: two/run.py, upload: sent.txt}]\n")
    sources = [{u.path: u.source for u in job.uploads}["sent.txt"] for job in jobs]
    assert sources == [str(desk.folder / "one/sent.txt"), str(desk.folder / "two/sent.txt")]


def test_the_input_of_the_seeds_may_be_missing_and_ours_may_not(desk) -> None:
    desk.write("example/run.py")
    for key in ("input_file", "input_files"):
        text = f"jobs: {{script: example/run.py, {key}: input.dat}}\n"
        assert f"jobs.{key}: no such file: 'input.dat'; jobs run without it" in desk.warnings(text)
        assert paths(desk, text) == ["example/run.py"]
    assert "jobs.input: no such file: 'input.dat'" in desk.problems(
        "jobs: {script: example/run.py, input: input.dat}\n"
    )
    desk.write("example/input.dat")
    assert paths(desk, "jobs: {script: example/run.py, input_file: input.dat}\n") == ["example/run.py", "input.dat"]


def test_the_dict_of_the_documents_has_none_wherever_nothing_is_asked_for(desk) -> None:
    desk.write("example/run.py")
    instance = {
        "region": None, "cloud_id": None, "img_id": None, "img_username": None, "type": "t2.micro", "cpus": None,
        "gpu": None, "disk_size": None, "disk_type": None, "eco": True, "eco_life": timedelta(days=30),
        "max_bid": None, "number": 1, "explode": True,
    }  # fmt: skip
    environment = {
        "name": None, "command": None, "env_aptget": None, "env_conda": None, "env_conda_channels": None,
        "env_pypi": None, "env_julia": None,
    }  # fmt: skip
    job = {
        "env_name": None, "cpus_req": None, "run_script": "example/run.py 1 10", "run_command": None,
        "upload_files": None, "input_file": "input.dat", "output_file": "output.dat", "repeat": 2,
    }  # fmt: skip
    config = {
        "project": "test", "profile": None, "dev": False, "debug": 1, "maestro": "local", "auto_stop": True,
        "provider": "aws", "job_assign": None, "recover": True, "print_deploy": False, "mutualize_uploads": True,
        "instances": [instance], "environments": [environment], "jobs": [job],
    }  # fmt: skip
    spec = load_mapping(config, desk.options(), folder=desk.folder).spec
    assert [one.provider for one in spec.instances] == ["aws"]
    assert [len(one.outputs) for one in spec.jobs] == [1, 1]


def test_a_group_may_say_that_its_remote_is_this_machine(desk) -> None:
    text = "sections: {S: {G: {Call: ls, Param: {'': [-l]}, Remote: %s, Port: 18812}}}\n"
    for name in ("localhost", "127.0.0.1", "'::1'"):
        (job,) = desk.jobs(text % name)
        assert job.name == "S/G/0"
        assert "sections.S.G.Remote has no effect: tasks go to the machines of the run" in desk.warnings(text % name)
    problems = desk.problems(text % "gpu1")
    assert "G.Remote: tasks are not sent to a Python server" in problems and "G.Port" in problems

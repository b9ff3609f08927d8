"""The real command, in a process of its own, on real jobs of this machine."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from campaigns import pick
from command_line import Command
from json_schema import check

CONFIG = """\
project: demo
jobs:
  - name: good
    run: echo hello
  - name: bad
    run: echo why >&2; exit 4
  - name: later
    run: "true"
    after: [bad]
  - name: writes
    run: echo data > r.txt
    output: r.txt
"""


@pytest.fixture(scope="module")
def ran(cloudsend_of_module: Command) -> Command:
    """After a run of four jobs, two of which failed."""
    command = cloudsend_of_module
    (command.folder / "config.yml").write_text(CONFIG)
    command("run", "config.yml", status=1)
    return command


def test_run_prints_one_object_and_nothing_else(cloudsend: Command) -> None:
    (cloudsend.folder / "config.yml").write_text(CONFIG)
    done = cloudsend("run", "config.yml", "-o", "json", status=1)
    value = json.loads(done.stdout)
    check(value, "run")
    assert value["state"] == "failed"
    assert value["counts"] == {"running": 0, "pending": 0, "succeeded": 2, "failed": 2, "cancelled": 0}
    assert {job["name"]: job["state"] for job in value["jobs"]} == {
        "good": "succeeded", "bad": "failed", "later": "failed", "writes": "succeeded",
    }  # fmt: skip
    assert "  | why\n" in done.stderr


def test_a_good_run_of_a_command_keeps_its_words(cloudsend: Command) -> None:
    words = ["printf", "%s|", "a b", "$HOME", "-o", "json", "--", "é\n", "*"]
    value = json.loads(cloudsend("run", "-o", "json", "--", *words).stdout)
    assert value["state"] == "succeeded"
    assert cloudsend("tail", value["jobs"][0]["id"]).stdout == "a b|$HOME|-o|json|--|é\n|*|"


def test_where_nothing_was_run_yet(cloudsend: Command) -> None:
    assert cloudsend.json("list", "jobs") == []
    assert cloudsend("list", "runs").stderr == "no runs\n"
    assert cloudsend("getstate", "@last", status=3).stdout == ""
    assert cloudsend("maestro", "status").stdout == "not running; it starts when a run needs it\n"


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        ("list jobs", "jobs"),
        ("list runs", "runs"),
        ("info job good", "job"),
        ("info run @last", "run_in_list"),
        ("getstate bad", "job"),
        ("explain later", "explanation"),
        ("validate config.yml", "verdict"),
        ("run config.yml --dry-run", "plan"),
        ("wait good", "jobs"),
        ("kill job good", "jobs"),
        ("list instances", "instances"),
        ("list instances --run @last", "instances"),
        ("list providers", "providers"),
        ("info provider local", "provider"),
        ("check", "checks"),
    ],
)
def test_json_is_as_its_schema_says(ran: Command, words: str, schema: str) -> None:
    check(ran.json(*words.split()), schema)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("getstate nothing", 3),
        ("run nothing.yml", 2),
        ("list jobs --run zzzzzz", 3),
        ("kill run zzzzzz", 3),
        ("tail later", 3),
        ("lst", 2),
        ("list --limt", 2),
    ],
)
def test_errors_are_objects_on_stderr(ran: Command, words: str, status: int) -> None:
    done = ran(*words.split(), "-o", "json", status=status)
    assert done.stdout == ""
    value = json.loads(done.stderr)
    check(value, "error")
    assert value["exit_status"] == status


@pytest.mark.parametrize("words", ["list", "list runs", "info job bad", "explain later", "check", "tail bad --stderr"])
def test_no_control_codes_when_piped(ran: Command, words: str) -> None:
    done = ran(*words.split())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr)


def test_states_reasons_and_logs(ran: Command) -> None:
    assert ran("getstate", "bad").stdout == "ABORTED (exit 4)\n"
    assert ran("getstate", "good", "1").stdout == "DONE\n"
    assert ran("getstate", "later").stdout == "ABORTED (dependency-failed: bad)\n"
    assert ran("tail", "good").stdout == "hello\n"
    assert ran("tail", "bad", "--stderr").stdout == "why\n"
    assert ran("wait", "good", "bad", status=1).stdout.count("\n") == 3


def test_results_come_home(ran: Command) -> None:
    (path,) = ran("fetch", "writes").stdout.splitlines()
    assert (Path(path) / "r.txt").read_text() == "data\n"


def test_a_second_run_says_what_it_keeps(cloudsend: Command) -> None:
    (cloudsend.folder / "c.yml").write_text("jobs: [{name: a, run: 'true'}, {name: b, run: 'true'}]")
    cloudsend("run", "c.yml")
    (cloudsend.folder / "c.yml").write_text(
        "jobs: [{name: a, run: 'true'}, {name: b, run: 'exit 0'}, {name: c, run: ls}]"
    )
    said = cloudsend("run", "c.yml").stderr.splitlines()[0]
    assert re.fullmatch(r"run \w{6} continued: 1 kept, 2 new, 1 superseded", said)


def test_all_problems_of_a_config_come_at_once(cloudsend: Command) -> None:
    (cloudsend.folder / "c.yml").write_text("maestro: remot\njobs:\n  - run: ls\n    nmae: x\n")
    done = cloudsend("validate", "c.yml", status=2)
    assert done.stdout == ""
    assert "--> c.yml:1:10\n" in done.stderr
    assert "--> c.yml:4:5\n" in done.stderr
    assert done.stderr.endswith("2 problems in c.yml; nothing was started.\n")
    value = cloudsend.json("validate", "c.yml", status=2)
    check(value, "verdict")
    assert [problem["line"] for problem in value["problems"]] == [1, 4]


def test_wait_gives_up_in_time_and_kill_ends(cloudsend: Command) -> None:
    run = cloudsend("run", "-d", "--", "sleep", "1000").stdout.strip()
    assert cloudsend("wait", run, "--timeout", "0.2", status=124).stdout == ""
    cloudsend("kill", "run", run)
    assert "ABORTED" in cloudsend("wait", run, "--timeout", "30", status=1).stdout
    cloudsend("kill", "run", run)  # again, and nothing changes


def test_c10_ctrl_c_detaches_and_the_job_goes_on(cloudsend: Command) -> None:
    fifo = cloudsend.folder / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*cloudsend.argv, "run", "--", "cat", str(fifo)],
        env=cloudsend.environ,
        cwd=cloudsend.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with open(fifo, "w"):  # returns when the job has begun to read
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (130, "")
        assert re.search(r"detached; 1 job of run \w+ goes on\.\n", err)
        assert "Traceback" not in err
        run = re.search(r"cloudsend kill run (\w+)", err)
        assert run is not None
        assert cloudsend("getstate", "cat").stdout == "RUNNING\n"
    assert "DONE" in cloudsend("wait", run[1]).stdout


def test_follow_prints_each_jobs_lines_with_its_name(cloudsend: Command) -> None:
    (cloudsend.folder / "c.yml").write_text(
        "jobs:\n  - {name: one, run: 'printf \"a\\\\n\\033[2Jb\\\\n\"'}\n  - {name: two, run: echo c}\n"
    )
    out = cloudsend("run", "c.yml", "--follow").stdout
    assert {"one | a", "one | b", "two | c"} <= set(out.splitlines())
    value = cloudsend("run", "--fresh", "c.yml", "--follow", "-o", "json")
    check(json.loads(value.stdout), "run")
    assert "two | c" in value.stderr


def test_hostile_output_reaches_a_pipe_unchanged(cloudsend: Command) -> None:
    (cloudsend.folder / "out.bin").write_bytes(b"\x00\xff\x1b[2J\r\nlast, no newline")
    cloudsend("run", "--", "cat", str(cloudsend.folder / "out.bin"))
    done = subprocess.run(
        [*cloudsend.argv, "tail", "cat"], env=cloudsend.environ, capture_output=True, check=True, timeout=30
    )
    assert done.stdout == b"\x00\xff\x1b[2J\r\nlast, no newline"


def test_a_closed_pipe_is_no_error(ran: Command) -> None:
    script = f"{sys.executable} -m cloudsend_cli list jobs -o json | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=ran.environ, cwd=ran.folder, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() in {"0", "141"}
    assert done.stderr == ""


CLOSED = ["<&- >&-", ">&- 2>&-", "<&- >&- 2>&-", "1</dev/null", ">/dev/null 2>/dev/full"]
SAID = ["list jobs", "tail @last", "--help", "version", "lst", "__complete li"]


@pytest.mark.campaign("closed streams")
@pytest.mark.parametrize(
    ("words", "closed"),
    pick(  # each command and each way at least once, and a wrong one with and without a stderr
        [*zip(SAID, [*CLOSED[:4], CLOSED[1], CLOSED[4]], strict=True), ("lst", CLOSED[0])],
        [(words, closed) for words in SAID for closed in CLOSED],
    ),
)
def test_closed_streams_are_no_error(ran: Command, words: str, closed: str) -> None:
    script = f"{sys.executable} -m cloudsend_cli {words} {closed}"
    done = subprocess.run(
        ["bash", "-c", script],
        env=ran.environ,
        cwd=ran.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == (2 if words == "lst" else 0)
    assert done.stdout == ""
    assert done.stderr.count("\n") == (2 if words == "lst" and "2>" not in closed else 0)


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("cloudsend list jobs >/dev/full", 7, "error: no space left on device\n  help: make room "),
        ("cloudsend tail good >/dev/full", 7, "error: no space left on device\n  help: make room "),
        ("cloudsend __complete li >/dev/full", 0, ""),
        ("cloudsend lst >/dev/full 2>/dev/full", 2, ""),
        ("cloudsend init /proc", 7, "error: no such file or directory: '/proc/config.yml'\n  help: "),
        (
            "mkdir gone; cd gone; rmdir ../gone; cloudsend run -- true",
            7,
            "error: the working directory does not exist",
        ),
        ("mkdir gone; cd gone; rmdir ../gone; cloudsend init", 7, "error: the working directory does not exist"),
        ("mkdir gone; cd gone; rmdir ../gone; cloudsend getstate good", 0, ""),
    ],
)
def test_what_the_system_refuses_is_said(ran: Command, script: str, status: int, said: str) -> None:
    script = f'cloudsend() {{ {sys.executable} -m cloudsend_cli "$@"; }}\n{script}'
    done = subprocess.run(
        ["bash", "-c", script],
        env=ran.environ,
        cwd=ran.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == (2 if said else 0)


def test_lines_from_a_pipe_stop_at_the_first_failure(ran: Command) -> None:
    script = "# a comment\n\nversion\ncloudsend getstate good\ngetstate 'no such'\nversion\n"
    done = ran(stdin=script, status=3)
    assert re.fullmatch(r"cloudsend \S+\nDONE\n", done.stdout)
    assert "no job" in done.stderr
    assert ran(stdin="version\nexit\nlst\n").stdout.startswith("cloudsend ")
    assert "no closing quotation" in ran(stdin="list 'jobs\n", status=2).stderr.lower()


def test_completion_knows_commands_options_and_ids(ran: Command) -> None:
    def candidates(*words: str) -> list[str]:
        return [line.split("\t")[0] for line in ran("__complete", *words).stdout.splitlines()]

    assert candidates("li") == ["list"]
    assert candidates("list", "") == ["jobs", "runs", "instances", "providers", "environments"]
    assert candidates("list", "--st") == ["--state", "--state-dir"]
    assert candidates("list", "jobs", "-o", "j") == ["json"]
    assert "good" in candidates("tail", "")
    job = ran("list", "jobs", "-o", "name").stdout.split()[0]
    assert job in candidates("wait", "good", job[:3])
    assert job[:6] in candidates("kill", "run", job[:3])
    assert candidates("run", "--", "l") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(ran: Command, shell: str) -> None:
    script = ran("completion", shell).stdout
    assert "__complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=30)


def test_bash_completes(ran: Command, tmp_path: Path) -> None:
    program = tmp_path / "cloudsend"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cloudsend_cli "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(cloudsend completion bash)"\nCOMP_WORDS=(cloudsend tail go)\nCOMP_CWORD=2\n_cloudsend\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environ = {**ran.environ, "PATH": f"{tmp_path}:{ran.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "good\n"


def test_init_writes_what_validates_and_never_replaces(cloudsend: Command) -> None:
    cloudsend("init", "--yes")
    written = (cloudsend.folder / "config.yml").read_text()
    assert "kept in a private file only while the run lasts" in written
    cloudsend("validate", "config.yml")
    done = cloudsend("init", "--yes", status=2)
    assert "exists already" in done.stderr
    assert (cloudsend.folder / "config.yml").read_text() == written
    assert cloudsend("init", "nowhere", status=2).stdout == ""


def test_config_show_and_schema(ran: Command) -> None:
    assert re.search(r"^project +demo$", ran("config", "show", "config.yml").stdout, re.MULTILINE)
    assert "config.yml:1" in ran("config", "show", "config.yml", "--origin").stdout
    assert json.loads(ran("config", "schema").stdout)["type"] == "object"


@pytest.mark.parametrize(
    ("words", "header"),
    [
        ("check", "name,ok,text,hint,provider,host,code,warnings,facts"),
        ("config show config.yml", "key,value,origin"),
        ("maestro status", "running,pid,since,epoch,runs"),
        ("version", "cloudsend,python,typer"),
        ("maestro logs", ""),
        ("validate config.yml", ""),
        ("explain good", ""),
        ("run --dry-run config.yml", ""),
    ],
)
def test_formats_are_honoured_or_refused(ran: Command, words: str, header: str) -> None:
    value = ran.json(*words.split())
    assert yaml.safe_load(ran(*words.split(), "-o", "yaml").stdout) is not None
    done = ran(*words.split(), "-o", "csv", status=0 if header else 2)
    if header:
        rows = list(csv.reader(done.stdout.splitlines()))
        assert ",".join(rows[0]) == header
        assert len(rows) == 1 + (len(value) if isinstance(value, list) else 1)
    else:
        assert done.stdout == ""
        assert done.stderr == (
            "error: this command has no output format 'csv'\n  help: it takes table, wide, json, yaml\n"
        )
    refused = ran(*words.split(), "-o", "name", status=2)
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: this command has no output format 'name'\n  help: it takes table, ")


def test_version(cloudsend: Command) -> None:
    from cloudsend_cli import __version__

    assert cloudsend("version").stdout == cloudsend("--version").stdout == f"cloudsend {__version__}\n"
    assert cloudsend.json("version")["cloudsend"] == __version__


HEAVY = (
    "boto3", "botocore", "fabric", "paramiko", "invoke", "google", "yaml", "prompt_toolkit", "rich", "asyncio",
    "pydantic", "multiprocessing", "requests", "cloudpickle",
)  # fmt: skip


@pytest.mark.parametrize(
    "words", ["--help", "list jobs", "list jobs -o json", "list jobs --run @last -n 3", "getstate good"]
)
def test_nothing_heavy_is_loaded_on_the_way(ran: Command, words: str) -> None:
    code = (
        "import sys, json; from cloudsend_cli.__main__ import _main; status = _main(sys.argv[1:]);"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()],
        env=ran.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert json.loads(done.stderr.splitlines()[-1]) == []


def test_a_run_whose_maestro_was_killed_is_said_to_wait_for_one(cloudsend: Command) -> None:
    run = cloudsend("run", "-d", "--", "sleep", "600").stdout.strip()
    os.kill(int(cloudsend.json("maestro", "status")["pid"]), signal.SIGKILL)
    waits = f"not running, and these runs wait for one: {run}; `cloudsend wait {run}` starts it\n"
    assert cloudsend("maestro", "status").stdout == waits
    for words in ("list runs", f"explain {run}.1", "list instances"):
        assert "no maestro runs: open jobs are shown as last known" in cloudsend(*words.split()).stderr
    cloudsend("kill", "run", run)
    cloudsend("wait", run, status=1)


def test_the_last_run_is_the_one_that_was_continued_last(cloudsend: Command) -> None:
    for name in ("a", "b"):
        (cloudsend.folder / f"{name}.yml").write_text(
            f"project: {name}\njobs: [{{name: {name}, run: 'echo {name}'}}]\n"
        )
    first, second, again = (cloudsend("run", "-d", f"{name}.yml").stdout.strip() for name in ("a", "b", "a"))
    assert first == again != second
    assert cloudsend.json("info", "run", "@last")["id"] == first
    assert [job["run"] for job in cloudsend.json("wait", "@last")] == [first]
    assert [job["run"] for job in cloudsend.json("list", "jobs", "-r", "@last")] == [first]
    assert (cloudsend("tail", "@last").stdout, cloudsend.json("info", "job", "@last")["name"]) == ("a\n", "a")


def test_a_plan_of_many_jobs_is_shown_in_part(cloudsend: Command) -> None:
    (cloudsend.folder / "many.yml").write_text("jobs: {name: j, run: 'true', repeat: 1200}\n")
    done = cloudsend("run", "many.yml", "--dry-run")
    assert (done.stdout.count("\nj-"), "1,000 of 1,200 jobs are shown; -o json has all\n" in done.stderr) == (
        1000,
        True,
    )
    assert len(cloudsend.json("run", "many.yml", "--dry-run")["jobs"]) == 1200

"""Command lines from their words to what is printed and the exit status, on a client that only answers."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from job_views import FAILED, MIDNIGHT, make_job

from cloudsend_cli.cli.execute import execute
from cloudsend_cli.cli.session import Session
from cloudsend_cli.cli.settings import Settings
from cloudsend_cli.core.explain import Explanation
from cloudsend_cli.core.machine_views import CheckView, InstanceView, ProviderHost, ProviderView
from cloudsend_cli.core.submission import Submitted
from cloudsend_cli.core.views import JobView, MaestroView, Progress, RunView
from cloudsend_cli.engine.claiming import Released
from cloudsend_cli.errors import AuthError, MaestroError, NotFoundError, QuotaError, UnreachableError, WaitTimeout

NASTY = "\x1b]0;x\x07\x9b2J\u202e\nID\t"
COUNTS = {"pending": 0, "running": 0, "succeeded": 1, "failed": 1, "cancelled": 0}
RUN = RunView("ab12cd", "demo", "", "failed", COUNTS, 1, "", MIDNIGHT, MIDNIGHT + 60)


class Answers:
    """Knows two jobs of one run, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.raises: BaseException | None = None
        self.jobs = [make_job(), FAILED]
        self.maestro: MaestroView | BaseException = MaestroView(running=False)

    def _note(self, *call: Any) -> None:
        self.asked.append(call)
        if self.raises is not None:
            raise self.raises

    def list_jobs(self, run: str | None = None, **options: Any) -> list[JobView]:
        self._note("list_jobs", run, options)
        return self.jobs

    def list_runs(self, limit: int | None = None) -> list[RunView]:
        self._note("list_runs", limit)
        return [RUN]

    def find_job(self, ref: str) -> JobView:
        self._note("find_job", ref)
        return self.jobs[-1]

    def attempts(self, ref: str) -> list[dict[str, Any]]:
        common = {"exit_code": 9, "node": "local-0", "started_at": None, "ended_at": None}
        return [
            {"attempt": 1, "state": "failed", "reason": "preempted", **common},
            {"attempt": 2, "state": "succeeded", "reason": "", **common},
        ]

    def explain(self, ref: str) -> Explanation:
        return Explanation("waiting", ("all places are taken",), "2 CPUs", (("n0", "4 CPUs", "0 CPUs", "full"),))

    def wait(self, refs: list[str], timeout: float | None = None, *, note: Callable[[str], None]) -> list[JobView]:
        self._note("wait", refs, timeout)
        note("results of 1 job are on the way home")
        return self.jobs[:1] if refs == ["good"] else self.jobs

    def cancel(self, refs: list[str]) -> list[JobView]:
        self._note("cancel", refs)
        return [FAILED]

    def cancel_run(self, run: str) -> RunView:
        self._note("cancel_run", run)
        return RUN

    def read_log(
        self, ref: str, stream: str, *, follow: bool, lines: int | None, stop: threading.Event, note: object
    ) -> Iterator[bytes]:
        self._note("read_log", ref, stream, follow, lines)
        yield b"a\x00\xff"
        yield b"\x1b[31mb\n"

    def fetch(self, ref: str, directory: str | None) -> list[Path]:
        self._note("fetch", ref, directory)
        return [Path("results/a"), Path("results/b\n")]

    def maestro_status(self) -> MaestroView:
        if isinstance(self.maestro, BaseException):
            raise self.maestro
        return self.maestro

    def submit(self, config: str | None, argv: tuple[str, ...], options: Any, announce: Any) -> Submitted:
        return Submitted("ab12cd", None, ())

    def follow(self, run: str) -> Iterator[Progress]:
        return iter(())

    def find_run(self, run: str) -> RunView:
        counts = Counter(job.state for job in self.jobs)
        word = "failed" if counts["failed"] else "succeeded"
        return RunView("ab12cd", "demo", "", word, counts, 1, "/r/ab12cd", MIDNIGHT, MIDNIGHT + 60)

    def log_tail(self, ref: str, lines: int) -> bytes:
        return b""

    def find_job_cost(self, ref: str) -> None:
        return None

    def list_instances(
        self, run: str | None, provider: str | None, *, note: Callable[[str], None]
    ) -> list[InstanceView]:
        return [
            InstanceView(NASTY, NASTY, NASTY, "running", (NASTY,), connected=False, since=MIDNIGHT, remark=NASTY),
            InstanceView("lab-a", "lab", "i", "claimed", claimed=True),
        ]

    def list_providers(self) -> list[ProviderView]:
        return [ProviderView(NASTY, "ssh", NASTY, "", NASTY)]

    def find_provider(self, name: str) -> ProviderView:
        host = ProviderHost(NASTY, NASTY, settings=(("jump", NASTY),))
        return ProviderView(NASTY, "ssh", NASTY, "", NASTY, (host,), ((NASTY, NASTY, NASTY),))

    def check(self, provider: str | None, hosts: list[str], *, fix: bool) -> Iterator[CheckView]:
        self._note("check", provider, hosts)
        yield CheckView(NASTY, False, NASTY, NASTY, "lab", NASTY, "unreachable", 6)
        yield CheckView("lab-b", True, NASTY, warnings=(NASTY,), facts={"os": NASTY})
        yield CheckView("lab-c", False, "no Python", "install it", code="unfit", exit_status=7)
        yield CheckView("lab-d", False, "a key", code="host-key", exit_status=4)

    def terminate_instance(self, ref: str, *, forget: bool, force: bool) -> Released:
        self._note("terminate_instance", ref, forget)
        return Released(NASTY, "lab", was_claimed=True, running=1, queued=2, others=3)

    def maestro_stop(self) -> bool:
        return True

    def maestro_adopt(self) -> None:
        self._note("maestro_adopt")

    def close(self) -> None:
        pass


@pytest.fixture
def answers() -> Answers:
    return Answers()


Line = Callable[..., tuple[int, str, str]]


@pytest.fixture
def line(answers: Answers, state_dir: Path, capfd: pytest.CaptureFixture[str]) -> Line:
    """Carry out a line; its exit status, stdout and stderr."""
    session: Any = Session(Settings())
    session._clients = dict.fromkeys((None, str(state_dir)), answers)

    def carry_out(*argv: str) -> tuple[int, str, str]:
        status = execute(argv, session)
        return status, *capfd.readouterr()

    return carry_out


def test_list_alone_lists_jobs(line: Line, answers: Answers) -> None:
    status, out, err = line("list")
    assert (status, err) == (0, "")
    assert out.splitlines()[1].startswith("ab12cd.1  train-1  DONE ")
    assert line("list", "jobs") == line("list", "job") == line("ls") == line("ps", "jobs") == (0, out, "")


def test_list_takes_its_options_without_a_noun(line: Line, answers: Answers) -> None:
    line("list", "--run", "ab", "-s", "failed", "-s", "pending", "-n", "5", "-p", "local")
    assert answers.asked == [("list_jobs", "ab", {"states": ["failed", "pending"], "provider": "local", "limit": 5})]


def test_seeds_words_are_states_too(line: Line, answers: Answers) -> None:
    status, out, _ = line("list", "jobs", "--state", "ABORTED", "-o", "name")
    assert (status, out) == (0, "ab12cd.2\n")
    assert answers.asked[0][2] == {"states": ["cancelled", "failed"], "provider": None, "limit": None}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (
            "lst",
            "error: No such command 'lst'. Did you mean 'list'?\n  help: `cloudsend --help` shows what there is\n",
        ),
        ("jobs list", "error: 'jobs' is no command\n  help: did you mean `cloudsend list jobs`?\n"),
        ("job kill x", "error: 'job' is no command\n  help: did you mean `cloudsend kill job`?\n"),
        ("instances", "error: 'instances' is no command\n  help: did you mean `cloudsend list instances`?\n"),
        (
            "kill ab12cd.2",
            "error: 'ab12cd.2' is not a kind of thing\n"
            "  help: say what it is, such as `cloudsend kill job ab12cd.2`\n",
        ),
        (
            "list jobs --limt 3",
            "error: No such option: --limt (Possible options: --limit)\n"
            "  help: `cloudsend list jobs --help` shows what there is\n",
        ),
        ("list jobs -n many", "error: option '--limit' needs a whole number from 0, not 'many'\n"),
        ("list jobs -s faild", "error: there is no state 'faild'\n  help: did you mean 'failed'?\n"),
        ("wait x -t soon", "error: option '--timeout' needs seconds or a time such as 90s, 5m or 2h, not 'soon'\n"),
        ("tail x --stdout --stderr", "error: give --stdout or --stderr, not both\n"),
        ("tail", "error: Missing argument 'JOB'.\n  help: `cloudsend tail --help` shows what there is\n"),
        ("completion tcsh", "error: there is no completion for 'tcsh'\n  help: one of bash, zsh, fish\n"),
    ],
)
def test_wrong_lines_say_what_is_right(line: Line, answers: Answers, argv: str, text: str) -> None:
    assert line(*argv.split()) == (2, "", text)
    assert answers.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError("no job 'x'"), 3),
        (AuthError("no credentials"), 4),
        (QuotaError("quota"), 5),
        (UnreachableError("no answer"), 6),
        (WaitTimeout("ran out"), 124),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status_of_errors(line: Line, answers: Answers, error: BaseException, status: int) -> None:
    answers.raises = error
    assert line("wait", "x")[:2] == (status, "")


def test_errors_are_json_when_json_is_asked_for(line: Line, answers: Answers) -> None:
    answers.raises = NotFoundError("no job '\x1b'", hint="did you mean y?")
    status, out, err = line("wait", "x", "-o", "json")
    assert (status, out) == (3, "")
    assert json.loads(err)["hint"] == "did you mean y?"
    assert "\x1b" not in err


def test_a_bug_is_a_file_and_never_a_traceback(
    line: Line, answers: Answers, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSEND_HOME", str(state_dir))
    answers.raises = ZeroDivisionError("over \x1b zero")
    status, out, err = line("list", "jobs")
    (crash,) = state_dir.iterdir()
    assert (status, out) == (70, "")
    assert err == (
        "error: a bug in cloudsend: ZeroDivisionError: over \\x1b zero\n"
        f"  help: please report it with {crash}\n"
    )  # fmt: skip
    assert "Traceback" in crash.read_text()
    assert crash.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (PermissionError(13, "Permission denied", "/a\x1b"), 4, "permission denied: '/a\\x1b'"),
        (PermissionError(1, "Operation not permitted"), 4, "operation not permitted"),
        (OSError(28, "No space left on device"), 7, "no space left on device"),
        (BlockingIOError(11, "Resource temporarily unavailable"), 7, "resource temporarily unavailable"),
        (FileNotFoundError(2, "No such file or directory", "/x", None, "/y"), 7, ": '/x' and '/y'"),
        (TimeoutError("timed out"), 7, "timed out"),
        (OSError(), 7, "OSError"),
    ],
)
def test_what_the_system_refuses_is_no_bug(
    line: Line, answers: Answers, state_dir: Path, error: OSError, status: int, text: str
) -> None:
    answers.raises = error
    code, out, err = line("list", "jobs", "--state-dir", str(state_dir))
    assert (code, out) == (status, "")
    assert err.startswith("error: ")
    assert text.lower() in err.lower()
    assert "\n  help: " in err
    assert "bug" not in err
    assert not list(state_dir.iterdir())  # no file tells of a crash
    assert json.loads(line("list", "jobs", "-o", "json")[2])["exit_status"] == status


def test_wait_fails_with_its_jobs(line: Line, answers: Answers) -> None:
    assert line("wait", "good", "--timeout", "1.5m")[0] == 0
    assert line("wait", "good", "bad")[0] == 1
    assert answers.asked == [("wait", ["good"], 90.0), ("wait", ["good", "bad"], None)]
    assert line("wait", "good")[2].endswith("Z results of 1 job are on the way home\n")


LOST = "failed: no space left on device"


def test_results_that_are_not_home_are_a_failure(line: Line, answers: Answers) -> None:
    answers.jobs = [make_job(1, outputs="home"), make_job(2, outputs=LOST)]
    status, out, _ = line("wait", "good", "bad")
    assert status == 1
    assert "DONE (results not home: no space left on device)" in out
    assert line("getstate", "x")[1] == "DONE (results not home: no space left on device)\n"
    assert json.loads(line("list", "-o", "json")[1])[1]["outputs"] == LOST
    status, out, err = line("run", "--", "true")
    assert status == 1
    assert "DONE (results not home: no space left on device)" in out
    assert (
        "train-2 (ab12cd.2): results could not be brought home: no space left on device\n"
        "  help: mend it and run `cloudsend fetch ab12cd.2`\n"
    ) in err
    assert "2 succeeded; the results of 1 job are not home\n" in err
    answers.jobs = [make_job(number, outputs=LOST) for number in range(1, 9)]
    err = line("run", "--", "true")[2]
    assert err.count("could not be brought home") == 5
    assert "\nand 3 more\n" in err


def test_a_large_run_shows_what_did_not_succeed_if_anything(line: Line, answers: Answers) -> None:
    answers.jobs = [make_job(number, outputs="home") for number in range(1, 501)]
    status, out, err = line("run", "--", "true")
    assert (status, out) == (0, "")
    assert "shown" not in err
    assert err.splitlines()[-2].startswith("run ab12cd: succeeded after ")
    assert err.splitlines()[-1] == "results: /r/ab12cd"
    answers.jobs[7] = FAILED
    status, out, err = line("run", "--", "true")
    assert (status, out.count("\n")) == (1, 2)
    assert "1 of 500 jobs shown: cloudsend list jobs --run ab12cd\n" in err


@pytest.mark.parametrize(
    "words", ["list jobs", "info job x", "getstate x", "explain x", "list jobs -o json", "getstate x -o csv"]
)
def test_running_jobs_without_a_maestro_are_said_to_be_old(line: Line, answers: Answers, words: str) -> None:
    said = "no maestro runs: open jobs are shown as last known, and none is started; `cloudsend wait` starts one\n"
    assert line(*words.split())[2] == ""
    answers.jobs = [make_job(number, state="running", phase="UNKNOWN", ended_at=None) for number in (1, 2)]
    status, out, err = line(*words.split())
    assert (status, err) == (0, said)
    assert said not in out
    answers.maestro = MaestroError("it ended")
    assert line(*words.split())[2] == said
    answers.maestro = MaestroView(running=True)
    assert line(*words.split())[2] == ""


def test_kill(line: Line, answers: Answers) -> None:
    for words in ("kill job a b", "kill jobs a b", "rm job a b", "stop job a b"):
        assert line(*words.split())[0] == 0
    assert line("kill", "run", "ab", "-o", "name") == (0, "ab12cd\n", "")
    assert answers.asked == [("cancel", ["a", "b"])] * 4 + [("cancel_run", "ab")]


def test_a_stopped_maestro_leaves_hosts_at_work(line: Line) -> None:
    assert line("maestro", "stop") == (
        0,
        "",
        "the maestro has stopped; hosts work on through what they hold, "
        "and the next command that needs it starts another\n",
    )


def test_a_copied_state_directory_is_adopted_only_when_that_is_said(line: Line, answers: Answers) -> None:
    assert line("maestro", "adopt")[0] == 2
    assert answers.asked == []
    assert line("maestro", "adopt", "--yes") == (0, "", "this state directory is the one in use now\n")
    assert answers.asked == [("maestro_adopt",)]


def test_getstate_says_the_word_and_the_reason(line: Line) -> None:
    assert line("getstate", "x") == (0, "ABORTED (exit 3)\n", "")
    assert line("status", "x") == (0, "ABORTED (exit 3)\n", "")
    assert line("getstate", "x", "2") == (0, "DONE\n", "")
    assert line("getstate", "x", "ab12cd.2.1") == (0, "ABORTED (exit 3)\n", "")
    status, _, err = line("getstate", "x", "7")
    assert (status, err) == (
        3, "error: ab12cd.2 has no attempt '7'\n  help: there are: ab12cd.2.1, ab12cd.2.2\n"
    )  # fmt: skip


def test_explain(line: Line) -> None:
    assert line("explain", "x")[1] == (
        "ab12cd.2 (train-2): waiting\n"
        "  - all places are taken\n"
        "  asks for: 2 CPUs\n"
        "NODE    HAS     FREE    REMARK\n"
        "n0      4 CPUs  0 CPUs  full\n"
    )
    assert json.loads(line("explain", "x", "-o", "json")[1])["nodes"][0]["remark"] == "full"


def test_tail_gives_exact_bytes_to_a_pipe(answers: Answers, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    session: Any = Session(Settings())
    session._clients[None] = answers
    assert execute(["tail", "x", "-n", "3", "--stderr"], session) == 0
    assert capfdbinary.readouterr() == (b"a\x00\xff\x1b[31mb\n", b"")
    assert answers.asked == [("read_log", "x", "stderr", False, 3)]


def test_fetch_prints_one_path_a_line(line: Line, answers: Answers) -> None:
    assert line("fetch", "ab", "-d", "out") == (0, "results/a\nresults/b\\n\n", "results of 2 jobs\n")
    assert answers.asked == [("fetch", "ab", "out")]
    assert json.loads(line("fetch", "ab", "-o", "json")[1]) == ["results/a", "results/b\n"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("run", "error: run what?\n  help: cloudsend run config.yml, or cloudsend run -- CMD ARG…\n"),
        ("run c.yml -- true", "error: give a config or a command after --, not both\n"),
        ("run --", "error: there is no command after --\n  help: cloudsend run -- python train.py --lr 0.1\n"),
        (
            "run python train.py",
            "error: too many arguments: python train.py\n"
            "  help: one config is run at a time; a command goes after --: cloudsend run -- python train.py\n",
        ),
        ("run c.yml --max-parallel 0", "error: option '--max-parallel' needs a whole number from 1, not '0'\n"),
    ],
)
def test_what_run_refuses(line: Line, argv: str, text: str) -> None:
    assert line(*argv.split()) == (2, "", text)


@pytest.mark.parametrize("argv", ["--help", "-h", "list --help", "list jobs -h", "run --help", "kill -h"])
def test_help(line: Line, argv: str) -> None:
    status, out, err = line(*argv.split())
    assert (status, err) == (0, "")
    assert out.startswith("Usage: cloudsend ")
    assert "\x1b" not in out


def test_every_command_is_in_the_help(line: Line) -> None:
    from cloudsend_cli.cli.execute import command_tree
    from cloudsend_cli.cli.groups import ALIASES, SECTIONS

    tree = command_tree()
    names = {name for name in tree.list_commands(None) if not tree.get_command(None, name).hidden}
    assert {name for section in SECTIONS.values() for name in section} == names
    assert not set(ALIASES) & names
    assert set(ALIASES.values()) <= names
    assert all(f"\n  {name} " in line("--help")[1] for name in names)


@pytest.mark.parametrize(
    "words", ["list instances", "list providers", "info provider x", "check", "terminate instance x"]
)
@pytest.mark.parametrize("format_", ["table", "wide", "json", "yaml", "csv"])
def test_what_machines_say_is_only_shown(line: Line, words: str, format_: str) -> None:
    _, out, err = line(*words.split(), "-o", format_)
    assert not [c for c in out + err if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"]
    if words == "list instances" and format_ == "table":
        assert len(out.splitlines()) == 3


def test_check_ends_with_the_status_of_the_worst(line: Line, answers: Answers) -> None:
    status, out, _ = line("check", "-p", "lab", "a", "b")
    assert status == 7
    assert [text.split()[0] for text in out.splitlines() if text[0] != " "] == ["FAILED", "warn", "FAILED", "FAILED"]
    assert answers.asked == [("check", "lab", ["a", "b"])]


def test_what_goes_on_where_a_machine_was_given_back(line: Line, answers: Answers) -> None:
    out = line("terminate", "instance", "a", "b", "--forget")[1]
    assert "is given back; 1 job of yours and 2 of yours that wait and 3 jobs of others go on there\n" in out
    assert answers.asked == [("terminate_instance", "a", True), ("terminate_instance", "b", True)]

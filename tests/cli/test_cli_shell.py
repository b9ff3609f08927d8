"""The shell in a pseudo-terminal, as someone sits before it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator

import pexpect
import pytest
from command_line import Command
from real_stack import wait_for

from cloudsend_cli.api import Client
from cloudsend_cli.cli.shell import NEWEST, News, describe_change, split_line
from cloudsend_cli.core.views import JobView, RunView

PROMPT = "cloudsend>"
UP, TAB, CTRL_C, CTRL_D = "\x1b[A", "\t", "\x03", "\x04"
VERSION = r"cloudsend \d+\.\d+\S*\r\n"

Shell = Callable[[], "pexpect.spawn[str]"]


class Answers:
    """The terminal's part: it says where its cursor is when it is asked."""

    def __init__(self, child: pexpect.spawn[str]) -> None:
        self.child = child
        self.asked = ""

    def write(self, text: str) -> None:
        self.asked = self.asked[-3:] + text
        if "\x1b[6n" in self.asked:
            self.asked = ""
            self.child.send("\x1b[3;1R")

    def flush(self) -> None:
        pass


@pytest.fixture
def open_shell(cloudsend: Command) -> Iterator[Shell]:
    opened = []

    def spawn() -> pexpect.spawn[str]:
        child = pexpect.spawn(
            cloudsend.argv[0],
            cloudsend.argv[1:],
            env={**cloudsend.environ, "NO_COLOR": "1"},
            cwd=str(cloudsend.folder),
            encoding="utf-8",
            dimensions=(30, 100),
            timeout=20,
        )
        child.logfile_read = Answers(child)
        opened.append(child)
        child.expect(PROMPT)
        return child

    yield spawn
    for child in opened:
        child.close(force=True)


def type_and_complete(child: pexpect.spawn[str], typed: str, completed: str) -> None:
    """Tab, once what was typed is on the screen; then only the letters that it added are drawn."""
    child.send(typed)
    child.expect_exact(typed[-1])
    child.send(TAB)
    child.expect_exact(completed)


def leave(child: pexpect.spawn[str], how: str = CTRL_D) -> None:
    child.send(how)
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, child.signalstatus) == (0, None)


@pytest.mark.parametrize("how", ["exit\r", "quit\r", "q\r", "x\r", CTRL_D])
def test_ways_to_leave(open_shell: Shell, how: str) -> None:
    leave(open_shell(), how)


def test_history_is_kept_between_sessions(open_shell: Shell, cloudsend: Command) -> None:
    child = open_shell()
    child.send("version\r")
    child.expect(VERSION)
    child.expect(PROMPT)
    child.send(UP + "\r")
    child.expect(VERSION)
    child.expect(PROMPT)
    leave(child)
    history = cloudsend.state_dir / "shell_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    child = open_shell()
    child.send(UP + "\r")
    child.expect(VERSION)
    child.expect(PROMPT)
    leave(child)


def test_tab_completes_commands_options_and_ids(open_shell: Shell, cloudsend: Command) -> None:
    cloudsend("run", "--name", "demo", "--", "true")
    job = cloudsend("list", "-o", "name").stdout.strip()
    child = open_shell()
    type_and_complete(child, "getst", "ate")
    type_and_complete(child, f" {job[:4]}", job[4:])
    child.send("\r")
    child.expect(r"DONE\r\n")
    child.expect(PROMPT)
    type_and_complete(child, "list provi", "ders")
    child.send("\r")
    child.expect("local +local +ready")
    child.expect(PROMPT)
    type_and_complete(child, f"wait {job} --tim", "eout")
    child.send(" 5 -o name\r")
    child.expect(re.escape(job) + "\r\n")
    child.expect(PROMPT)
    leave(child)


def test_no_error_ends_it(open_shell: Shell) -> None:
    child = open_shell()
    for line, answer in (
        ("list 'jobs", "error: no closing quotation"),
        ("lst", "Did you mean 'list'"),
        ("getstate nothing", "error: no job 'nothing'"),
        ("run nothing.yml", "1 problem in nothing.yml"),
        ("shell", "error: this is the shell already"),
        ("jobs list", "did you mean `cloudsend list jobs`"),
        ("help list", "Usage: cloudsend list"),
        ("cloudsend version", r"cloudsend \d"),
        ("list jobs -o json", r"\[\]"),
        ("list jobs", "no jobs"),
    ):
        child.send(line + "\r")
        child.expect(answer)
        child.expect(PROMPT)
    leave(child)


def test_quotes_are_a_shells(open_shell: Shell) -> None:
    child = open_shell()
    child.send("""run -- printf '%s;' "a b" 'c"d' e\\ f\r""")
    child.expect("run [a-z0-9]{6}: succeeded")
    child.expect(PROMPT)
    child.send("tail @last\r")
    child.expect_exact('a b;c"d;e f;')
    child.expect(PROMPT)
    leave(child)


def test_ctrl_c_on_a_followed_log_returns_to_the_prompt(open_shell: Shell, cloudsend: Command) -> None:
    fifo = cloudsend.folder / "fifo"
    os.mkfifo(fifo)
    cloudsend("run", "-d", "--", "cat", str(fifo))
    with open(fifo, "w", buffering=1) as job:
        job.write("a line of the job\n")
        child = open_shell()
        child.send("tail -f cat\r")
        child.expect("a line of the job\r\n")
        job.write("and \x1b]0;owned\x07\x1b[31manother\n")
        child.expect("and another\r\n")
        child.send(CTRL_C)
        child.expect(PROMPT)
        child.send("getstate cat\r")
        child.expect(r"RUNNING\r\n")
        child.expect(PROMPT)
        child.send("half a line" + CTRL_C)
        child.expect(PROMPT)
        child.send("version\r")
        child.expect(VERSION)
        child.expect(PROMPT)
        leave(child)


def test_news_does_not_break_the_line(open_shell: Shell, cloudsend: Command) -> None:
    fifo = cloudsend.folder / "fifo"
    os.mkfifo(fifo)
    run = cloudsend("run", "-d", "--name", "demo", "--", "cat", str(fifo)).stdout.strip()
    with open(fifo, "w"):
        child = open_shell()
        child.expect(f"{run}: 1 running")  # the status line
        child.send("vers")
        child.expect("vers")
    child.expect(rf"run {run} \(.+\) succeeded: 1 succeeded")
    child.expect(re.escape(PROMPT) + " vers")  # drawn again below the news
    child.send("ion\r")
    child.expect(VERSION)
    child.expect(PROMPT)
    leave(child)


def test_c10_an_attached_run_is_left_with_ctrl_c_and_goes_on(open_shell: Shell, cloudsend: Command) -> None:
    fifo = cloudsend.folder / "fifo"
    os.mkfifo(fifo)
    child = open_shell()
    child.send(f"run -- cat {fifo}\r")
    with open(fifo, "w"):
        child.expect("1 running")
        child.send(CTRL_C)
        child.expect("detached; 1 job of run")
        child.expect(PROMPT)
    child.send("wait cat -o name\r")
    child.expect(r"[a-z0-9]{6}\.1\r\n")
    child.expect(PROMPT)
    leave(child)


@pytest.mark.parametrize(
    ("text", "words", "prefix"),
    [
        ("", [], ""),
        ("li", [], "li"),
        ("list ", ["list"], ""),
        ("list jo", ["list"], "jo"),
        ("cloudsend list jo", ["list"], "jo"),
        ("tail 'a b", ["tail"], "a b"),
        ('tail "', ["tail"], ""),
    ],
)
def test_the_word_that_is_being_typed(text: str, words: list[str], prefix: str) -> None:
    assert split_line(text) == (words, prefix)


def test_a_run_that_was_continued_is_under_way_however_old_it_is(
    cloudsend: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    gate = cloudsend.folder / "gate"
    old = cloudsend.folder / "old.yml"
    old.write_text("project: old\njobs: [{name: a, run: 'true'}]\n")
    cloudsend("run", "old.yml")
    newer = [cloudsend("run", "-d", "--", "true").stdout.strip() for _ in range(NEWEST + 1)]
    os.mkfifo(gate)
    old.write_text(f"project: old\njobs: [{{name: a, run: 'true'}}, {{name: b, run: 'read x <{gate}'}}]\n")
    continued = cloudsend("run", "-d", "old.yml").stdout.strip()
    cloudsend("wait", *newer)
    assert continued not in newer
    with Client(cloudsend.state_dir, environ=cloudsend.environ) as client:
        news = News(client, print, lambda: None)
        wait_for(lambda: [job for job in client.list_jobs(continued) if job.name == "b" and job.started_at])
        assert news.take(news._list_runs()) == []
        assert news.status == f"{continued}: 1 running, 1 succeeded"
        gate.write_text("\n")
        client.wait([continued])
        (line,) = news.take(news._list_runs())
        assert line == f"run {continued} (old) succeeded: 2 succeeded"
        assert (news.status, news.take(news._list_runs())) == ("", [])


def test_what_waits_in_a_queue_is_counted_as_pending_everywhere(cloudsend: Command) -> None:
    many = (os.cpu_count() or 1) + 1
    (cloudsend.folder / "c.yml").write_text(f"jobs: {{name: q, run: 'sleep 600', cpus: 1, repeat: {many}}}\n")
    run = cloudsend("run", "-d", "c.yml").stdout.strip()
    with Client(cloudsend.state_dir, environ=cloudsend.environ) as client:
        jobs = wait_for(lambda: _one_queued(client.list_jobs(run)))
        words = f"{many - 1} running, 1 pending"
        assert words in cloudsend("list", "runs").stdout
        assert words in cloudsend("info", "run", run).stdout
        news = News(client, print, lambda: None)
        news.take(news._list_runs())
        assert news.status == f"{run}: {words}"
        told = dict(client.complete("jobs", run))
        assert {job.id: told[job.id].split()[1] for job in jobs} == {
            job.id: "running" if job.phase == "RUNNING" else "pending" for job in jobs
        }
        (listed,) = cloudsend.json("list", "runs")
        assert (listed["counts"]["running"], listed["queued"]) == (many, 1)
        client.cancel_run(run)
        client.wait([run])


def _one_queued(jobs: list[JobView]) -> list[JobView]:
    return jobs if sorted(job.phase for job in jobs) == ["IDLE", *["RUNNING"] * (len(jobs) - 1)] else []


def make_run(state: str, **counts: int) -> RunView:
    return RunView("ab12cd", "demo\x1b", "", state, counts, 1, "", 0.0, None)


def test_what_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    before = make_run("running", running=2, failed=1)
    assert describe_change(before, before) == []
    assert describe_change(before, make_run("running", running=1, failed=2)) == [
        "run ab12cd (demo\\x1b): 1 more failed"
    ]
    assert describe_change(before, make_run("succeeded", succeeded=3)) == [
        "run ab12cd (demo\\x1b) succeeded: 3 succeeded"
    ]
    news = News(None, print, lambda: None)  # type: ignore[arg-type]
    assert news.take([before]) == []  # what was so before the shell was opened is no news
    assert news.status == "ab12cd: 2 running, 1 failed"
    assert len(news.take([make_run("failed", failed=3)])) == 2
    assert news.status == ""

"""The shell: the same commands, read from a prompt, in one session with history, completion and a live status line."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from cloudsend_cli.errors import CloudsendError, UsageError

from .execute import execute, show_error
from .listing import counts_text
from .render import paint
from .sanitise import one_line
from .session import Session, session_of

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

    from cloudsend_cli.api import Client
    from cloudsend_cli.core.views import RunView

PROMPT: Final = "cloudsend> "
LEAVE: Final = frozenset({"exit", "quit", "q", "x"})
HISTORY: Final = "shell_history"
LOOK_EVERY: Final = 1.0  # seconds, while something runs
LOOK_SELDOM: Final = 5.0
NEWEST: Final = 5  # runs that are looked at although they are over


def open_shell(ctx: typer.Context) -> int:
    """Open the shell, as `cloudsend` alone does."""
    return run_shell(session_of(ctx))


def run_shell(session: Session) -> int:
    """Read commands until the user leaves. Without a terminal: until one fails."""
    if session.shell:
        raise UsageError("this is the shell already")
    if not sys.stdin.isatty():
        return read_script(session, sys.stdin)
    return _Shell(session).loop()


def read_script(session: Session, lines: Iterable[str]) -> int:
    """Carry out one line after another; the first that fails ends it with its status."""
    for line in lines:
        status = run_line(line, session)
        if status is None:
            return 0
        if status:
            return status
    return 0


def run_line(line: str, session: Session) -> int | None:
    """One line of the shell, and its exit status; None: the user wants to leave."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        problem = UsageError(f"{str(error)[:1].lower()}{str(error)[1:]}", hint="quotes come in pairs, as in a shell")
        return show_error(problem, session.settings)
    if words[:1] == ["cloudsend"]:
        words = words[1:]
    if not words:
        return 0
    if words[0] in LEAVE and len(words) == 1:
        return None
    return execute(words, session)


class _Shell:
    """A prompt, and a thread that looks how runs go on."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.prompt = open_prompt(session, self._toolbar)
        self.news = News(session.client, self._tell, self.prompt.app.invalidate)
        self._at_prompt = threading.Lock()  # held while a command runs, so that news waits for the prompt

    def _toolbar(self) -> str:
        return self.news.status or "nothing is under way"

    def _tell(self, line: str) -> None:
        """Above the prompt: patch_stdout draws the line being typed again below it."""
        with self._at_prompt:
            print(line, flush=True)

    def loop(self) -> int:
        from prompt_toolkit.patch_stdout import patch_stdout

        self.session.screen.say("cloudsend's shell; `help` lists the commands, Tab completes, Ctrl-D leaves")
        self.news.start()
        try:
            while True:
                try:
                    with patch_stdout(raw=True):
                        line = self.prompt.prompt(PROMPT)
                        self._at_prompt.acquire()
                except KeyboardInterrupt:
                    continue  # the line is dropped, as in any shell
                except EOFError:
                    return 0
                try:
                    if run_line(line, self.session) is None:
                        return 0
                finally:
                    self._at_prompt.release()
                    self.news.look()
        finally:
            self.news.stop()
            self.session.close()


def open_prompt(session: Session, toolbar: Callable[[], str], **extra: Any) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import ThreadedCompleter

    return PromptSession(
        history=_history(session.client.state_dir),
        auto_suggest=AutoSuggestFromHistory(),
        completer=ThreadedCompleter(_completer(session)),
        complete_while_typing=False,
        bottom_toolbar=toolbar,
        **extra,
    )


def _history(state_dir: Path) -> Any:
    """Kept in the state directory, for its owner alone; only in memory when that cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    path = state_dir / HISTORY
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def _completer(session: Session) -> Any:
    from prompt_toolkit.completion import Completer, Completion

    from .completion import complete

    class LineCompleter(Completer):
        """Completes from the tree of commands."""

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            words, prefix = split_line(document.text_before_cursor)
            try:
                found = complete(words, prefix, session.client.complete, files=True)
            except (CloudsendError, OSError):
                return
            for text, help_ in found:
                yield Completion(text, start_position=-len(prefix), display_meta=help_)

    return LineCompleter()


def split_line(text: str) -> tuple[list[str], str]:
    """The finished words of a line and the one being typed; an open quote is taken as closed."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(text + closing)
        except ValueError:
            continue
        break
    else:
        return [], ""
    if words[:1] == ["cloudsend"]:
        words = words[1:]
    if not text or text[-1].isspace() or not words:
        return words, ""
    return words[:-1], words[-1]


class News:
    """Looks at the store, never at a machine: cheap, and nothing is started by it."""

    def __init__(self, client: Client, tell: Callable[[str], None], redraw: Callable[[], None]) -> None:
        self.status = ""
        self._client = client
        self._tell = tell
        self._redraw = redraw
        self._wake = threading.Event()
        self._leave = False
        self._seen: dict[str, RunView] = {}
        self._thread = threading.Thread(target=self._watch, name="news", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._leave = True
        self._wake.set()

    def look(self) -> None:
        """Something may have changed."""
        self._wake.set()

    def _watch(self) -> None:
        while not self._leave:
            try:
                runs = self._list_runs()
            except (CloudsendError, OSError):
                runs = []
            before = self.status
            for line in self.take(runs):
                self._tell(line)
            if self.status != before:
                self._redraw()
            busy = any(run.state == "running" for run in runs)
            self._wake.wait(LOOK_EVERY if busy else LOOK_SELDOM)
            self._wake.clear()
        self._client.close()  # this thread's connection

    def _list_runs(self) -> list[RunView]:
        """The newest, older ones that were continued, and those that were under way at the last look."""
        runs = self._client.list_runs(NEWEST, open_too=True)
        listed = {run.id for run in runs}
        ended = [id for id, run in self._seen.items() if run.state == "running" and id not in listed]
        return runs + [self._client.find_run(id) for id in ended]

    def take(self, runs: list[RunView]) -> list[str]:
        """Set the status line, and give the news since the last look."""
        told = []
        for run in reversed(runs):
            before = self._seen.get(run.id)
            if before is not None:
                told.extend(describe_change(before, run))
            self._seen[run.id] = run
        shown = [run for run in runs if run.state == "running"]
        self.status = " | ".join(f"{run.id}: {counts_text(run.told_counts)}" for run in shown)
        return told


def describe_change(before: RunView, now: RunView) -> list[str]:
    """What is worth a line above the prompt: failures, and a run's end."""
    color = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    told = []
    failed = now.counts.get("failed", 0) - before.counts.get("failed", 0)
    if failed > 0:
        text = f"run {now.id} ({one_line(now.project)}): {failed:,} more failed"
        told.append(paint(text, "red" if color else ""))
    if before.state == "running" and now.state != "running":
        text = f"run {now.id} ({one_line(now.project)}) {now.state}: {counts_text(now.counts)}"
        told.append(paint(text, ("green" if now.state == "succeeded" else "red") if color else ""))
    return told

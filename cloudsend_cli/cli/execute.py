"""One command line, from its words to an exit status. The only place that catches what a command raises."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Sequence
from functools import cache
from json import dumps
from pathlib import Path
from typing import Any, Final, TextIO

import typer

from cloudsend_cli.errors import AuthError, CloudsendError, UsageError

from .problems import error_json, error_text
from .render import Screen, paint
from .sanitise import one_line, untrusted
from .session import Session
from .settings import Settings, take_settings

BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
INTERRUPTED = 130
BUG = 70


@cache
def command_tree() -> Any:
    """The app as the object that parses and runs lines, built once."""
    from .app import build_tree

    return build_tree()


def execute(argv: Sequence[str], earlier: Session | None = None) -> int:
    """Carry out one line. Every error ends here, as text or JSON on stderr; the exit status says which kind."""
    settings = earlier.settings if earlier else Settings()
    session = None
    try:
        settings, words = take_settings(argv, settings)
        session = Session(settings, earlier)
        status = _run(_meant(words), session)
        session.screen.out.flush()
        return status
    except CloudsendError as error:
        return show_error(error, settings)
    except typer.TyperException as error:
        return show_error(_usage_error(error), settings)
    except (KeyboardInterrupt, EOFError, typer.Abort):
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:
        return show_error(system_error(error), settings)
    except Exception as error:  # noqa: BLE001 - a bug of ours: the user gets a file, never a traceback
        return _show_bug(error, session, settings)
    finally:
        if session is not None and earlier is None:
            session.close()


def _meant(words: list[str]) -> list[str]:
    """Nothing opens the shell; `help list` is `list --help`; `--version` is a habit."""
    if not words:
        return ["shell"]
    if words == ["--version"]:
        return ["version"]
    return [*words[1:], "--help"] if words[0] == "help" else words


def _run(words: list[str], session: Session) -> int:
    stdout = sys.stdout
    try:
        result = command_tree().main(args=words, prog_name="cloudsend", standalone_mode=False, obj=session)
    except SystemExit as end:
        if sys.stdout is not stdout:  # Typer met a broken pipe, wrapped stdout and left
            sys.stdout = stdout
            raise BrokenPipeError from None
        result = end.code
    return result if isinstance(result, int) else 0


def show_error(error: CloudsendError, settings: Settings) -> int:
    """Print an error in the format asked for, and give its exit status."""
    screen = Screen(settings)
    _flush(screen)
    if settings.output in {"json", "yaml"}:
        text = dumps(error_json(error)) + "\n"
    else:
        text = error_text(error, lambda part, color: paint(part, color if screen.err_color else ""))
    _tell(screen, text)
    return error.exit_status


def _usage_error(error: typer.TyperException) -> CloudsendError:
    """Typer's own words about a command line, with the way to its help."""
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "cloudsend")
    result = UsageError(error.format_message().replace("\n\t", " "), hint=f"`{command} --help` shows what there is")
    result.exit_status = error.exit_code
    return result


_HINTS: Final = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "mend the permissions, or name another place"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room where it is written, and try again"),
    **dict.fromkeys(
        (errno.EAGAIN, errno.ENOMEM),
        "this machine is short of processes or memory: end some, or raise `ulimit -u`, and try again",
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise `ulimit -n`, or close some files, and try again"),
    errno.EROFS: "it is read-only: name another place",
    errno.ENOENT: "see whether it is there, and try again",
}


def system_error(error: OSError) -> CloudsendError:
    """What the system refused: the user or its administrator can mend it."""
    what = error.strerror or str(error) or type(error).__name__
    message = what[:1].lower() + what[1:]
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    hint = _HINTS.get(error.errno or 0, "see what is wrong there, and try again")
    if names:
        message += ": " + " and ".join(map(repr, names))
    elif error.errno == errno.ENOENT and not _has_working_directory():
        message, hint = "the working directory does not exist any more", "cd to one that does, and try again"
    kind = AuthError if error.errno in {errno.EACCES, errno.EPERM} else CloudsendError
    return kind(message, hint=hint)


def _has_working_directory() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _show_bug(error: Exception, session: Session | None, settings: Settings) -> int:
    screen = Screen(settings)
    _flush(screen)
    place = _write_traceback(error, settings)
    summary = one_line("".join(traceback.format_exception_only(type(error), error)).strip())
    if settings.output in {"json", "yaml"}:
        value: dict[str, Any] = {
            "error": "bug",
            "message": summary,
            "hint": None,
            "context": place,
            "exit_status": BUG,
            "problems": [],
        }
        text = dumps(value) + "\n"
    else:
        title = paint("error:", "red" if screen.err_color else "")
        text = f"{title} a bug in cloudsend: {summary}\n  help: please report it with {untrusted(place)}\n"
    _tell(screen, text)
    return BUG


def _write_traceback(error: Exception, settings: Settings) -> str:
    """Into the state directory, or else where temporary files go; the name of the file."""
    import tempfile

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    chosen = settings.state_dir or os.environ.get("CLOUDSEND_HOME")
    state_dir = Path(chosen) if chosen else Path.home() / ".cloudsend"
    prefix = time.strftime("crash-%Y%m%d-%H%M%S-", time.gmtime())
    for folder in (str(state_dir), None):
        try:
            handle, name = tempfile.mkstemp(".txt", prefix, folder)  # 0600
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(f"cloudsend {' '.join(map(repr, sys.argv[1:]))}\n\n{text}")
        except OSError:
            continue
        return name
    return "the traceback, which could not be written to any file"


def _flush(screen: Screen) -> None:
    """What was printed before an error stands before it."""
    try:
        screen.out.flush()
    except OSError:
        silence(screen.out)


def _tell(screen: Screen, text: str) -> None:
    try:
        screen.err.write(text)
        screen.err.flush()
    except OSError:
        silence(screen.err)


def silence(stream: TextIO) -> None:
    """Nobody can read it any more: Python may not complain of that when it leaves."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass

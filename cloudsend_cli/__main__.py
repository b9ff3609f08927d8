"""`cloudsend` and `python -m cloudsend_cli`: decides what has to be loaded for this command line, and loads that."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """The exit status of the line is the program's."""
    gc.set_threshold(50_000)  # more than a short command loads: to look through that takes 6 ms
    status = _main(sys.argv[1:])
    # Python's last look for garbage, in all that was loaded, takes a third of the time of a command that calls AWS.
    gc.freeze()
    sys.exit(status)


def _main(argv: list[str]) -> int:
    try:
        _open_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # no name can be unprintable
        if argv[:1] == ["__complete"]:
            from cloudsend_cli.cli.completion import main as complete

            return _flushed(complete(argv[1:]))
        from cloudsend_cli.cli.execute import execute

        return execute(argv)
    except KeyboardInterrupt:
        return 130


def _open_closed_streams() -> None:
    """Put os.devnull where the caller closed stdin, stdout or stderr, or where nothing can be written.

    Else the next file that is opened, such as the database, would get that number and whatever is printed.
    """
    import fcntl

    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            access = None
        if access is None or (number and access == os.O_RDONLY):
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _flushed(status: int) -> int:
    """Nothing is left for Python to write, and to complain of, when it leaves."""
    try:
        sys.stdout.flush()
    except OSError:
        from cloudsend_cli.cli.execute import silence

        silence(sys.stdout)
    return status


if __name__ == "__main__":
    main()

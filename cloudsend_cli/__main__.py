"""`cloudsend` and `python -m cloudsend_cli`: decides what has to be loaded for this command line, and loads that."""

from __future__ import annotations

import sys


def main() -> None:
    """The exit status of the line is the program's."""
    sys.exit(_main(sys.argv[1:]))


def _main(argv: list[str]) -> int:
    try:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # no name can be unprintable
        if argv[:1] == ["__complete"]:
            from cloudsend_cli.cli.completion import main as complete

            return complete(argv[1:])
        from cloudsend_cli.cli.execute import execute

        return execute(argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    main()

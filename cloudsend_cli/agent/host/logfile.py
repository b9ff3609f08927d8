"""The agent's own words: lines on stderr, which is agent.log in the daemon and its children."""

import os
import sys
import time


def log(*words):
    """Never fails: neither for a full disk nor for a name that is no text."""
    line = "%s [%d] %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%S"), os.getpid(), " ".join(map(str, words)))
    try:
        os.write(2, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def log_exception(where):
    problem = sys.exc_info()[1]
    try:
        import traceback

        log(where, traceback.format_exc())
    except Exception:  # noqa: BLE001
        log(where, repr(problem))  # Python's own files are gone, or have been replaced

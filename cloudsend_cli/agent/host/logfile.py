"""The agent's own words: lines on stderr, which is agent.log in the daemon and its children."""

import os
import sys
import time


def log(*words):
    sys.stderr.write("%s [%d] %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%S"), os.getpid(), " ".join(map(str, words))))
    sys.stderr.flush()


def log_exception(where):
    import traceback

    log(where, traceback.format_exc())

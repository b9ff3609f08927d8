"""The last minutes of an attempt whose machine is being taken back, inside its runner."""

import os
import signal
import time

from .encoding import to_bytes
from .rented import read_deadline
from .spawning import spawn

PREEMPTED = "preempted"
GRACE_MOST = 60  # seconds, of the two minutes that a provider gives at best
HOOK_LIMIT = float(os.environ.get("CLOUDSEND_PREEMPT_HOOK") or 30)


def has_ended(pid):
    """Whether our child is at its end; it is not reaped by this."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def run_hook(line, cwd, work, env, err):
    """The user's shell line, where the job is and with what it has; its words go to the job's stderr."""
    env = dict(env)
    env[b"CLOUDSEND_PREEMPT_AT"] = to_bytes(read_deadline())
    pid = spawn({"argv": ["/bin/sh", "-c", line], "cwd": cwd}, work, env, err, err)[0]
    if pid is None:
        return
    pause, until = 0.005, time.monotonic() + HOOK_LIMIT
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)  # it leads a group of its own
            os.waitpid(pid, 0)
            return say(err, "cloudsend: on_preempt has not ended within %g s\n" % HOOK_LIMIT)
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def say(err, text):
    try:
        os.write(err, to_bytes(text))
    except OSError:
        pass

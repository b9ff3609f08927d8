"""The last minutes of an attempt whose machine is being taken back, or ends itself soon, inside its runner."""

import os
import signal
import time

from .rented import read_deadline, read_seconds_left
from .spawning import spawn
from .texts import to_bytes

PREEMPTED = "preempted"
# By the action of a notice of the machine's own switch.
OWN_ENDS = {"life": "life-over", "eco_life": "eco-life-over", "budget": "budget-over"}
CAUSES = frozenset([PREEMPTED]) | frozenset(OWN_ENDS.values())
GRACE_MOST = 60  # seconds, of the two minutes that a provider gives at best
HOOK_LIMIT = float(os.environ.get("CLOUDSEND_PREEMPT_HOOK") or 30)


def cause_of(notice):
    """Why what is here ends. A machine that ends itself as it was told to is not taken back by anybody."""
    action = notice.get("action")
    return OWN_ENDS.get(action, PREEMPTED) if isinstance(action, str) else PREEMPTED


def share_of_time(most, part):
    """At most this part of the time that is left, so that there is some to tell of the end and to bring home what is
    left; of a provider's two minutes `most` is short enough."""
    left = read_seconds_left()
    return most if left is None else min(most, left * part)


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
    limit = share_of_time(HOOK_LIMIT, 0.25)
    pause, until = 0.005, time.monotonic() + limit
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)  # it leads a group of its own
            os.waitpid(pid, 0)
            return say(err, "cloudsend: on_preempt has not ended within %.3g s\n" % limit)
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def say(err, text):
    try:
        os.write(err, to_bytes(text))
    except OSError:
        pass

"""The start of a daemon that outlives the session it is started from."""

import os
import select
import sys

from .disk import write_all
from .home import AGENT_FILE, Failed
from .session import SESSION, describe_session
from .texts import to_bytes

READY_WITHIN = 30.0


def start_daemon(home):
    """Returns when a daemon says that it is ready; False where it ended without a word, as another one was there."""
    os.environ[SESSION] = describe_session()
    serve = [sys.executable, "-I", "-S", "-B", AGENT_FILE, "serve", home]
    scope = find_scope()
    words = run_detached(home, scope + serve) if scope else b""
    if not words.startswith(b"ready"):
        words = run_detached(home, serve)
    if words.startswith(b"failed"):
        raise Failed("start-failed", "start-failed: " + words[7:].decode("utf-8", "replace").strip())
    return words != b""


def run_detached(home, command):
    """Double fork, exec, and wait for its word or its end."""
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.setsid()
            if not os.fork():
                execute(home, command, writer)
        except OSError as problem:
            write_all(writer, b"failed cannot run %s: %s" % (to_bytes(command[0]), to_bytes(str(problem))))
        finally:
            os._exit(1)
    os.close(writer)
    os.wait()
    words = os.read(reader, 4096) if select.select([reader], [], [], READY_WITHIN)[0] else b""
    os.close(reader)
    return words


def execute(home, command, writer):
    """Becomes the daemon, which says on its standard output that it is ready."""
    logfile = home + "/agent.log"
    if os.path.exists(logfile) and os.path.getsize(logfile) > 1 << 20:
        os.rename(logfile, logfile + ".old")
    errors = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, goal in ((null, 0), (writer, 1), (errors, 2)):
        os.dup2(fd, goal)
    os.execvp(command[0], command)  # noqa: S606


def find_scope():
    """The words before a command that move it out of the login session, where systemd keeps this user's processes.

    Without lingering the user's own systemd ends with the last session, and takes along what was moved there.
    """
    folder = os.environ.get("XDG_RUNTIME_DIR") or "/run/user/%d" % os.geteuid()
    if not os.path.exists(folder + "/systemd/private") or not lingers():
        return []
    os.environ["XDG_RUNTIME_DIR"] = folder
    return ["systemd-run", "--user", "--scope", "--quiet", "--"]


def lingers():
    import subprocess

    try:
        asked = ["loginctl", "show-user", str(os.geteuid()), "--property=Linger"]
        done = subprocess.run(
            asked,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )
        return done.stdout.strip() == b"Linger=yes"
    except (OSError, subprocess.SubprocessError):
        return False

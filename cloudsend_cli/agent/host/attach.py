"""attach: a pipe between stdin and stdout and the daemon, which is started or replaced as needed.

It runs at each connect: Python's modules for JSON and around sockets would take longer to load than all it does.
"""

import _socket as socket
import os
import select
import struct
import sys
import time
from _thread import start_new_thread

from .disk import write_all
from .home import Failed, at_socket, open_home, own_sha256, take_lock

READ_SIZE = 256 << 10
# Silence is counted in slices that we have really waited: of a pause of the whole machine no clock is to be believed.
HUNG = float(os.environ.get("CLOUDSEND_AGENT_HUNG") or 10)
PATIENCE, SLICE = HUNG / 2, HUNG / 40


def attach(path):
    sys.stdout.flush()
    try:
        home = open_home(path)
        sock, greeting = connect(home)
    except (Failed, OSError, ValueError) as problem:
        from .encoding import compact

        code, message = problem.args if isinstance(problem, Failed) else ("os", str(problem))
        write_all(1, b"cloudsend-agent-error %s\n" % compact({"code": code, "message": message}))
        return 1
    at_end = []  # not empty once stdin is
    try:
        write_all(1, greeting)
        start_new_thread(send_stdin, (sock, at_end))
        while True:
            raw = sock.recv(READ_SIZE)
            if not raw:
                break
            write_all(1, raw)
    except OSError:
        pass
    if not at_end:
        try:
            from .session import note_other_death

            note_other_death(home)
        except ImportError:  # this file was removed meanwhile
            return 0
    return 0


def send_stdin(sock, at_end):
    try:
        while True:
            raw = os.read(0, READ_SIZE)
            if not raw:
                break
            sock.sendall(raw)
        at_end.append(True)
        sock.shutdown(socket.SHUT_WR)  # the daemon answers what it has got, and closes
    except OSError:
        os._exit(0)


def connect(home):
    """A connection to a daemon of this very file, and its greeting."""
    sha, until, silence, hung = own_sha256(), time.monotonic() + 30, 0.0, None
    while time.monotonic() < until:
        try:
            found = reach_daemon(home, sha)
            if found:
                return found
        except socket.timeout:
            silence += PATIENCE
        except BlockingIOError:  # nobody takes connections from its queue, which is full
            time.sleep(SLICE)
            silence += SLICE
        except OSError:
            pass
        lock = take_lock(home)
        if lock is not None:
            os.close(lock)
            from .starting import start_daemon

            if not start_daemon(home):
                time.sleep(0.05)
        elif silence:
            silence, hung = judge_silence(home, silence, hung)
        else:
            time.sleep(0.01)
    raise Failed("agent-down", "the agent of %s does not start: see agent.log there" % home)


def judge_silence(home, silence, known):
    """(how long it has been silent, who it is). Kills it after long, if it was the same from first to last."""
    from .hung import end_daemon, identify

    hung = identify(home)
    if known is not None and hung != known:
        return 0.0, None
    if silence < HUNG:
        return silence, hung
    if hung is None:
        raise Failed("agent-silent", "the agent of %s does not answer, and is not known for certain to be ours" % home)
    if not end_daemon(hung):
        raise Failed(
            "agent-silent", "the agent of %s does not answer and survives kill -9: process %d" % (home, hung[0])
        )
    return 0.0, None


def reach_daemon(home, sha):
    """(connection, greeting) of a daemon of our file; None after one of another file was asked to leave, and has."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENCE)
        at_socket(home, sock.connect)
        if struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] != os.geteuid():
            raise PermissionError("another user listens there")
        line, rest = greet(sock)
        if b'"sha":"%s"' % sha.encode() in line:  # a text in it would have its quotes escaped
            sock.settimeout(None)
            ours, sock = sock, None
            return ours, line + b"\n" + rest
        sock.sendall(b'{"op":"handover","id":0}\n')
        while receive(sock):
            pass
        return None
    finally:
        if sock:
            sock.close()


def greet(sock):
    """The daemon's first line, and what came after it."""
    raw = b""
    while b"\n" not in raw:
        more = receive(sock)
        if not more:
            raise ConnectionResetError("it left")
        raw += more
    return raw.partition(b"\n")[::2]


def receive(sock):
    for _ in range(20):
        if select.select([sock], [], [], SLICE)[0]:
            return sock.recv(65536)
    raise socket.timeout

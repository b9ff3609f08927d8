"""attach: a pipe between stdin and stdout and the daemon, which is started or replaced as needed."""

import json
import os
import select
import socket
import sys
import time
from _thread import start_new_thread

from .disk import write_all
from .encoding import compact
from .home import AGENT_FILE, Failed, at_socket, open_home, own_sha256, take_lock

READ_SIZE = 256 << 10


def attach(path):
    sys.stdout.flush()
    try:
        home = open_home(path)
        sock, greeting = connect(home)
    except (Failed, OSError, ValueError) as problem:
        code, message = problem.args if isinstance(problem, Failed) else ("os", str(problem))
        write_all(1, b"cloudsend-agent-error %s\n" % compact({"code": code, "message": message}))
        return 1
    try:
        write_all(1, greeting)
        start_new_thread(send_stdin, (sock,))
        while True:
            raw = sock.recv(READ_SIZE)
            if not raw:
                return 0
            write_all(1, raw)
    except OSError:
        return 0


def send_stdin(sock):
    try:
        while True:
            raw = os.read(0, READ_SIZE)
            if not raw:
                break
            sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)  # the daemon answers what it has got, and closes
    except OSError:
        os._exit(0)


def connect(home):
    """A connection to a daemon of this very file, and its greeting."""
    sha, until, silent = own_sha256(), time.monotonic() + 20, False
    while time.monotonic() < until:
        try:
            found = reach_daemon(home, sha)
            if found:
                return found
        except socket.timeout:
            silent = True
        except OSError:
            pass
        lock = take_lock(home)
        if lock is None:
            if silent:
                raise Failed("agent-silent", "the agent of %s is alive but does not answer within 3 s" % home)
            time.sleep(0.01)
            continue
        os.close(lock)
        if not start_daemon(home):
            time.sleep(0.05)
    raise Failed("agent-down", "the agent of %s does not start: see agent.log there" % home)


def reach_daemon(home, sha):
    """(connection, greeting) of a daemon of our file; None after one of another file was asked to leave, and has."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(3)
        at_socket(home, sock.connect)
        line, rest = greet(sock)
        about = json.loads(line.decode().partition(" ")[2])
        if about.get("sha") == sha:
            sock.settimeout(None)
            ours, sock = sock, None
            return ours, line + b"\n" + rest
        sock.sendall(b'{"op":"handover","id":0}\n')
        while sock.recv(65536):
            pass
        return None
    finally:
        if sock:
            sock.close()


def greet(sock):
    """The daemon's first line, and what came after it."""
    raw, until = b"", time.monotonic() + 3
    while b"\n" not in raw:
        sock.settimeout(max(0.001, until - time.monotonic()))
        more = sock.recv(65536)
        if not more:
            raise ConnectionResetError("it left")
        raw += more
    return raw.partition(b"\n")[::2]


def start_daemon(home):
    """Double fork, exec, and wait for its word or its end; False where it ended without a word."""
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.setsid()
            if not os.fork():
                execute_daemon(home, writer)
        finally:
            os._exit(1)
    os.close(writer)
    os.wait()
    ready = bool(select.select([reader], [], [], 30)[0]) and os.read(reader, 16) != b""
    os.close(reader)
    return ready


def execute_daemon(home, writer):
    """Becomes the daemon, which says on writer that it is ready."""
    logfile = home + "/agent.log"
    if os.path.exists(logfile) and os.path.getsize(logfile) > 1 << 20:
        os.rename(logfile, logfile + ".old")
    errors = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, goal in ((null, 0), (writer, 1), (errors, 2)):
        os.dup2(fd, goal)
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", AGENT_FILE, "serve", home])  # noqa: S606

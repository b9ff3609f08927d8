"""A daemon that holds the lock and answers nobody: who it is, and its end. Its runners and their jobs go on."""

import os
import signal
import socket
import struct
import time

from .disk import read_file
from .home import at_socket
from .processes import send_signal, start_time


def identify(home):
    """(pid, start time) of the daemon that has the lock; None unless all there is to see says that it is ours."""
    signed = (read_file(home + "/agent.lock") or b"").split()
    pid = listener_of(home)
    if len(signed) == 2 and all(word.isdigit() for word in signed):
        found = int(signed[0]), int(signed[1])
        if pid not in (None, found[0]):
            return None
    else:
        found = pid, start_time(pid) if pid else None  # an agent from before locks were signed
    return found if found[0] and is_daemon(found, home) else None


def is_daemon(found, home):
    pid, start = found
    command = (read_file("/proc/%d/cmdline" % pid) or b"").split(b"\0")
    try:
        ours = os.stat("/proc/%d" % pid).st_uid == os.geteuid()
    except OSError:
        return False
    return ours and command[-3:-1] == [b"serve", os.fsencode(home)] and start_time(pid) == start


def listener_of(home):
    """The process that listens on the socket, as the kernel knows it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0.2)
        at_socket(home, sock.connect)
        return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0] or None
    except OSError:
        return None
    finally:
        sock.close()


def end_daemon(found):
    """True when it has ended."""
    send_signal(found[0], found[1], signal.SIGKILL)
    for _ in range(100):
        if start_time(found[0]) != found[1]:
            return True
        time.sleep(0.05)
    return False

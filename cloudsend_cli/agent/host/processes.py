"""Processes and their trees. A process is (pid, start time), never a pid alone."""

import errno
import os
import signal
import time

from .disk import read_file


def process(pid):
    """(parent, group, start time) of a live process; None for a dead one or a zombie without threads."""
    raw = read_file("/proc/%d/stat" % pid)
    if not raw:
        return None
    field = raw[raw.rindex(b")") + 2 :].split()
    if field[0] in b"ZX" and int(field[17]) < 2:
        return None
    return int(field[1]), int(field[2]), int(field[19])


def start_time(pid):
    found = process(pid)
    return found[2] if found else None


def all_processes():
    """Yields (pid, what `process` says) of everything alive on this host."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = process(int(name))
            if found:
                yield int(name), found


def children_of(parent):
    """{(pid, start time)} of the live children."""
    return {(pid, about[2]) for pid, about in all_processes() if about[0] == parent}


def reap():
    """Takes the status of children that have ended; True while there are children."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    except ChildProcessError:
        return False


def send_signal(pid, start, number):
    """Signals exactly that process; False if it is gone."""
    if pid <= 1 or pid == os.getpid():
        return False
    try:
        if hasattr(signal, "pidfd_send_signal"):
            fd = os.pidfd_open(pid)
            try:
                if start_time(pid) != start:
                    return False
                signal.pidfd_send_signal(fd, number)
            finally:
                os.close(fd)
        elif start_time(pid) != start:
            return False
        else:
            os.kill(pid, number)
        return True
    except OSError as problem:
        if problem.errno != errno.ENOSYS:
            return False
    # A kernel without pidfds: between the look and the signal the pid could, in theory, become another's.
    if start_time(pid) != start:
        return False
    os.kill(pid, number)
    return True


def find_tree(ident, roots):
    """{(pid, start time, group)} of what lives of an attempt: descendants of roots, and whatever carries its tag.

    Neither this process nor init is ever part of it. A process that has cleared its environment and is nobody's
    descendant any more is not found.
    """
    children, table = {}, {}
    for pid, about in all_processes():
        table[pid] = about
        children.setdefault(about[0], []).append(pid)
    todo = list(roots) + tagged(ident, table)
    found = set()
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    found.difference_update((os.getpid(), 1))
    return {(pid, table[pid][2], table[pid][1]) for pid in found if pid in table}


def tagged(ident, pids):
    """Those that have the attempt's name in their environment."""
    tag, uid, found = b"\0CLOUDSEND_ATTEMPT=" + ident.encode() + b"\0", os.geteuid(), []
    for pid in pids:
        try:
            ours = uid == 0 or os.stat("/proc/%d" % pid).st_uid == uid
            if ours and tag in b"\0" + (read_file("/proc/%d/environ" % pid) or b"") + b"\0":
                found.append(pid)
        except OSError:
            pass
    return found


def kill_tree(find, grace):
    """TERM, grace, then STOP until nothing new appears (a fork storm), KILL, verified. Returns how many survive."""
    if grace > 0 and ask_to_end(find, grace):
        return 0
    return force_to_end(find)


def ask_to_end(find, grace):
    """TERM to each once. True when all have ended within the grace."""
    asked, pause, until = set(), 0.002, time.monotonic() + grace
    while time.monotonic() < until:
        found = look_twice(find)
        if not found:
            return True
        for pid, start, _ in found - asked:
            send_signal(pid, start, signal.SIGTERM)
        asked |= found
        time.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(pause * 2, 0.1)
    return False


def force_to_end(find):
    """STOP and KILL until nothing is found, for a minute. Returns how many survive."""
    stopped, rounds, pause, until = set(), 0, 0.001, time.monotonic() + 60
    while True:
        found = look_twice(find)
        if not found or time.monotonic() > until:
            return len(found)
        rounds += 1
        stop_with_groups(found - stopped)
        if found <= stopped or rounds > 50:
            for pid, start, _ in found:
                send_signal(pid, start, signal.SIGKILL)
            time.sleep(pause)
            pause = min(pause * 2, 0.2)
        stopped |= found


def look_twice(find):
    """One look can miss a process that is handed to another parent, or is in the middle of an exec, meanwhile."""
    return find() or find()


def stop_with_groups(found):
    """Each process, and each of their groups once: a group of thousands is one call."""
    groups = {os.getpgrp()}
    for pid, start, group in found:
        # A stopped member keeps its group's number from being reused, and stopping a group is atomic to forks.
        if send_signal(pid, start, signal.SIGSTOP) and group > 1 and group not in groups:
            groups.add(group)
            try:
                os.killpg(group, signal.SIGSTOP)
            except OSError:
                pass


def become_subreaper():
    """Orphans of our descendants become our children. Not inherited over fork."""
    try:
        import ctypes

        return ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        return False


def oom_kills():
    """How often the kernel of this host has killed for memory, whomever."""
    for line in (read_file("/proc/vmstat") or b"").splitlines():
        if line.startswith(b"oom_kill "):
            return int(line.split()[1])
    return 0

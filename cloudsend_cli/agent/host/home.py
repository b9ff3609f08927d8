"""The agent's home directory: its owner, its lock, its socket; and which agent we are."""

import fcntl
import hashlib
import os
import stat

from .disk import read_file, write_new
from .texts import to_text

# The zip that this module was loaded from, whose first folder is this package.
AGENT_FILE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Failed(Exception):
    """There is no agent to talk to: (code, message)."""


def own_sha256():
    with open(AGENT_FILE, "rb") as reader:
        return hashlib.sha256(reader.read()).hexdigest()


def boot_id():
    return os.environ.get("CLOUDSEND_BOOT_ID") or to_text(read_file("/proc/sys/kernel/random/boot_id") or b"").strip()


def home_id(home):
    """What tells this directory from one of its name that was deleted. "" for one that is older than such ids."""
    path = home + "/id"
    kept = read_file(path)
    if kept is None and not os.path.exists(home + "/attempts"):
        kept = os.urandom(6).hex().encode()
        write_new(path + ".new", kept)  # not open to others whatever the umask is, nor half there after a crash
        os.rename(path + ".new", path)
    return to_text(kept or b"")


def boot_and_home(home):
    """What clients are told as `boot`: under another one it is not known what was executed here."""
    ident = home_id(home)
    return boot_id() + ("." + ident if ident else "")


def open_home(path):
    """The path without links, made if absent. Refused where another user could have made it, or can replace it."""
    home = walk(os.path.abspath(os.path.expanduser(path)))
    about = os.stat(home)
    if about.st_uid != os.geteuid():
        raise Failed("home-owner", "%s belongs to another user" % home)
    if about.st_mode & 0o077:
        raise Failed("home-mode", "%s is open to other users: chmod 700 it" % home)
    return home


def walk(path):
    """Follows a path by hand, as each folder and link on the way must be ours or root's.

    The way to the user's own home directory is the administrator's, and believed.
    """
    believed = os.path.realpath(os.path.expanduser("~")) + "/"
    here, todo, links = "/", path.split("/")[::-1], 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        found = os.path.join(here, name)
        about = look_or_make(found)
        good = about.st_uid in (0, os.geteuid()) or believed.startswith(found + "/")
        if stat.S_ISLNK(about.st_mode):
            links += 1
            if not good or links > 40:
                raise Failed("home-unsafe", "%s is a link of another user, or one of many" % found)
            target = os.readlink(found)
            todo.extend(target.split("/")[::-1])
            here = "/" if target.startswith("/") else here
            continue
        if not stat.S_ISDIR(about.st_mode):
            raise Failed("home-kind", "%s is not a directory" % found)
        if todo and (not good or is_open(about)) and not believed.startswith(found + "/"):
            raise Failed("home-unsafe", "other users may change what is in %s: choose another home" % found)
        here = found
    return here


def look_or_make(path):
    try:
        return os.lstat(path)
    except FileNotFoundError:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        return os.lstat(path)


def is_open(about):
    """Whether anybody may rename what is in a folder. Whom its group is for, whoever made it has decided."""
    return about.st_mode & 0o002 and not about.st_mode & stat.S_ISVTX


def take_lock(home):
    """The lock's descriptor, or None while a daemon lives."""
    fd = os.open(home + "/agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except BlockingIOError:
        os.close(fd)
        return None


def at_socket(home, action):
    """Calls action with an address of the socket that is short enough."""
    path = home + "/agent.sock"
    if len(os.fsencode(path)) < 100:
        return action(path)
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return action("/proc/self/fd/%d/agent.sock" % folder)
    finally:
        os.close(folder)


def listen(home):
    """Whoever calls it holds the lock: a socket that is there is a dead daemon's."""
    import socket

    try:
        os.unlink(home + "/agent.sock")
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    at_socket(home, sock.bind)
    sock.listen(128)
    sock.setblocking(False)
    return sock

"""What the first Python on a host runs: it puts the agent's file there and becomes the agent, or tells facts.

The text of this file is sent over the channel, and is executed by Python 3.6 and later as `-I -S -B`: only the
standard library, no syntax newer than 3.6. Input is read to the byte, as what follows belongs to the agent.
"""

import errno
import hashlib
import os
import pwd
import stat
import sys
import time

PIECE = 32768
LEFTOVER_AGE, COMPILED_AGE = 3600, 30 * 86400  # seconds
COMPILED = "CLOUDSEND_AGENT_COMPILED"
ROOM = 8 << 20  # bytes that are left free


class Refused(Exception):
    """(code, message): the machine cannot be used as it is."""


def read_line():
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 1)
        if not more:
            os._exit(1)
        line += more
    return line


def render(fields):
    """JSON. What is told at each connect needs no module for it, which would take as long as all else here."""
    if all(type(value) in (bool, int) for value in fields.values()):
        return "{%s}" % ", ".join('"%s": %s' % (name, str(value).lower()) for name, value in fields.items())
    import json

    return json.dumps(fields)


def tell(nonce, **fields):
    data = ("cloudsend-stage %s %s\n" % (nonce, render(fields))).encode("ascii")
    while data:
        data = data[os.write(1, data) :]


def user_home():
    home = os.environ.get("HOME", "")
    return home if os.path.isabs(home) else pwd.getpwuid(os.getuid()).pw_dir


def machine_name():
    """Tells machines apart whose homes are one shared directory."""
    try:
        with open("/etc/machine-id", "rb") as reader:
            ident = reader.read(256).strip()
    except OSError:
        ident = b""
    name = os.fsencode(os.uname().nodename)
    return hashlib.sha256(ident + b"\n" + name).hexdigest()[:12]


def agent_home(wish):
    if not wish:
        return os.path.join(user_home(), ".cloudsend", "agent", machine_name())
    if wish == "~" or wish.startswith("~/"):
        return user_home() + wish[1:]
    return os.path.join(user_home(), os.path.expanduser(wish))


def make_home(home):
    """The agent's directory without links, and those above it; what is ours to make is closed to other users."""
    home = walk(os.path.abspath(home), make=True)
    check_home(home)
    return home


def walk(path, make):
    """Follows a path by hand: who may exchange a folder or link on the way could exchange the agent before it starts.

    They must be ours or root's. The way to the user's own home directory is the administrator's, and believed.
    """
    believed = os.path.realpath(user_home()) + "/"
    here, todo, links = "/", path.split("/")[::-1], 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        found = os.path.join(here, name)
        if not os.path.lexists(found):
            if not make:
                return os.path.join(found, *todo[::-1])
            make_folder(found)
        about = os.lstat(found)
        way = believed.startswith(found + "/")
        good = way or about.st_uid in (0, os.geteuid())
        if stat.S_ISLNK(about.st_mode):
            links += 1
            if not good or links > 40:
                raise Refused("home-unsafe", "%s is a link of another user, or one of many" % found)
            target = os.readlink(found)
            todo.extend(target.split("/")[::-1])
            here = "/" if target.startswith("/") else here
            continue
        if not stat.S_ISDIR(about.st_mode):
            raise Refused("home-kind", "%s is not a directory" % found)
        is_open = about.st_mode & 0o002 and not about.st_mode & stat.S_ISVTX
        if todo and not way and (is_open or not good):
            raise Refused("home-unsafe", "other users may change what is in %s" % found)
        here = found
    return here


def make_folder(path):
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass


def check_home(home):
    about = os.stat(home)
    if about.st_uid != os.geteuid():
        raise Refused("home-owner", "%s belongs to another user" % home)
    if about.st_mode & 0o077:
        raise Refused("home-mode", "%s is open to other users: chmod 700 it" % home)


def is_whole(path, sha256):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as reader:
        return os.fstat(fd).st_uid == os.geteuid() and hashlib.sha256(reader.read()).hexdigest() == sha256


def receive(nonce, header, home, path):
    """The agent's file from stdin; it appears whole or not at all."""
    remove_leftovers(home)
    tell(nonce, need=True)
    temporary = os.path.join(home, ".agent-%d-%s" % (os.getpid(), nonce))
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        digest, left = hashlib.sha256(), header["size"]
        while left:
            piece = os.read(0, min(left, PIECE))
            if not piece:
                raise Refused("cut", "the agent's file was cut off")
            digest.update(piece)
            left -= len(piece)
            while piece:
                piece = piece[os.write(fd, piece) :]
            tell(nonce, left=left)
        if digest.hexdigest() != header["sha256"]:
            raise Refused("digest", "the agent's file arrived damaged")
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def python_tag():
    """Which Pythons share compiled modules."""
    try:
        from _frozen_importlib_external import MAGIC_NUMBER
    except ImportError:
        return None
    return "%s %s" % (sys.implementation.cache_tag, MAGIC_NUMBER.hex())


def keep_compiled(nonce, offered, stem):
    """The agent's modules as the client's Python has compiled them, beside the agent's file: its start is shorter.

    Whether they are there or not, the agent does the same; so what fails here is not told.
    """
    path = "%s-%s.code" % (stem, offered["sha256"][:16])
    if os.path.isdir(path):
        return
    if not is_whole(path, offered["sha256"]):
        try:
            import zlib
        except ImportError:
            return
        disk = os.statvfs(os.path.dirname(stem))
        if disk.f_bavail * disk.f_frsize < ROOM:
            return
        tell(nonce, need=2)
        left, packed = int(read_line()), b""
        while left:
            piece = os.read(0, min(left, PIECE))
            if not piece:
                os._exit(1)
            packed, left = packed + piece, left - len(piece)
            tell(nonce, left=left)
        try:
            raw = zlib.decompress(packed)
            remove_leftovers(os.path.dirname(stem))
            write_whole(path, raw, nonce)
        except (OSError, zlib.error):
            return
    os.environ[COMPILED] = offered["sha256"]  # the agent compares


def write_whole(path, raw, nonce):
    temporary = os.path.join(os.path.dirname(path), ".agent-%d-%s" % (os.getpid(), nonce))
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as writer:
            writer.write(raw)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def remove_leftovers(home):
    """Parts of stages that were killed, and what older clients have compiled. A young one may be in use."""
    for name in os.listdir(home):
        path = os.path.join(home, name)
        compiled = name.startswith("agent-") and name.endswith(".code")
        age = COMPILED_AGE if compiled else LEFTOVER_AGE
        if (compiled or name.startswith(".agent-")) and os.lstat(path).st_mtime < time.time() - age:
            os.unlink(path)


def attach(nonce, header):
    before = os.umask(0o077)
    home = make_home(agent_home(header["home"]))
    path = os.path.join(home, "agent-%s.pyz" % header["sha256"][:16])
    if not is_whole(path, header["sha256"]):
        if os.path.isdir(path) and not os.path.islink(path):
            raise Refused("home-kind", "%s is a directory" % path)
        receive(nonce, header, home, path)
    os.environ.pop(COMPILED, None)
    if header.get("compiled") and header["compiled"]["tag"] == python_tag():
        keep_compiled(nonce, header["compiled"], path[: -len(".pyz")])
    os.umask(before)  # that of the user's login, for the jobs
    os.chdir("/")
    tell(nonce, ready=True)
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", path, "attach", home])


def probe(nonce, header):
    """Facts, then the time for each line that comes, so that the other side can measure its clock against ours."""
    tell(nonce, facts=find_facts(agent_home(header["home"])))
    while True:
        read_line()
        tell(nonce, time=time.time())


def find_facts(home):
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
        "hostname": os.uname().nodename,
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "os": find_system(),
        "boot": read_text("/proc/sys/kernel/random/boot_id").strip(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": find_memory(),
        "gpus": find_gpus(),
        "load": os.getloadavg()[0],
        "home": home,
        "disk_free": find_space(home),
    }


def read_text(path):
    try:
        with open(path, "rb") as reader:
            return reader.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""


def find_system():
    for line in read_text("/etc/os-release").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip("\"'")
    return os.uname().sysname


def find_memory():
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return 0


def find_gpus():
    try:
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        pass
    import subprocess

    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return done.stdout.count(b"GPU ") if done.returncode == 0 else 0


def find_space(home):
    """Free bytes where the agent's directory is, or would be made. Nothing is made; Refused if it could not be."""
    place = home = walk(os.path.abspath(home), make=False)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if place == home:
        check_home(home)
    if not os.access(place, os.W_OK | os.X_OK):
        raise Refused("EACCES", "%s cannot be written" % place)
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize


def main():
    header = eval(read_line().decode("ascii"), {"__builtins__": {}})  # noqa: S307 - from whom this text is, too
    nonce = header["nonce"]
    try:
        {"attach": attach, "probe": probe}[header["verb"]](nonce, header)
    except Refused as problem:
        tell(nonce, error=problem.args[0], message=problem.args[1])
    except OSError as problem:
        code = errno.errorcode.get(problem.errno, "os")
        tell(nonce, error=code, message=str(problem))
    except Exception as problem:  # noqa: BLE001 - the host's only way to say it
        tell(nonce, error="stage", message="%s: %s" % (type(problem).__name__, problem))
    os._exit(1)


if __name__ == "__main__":
    main()

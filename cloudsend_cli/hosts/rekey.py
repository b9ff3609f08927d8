"""What root's Python executes on a machine to replace the host key that its user-data carries.

The text of this file is sent over the channel, and is executed by Python 3.6 and later as `-I -S -B`: only the
standard library, no syntax newer than 3.6. The new key is staged first, and told; it is put in place when the client
has kept it. Each step can be cut off and begun again: what is staged, or in place, is found again.
"""

import json
import os
import shutil
import signal
import subprocess

STAGED, ASIDE, HALF = ".cloudsend-new", ".cloudsend-old", ".cloudsend-half"
PROGRAMS = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"


class Refused(Exception):
    """The key stays as it is, and why."""


def read_line():
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 1)
        if not more:
            os._exit(1)
        line += more
    return line


def tell(nonce, **fields):
    data = ("cloudsend-stage %s %s\n" % (nonce, json.dumps(fields))).encode("ascii")
    while data:
        data = data[os.write(1, data) :]


def run(*command):
    """What it prints; Refused where it fails."""
    program = shutil.which(command[0], path=PROGRAMS)
    if program is None:
        raise Refused("there is no %s" % command[0])
    done = subprocess.run(
        (program,) + command[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().split("\n")
        raise Refused("%s: %s" % (os.path.basename(program), said[-1] or "exit status %d" % done.returncode))
    return done.stdout.decode("utf-8", "replace")


def read_text(path):
    try:
        with open(path, "rb") as reader:
            return reader.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""


def find_listener():
    """(process, its command line) of the sshd that has let us in; (None, sshd) where none listens, as with inetd.

    Its title has the words of its command line since OpenSSH 8.2; an older one keeps the command line itself.
    """
    pid = os.getppid()
    while pid > 1:
        words = read_text("/proc/%d/cmdline" % pid).replace("\0", " ").split()
        if words[:1] == ["sshd:"] and "[listener]" in words:
            return pid, words[1 : words.index("[listener]")]
        if words and os.path.isabs(words[0]) and os.path.basename(words[0]) == "sshd" and "-i" not in words:
            return pid, words
        fields = read_text("/proc/%d/stat" % pid).rpartition(")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0
    return None, ["sshd"]


def public_key(path):
    """The public half of a private key, as `TYPE BASE64`; "" where there is none."""
    try:
        return " ".join(run("ssh-keygen", "-y", "-P", "", "-f", path).split()[:2])
    except Refused:
        return ""


def find_places(sshd):
    """{path: public key} of the host keys of this sshd."""
    lines = [line.split(None, 1) for line in run(*(sshd + ["-T"])).splitlines()]
    paths = [line[1] for line in lines if len(line) == 2 and line[0].lower() == "hostkey"]
    return {path: public_key(path) for path in paths}


def sync_folder(path):
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def stage(path):
    """A new key beside the old one, whole or not at all; the one that is there already, if any."""
    staged, half = path + STAGED, path + HALF
    if not public_key(staged):
        for old in (half, half + ".pub", staged):
            remove(old)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", half)
        remove(half + ".pub")
        with open(half, "rb") as reader:
            os.fsync(reader.fileno())
        os.rename(half, staged)
        sync_folder(path)
    return public_key(staged)


def install(path, sshd):
    """The staged key in place of the old one. sshd must be content before and after; else the old one is put back."""
    run(*(sshd + ["-t"]))
    public = public_key(path + STAGED)
    remove(path + ASIDE)
    os.link(path, path + ASIDE)
    os.rename(path + STAGED, path)
    sync_folder(path)
    try:
        run(*(sshd + ["-t"]))
    except Refused:
        os.rename(path + ASIDE, path)
        sync_folder(path)
        raise
    write_public(path, public)
    remove(path + ASIDE)
    sync_folder(path)


def write_public(path, public):
    """For people and programs that read it; sshd itself does not."""
    fd = os.open(path + HALF, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    with os.fdopen(fd, "w") as writer:
        writer.write(public + "\n")
        writer.flush()
        os.fsync(fd)
    os.rename(path + HALF, path + ".pub")


def replace(nonce, header):
    os.umask(0o077)
    if os.geteuid():
        raise Refused("this is not root")
    if shutil.which("ssh-keygen", path=PROGRAMS) is None:
        raise Refused("there is no ssh-keygen")
    listener, sshd = find_listener()
    places = find_places(sshd)
    path = find_place(places, header["old"])
    if path is not None:
        tell(nonce, staged=stage(path))
        read_line()  # the client has kept it
        install(path, sshd)
    else:
        path = next((p for kept in header["kept"] for p in [find_place(places, kept)] if p is not None), None)
        if path is None:
            raise Refused("no file of %s has the key that it shows" % sshd[0])
        tell(nonce, staged=places[path])  # put in place by one that was cut off before sshd had heard of it
        read_line()
        run(*(sshd + ["-t"]))
        write_public(path, places[path])
        remove(path + ASIDE)
    if listener is not None:
        os.kill(listener, signal.SIGHUP)
    tell(nonce, installed=True)


def find_place(places, public):
    return next((path for path in sorted(places) if public and places[path] == public), None)


def main():
    header = eval(read_line().decode("ascii"), {"__builtins__": {}})  # noqa: S307 - from whom this text is, too
    nonce = header["nonce"]
    try:
        replace(nonce, header)
    except Refused as problem:
        tell(nonce, error="rekey", message=problem.args[0])
    except OSError as problem:
        tell(nonce, error="rekey", message=str(problem))
    except Exception as problem:  # noqa: BLE001 - the host's only way to say it
        tell(nonce, error="rekey", message="%s: %s" % (type(problem).__name__, problem))
    os._exit(0)


if __name__ == "__main__":
    main()

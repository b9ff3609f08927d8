"""cloudsend's agent: starts, watches, stops and reports attempts on one host. PROTOCOL.md tells files and frames.

    python3 -I -S -B agent.py attach HOME    a pipe to the daemon of HOME, which is started or replaced as needed
    python3 -I -S -B agent.py serve HOME     the daemon itself
    python3 -I -S -B agent.py version

Standard library only, Python 3.6 and later, Linux. It is copied to hosts alone and imports nothing of ours: so it is
one file, and longer than any other of this project. From top to bottom: records, processes, files, the runner, the
queue, connections, the daemon.

Who does what. One daemon (single-threaded) holds the queue and the connections. Runners, forked from it and reused,
execute one attempt at a time each; a runner owns the claim, the process tree, the time limit and the exit record, and
outlives the daemon. What must survive is in files; the daemon's memory can be rebuilt from them at any moment.
"""
# mypy: no-check-untyped-defs
import errno
import fcntl
import hashlib
import heapq
import json
import os
import re
import select
import signal
import socket
import stat
import sys
import time
import zlib
from _thread import start_new_thread
from collections import deque

PROTOCOL = 1
MAX_LINE = MAX_PAYLOAD = 1 << 20
CHUNK = 256 << 10
LOG_BUFFER = 1 << 20        # unsent bytes of one client above which logs and requests wait
HARD_BUFFER = 8 << 20       # ... above which the client is dropped: it reconnects and asks for a report
RECORD = 1024
STORE_TIME = 946684800      # mtime of a stored upload: a hard link written to by a job shows by another mtime
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
SHA = re.compile(r"[0-9a-f]{64}\Z")
# What Python, nohup or a login shell may have left ignored; a job starts as from a terminal.
DEFAULT_SIGNALS = tuple(getattr(signal, "SIG" + name) for name in (
    "HUP", "INT", "QUIT", "PIPE", "TERM", "ALRM", "CHLD", "TSTP", "TTIN", "TTOU", "XFSZ"))
STREAMS = ("stdout", "stderr")
FINAL = ("exited", "lost", "cancelled", "stale")
encode_json = json.JSONEncoder(separators=(",", ":")).encode
encode_sorted = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


class Refused(Exception):
    def __init__(self, code, message, **more):
        Exception.__init__(self, message)
        self.error = dict(more, code=code, message=message)


def compact(value):
    return encode_json(value).encode("ascii")


def to_bytes(text):
    return text.encode("utf-8", "surrogateescape")


def to_text(raw):
    return raw.decode("utf-8", "surrogateescape")


def log(*words):
    sys.stderr.write("%s [%d] %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%S"), os.getpid(), " ".join(map(str, words))))
    sys.stderr.flush()


def log_exception(where):
    import traceback
    log(where, traceback.format_exc())


def read_file(path, limit=1 << 26):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(fd, 65536)
        while len(raw) >= 65536 and len(raw) < limit:
            more = os.read(fd, limit)
            if not more:
                break
            raw += more
        return raw
    except OSError:
        return None
    finally:
        os.close(fd)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def parse(raw):
    try:
        return json.loads(raw.decode("utf-8")) if raw else None
    except (ValueError, RecursionError):
        return None


def boot_id():
    return os.environ.get("CLOUDSEND_BOOT_ID") or to_text(read_file("/proc/sys/kernel/random/boot_id") or b"").strip()


# ---- records -------------------------------------------------------------------------------------------------------
# attempts/<id>/record is created with O_EXCL before anything is spawned: that is the claim, and it is for ever. Its
# size never changes afterwards, so a full disk cannot lose the end. Its creator holds its flock for the life of the
# attempt; whoever finds the lock free may judge, and writes the verdict before letting go of the lock.

def pack_record(body):
    body = body.ljust(RECORD - 10)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read_record(fd):
    """The record; {} where it is too short to have been followed by a spawn; 'claimed' where it is damaged."""
    raw = os.pread(fd, RECORD, 0)
    if len(raw) < RECORD:
        return {}
    return (parse(raw[9:]) if raw[:8] == b"%08x" % zlib.crc32(raw[9:-1]) else None) or {"state": "claimed"}


def pack_status(status):
    """JSON that fits a record: names of missing outputs are dropped from the end, and counted."""
    raw = compact(status)
    while len(raw) > RECORD - 10 and status.get("missing"):
        status["missing_more"] = status.get("missing_more", 0) + 1
        status["missing"] = status["missing"][:-1]
        raw = compact(status)
    return raw


def put_tombstone(home, ident, cause):
    """True when it is new. A symbolic link: made whole or not at all, exclusively, and without a data block."""
    try:
        os.symlink(cause, "%s/tombstones/%s" % (home, ident))
        return True
    except FileExistsError:
        return False


def get_tombstone(home, ident):
    try:
        return os.readlink("%s/tombstones/%s" % (home, ident))
    except OSError:
        return None


# ---- processes -----------------------------------------------------------------------------------------------------
# A process is (pid, start time), never a pid alone.

def process(pid):
    """(parent, group, start time) of a live process; None for a dead one or a zombie without threads."""
    raw = read_file("/proc/%d/stat" % pid)
    if not raw:
        return None
    field = raw[raw.rindex(b")") + 2:].split()
    if field[0] in b"ZX" and int(field[17]) < 2:
        return None
    return int(field[1]), int(field[2]), int(field[19])


def start_time(pid):
    found = process(pid)
    return found[2] if found else None


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
    if start_time(pid) != start:
        return False
    os.kill(pid, number)
    return True


def find_tree(ident, roots, skip=()):
    """{(pid, start, group)} of what lives of an attempt: descendants of roots, and whatever carries its tag."""
    tag = b"\0CLOUDSEND_ATTEMPT=" + ident.encode() + b"\0"
    children, table, found, uid = {}, {}, set(), os.geteuid()
    for name in os.listdir("/proc"):
        if name.isdigit():
            known = process(int(name))
            if known:
                table[int(name)] = known
                children.setdefault(known[0], []).append(int(name))
    todo = list(roots)
    for pid in table:
        try:
            ours = uid == 0 or os.stat("/proc/%d" % pid).st_uid == uid
            if ours and tag in b"\0" + (read_file("/proc/%d/environ" % pid) or b"") + b"\0":
                todo.append(pid)
        except OSError:
            pass
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    found.difference_update(skip, (os.getpid(), 1))
    return {(pid, table[pid][2], table[pid][1]) for pid in found if pid in table}


def kill_tree(find, grace):  # noqa: C901
    """TERM, grace, then STOP until nothing new appears (a fork storm), KILL, verified. Returns how many survive."""
    own_group, asked, pause, until = os.getpgrp(), set(), 0.002, time.monotonic() + grace
    while grace > 0 and time.monotonic() < until:
        found = find()
        if not found:
            return 0
        for pid, start, _ in found - asked:
            send_signal(pid, start, signal.SIGTERM)
        asked |= found
        time.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(pause * 2, 0.1)
    stopped, rounds, pause, until = set(), 0, 0.001, time.monotonic() + 60
    while True:
        found = find()
        if not found or time.monotonic() > until:
            return len(found)
        rounds += 1
        for pid, start, group in found - stopped:
            # A stopped member keeps its group's number from being reused, and stopping a group is atomic to forks.
            if send_signal(pid, start, signal.SIGSTOP) and group > 1 and group != own_group:
                try:
                    os.killpg(group, signal.SIGSTOP)
                except OSError:
                    pass
        if found <= stopped or rounds > 50:
            for pid, start, _ in found:
                send_signal(pid, start, signal.SIGKILL)
            time.sleep(pause)
            pause = min(pause * 2, 0.2)
        stopped |= found


def become_subreaper():
    """Orphans of our descendants become our children. Not inherited over fork."""
    try:
        import ctypes
        return ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        return False


def oom_kills():
    found = re.search(rb"^oom_kill (\d+)", read_file("/proc/vmstat") or b"", re.M)
    return int(found.group(1)) if found else 0


# ---- files ---------------------------------------------------------------------------------------------------------

def split_path(path):
    """The components of a relative path that stays where it is put."""
    raw = to_bytes(path)
    parts = raw.split(b"/")
    if not raw or len(raw) > 4096 or b"\0" in raw or any(part in (b"", b".", b"..") for part in parts):
        raise ValueError("not a plain relative path: %r" % path[:200])
    return parts


def open_below(root, parts, flags, create=False):
    """Opens root/parts without following a link in any component."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            if create:
                try:
                    os.mkdir(part, 0o700, dir_fd=here)
                except FileExistsError:
                    pass
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        if flags is None:
            result, here = here, None
            return result
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=here)
    finally:
        if here is not None:
            os.close(here)


def sha256_of(fd):
    digest, size = hashlib.sha256(), 0
    while True:
        raw = os.read(fd, 1 << 20)
        if not raw:
            return digest.hexdigest(), size
        digest.update(raw)
        size += len(raw)


def stored(home, sha):
    """The stat of an upload that is whole and was not written to through one of its links; else None."""
    path = "%s/files/%s" % (home, sha)
    try:
        found = os.lstat(path)
        if int(found.st_mtime) == STORE_TIME:
            return found
        os.unlink(path)
    except OSError:
        pass
    return None


def lay_out(home, work, files, private):
    """Puts uploads into the work directory: hard links of read-only files, or copies."""
    for item in files:
        parts = split_path(item["path"])
        folder = open_below(work, parts, None, create=True)
        try:
            if "link" in item:
                os.symlink(to_bytes(item["link"]), parts[-1], dir_fd=folder)
                continue
            sha, mode = item["sha256"], item.get("mode", 0o644)
            found = stored(home, sha)
            if found is None:
                raise LookupError(sha)
            source = "%s/files/%s" % (home, sha)
            if not private and bool(found.st_mode & 0o100) == bool(mode & 0o100):
                try:
                    os.link(source, parts[-1], dst_dir_fd=folder)
                    continue
                except FileExistsError:
                    raise
                except OSError as problem:
                    if problem.errno in NO_SPACE:
                        raise
            with open(source, "rb") as reader:
                fd = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
                try:
                    for raw in iter(lambda: reader.read(1 << 20), b""):
                        write_all(fd, raw)
                    os.fchmod(fd, mode & 0o777 | 0o600)
                finally:
                    os.close(fd)
        finally:
            os.close(folder)


def glob_regex(pattern):
    """A glob over '/'-paths: * and ? stay in a component and skip a leading dot; a directory means all below it."""
    parts = []
    for part in re.sub(r"\*\*+", "**", pattern).split("/"):
        if part == "**":
            if parts[-1:] != ["(?:[^/]+/)*"]:       # two in a row would mean the same, and backtrack for ever
                parts.append("(?:[^/]+/)*")
            continue
        part = part.replace("**", "*")  # noqa: PLW2901
        text, i = "(?!\\.)" if part[:1] in ("*", "?", "[") else "", 0
        while i < len(part):
            char, close = part[i], part.find("]", i + 2)
            if char == "[" and close > 0:
                inside = part[i + 1:close].replace("\\", "\\\\").replace("[", "\\[")
                text += "[" + ("^/" + inside[1:] if inside[0] in "!^" else inside) + "]"
                i = close
            else:
                text += {"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char)
            i += 1
        parts.append(text + "/")
    whole = "".join(parts)
    whole = whole[:-1] if whole.endswith("/") else whole + "[^/]+"
    return re.compile(whole + "(?:/.*)?\\Z", re.S)


def find_outputs(work, patterns):
    """Yields (path, stat, is_link) of the files below work that match; links are named, never followed."""
    regexes = [glob_regex(pattern.strip("/")) for pattern in patterns]
    todo = [(to_bytes(work) if isinstance(work, str) else work, "")]
    while todo:
        folder, prefix = todo.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            path = prefix + to_text(entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    todo.append((entry.path, path + "/"))
                elif any(regex.match(path) for regex in regexes):
                    about = entry.stat(follow_symlinks=False)
                    if entry.is_symlink() or stat.S_ISREG(about.st_mode):
                        yield path, about, entry.is_symlink()
            except OSError:
                pass


def missing_outputs(work, outputs):
    missing = []
    for item in outputs:
        if not item.get("optional"):
            pattern = item["pattern"].strip("/")
            if os.path.lexists(os.path.join(to_bytes(work), to_bytes(pattern))):
                continue
            if next(find_outputs(work, [pattern]), None) is None:
                missing.append(item["pattern"])
    return missing


def manifest(work, patterns):
    for path, about, is_link in find_outputs(work, patterns):
        parts = split_path(path)
        try:
            if is_link:
                yield {"path": path, "link": to_text(os.readlink(os.path.join(to_bytes(work), *parts)))}
                continue
            fd = open_below(work, parts, os.O_RDONLY | os.O_NONBLOCK)
            try:
                digest, size = sha256_of(fd)
            finally:
                os.close(fd)
            yield {"path": path, "size": size, "mode": stat.S_IMODE(about.st_mode), "mtime_ns": about.st_mtime_ns,
                   "sha256": digest}
        except OSError:
            pass


# ---- the runner ----------------------------------------------------------------------------------------------------

class Runner:
    """One attempt at a time, each claimed, executed, cleared away and recorded here, whatever happens to the daemon.

    It blocks in wait4. Signal handlers climb the kill ladder inside themselves and return, and wait4 goes on (PEP 475)
    and gets the status; nothing is ever thrown through it, so no status can fall between two bytecodes. A signal that
    arrives just before the system call is not seen by Python until the next one: senders repeat once a second.
    """

    def __init__(self, home, sock, env, umask, boot):
        self.home, self.sock, self.env = home, sock, env
        self.id = self.pid = self.cause = None
        self.grace = 0
        self.killing = False
        os.setsid()
        os.umask(umask)
        self.reaper = become_subreaper()
        self.me = b'"runner":%d,"runner_start":%d,"boot":%s' % (os.getpid(), start_time(os.getpid()), compact(boot))
        self.ooms, self.ooms_read = 0, -1e9
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGALRM, self.on_alarm)

    def serve(self):
        while True:
            order = self.sock.recv(4096)
            if not order:
                return
            ident, _, gpus = order.decode().partition(" ")
            reply, retire = self.execute(ident, [int(gpu) for gpu in gpus.split(",") if gpu])
            self.id = self.pid = self.cause = None
            self.sock.send(reply)
            if retire:
                return

    def on_term(self, *_):
        # The signal may be late and meant for the attempt before: only a tombstone condemns.
        cause = get_tombstone(self.home, self.id) if self.id else None
        if cause:
            self.stop(cause)

    def on_alarm(self, *_):
        if self.id:
            self.stop("timeout")

    def stop(self, cause):
        self.cause = self.cause or cause
        if self.pid and not self.killing:
            self.killing = True
            try:
                kill_tree(self.tree, self.grace)
            finally:
                self.killing = False

    def tree(self):
        return find_tree(self.id, [os.getpid()])

    def execute(self, ident, gpus):
        """Returns (message for the daemon, whether this runner must end)."""
        base = "%s/attempts/%s" % (self.home, ident)
        try:
            record = os.open(base + "/record", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return b"T", False
        except OSError as problem:
            return b"E" + self.failed("disk-full" if problem.errno in NO_SPACE else "claim: %s" % problem), False
        try:
            try:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(record).st_size:
                    return b"T", False
            except BlockingIOError:
                return b"T", False      # somebody found the lock free and has judged this claim
            started = time.time()
            running = {"started": started, "gpu_ids": gpus}
            head = b',"started":%.6f,"gpu_ids":%s,%s}' % (started, compact(gpus), self.me)
            try:
                if os.pwrite(record, pack_record(b'{"state":"claimed"' + head), 0) < RECORD:
                    raise OSError(errno.ENOSPC, "short write")
            except OSError:
                return b"E" + self.failed("disk-full"), False
            self.id = ident
            cause = get_tombstone(self.home, ident)
            if cause:
                status = compact({"state": "cancelled", "cause": cause})
                os.pwrite(record, pack_record(status), 0)
                return b"E" + status, False
            status, leftovers = self.attempt(ident, base, record, running, head)
            raw = pack_status(status)
            os.pwrite(record, pack_record(raw), 0)
            return (b"R" if leftovers else b"E") + raw, leftovers
        finally:
            os.close(record)

    def failed(self, cause):
        now = time.time()
        return pack_status({"state": "exited", "started": None, "ended": now, "exit_code": None, "signal": None,
                            "cause": cause[:100]})

    def attempt(self, ident, base, record, running, head):  # noqa: C901
        """Runs what is claimed to its end; returns (status, whether children were left alive as asked)."""
        status = {"state": "exited", "started": running["started"], "ended": None, "exit_code": None, "signal": None,
                  "cause": None}
        if running["gpu_ids"]:
            status["gpu_ids"] = running["gpu_ids"]
        out = err = None
        try:
            spec = (parse(read_file(base + "/spec.json")) or {}).get("spec")
            if spec is None:
                raise OSError("spec.json cannot be read")
            work = base + "/work"
            out, err = [os.open(base + "/" + name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                        for name in STREAMS]
            os.mkdir(work, 0o700)
            if spec.get("files"):
                lay_out(self.home, work, spec["files"], spec.get("private_files"))
            env = self.environment(ident, base, spec, running["gpu_ids"])
            self.grace = spec.get("grace", 10)
            if time.monotonic() - self.ooms_read > 1:
                self.ooms, self.ooms_read = oom_kills(), time.monotonic()
        except LookupError as problem:
            status.update(cause="upload-missing", ended=time.time(), detail=str(problem)[:100])
        except (OSError, ValueError) as problem:
            no_space = getattr(problem, "errno", None) in NO_SPACE
            status.update(cause="disk-full" if no_space else "start-failed", ended=time.time())
            status["detail"] = str(problem)[:200]
        if status["ended"] or self.cause:
            status.update(ended=status["ended"] or time.time(), cause=self.cause or status["cause"])
            if self.cause:
                status["state"] = "cancelled"
            for fd in (out, err):
                if fd is not None:
                    os.close(fd)
            return status, False
        try:
            return self.supervise(spec, work, env, out, err, record, status, head)
        finally:
            os.close(out)
            os.close(err)

    def supervise(self, spec, work, env, out, err, record, status, head):  # noqa: PLR0912, PLR0913, PLR0917
        timeout = spec.get("timeout")
        status["started"] = time.time()
        if timeout:
            signal.setitimer(signal.ITIMER_REAL, timeout, 1.0)
        try:
            pid, code = self.spawn(spec, work, env, out, err)
            if pid is None:
                wait, usage = code << 8, None
            else:
                self.pid = pid
                os.pwrite(record, pack_record(b'{"state":"running","pid":%d,"pid_start":%d' % (
                    pid, start_time(pid) or 0) + head), 0)
                _, wait, usage = os.wait4(pid, 0)
        finally:
            if timeout:
                signal.setitimer(signal.ITIMER_REAL, 0)
        status["ended"] = time.time()
        if os.WIFSIGNALED(wait):
            status["signal"] = os.WTERMSIG(wait)
        else:
            status["exit_code"] = os.WEXITSTATUS(wait)
        if usage:
            status.update(maxrss=usage.ru_maxrss << 10, utime=round(usage.ru_utime, 4), stime=round(usage.ru_stime, 4),
                          pid=pid)
        status["cause"] = self.cause
        killed = status["signal"] == signal.SIGKILL or status["exit_code"] == 137
        if killed and not self.cause and oom_kills() > self.ooms:
            status.update(cause="oom", oom=True)
        kept = False
        if self.children_left():
            if spec.get("keep_children") and not self.cause:
                kept = True
            else:
                # From here on the end is known, whatever happens to this process.
                os.pwrite(record, pack_record(pack_status(dict(status, state="exiting"))), 0)
                survivors = kill_tree(self.tree, min(self.grace, 2))
                if survivors:
                    status["survivors"] = survivors
                    kept = True
        complete(self.home, spec, work, status)
        status["stdout_size"], status["stderr_size"] = os.fstat(out).st_size, os.fstat(err).st_size
        return status, kept

    def children_left(self):
        """Reaps; True while something of the attempt lives."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            return bool(self.tree())
        except ChildProcessError:
            return not self.reaper and bool(self.tree())

    def environment(self, ident, base, spec, gpus):
        env = dict(self.env)
        for name, value in spec.get("env", {}).items():
            env[to_bytes(name)] = to_bytes(value)
        if spec.get("has_secrets"):
            for name, value in (parse(read_file(base + "/secrets")) or {}).items():
                env[to_bytes(name)] = to_bytes(value)
            os.unlink(base + "/secrets")
        env[b"CLOUDSEND_ATTEMPT"] = ident.encode()
        env[b"CLOUDSEND_RUN_DIR"] = os.fsencode(base + "/work")
        if spec.get("environment"):
            env[b"CLOUDSEND_ENV"] = os.fsencode("%s/envs/%s" % (self.home, spec["environment"]))
        if gpus:
            env[b"CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus)).encode()
        return env

    def spawn(self, spec, work, env, out, err):
        """(pid, None), or (None, exit code) with the reason in the attempt's stderr."""
        argv = [to_bytes(word) for word in spec["argv"]]
        cwd = spec.get("cwd")
        try:
            if cwd and cwd[0] not in "/~":
                os.makedirs(os.path.join(work, cwd), 0o700, exist_ok=True)
            os.chdir(os.path.join(to_bytes(work), to_bytes(os.path.expanduser(cwd))) if cwd else work)
            program = find_program(argv[0], env)
            if hasattr(os, "posix_spawn"):
                actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, err, 2)]
                options = {"file_actions": actions, "setsigdef": DEFAULT_SIGNALS, "setsigmask": ()}
                try:
                    return os.posix_spawn(program, argv, env, setsid=True, **options), None
                except NotImplementedError:
                    return os.posix_spawn(program, argv, env, setpgroup=0, **options), None
            return fork_exec(program, argv, env, out, err), None
        except OSError as problem:
            text = "cloudsend: cannot run %s: %s\n" % (to_text(argv[0]), problem.strerror)
            try:
                os.write(err, to_bytes(text))
            except OSError:
                pass
            return None, 127 if problem.errno == errno.ENOENT else 126


def find_program(name, env):
    if b"/" in name:
        return name
    denied = None
    for folder in env.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").split(b":"):
        path = os.path.join(folder or b".", name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            denied = PermissionError(errno.EACCES, "Permission denied")
    raise denied or FileNotFoundError(errno.ENOENT, "command not found")


def fork_exec(program, argv, env, out, err):
    """For Python 3.6 and 3.7, which have no posix_spawn."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            os.dup2(out, 1)
            os.dup2(err, 2)
            for number in DEFAULT_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.execve(program, argv, env)  # noqa: S606
        except OSError as problem:
            os.write(writer, b"%d" % (problem.errno or errno.EIO))
        finally:
            os._exit(127)
    os.close(writer)
    number = os.read(reader, 16)
    os.close(reader)
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return pid


def complete(home, spec, work, status):
    """What follows the end of the processes: outputs are looked for, a built environment is marked, in this order."""
    if spec.get("outputs"):
        missing = missing_outputs(work, spec["outputs"])
        if missing:
            status["missing"] = missing
    if spec.get("kind") == "build" and spec.get("environment") and status["exit_code"] == 0 and not status["cause"]:
        try:
            folder = "%s/envs/%s" % (home, spec["environment"])
            os.makedirs(folder, 0o700, exist_ok=True)
            os.close(os.open(folder + "/.ready", os.O_WRONLY | os.O_CREAT, 0o600))
        except OSError as problem:
            status["cause"] = "disk-full" if problem.errno in NO_SPACE else "environment-unmarked"


# ---- the queue -----------------------------------------------------------------------------------------------------

def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e18


def is_names(value):
    """Strings that can be arguments of exec: no NUL, and bytes again when encoded."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return False
    return "\0" not in "".join(value) and to_bytes("".join(value)) is not None


def check_spec(spec, home):
    """Raises ValueError with what is wrong. What passes here can be run without looking at types again."""
    def need(good, what):
        if not good:
            raise ValueError(what)
    get = spec.get
    need(is_names(get("argv")) and get("argv") and get("argv")[0], "argv")
    for name in ("env", "secrets"):
        table = get(name) or {}
        need(isinstance(table, dict) and is_names(list(table)) and is_names(list(table.values())), name)
        need(all(key and "=" not in key for key in table), name)
    for name in ("cpus", "memory", "gpus", "grace"):
        need(is_number(get(name, 0)), name)
    need(get("gpus", 0) == int(get("gpus", 0)), "gpus")
    need(get("timeout") is None or (is_number(get("timeout")) and 0 < get("timeout") < 1e9), "timeout")
    slots = get("slots") or []
    need(is_names(slots) and len(set(slots)) == len(slots), "slots")
    cwd = get("cwd")
    if cwd is not None:
        need(isinstance(cwd, str) and cwd and is_names([cwd]), "cwd")
        need(cwd[0] in "/~" or ".." not in cwd.split("/"), "cwd leaves the work directory")
    key = get("environment")
    need(key is None or (isinstance(key, str) and ID.match(key)), "environment")
    for item in get("files") or []:
        need(isinstance(item, dict) and isinstance(item.get("path"), str), "files")
        split_path(item["path"])
        if "link" in item:
            need(is_names([item["link"]]) and item["link"], "files: link")
        else:
            need(isinstance(item.get("sha256"), str) and SHA.match(item["sha256"]), "files: sha256")
            need(is_number(item.get("mode", 0)) and isinstance(item.get("mode", 0), int), "files: mode")
    for item in get("outputs") or []:
        need(isinstance(item, dict) and isinstance(item.get("pattern"), str), "outputs")
        split_path(item["pattern"].strip("/"))
        glob_regex(item["pattern"].strip("/"))
    need(get("kind", "job") in ("job", "build"), "kind")
    for name in ("private_files", "keep_children"):
        need(isinstance(get(name, False), bool), name)
    need(isinstance(get("files") or [], list) and isinstance(get("outputs") or [], list), "files, outputs")


class Attempt:
    __slots__ = ("id", "owner", "seq", "shape", "state", "status", "gpus", "runner", "ended", "deaths", "kill_at")  # noqa: RUF023

    def __init__(self, ident, owner, seq, shape):
        self.id, self.owner, self.seq, self.shape = ident, owner, seq, shape
        self.state, self.status, self.gpus, self.runner, self.ended, self.deaths = "queued", None, (), None, 0.0, 0
        self.kill_at = None


def shape_of(spec):
    """(milli-cpus, bytes, gpus, slots): whole numbers, so that releasing gives back exactly what was taken."""
    return (int(round(spec.get("cpus", 1) * 1000)), int(spec.get("memory", 0)), int(spec.get("gpus", 0)),  # noqa: RUF046
            tuple(spec.get("slots") or ()))


class Queue:
    """First come first served with backfill, and what is free on this host.

    Attempts of one shape wait in one line, so an event looks at shapes, not at attempts, and at no more than DEPTH of
    them. A line that waits for a named slot is set aside until that slot is given back: overtaking cannot delay it.
    After its head was overtaken DEPTH times, nothing starts before the head.
    """
    DEPTH = 64

    def __init__(self):
        self.lines, self.heads, self.aside = {}, [], {}
        self.total = self.free = (0, 0)
        self.gpus, self.free_gpus, self.slots = 0, [], set()
        self.head, self.overtaken, self.waiting = None, 0, 0

    def resize(self, cpus, memory, gpus):
        old = self.total
        self.total = (int(round(cpus * 1000)), int(memory))  # noqa: RUF046
        self.free = (self.free[0] + self.total[0] - old[0], self.free[1] + self.total[1] - old[1])
        used = set(range(self.gpus)) - set(self.free_gpus)
        self.gpus = int(gpus)
        self.free_gpus = sorted(set(range(self.gpus)) - used)

    def too_large(self, shape):
        for have, want, name in zip((*self.total, self.gpus), shape, ("cpus", "memory", "gpus")):
            if want > have:
                return name
        return None

    def add(self, attempt, first=False):
        line = self.lines.get(attempt.shape)
        if line is None:
            line = self.lines[attempt.shape] = deque()
            heapq.heappush(self.heads, (attempt.seq, attempt.shape))
        if first:
            line.appendleft(attempt)
        else:
            line.append(attempt)

    def fits(self, shape):
        # A host that shrank after it accepted runs what is too large alone, rather than never.
        return (min(shape[0], self.total[0]) <= self.free[0] and min(shape[1], self.total[1]) <= self.free[1]
                and shape[2] <= len(self.free_gpus))

    def take(self, attempt, gpus=None):
        shape = attempt.shape
        self.free = (self.free[0] - shape[0], self.free[1] - shape[1])
        attempt.gpus = self.free_gpus[:shape[2]] if gpus is None else gpus
        self.free_gpus = [gpu for gpu in self.free_gpus if gpu not in attempt.gpus] if attempt.gpus else self.free_gpus
        self.slots.update(shape[3])

    def give_back(self, attempt):
        shape = attempt.shape
        self.free = (self.free[0] + shape[0], self.free[1] + shape[1])
        if attempt.gpus:
            self.free_gpus = sorted(self.free_gpus + [gpu for gpu in attempt.gpus if gpu < self.gpus])
        for slot in shape[3]:
            self.slots.discard(slot)
            for waiting in self.aside.pop(slot, ()):
                heapq.heappush(self.heads, (self.lines[waiting][0].seq, waiting))

    def next(self):  # noqa: C901, PLR0912
        """Takes the resources of the next attempt to start and returns it, or None."""
        passed, chosen = [], None
        while self.heads and len(passed) < self.DEPTH:
            seq, shape = heapq.heappop(self.heads)
            line = self.lines[shape]
            while line and line[0].state != "queued":
                line.popleft()
            if not line:
                del self.lines[shape]
                continue
            if line[0].seq != seq:
                heapq.heappush(self.heads, (line[0].seq, shape))
                continue
            busy = next((slot for slot in shape[3] if slot in self.slots), None)
            if busy is not None:
                self.aside.setdefault(busy, []).append(shape)
                continue
            if self.fits(shape):
                chosen = line.popleft()
                if line:
                    heapq.heappush(self.heads, (line[0].seq, shape))
                else:
                    del self.lines[shape]
                self.take(chosen)
                break
            if not passed:
                if self.head != seq:
                    self.head, self.overtaken = seq, 0
                passed.append((seq, shape))
                if self.overtaken >= self.DEPTH:
                    break
            else:
                passed.append((seq, shape))
        if chosen and passed:
            self.overtaken += 1
        for item in passed:
            heapq.heappush(self.heads, item)
        return chosen


# ---- connections ---------------------------------------------------------------------------------------------------

class Peer:
    """A client's connection: frames in, a bounded buffer out."""

    def __init__(self, daemon, sock):
        self.daemon, self.sock, self.fd = daemon, sock, sock.fileno()
        self.inbox, self.outbox, self.unsent = bytearray(), deque(), 0
        self.frame = None               # a frame whose payload is still on its way
        self.owner, self.epoch = None, -1
        self.follows = {}               # (attempt, stream) -> next offset
        self.eof = self.closing = False
        self.mask = select.EPOLLIN
        sock.setblocking(False)

    def send(self, message, payload=b""):
        if payload:
            message["size"] = len(payload)
        self.send_raw(compact(message) + b"\n" + payload)

    def send_raw(self, raw):
        self.outbox.append(raw)
        self.unsent += len(raw)

    def handle(self, mask):
        if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not self.eof:
            try:
                raw = self.sock.recv(CHUNK)
            except BlockingIOError:
                raw = None
            except OSError:
                return self.daemon.drop(self)
            if raw:
                self.inbox += raw
            elif raw == b"":
                self.eof = True
            self.read_frames()
        elif self.eof and mask & (select.EPOLLHUP | select.EPOLLERR):
            return self.daemon.drop(self)
        self.daemon.touched.add(self)

    def read_frames(self):
        """Acts on what is complete; requests wait while their replies do not drain."""
        try:
            while not self.closing and self.unsent < LOG_BUFFER:
                if self.frame is None:
                    end = self.inbox.find(b"\n", 0, MAX_LINE + 1)
                    if end < 0:
                        if len(self.inbox) > MAX_LINE:
                            raise ValueError("a line of more than %d bytes" % MAX_LINE)
                        return
                    frame = json.loads(self.inbox[:end].decode("utf-8"))
                    del self.inbox[:end + 1]
                    if not isinstance(frame, dict):
                        raise ValueError("a frame is an object")
                    size = frame.get("size", 0)
                    if type(size) is not int or not 0 <= size <= MAX_PAYLOAD:
                        raise ValueError("size is 0 to %d" % MAX_PAYLOAD)
                    self.frame = frame
                size = self.frame.get("size", 0)
                if len(self.inbox) < size:
                    return
                frame, self.frame = self.frame, None
                payload = bytes(self.inbox[:size])
                del self.inbox[:size]
                self.daemon.request(self, frame, payload)
        except (ValueError, RecursionError) as problem:
            self.send({"ev": "error", "error": {"code": "protocol", "message": str(problem)[:200]}})
            self.closing = True

    def flush(self):
        try:
            while self.outbox:
                raw = b"".join(self.outbox) if self.unsent < CHUNK else self.outbox[0]
                if self.unsent < CHUNK:
                    self.outbox.clear()
                    self.outbox.append(raw)
                count = self.sock.send(raw)
                self.unsent -= count
                if count < len(raw):
                    self.outbox[0] = raw[count:]
                    break
                self.outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            return self.daemon.drop(self)
        if self.unsent > HARD_BUFFER or ((self.closing or self.eof) and not self.outbox):
            return self.daemon.drop(self)
        mask = 0 if self.eof or self.closing or self.unsent >= LOG_BUFFER else select.EPOLLIN
        mask |= select.EPOLLOUT if self.outbox else 0
        if mask != self.mask:
            self.mask = mask
            self.daemon.epoll.modify(self.fd, mask)


class Hand:
    """The daemon's end of a runner, or of a process that does one long thing and writes its result."""

    def __init__(self, pid, fd, sock=None, done=None):
        self.pid, self.fd, self.sock, self.done = pid, fd, sock, done
        self.start = start_time(pid)
        self.attempt, self.idle_since, self.result, self.retired = None, 0.0, b"", False


# ---- the daemon ----------------------------------------------------------------------------------------------------

class Daemon:
    NEWS_EVERY, RUNNING_AFTER, FOLLOW_EVERY, ADOPTED_EVERY, TICK, BEAT = 0.004, 0.010, 0.1, 0.2, 0.5, 5.0
    RUNNERS_MAX, IDLE_RUNNER = 1000, 10.0
    MUTATING = ("start", "cancel", "revoke", "ack", "put")

    def __init__(self, home, lock):
        self.home, self.lock = home, lock
        self.boot, self.agent = boot_id(), os.urandom(8).hex()
        self.sha = own_sha256()
        self.umask = os.umask(0o077)
        self.idle_limit = float(os.environ.get("CLOUDSEND_AGENT_IDLE") or 60)
        hidden = re.compile(rb"CLOUDSEND_|SSH_(CLIENT|CONNECTION|TTY|AUTH_SOCK)$|(OLD)?PWD$|SHLVL$|_$")
        self.env = {name: value for name, value in os.environb.items() if not hidden.match(name)}
        for name in ("attempts", "tombstones", "envs", "files"):
            os.makedirs(home + "/" + name, 0o700, exist_ok=True)
        self.epochs, self.override = {}, None
        kept = parse(read_file(home + "/epochs.json"))
        if isinstance(kept, dict):
            self.epochs, self.override = kept.get("epochs", {}), kept.get("resources")
        self.found = discover_resources()
        self.queue = Queue()
        self.resize()
        self.attempts = {}              # id -> Attempt, until its end is acknowledged
        self.seq = 0
        self.peers, self.hands, self.idle = {}, {}, []
        self.runners = 0
        self.adopted, self.killing = set(), set()
        self.news, self.news_sent = {}, 0.0
        self.fresh = deque()            # (when, attempt) started, not yet told: most end sooner
        self.acked, self.unjournaled, self.journal_debt = [], deque(), []
        self.touched = set()
        self.kept_children = set()
        self.quiet_since = self.tick_at = self.beat_at = self.follow_at = self.adopted_at = time.monotonic()
        self.leaving = False
        become_subreaper()
        self.epoll = select.epoll()
        self.recover()
        self.listener = listen(home)
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)

    def resize(self):
        resources = dict(self.found, **(self.override or {}))
        self.queue.resize(resources["cpus"], resources["memory"], resources["gpus"])

    # -- what the disk says

    def recover(self):  # noqa: C901, PLR0912
        """Rebuilds memory from the files. Acknowledged attempts are not opened."""
        acked, ends = set(), {}
        for line in (read_file(self.home + "/journal", 1 << 32) or b"").split(b"\n"):
            word = line.split(b" ", 2)
            if word[0] == b"a" and len(word) == 2:
                acked.add(to_text(word[1]))
            elif word[0] == b"e" and len(word) == 3 and parse(word[2]):
                ends[to_text(word[1])] = word[2]
        names, waiting = os.listdir(self.home + "/attempts"), []
        tombstones = set(os.listdir(self.home + "/tombstones"))
        for ident in names:
            if ident in acked:
                continue
            kept = self.read_spec(ident)
            if kept is None:
                self.forget_torn(ident)
                continue
            attempt = Attempt(ident, kept["owner"], kept["seq"], shape_of(kept["spec"]))
            self.attempts[ident] = attempt
            self.seq = max(self.seq, attempt.seq + 1)
            cause = get_tombstone(self.home, ident) if ident in tombstones else None
            if os.path.exists("%s/attempts/%s/record" % (self.home, ident)):
                attempt.state = "running"
                self.queue.take(attempt, ())
                if ident in ends:
                    self.end(attempt, ends[ident])
                else:
                    self.judge(attempt)
            elif ident in ends:
                attempt.state = "running"
                self.queue.take(attempt, ())
                self.end(attempt, ends[ident])
            elif cause:
                self.never(attempt, {"state": "cancelled", "cause": cause})
            elif kept["boot"] != self.boot:
                self.never(attempt, {"state": "stale", "cause": "rebooted"})
            else:
                waiting.append(attempt)
        for attempt in sorted(waiting, key=lambda attempt: attempt.seq):
            self.queue.add(attempt)
        self.compact_journal(acked.intersection(names), ends)
        self.journal = os.open(self.home + "/journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def compact_journal(self, acked, ends):
        path = self.home + "/journal"
        try:
            if os.stat(path).st_size < 1 << 20:
                return
            with open(path + ".new", "wb") as writer:
                writer.writelines(b"a %s\n" % to_bytes(ident) for ident in sorted(acked))
                writer.writelines(b"e %s %s\n" % (to_bytes(ident), ends[ident]) for ident in ends
                                  if ident in self.attempts)
                writer.flush()
                os.fsync(writer.fileno())
            os.rename(path + ".new", path)
        except OSError as problem:
            log("the journal was not compacted:", problem)

    def read_spec(self, ident):
        kept = parse(read_file("%s/attempts/%s/spec.json" % (self.home, ident)))
        return kept if isinstance(kept, dict) and "spec" in kept else None

    def forget_torn(self, ident):
        """A directory whose spec was not written whole was never accepted: nobody was told so."""
        base = "%s/attempts/%s" % (self.home, ident)
        if not os.path.exists(base + "/record"):
            for name in ("secrets", "spec.json"):
                try:
                    os.unlink(base + "/" + name)
                except OSError:
                    pass
            try:
                os.rmdir(base)
            except OSError:
                pass

    def judge(self, attempt):  # noqa: C901
        """Decides about a claimed attempt without a runner of ours, by the lock of its record."""
        attempt.runner = None
        try:
            record = os.open("%s/attempts/%s/record" % (self.home, attempt.id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return self.requeue(attempt)
        except OSError as problem:
            log("record of", attempt.id, problem)
            self.adopted.add(attempt)
            return
        found = {}
        try:
            found = read_record(record)
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = read_record(record)
            verdict = None
            if found.get("state") in FINAL:
                verdict = pack_status(found)
            elif not found:
                verdict = compact({"state": "lost", "cause": "never-started", "ended": time.time()})
            elif found.get("boot", self.boot) != self.boot:
                verdict = compact({"state": "lost", "cause": "rebooted", "started": found.get("started")})
            if verdict and found.get("state") not in FINAL and os.pwrite(record, pack_record(verdict), 0) < RECORD:
                raise OSError(errno.ENOSPC, "short write")
        except OSError as problem:
            if not isinstance(problem, BlockingIOError):
                log("record of", attempt.id, problem)
            if not attempt.gpus and found.get("gpu_ids"):
                attempt.gpus = found["gpu_ids"]
                self.queue.free_gpus = [gpu for gpu in self.queue.free_gpus if gpu not in attempt.gpus]
            self.adopted.add(attempt)
            return
        finally:
            os.close(record)
        self.adopted.discard(attempt)
        if verdict:
            return self.end(attempt, verdict)
        orphans = self.orphans()
        self.fork_hand(lambda: clear_away(self.home, attempt.id, orphans),
                       lambda result: self.end(attempt, result) if result else self.adopted.add(attempt))

    def orphans(self):
        """Children of ours that no hand accounts for: what a killed runner left."""
        if not self.reap():
            return set()
        known = {hand.pid for hand in self.hands.values()}
        found = set()
        for name in os.listdir("/proc"):
            about = process(int(name)) if name.isdigit() else None
            if about and about[0] == os.getpid() and int(name) not in known:
                found.add((int(name), about[2]))
        return found - self.kept_children

    # -- the life of an attempt

    def requeue(self, attempt):
        """Its runner died before the claim: nothing was executed, and another may try."""
        self.queue.give_back(attempt)
        attempt.deaths += 1
        attempt.gpus, attempt.state = (), "queued"
        cause = get_tombstone(self.home, attempt.id)
        if cause or attempt.deaths > 3:
            self.never(attempt, {"state": "cancelled", "cause": cause or "runner-died"})
        else:
            self.queue.add(attempt, first=True)

    def dispatch(self):
        while self.idle or self.runners < self.RUNNERS_MAX:
            attempt = self.queue.next()
            if attempt is None:
                return
            hand = self.idle.pop() if self.idle else self.fork_runner()
            attempt.state, attempt.runner, hand.attempt = "running", hand, attempt
            attempt.ended = time.time()
            order = attempt.id + (" " + ",".join(map(str, attempt.gpus)) if attempt.gpus else "")
            try:
                hand.sock.send(order.encode())
            except OSError:
                continue        # it died idle: the end of its connection leads to judge and back into the queue
            self.fresh.append((time.monotonic(), attempt))

    def end(self, attempt, raw):
        """An end that is final and, but for a full disk, in the record."""
        self.queue.give_back(attempt)
        attempt.state, attempt.status, attempt.runner, attempt.gpus = "ended", raw, None, ()
        self.adopted.discard(attempt)
        self.killing.discard(attempt)
        attempt.ended = time.monotonic()
        self.unjournaled.append(attempt)
        self.tell(attempt, raw)

    def never(self, attempt, status):
        """A queued attempt that will not start here. Its place in the queue is passed over when its turn comes."""
        attempt.state, attempt.status, attempt.ended = "ended", compact(status), time.monotonic()
        try:
            os.unlink("%s/attempts/%s/secrets" % (self.home, attempt.id))
        except OSError:
            pass
        self.tell(attempt, attempt.status)

    def tell(self, attempt, raw):
        self.news.setdefault(attempt.owner, {})[attempt.id] = raw

    def send_news(self, now):
        """One frame for many changes; at once after a pause, else a few milliseconds' worth together."""
        while self.fresh and now - self.fresh[0][0] >= self.RUNNING_AFTER:
            attempt = self.fresh.popleft()[1]
            if attempt.state == "running":
                self.tell(attempt, compact(dict({"state": "running", "started": attempt.ended},
                                                **({"gpu_ids": attempt.gpus} if attempt.gpus else {}))))
        if not self.news or now - self.news_sent < self.NEWS_EVERY:
            return
        self.news_sent = now
        for owner, items in self.news.items():
            peers = [peer for peer in self.peers.values() if peer.owner == owner and not peer.eof]
            if peers:
                texts = [b'"%s":%s' % (ident.encode(), raw) for ident, raw in items.items()]
                for i in range(0, len(texts), 512):
                    frame = b'{"ev":"changes","items":{%s}}\n' % b",".join(texts[i:i + 512])
                    for peer in peers:
                        peer.send_raw(frame)
                self.touched.update(peers)
        self.news.clear()

    def status(self, attempt):
        if attempt.state == "ended":
            return json.loads(attempt.status.decode())
        if attempt.state == "queued":
            return {"state": "queued"}
        raw = read_file("%s/attempts/%s/record" % (self.home, attempt.id)) or b""
        found = parse(raw[9:]) if len(raw) == RECORD else None
        status = {"state": "running", "started": attempt.ended or None}
        for name in ("started", "pid", "gpu_ids"):
            if found and found.get(name):
                status[name] = found[name]
        return status

    def kill(self, attempt):
        """Tells the runner, whoever forked it, to look for the tombstone."""
        if attempt.runner:
            send_signal(attempt.runner.pid, attempt.runner.start, signal.SIGTERM)
        else:
            raw = read_file("%s/attempts/%s/record" % (self.home, attempt.id)) or b""
            found = parse(raw[9:]) or {}
            if isinstance(found.get("runner"), int):
                send_signal(found["runner"], found.get("runner_start"), signal.SIGTERM)
        self.killing.add(attempt)

    # -- processes of ours

    def forget_descriptors(self, keep):
        """In a child: the lock above all, which would outlive the daemon, and the other runners' connections."""
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in keep:
                try:
                    os.close(int(name))
                except OSError:
                    pass

    def fork_runner(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                self.forget_descriptors((theirs.fileno(),))
                Runner(self.home, theirs, self.env, self.umask, self.boot).serve()
                code = 0
            except ConnectionError:     # the daemon died; what it sent unread is still queued on disk
                code = 0
            except BaseException:  # noqa: BLE001
                log_exception("runner")
            finally:
                os._exit(code)
        theirs.close()
        hand = Hand(pid, ours.fileno(), sock=ours)
        self.hands[hand.fd] = hand
        self.runners += 1
        self.epoll.register(hand.fd, select.EPOLLIN)
        return hand

    def fork_hand(self, work, done):
        """Does something long in a child; done gets the bytes it returned, or b'' if it died."""
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                self.forget_descriptors((writer,))
                write_all(writer, work())
            except BaseException:  # noqa: BLE001
                log_exception("hand")
            finally:
                os._exit(0)
        os.close(writer)
        self.hands[reader] = Hand(pid, reader, done=done)
        self.epoll.register(reader, select.EPOLLIN)

    def hear(self, hand):
        if hand.sock is None:
            raw = os.read(hand.fd, CHUNK)
            hand.result += raw
            if not raw:
                self.let_go(hand)
                hand.done(hand.result)
            return
        try:
            raw = hand.sock.recv(4096)
        except OSError:
            raw = b""
        attempt = hand.attempt
        if not raw:
            self.let_go(hand)
            if hand.retired:
                self.kept_children |= self.orphans()
            if attempt:
                self.judge(attempt)
            return
        hand.attempt = None
        if raw[:1] == b"R":
            hand.retired = True
        else:
            hand.idle_since = time.monotonic()
            self.idle.append(hand)
        if attempt is None:
            return
        if raw[:1] == b"T":
            attempt.runner = None
            self.judge(attempt)
        else:
            self.end(attempt, raw[1:])

    def let_go(self, hand):
        self.epoll.unregister(hand.fd)
        del self.hands[hand.fd]
        if hand.sock is None:
            os.close(hand.fd)
        else:
            hand.sock.close()
            self.runners -= 1
            if hand in self.idle:
                self.idle.remove(hand)
        try:
            os.waitpid(hand.pid, 0)
        except ChildProcessError:
            pass

    def reap(self):
        """True while there are children."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            return True
        except ChildProcessError:
            return False

    # -- requests

    def request(self, peer, frame, payload):
        ident, op = frame.get("id"), frame.get("op")
        try:
            if not isinstance(op, str) or op not in OPS:
                raise Refused("unknown-op", "no such op: %s" % repr(op)[:60])
            if peer.owner is None and op not in ("hello", "handover"):
                raise Refused("hello-first", "the first frame is hello")
            if op in self.MUTATING and self.epochs.get(peer.owner, 0) > peer.epoch:
                raise Refused("fenced", "a newer client of %s has taken over" % peer.owner)
            reply = OPS[op](self, peer, frame, payload)
        except Refused as refusal:
            reply = {"ok": False, "error": refusal.error}
        except OSError as problem:
            code = "disk-full" if problem.errno in NO_SPACE else "os"
            reply = {"ok": False, "error": {"code": code, "message": str(problem)[:300]}}
        except Exception as problem:  # noqa: BLE001
            log_exception("op %s" % repr(op)[:60])
            reply = {"ok": False, "error": {"code": "internal", "message": repr(problem)[:300]}}
        if reply is not None:
            self.reply(peer, ident, reply)

    def reply(self, peer, ident, reply, payload=b""):
        if ident is not None and peer.fd in self.peers:
            peer.send(dict({"re": ident, "ok": True}, **reply), payload)
            self.touched.add(peer)

    def reply_parts(self, peer, ident, name, items, extra):
        """A long dict or list as several replies; all but the last say more."""
        part = {} if isinstance(items, dict) else []
        size = 0
        for item in (items.items() if isinstance(items, dict) else items):
            length = len(encode_json(item))
            if part and size + length > MAX_LINE // 4:
                self.reply(peer, ident, {name: part, "more": True})
                part, size = ({} if isinstance(items, dict) else []), 0
            size += length
            if isinstance(items, dict):
                part[item[0]] = item[1]
            else:
                part.append(item)
        self.reply(peer, ident, dict(extra, **{name: part}))

    def about(self):
        resources = {"cpus": self.queue.total[0] / 1000.0, "memory": self.queue.total[1], "gpus": self.queue.gpus}
        return {"protocol": PROTOCOL, "boot": self.boot, "agent": self.agent, "sha": self.sha, "pid": os.getpid(),
                "hostname": socket.gethostname(), "home": self.home, "time": time.time(), "resources": resources,
                "free": self.free()}

    def free(self):
        return {"cpus": self.queue.free[0] / 1000.0, "memory": self.queue.free[1], "gpus": len(self.queue.free_gpus)}

    def op_hello(self, peer, frame, payload):
        owner, epoch, resources = frame.get("owner"), frame.get("epoch", 0), frame.get("resources")
        if not isinstance(owner, str) or not 0 < len(owner) <= 200 or type(epoch) is not int or epoch < 0:
            raise Refused("bad-request", "owner is a string, epoch a whole number")
        epochs, override = dict(self.epochs), self.override
        if resources is not None:
            if not isinstance(resources, dict) or not all(is_number(resources.get(name, 0)) for name in self.found):
                raise Refused("bad-request", "resources are numbers: cpus, memory, gpus")
            override = {name: resources[name] for name in self.found if name in resources}
        epochs[owner] = max(epoch, epochs.get(owner, 0))
        if (epochs, override) != (self.epochs, self.override):
            path = self.home + "/epochs.json"
            with open(path + ".new", "wb") as writer:
                writer.write(compact({"epochs": epochs, "resources": override}))
                writer.flush()
                os.fsync(writer.fileno())
            os.rename(path + ".new", path)
            self.epochs, self.override = epochs, override
            self.resize()
        peer.owner, peer.epoch = owner, epoch
        return self.about()

    def op_start(self, peer, frame, payload):
        specs, results = frame.get("attempts"), {}
        if not isinstance(specs, list):
            raise Refused("bad-request", "attempts is a list")
        for i, spec in enumerate(specs):
            ident = spec.get("id") if isinstance(spec, dict) else None
            if not isinstance(ident, str) or not ID.match(ident):
                results["#%d" % i] = "bad-spec: id"
            elif frame.get("boot") != self.boot:
                results[ident] = "wrong-boot"
            else:
                try:
                    results[ident] = self.accept(peer, ident, spec)
                except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, re.error) as problem:
                    results[ident] = "bad-spec: %s" % str(problem)[:200]
        return {"results": results}

    def accept(self, peer, ident, spec):  # noqa: C901
        check_spec(spec, self.home)
        if get_tombstone(self.home, ident) is not None:
            return "cancelled"
        secrets = spec.get("secrets")
        body = encode_sorted(spec)
        digest = hashlib.sha256(body.encode("ascii")).hexdigest()
        if secrets:
            body = encode_json(dict(spec, secrets=None, has_secrets=True))
        elif "has_secrets" in spec:
            raise ValueError("has_secrets")
        base, shape = "%s/attempts/%s" % (self.home, ident), shape_of(spec)
        try:
            os.mkdir(base, 0o700)
        except FileExistsError:
            kept = self.read_spec(ident)
            if kept:
                if kept.get("digest") != digest:
                    return "mismatch"
                self.tell_again(ident, kept)
                return "duplicate"
        except OSError as problem:
            if problem.errno in NO_SPACE:
                return "disk-full"
            raise
        too_large = self.queue.too_large(shape)
        try:
            if too_large:
                raise ValueError("more %s than this host has" % too_large)
            if secrets:
                self.write_new(base + "/secrets", compact(secrets))
            self.write_new(base + "/spec.json", ('{"digest":"%s","boot":%s,"owner":%s,"seq":%d,"spec":%s}' % (
                digest, encode_json(self.boot), encode_json(peer.owner), self.seq, body)).encode("ascii"))
        except (OSError, ValueError) as problem:
            self.forget_torn(ident)
            if getattr(problem, "errno", None) in NO_SPACE:
                return "disk-full"
            raise
        attempt = self.attempts[ident] = Attempt(ident, peer.owner, self.seq, shape)
        self.seq += 1
        self.queue.add(attempt)
        return "queued"

    def write_new(self, path, raw):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, raw)
        finally:
            os.close(fd)

    def tell_again(self, ident, kept):
        """A duplicate start of what was acknowledged: whoever asks has forgotten, so it is reported again."""
        attempt = self.attempts.get(ident)
        if attempt is None:
            attempt = self.attempts[ident] = Attempt(ident, kept["owner"], kept["seq"], shape_of(kept["spec"]))
            status = self.on_disk(ident)
            if status is None or status["state"] not in FINAL:
                status = {"state": "stale", "cause": "forgotten"}
            attempt.state, attempt.status = "ended", compact(status)
        if attempt.state == "ended":
            self.tell(attempt, attempt.status)

    def on_disk(self, ident):
        raw = read_file("%s/attempts/%s/record" % (self.home, ident))
        if raw is not None:
            return (parse(raw[9:]) if len(raw) == RECORD else None) or {"state": "claimed"}
        cause = get_tombstone(self.home, ident)
        return {"state": "cancelled", "cause": cause} if cause else None

    def idents(self, frame):
        idents = frame.get("attempts")
        if not isinstance(idents, list) or not all(isinstance(ident, str) and ID.match(ident) for ident in idents):
            raise Refused("bad-request", "attempts is a list of ids")
        return idents

    def claimed(self, attempt):
        return os.path.exists("%s/attempts/%s/record" % (self.home, attempt.id))

    def op_cancel(self, peer, frame, payload):
        cause, results = frame.get("cause", "cancelled"), {}
        if not isinstance(cause, str) or not re.match(r"[a-z][a-z0-9-]{0,31}\Z", cause):
            raise Refused("bad-request", "cause is a word")
        for ident in self.idents(frame):
            attempt = self.attempts.get(ident)
            if attempt and attempt.state == "ended":
                results[ident] = "ended"
                continue
            put_tombstone(self.home, ident, cause)
            # Tombstone first, record second; the runner looks in the other order, so one of both sees the other.
            if attempt is None:
                status = self.on_disk(ident)
                results[ident] = "ended" if status and status["state"] != "cancelled" else "tombstoned"
            elif attempt.state == "running" and self.claimed(attempt):
                self.kill(attempt)
                results[ident] = "killing"
            else:
                if attempt.state == "queued":
                    self.never(attempt, {"state": "cancelled", "cause": get_tombstone(self.home, ident) or cause})
                results[ident] = "tombstoned"
        return {"results": results}

    def op_revoke(self, peer, frame, payload):
        results = {}
        for ident in self.idents(frame):
            attempt = self.attempts.get(ident)
            if attempt is None:
                results[ident] = "unknown" if not os.path.exists("%s/attempts/%s" % (self.home, ident)) else "too-late"
                continue
            if attempt.state == "ended":
                never = parse(attempt.status)["state"] in ("cancelled", "stale") and not self.claimed(attempt)
                if never:
                    put_tombstone(self.home, ident, "revoked")
                results[ident] = "revoked" if never else "too-late"
                continue
            ours = put_tombstone(self.home, ident, "revoked")
            if self.claimed(attempt):
                if ours:
                    os.unlink("%s/tombstones/%s" % (self.home, ident))
                results[ident] = "too-late"
            else:
                if attempt.state == "queued":
                    self.never(attempt, {"state": "cancelled", "cause": get_tombstone(self.home, ident)})
                results[ident] = "revoked"
        return {"results": results}

    def op_ack(self, peer, frame, payload):
        for ident in self.idents(frame):
            attempt = self.attempts.get(ident)
            if attempt and attempt.state == "ended":
                del self.attempts[ident]
                attempt.state = "acked"
                self.acked.append(ident)
        return {}

    def op_report(self, peer, frame, payload):
        """Everything not acknowledged of this owner; with all, whatever is on this host."""
        if frame.get("all") is True:
            found = {}
            for ident in os.listdir(self.home + "/attempts"):
                attempt = self.attempts.get(ident)
                found[ident] = self.status(attempt) if attempt else self.on_disk(ident) or {"state": "stale"}
        else:
            found = {ident: self.status(attempt) for ident, attempt in self.attempts.items()
                     if attempt.owner == peer.owner}
        ready = [key for key in sorted(os.listdir(self.home + "/envs"))
                 if os.path.exists("%s/envs/%s/.ready" % (self.home, key))]
        self.reply_parts(peer, frame.get("id"), "attempts", found,
                         {"environments": ready, "free": self.free(), "boot": self.boot})

    def shas(self, values):
        if not isinstance(values, list) or not all(isinstance(sha, str) and SHA.match(sha) for sha in values):
            raise Refused("bad-request", "sha256 is 64 hex digits")
        return values

    def op_missing(self, peer, frame, payload):
        missing = {}
        for sha in self.shas(frame.get("files")):
            if stored(self.home, sha) is None:
                try:
                    missing[sha] = os.stat("%s/files/.part-%s" % (self.home, sha)).st_size
                except OSError:
                    missing[sha] = 0
        return {"missing": missing}

    def op_put(self, peer, frame, payload):
        sha, total, offset = frame.get("sha256"), frame.get("size_total"), frame.get("offset", 0)
        mode = frame.get("mode", 0o644)
        self.shas([sha])
        if not all(type(number) is int and 0 <= number < 1 << 50 for number in (total, offset, mode)):
            raise Refused("bad-request", "size_total, offset and mode are whole numbers")
        if stored(self.home, sha) is not None:
            return {"offset": total, "done": True}
        path, goal = "%s/files/.part-%s" % (self.home, sha), "%s/files/%s" % (self.home, sha)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if offset else os.O_TRUNC), 0o600)
        try:
            have = os.fstat(fd).st_size
            if offset != have or offset + len(payload) > total:
                raise Refused("offset", "not the next byte", offset=have)
            os.lseek(fd, offset, os.SEEK_SET)
            write_all(fd, payload)
        finally:
            os.close(fd)
        if offset + len(payload) < total:
            return {"offset": offset + len(payload), "done": False}

        def verify():
            with open(path, "rb") as reader:
                if sha256_of(reader.fileno())[0] != sha:
                    os.unlink(path)
                    return b"digest"
                os.fchmod(reader.fileno(), 0o555 if mode & 0o100 else 0o444)
                os.utime(reader.fileno(), (STORE_TIME, STORE_TIME))
                os.rename(path, goal)
                return b"good"

        def told(result):
            if result == b"good":
                return {"offset": total, "done": True}
            return {"ok": False, "error": {"code": "digest", "message": "the bytes are not those of " + sha}}
        if total <= 4 << 20:
            return told(verify())
        self.fork_hand(verify, lambda result: self.reply(peer, frame.get("id"), told(result)))

    def folder_of(self, frame):
        ident = frame.get("attempt")
        if not isinstance(ident, str) or not ID.match(ident):
            raise Refused("bad-request", "attempt is an id")
        folder = "%s/attempts/%s" % (self.home, ident)
        if not os.path.isdir(folder):
            raise Refused("unknown", "no such attempt here: " + ident)
        return folder

    def op_manifest(self, peer, frame, payload):
        work, patterns = self.folder_of(frame) + "/work", frame.get("patterns")
        try:
            if not is_names(patterns):
                raise ValueError("patterns is a list of globs")
            for pattern in patterns:
                split_path(pattern.strip("/"))
                glob_regex(pattern.strip("/"))
        except (ValueError, re.error) as problem:
            raise Refused("bad-request", str(problem)) from None
        self.fork_hand(lambda: b"\n".join(map(compact, manifest(work, patterns))) + b"\n.",
                       lambda result: self.manifest_done(peer, frame.get("id"), result))

    def manifest_done(self, peer, ident, result):
        if result[-1:] != b".":
            error = {"code": "internal", "message": "it was interrupted"}
            return self.reply(peer, ident, {"ok": False, "error": error})
        lines = [json.loads(line.decode()) for line in result[:-1].split(b"\n") if line]
        self.reply_parts(peer, ident, "files", lines, {})

    def op_read(self, peer, frame, payload):
        folder, offset, length = self.folder_of(frame), frame.get("offset", 0), frame.get("length", CHUNK)
        if not all(type(number) is int and 0 <= number < 1 << 62 for number in (offset, length)):
            raise Refused("bad-request", "offset and length are whole numbers")
        try:
            if frame.get("stream") in STREAMS:
                fd = open_below(folder, [frame["stream"].encode()], os.O_RDONLY)
            elif isinstance(frame.get("path"), str):
                fd = open_below(folder + "/work", split_path(frame["path"]), os.O_RDONLY | os.O_NONBLOCK)
            else:
                raise Refused("bad-request", "path, or stream: stdout or stderr")
        except ValueError as problem:
            raise Refused("bad-request", str(problem)) from None
        except OSError as problem:
            raise Refused("not-found", problem.strerror) from None
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise Refused("not-found", "not a regular file")
            self.reply(peer, frame.get("id"), {"offset": offset, "total": about.st_size},
                       os.pread(fd, min(length, MAX_PAYLOAD), offset))
        finally:
            os.close(fd)

    def op_follow(self, peer, frame, payload):
        self.folder_of(frame)
        stream, offset = frame.get("stream"), frame.get("offset", 0)
        if stream not in STREAMS or type(offset) is not int or not 0 <= offset < 1 << 62:
            raise Refused("bad-request", "stream is stdout or stderr, offset a whole number")
        if len(peer.follows) >= 1000:
            raise Refused("bad-request", "too many streams are followed")
        peer.follows[frame["attempt"], stream] = offset
        self.follow_at = 0.0
        return {}

    def op_unfollow(self, peer, frame, payload):
        peer.follows.pop((str(frame.get("attempt")), str(frame.get("stream"))), None)
        return {}

    def op_handover(self, peer, frame, payload):
        log("handing over")
        self.leaving = True
        return {}

    def pump(self, peer):  # noqa: C901
        """Sends followed logs as far as the client drains them."""
        for (ident, stream), offset in list(peer.follows.items()):
            attempt = self.attempts.get(ident)
            ended = attempt is None or attempt.state == "ended"     # looked up before the file is read to its end
            try:
                fd = open_below("%s/attempts/%s" % (self.home, ident), [stream.encode()], os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                if ended:
                    del peer.follows[ident, stream]
                    peer.send({"ev": "log-end", "attempt": ident, "stream": stream, "offset": offset})
                continue
            try:
                while peer.unsent < LOG_BUFFER:
                    event = {"ev": "log", "attempt": ident, "stream": stream}
                    if os.fstat(fd).st_size < offset:
                        event["truncated"], offset = True, 0  # noqa: PLW2901
                    raw = os.pread(fd, CHUNK, offset)
                    if raw or "truncated" in event:
                        peer.send(dict(event, offset=offset), raw)
                        offset += len(raw)  # noqa: PLW2901
                        peer.follows[ident, stream] = offset
                    elif ended:
                        del peer.follows[ident, stream]
                        peer.send({"ev": "log-end", "attempt": ident, "stream": stream, "offset": offset})
                    if len(raw) < CHUNK:
                        break
                    peer.flush()
                    if peer.fd not in self.peers:
                        return
            except OSError as problem:
                log("log of", ident, problem)
            finally:
                os.close(fd)

    # -- the loop

    def drop(self, peer):
        if self.peers.pop(peer.fd, None):
            self.epoll.unregister(peer.fd)
            peer.sock.close()

    def take_in(self):
        try:
            peer = Peer(self, self.listener.accept()[0])
        except OSError:
            return
        self.peers[peer.fd] = peer
        self.epoll.register(peer.fd, select.EPOLLIN)
        peer.send_raw(b"cloudsend-agent-%d %s\n" % (PROTOCOL, compact(self.about())))
        self.touched.add(peer)

    def write_journal(self, now):
        lines = [b"a %s\n" % ident.encode() for ident in self.acked]
        ends = False
        while self.unjournaled and (now - self.unjournaled[0].ended >= 0.5 or self.leaving):
            attempt = self.unjournaled.popleft()
            if attempt.state == "ended":
                lines.append(b"e %s %s\n" % (attempt.id.encode(), attempt.status))
                ends = True
        self.acked = []
        self.journal_debt.extend(lines)
        if not self.journal_debt:
            return
        try:
            # The empty line ends what an earlier write, cut short by a full disk, may have left.
            write_all(self.journal, b"\n" + b"".join(self.journal_debt))
            self.journal_debt = []
            if ends:
                os.fdatasync(self.journal)
        except OSError as problem:
            log("journal:", problem)

    def tick(self, now):
        self.write_journal(now)
        self.reap()
        for attempt in list(self.killing):
            if attempt.state == "running":
                self.kill(attempt)
            else:
                self.killing.discard(attempt)
        while len(self.idle) and now - self.idle[0].idle_since > self.IDLE_RUNNER:
            if self.runners <= self.queue.total[0] / 1000.0 and self.peers:
                break
            hand = self.idle.pop(0)
            self.let_go(hand)
        busy = self.peers or any(attempt.state in ("queued", "running") for attempt in self.attempts.values())
        if busy:
            self.quiet_since = now

    def beat(self):
        try:
            mine, there = os.fstat(self.lock), os.stat(self.home + "/agent.lock")
            if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
                raise OSError("another lock")
        except OSError:
            log("the home directory is gone; leaving")
            self.leaving = True
            return
        try:
            disk = os.statvfs(self.home)
            disk_free = disk.f_bavail * disk.f_frsize
        except OSError:
            disk_free = None
        event = {"ev": "heartbeat", "time": time.time(), "free": self.free(), "load": os.getloadavg()[0],
                 "disk_free": disk_free}
        for peer in self.peers.values():
            if peer.owner is not None and not peer.outbox:
                peer.send(event)
                self.touched.add(peer)

    def timeout(self, now):
        wake = min(self.tick_at, self.beat_at)
        if self.news:
            wake = min(wake, self.news_sent + self.NEWS_EVERY)
        if self.fresh:
            wake = min(wake, self.fresh[0][0] + self.RUNNING_AFTER)
        if self.adopted:
            wake = min(wake, self.adopted_at)
        if any(peer.follows for peer in self.peers.values()):
            wake = min(wake, self.follow_at)
        return max(0.0, wake - now)

    def serve(self):  # noqa: C901, PLR0912
        listener = self.listener.fileno()
        while not self.leaving:
            for fd, mask in self.epoll.poll(self.timeout(time.monotonic()) + 0.0005):
                if fd in self.peers:
                    self.peers[fd].handle(mask)
                elif fd in self.hands:
                    self.hear(self.hands[fd])
                elif fd == listener:
                    self.take_in()
            self.dispatch()
            now = time.monotonic()
            if now >= self.adopted_at and self.adopted:
                self.adopted_at = now + self.ADOPTED_EVERY
                for attempt in list(self.adopted):
                    self.judge(attempt)
            if now >= self.tick_at:
                self.tick_at = now + self.TICK
                self.tick(now)
            if now >= self.beat_at:
                self.beat_at = now + self.BEAT
                self.beat()
            if now - self.quiet_since > self.idle_limit:
                break
            self.send_news(now)
            follow = now >= self.follow_at
            if follow:
                self.follow_at = now + self.FOLLOW_EVERY
                self.touched.update(peer for peer in self.peers.values() if peer.follows)
            for peer in list(self.touched):
                if peer.follows and (follow or peer.unsent < LOG_BUFFER) and peer.fd in self.peers:
                    self.pump(peer)
                if peer.fd in self.peers:
                    if peer.inbox and not peer.closing:
                        peer.read_frames()
                    peer.flush()
            self.touched.clear()
        self.leave()

    def leave(self):
        """Runners go on; the lock is given up last."""
        self.listener.close()
        self.write_journal(time.monotonic())
        for peer in list(self.peers.values()):
            peer.sock.setblocking(True)
            peer.sock.settimeout(0.5)
            peer.flush()
        try:
            os.unlink(self.home + "/agent.sock")
        except OSError:
            pass
        os.close(self.lock)


OPS = {name[3:]: method for name, method in vars(Daemon).items() if name.startswith("op_")}


def clear_away(home, ident, orphans):
    """For an attempt whose runner is dead: ends what it left, then writes the verdict. Returns the status."""
    base = "%s/attempts/%s" % (home, ident)
    record = os.open(base + "/record", os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
    found = read_record(record)
    if found.get("state") in FINAL:
        return pack_status(found)

    def find():
        roots = [pid for pid, start in orphans if start_time(pid) == start]
        if found.get("pid") and found.get("pid_start") and start_time(found["pid"]) == found["pid_start"]:
            roots.append(found["pid"])
        return find_tree(ident, roots)
    survivors = kill_tree(find, 0)
    if survivors:
        log("%d processes of %s cannot be killed" % (survivors, ident))
        return b""
    if found.get("state") == "exiting":
        status = dict(found, state="exited")
        complete(home, (parse(read_file(base + "/spec.json")) or {}).get("spec", {}), base + "/work", status)
    else:
        status = {"state": "lost", "started": found.get("started"), "ended": time.time(), "exit_code": None,
                  "signal": None, "cause": get_tombstone(home, ident), "pid": found.get("pid")}
    raw = pack_status(status)
    os.pwrite(record, pack_record(raw), 0)
    return raw


def own_sha256():
    with open(os.path.abspath(__file__), "rb") as reader:
        return hashlib.sha256(reader.read()).hexdigest()


def discover_resources():
    memory = re.search(rb"MemTotal:\s+(\d+) kB", read_file("/proc/meminfo") or b"")
    gpus = 0
    try:
        gpus = len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        if any(os.access(folder + "/nvidia-smi", os.X_OK) for folder in os.environ.get("PATH", "").split(":")):
            import subprocess
            try:
                gpus = subprocess.run(["nvidia-smi", "-L"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, timeout=5, check=False).stdout.count(b"GPU ")
            except (OSError, subprocess.SubprocessError):
                pass
    return {"cpus": len(os.sched_getaffinity(0)), "memory": int(memory.group(1)) << 10 if memory else 0, "gpus": gpus}


# ---- attach and serve ----------------------------------------------------------------------------------------------

class Failed(Exception):
    pass


def open_home(path):
    home = os.path.abspath(os.path.expanduser(path))
    os.makedirs(home, 0o700, exist_ok=True)
    about = os.stat(home)
    if about.st_uid != os.geteuid():
        raise Failed("home-owner", "%s belongs to another user" % home)
    if about.st_mode & 0o077:
        raise Failed("home-mode", "%s is open to other users: chmod 700 it" % home)
    return home


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
    try:
        os.unlink(home + "/agent.sock")
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    at_socket(home, sock.bind)
    sock.listen(128)
    sock.setblocking(False)
    return sock


def take_lock(home):
    """The lock's descriptor, or None while a daemon lives."""
    fd = os.open(home + "/agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except BlockingIOError:
        os.close(fd)
        return None


def serve(home):
    lock = take_lock(home)
    if lock is None:
        return 0
    daemon = Daemon(home, lock)
    os.write(1, b"ready\n")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    log("serving", home, daemon.sha[:12])
    daemon.serve()
    log("left")
    return 0


def start_daemon(home):
    """Double fork, exec, and wait for its word or its end; False where it ended without a word."""
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.setsid()
            if not os.fork():
                logfile = home + "/agent.log"
                if os.path.exists(logfile) and os.path.getsize(logfile) > 1 << 20:
                    os.rename(logfile, logfile + ".old")
                errors = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                null = os.open(os.devnull, os.O_RDONLY)
                for fd, goal in ((null, 0), (writer, 1), (errors, 2)):
                    os.dup2(fd, goal)
                os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", os.path.abspath(__file__), "serve", home])  # noqa: S606
        finally:
            os._exit(1)
    os.close(writer)
    os.wait()
    ready = bool(select.select([reader], [], [], 30)[0]) and os.read(reader, 16) != b""
    os.close(reader)
    return ready


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


def connect(home):
    """A connection to a daemon of this very file, and its greeting."""
    sha, until, silent = own_sha256(), time.monotonic() + 20, 0
    while time.monotonic() < until:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(3)
        try:
            at_socket(home, sock.connect)
            line, rest = greet(sock)
            about = json.loads(line.decode().partition(" ")[2])
            if about.get("sha") == sha:
                sock.settimeout(None)
                return sock, line + b"\n" + rest
            sock.sendall(b'{"op":"handover","id":0}\n')
            while sock.recv(65536):
                pass
        except socket.timeout:
            silent += 1
        except OSError:
            pass
        sock.close()
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


def attach(path):
    sys.stdout.flush()
    try:
        home = open_home(path)
        sock, greeting = connect(home)
    except (Failed, OSError, ValueError) as problem:
        code, message = problem.args if isinstance(problem, Failed) else ("os", str(problem))
        write_all(1, b"cloudsend-agent-error %s\n" % compact({"code": code, "message": message}))
        return 1

    def upwards():
        try:
            while True:
                raw = os.read(0, CHUNK)
                if not raw:
                    break
                sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)       # the daemon answers what it has got, and closes
        except OSError:
            os._exit(0)
    try:
        write_all(1, greeting)
        start_new_thread(upwards, ())
        while True:
            raw = sock.recv(CHUNK)
            if not raw:
                return 0
            write_all(1, raw)
    except OSError:
        return 0


def main(argv):
    if argv[1:] == ["version"]:
        about = {"protocol": PROTOCOL, "sha": own_sha256(), "python": sys.version.split()[0]}
        sys.stdout.write(json.dumps(about) + "\n")
        return 0
    if len(argv) == 3 and argv[1] == "attach":
        code = attach(argv[2])
        os._exit(code)
    if len(argv) == 3 and argv[1] == "serve":
        try:
            return serve(open_home(argv[2]))
        except Failed as problem:
            sys.stderr.write("cloudsend agent: %s\n" % problem.args[1])
            return 1
    sys.stderr.write(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))

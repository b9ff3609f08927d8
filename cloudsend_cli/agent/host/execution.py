"""One claimed attempt from its spec to its status, inside a runner."""

import os
import resource  # os.wait4 imports it when it is first called: Python may have been removed by then
import signal
import time

from .disk import NO_SPACE, read_file
from .encoding import parse
from .files import lay_out, open_folder_below, split_path
from .leaving import run_hook
from .machine import has_no_room
from .orphans import TAKES, describe_takes
from .outputs import complete
from .processes import kill_tree, oom_kills, start_time
from .protocol import METRICS, STREAMS
from .records import add_metrics_size, folder_of, pack_status, write_record
from .spawning import spawn
from .spec import read_spec
from .texts import to_bytes


class Execution:
    """The order is: lay out, spawn, name the process in the record, wait, clear away, look for outputs.

    `kept` tells afterwards whether processes were left alive, as asked or because they could not be killed: then the
    runner must not execute another attempt, as it could not tell whose they are.
    """

    def __init__(self, runner, ident, record, started, gpus, head):
        self.runner, self.home, self.ident = runner, runner.home, ident
        self.record, self.gpus, self.head = record, gpus, head
        self.base = folder_of(runner.home, ident)
        self.work = self.base + "/work"
        self.spec = self.owner = self.env = self.out = self.err = None
        self.kept = False
        self.status = {
            "state": "exited",
            "started": started,
            "ended": None,
            "exit_code": None,
            "signal": None,
            "cause": None,
        }
        if gpus:
            self.status["gpu_ids"] = gpus

    def run(self):
        """Returns the status of the end."""
        try:
            self.try_to_prepare()
            cause = self.runner.cause
            if cause:
                self.status.update(state="cancelled", cause=cause)
            if self.status["ended"] or cause:
                self.status["ended"] = self.status["ended"] or time.time()
            else:
                self.supervise()
            self.status["stdout_size"], self.status["stderr_size"] = size_of(self.out), size_of(self.err)
            add_metrics_size(self.home, self.ident, self.status)
            return self.status
        finally:
            for fd in (self.out, self.err):
                if fd is not None:
                    os.close(fd)

    def try_to_prepare(self):
        """Where it fails nothing was spawned: the status has an end, and neither exit code nor signal."""
        status = self.status
        try:
            self.prepare()
        except LookupError as problem:
            status.update(cause="upload-missing", ended=time.time(), detail=str(problem)[:100])
        except (OSError, ValueError) as problem:
            no_space = getattr(problem, "errno", None) in NO_SPACE
            status.update(cause="disk-full" if no_space else "start-failed", ended=time.time())
            status["detail"] = str(problem)[:200]

    def prepare(self):
        kept = read_spec(self.home, self.ident)
        if kept is None:
            raise OSError("spec.json cannot be read")
        spec, self.owner = kept["spec"], kept["owner"]
        self.spec = spec
        self.out, self.err = [
            os.open(self.base + "/" + name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            for name in STREAMS
        ]
        os.mkdir(self.work, 0o700)
        if spec.get("files"):
            lay_out(self.home, self.work, spec["files"], spec.get("private_files"), spec.get("resume_dir"))
        if spec.get("resume_dir"):
            os.close(open_folder_below(self.work, split_path(spec["resume_dir"]), create=True))
        self.env = self.environment()
        self.runner.grace = spec.get("grace", 10)
        if spec.get("on_preempt"):
            self.runner.hook = self.leave
        self.runner.count_ooms()

    def environment(self):
        """The daemon's, then the spec's, then the secrets, which are gone from the disk before the job starts."""
        env, spec = dict(self.runner.env), self.spec
        for name, value in (spec.get("env") or {}).items():
            env[to_bytes(name)] = to_bytes(value)
        if spec.get("has_secrets"):
            for name, value in (parse(read_file(self.base + "/secrets")) or {}).items():
                env[to_bytes(name)] = to_bytes(value)
            os.unlink(self.base + "/secrets")
        env[b"CLOUDSEND_ATTEMPT"] = self.ident.encode()
        env[b"CLOUDSEND_RUN_DIR"] = os.fsencode(self.work)
        env[b"CLOUDSEND_METRICS"] = os.fsencode(self.base + "/" + METRICS)
        env[TAKES] = describe_takes(self.owner, spec, self.gpus)
        if spec.get("environment"):
            env[b"CLOUDSEND_ENV"] = os.fsencode("%s/envs/%s" % (self.home, spec["environment"]))
        if spec.get("resume_dir"):
            env[b"CLOUDSEND_RESUME_DIR"] = os.fsencode(self.work) + b"/" + to_bytes(spec["resume_dir"])
        if self.gpus:
            env[b"CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self.gpus)).encode()
        return env

    def leave(self):
        run_hook(self.spec["on_preempt"], self.spec.get("cwd"), self.work, self.env, self.err)

    def supervise(self):
        status = self.status
        wait, usage = self.spawn_and_wait()
        status["ended"] = time.time()
        if os.WIFSIGNALED(wait):
            status["signal"] = os.WTERMSIG(wait)
        else:
            status["exit_code"] = os.WEXITSTATUS(wait)
        if usage:
            status["maxrss"] = usage.ru_maxrss << 10
            status["utime"], status["stime"] = round(usage.ru_utime, 4), round(usage.ru_stime, 4)
            status["pid"] = self.runner.pid
        by_term = signal.SIGTERM in (status["signal"], (status["exit_code"] or 0) - 128)
        told = wait and self.runner.was_told(by_term)
        status["cause"] = self.runner.cause or (self.runner.giving_way if wait else None)
        if not status["cause"] and self.is_killed_for_memory(usage):
            status.update(cause="oom", oom=True)
        if told and not status["cause"]:
            status.update(state="lost", cause="shut-down")
        if wait and has_no_room(self.home):
            status["disk_full"] = True
        if self.runner.children_left():
            self.clear_away()
        if self.spec.get("kind") == "build" and not self.is_at_home():
            status["cause"] = (
                status["cause"] or "home-deleted"
            )  # what is there now under its name is not what it built
        complete(self.home, self.spec, self.work, status)

    def is_at_home(self):
        try:
            return os.path.samestat(os.fstat(self.record), os.stat(self.base + "/record"))
        except OSError:
            return False

    def is_killed_for_memory(self, usage):
        """The kernel counts whom it kills on all of the host: not one that never used more than this process does."""
        killed = self.status["signal"] == signal.SIGKILL or self.status["exit_code"] == 137
        large = usage and usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return killed and large and oom_kills() > self.runner.ooms

    def spawn_and_wait(self):
        """(wait status, resource usage or None), within the time limit."""
        timeout = self.spec.get("timeout")
        self.status["started"] = time.time()
        if timeout:
            signal.setitimer(signal.ITIMER_REAL, timeout, 1.0)
        try:
            pid, code = spawn(self.spec, self.work, self.env, self.out, self.err)
            if pid is None:
                return code << 8, None
            self.runner.pid = pid
            known = b'{"state":"running","pid":%d,"pid_start":%d' % (pid, start_time(pid) or 0)
            write_record(self.record, known + self.head)
            return os.wait4(pid, 0)[1:]
        finally:
            if timeout:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def clear_away(self):
        if self.spec.get("keep_children") and not self.runner.cause:
            self.kept = True
            return
        # From here on the end is known, whatever happens to this process.
        write_record(self.record, pack_status(dict(self.status, state="exiting")))
        survivors = kill_tree(self.runner.tree, min(self.runner.grace, 2))
        if survivors:
            self.status["survivors"] = survivors
            self.kept = True


def size_of(fd):
    return os.fstat(fd).st_size if fd is not None else 0

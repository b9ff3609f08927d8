"""The runner: a process that executes one attempt after another and outlives the daemon."""

import fcntl
import os
import signal
import time

from .disk import NO_SPACE
from .encoding import compact
from .execution import Execution
from .leaving import CAUSES, GRACE_MOST, has_ended, share_of_time
from .logfile import log_exception
from .processes import become_subreaper, find_tree, kill_tree, oom_kills, reap, start_time
from .records import folder_of, get_tombstone, pack_status, write_record

# Messages to the daemon: an end; an end, after which this runner ends too; somebody else had claimed the attempt.
ENDED, RETIRED, TAKEN = b"E", b"R", b"T"
# A system that shuts down tells every process to end, one after another, and waits: systemd for 90 seconds.
TOLD_APART, TOLD_BEFORE = 0.5, 100


class Runner:
    """One attempt at a time, each claimed, executed, cleared away and recorded here, whatever happens to the daemon.

    It blocks in wait4. Signal handlers climb the kill ladder inside themselves and return, and wait4 goes on (PEP 475)
    and gets the status; nothing is ever thrown through it, so no status can fall between two bytecodes. A signal that
    arrives just before the system call is not seen by Python until the next one: senders repeat once a second.
    """

    def __init__(self, home, sock, env, umask, boot):
        self.home, self.sock, self.env = home, sock, env
        self.id = self.pid = self.cause = None  # of the attempt that is claimed; its process; why it is being killed
        self.grace = 0
        self.hook = None  # what is called before the attempt gives way
        self.killing = False
        self.giving_way = None  # the cause, of those for which an attempt gives way
        self.told = None  # when somebody who is no client of ours told this process to end
        os.setsid()
        os.umask(umask)
        self.reaper = become_subreaper()
        self.me = b'"runner":%d,"runner_start":%d,"boot":%s' % (os.getpid(), start_time(os.getpid()), compact(boot))
        self.ooms, self.ooms_read = 0, -1e9
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGALRM, self.on_alarm)

    def serve(self):
        """Until the daemon closes its end, or an attempt has left children."""
        while True:
            order = self.sock.recv(4096)
            if not order:
                return
            ident, _, gpus = order.decode().partition(" ")
            reply = self.execute(ident, [int(gpu) for gpu in gpus.split(",") if gpu])
            self.id = self.pid = self.cause = self.hook = self.told = None
            gave_way, self.giving_way = self.giving_way, None
            try:
                self.sock.send(reply)
            finally:
                if gave_way:
                    os.sync()  # a machine that is stopped, or a disk that is kept, has what it leaves
            if reply.startswith(RETIRED):
                return

    def on_term(self, *_):
        # The signal may be late and meant for the attempt before: only a tombstone condemns.
        cause = get_tombstone(self.home, self.id) if self.id else None
        if cause:
            self.stop(cause)
        elif self.id:
            self.told = time.monotonic()

    def on_alarm(self, *_):
        if self.id:
            self.stop("timeout")

    def was_told(self, by_term):
        """Whether who ended the job has told this process to end as well, as a system does that shuts down.

        `by_term`: SIGTERM ended it; then ours may be still to come.
        """
        if by_term and not self.cause:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            try:
                if not self.told and signal.sigtimedwait([signal.SIGTERM], TOLD_APART):
                    self.on_term()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        return self.told is not None and time.monotonic() - self.told < TOLD_BEFORE

    def stop(self, cause):
        if cause not in CAUSES or not self.pid:
            self.cause = self.cause or cause
        if self.pid and not self.killing:
            self.killing = True
            try:
                if cause in CAUSES:
                    self.give_way(cause)
                else:
                    kill_tree(self.tree, self.grace)
            finally:
                self.killing = False

    def give_way(self, cause):
        """Of what has ended before it heard of this, only a bad end is taken for one by the machine's own end.

        Once the hook was called it may be the hook that ends the job: then no exit code says that its work is done.
        """
        self.giving_way = cause
        if has_ended(self.pid):
            return
        self.cause = self.cause or cause
        if self.hook:
            try:
                self.hook()
            except Exception:  # noqa: BLE001  nothing is thrown through wait4
                log_exception("on_preempt of %s" % self.id)
        kill_tree(self.tree, share_of_time(min(self.grace, GRACE_MOST), 2 / 3))

    def tree(self):
        return find_tree(self.id, [os.getpid()])

    def children_left(self):
        """Reaps; True while something of the attempt lives. Where we are no subreaper, orphans are not children."""
        return (reap() or not self.reaper) and bool(self.tree())

    def count_ooms(self):
        """The count before the job, at most a second old: a job that did not run then cannot be in it."""
        now = time.monotonic()
        if now - self.ooms_read > 1:
            self.ooms, self.ooms_read = oom_kills(), now

    def execute(self, ident, gpus):
        """Returns the message for the daemon."""
        path = folder_of(self.home, ident) + "/record"
        try:
            record = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return TAKEN
        except OSError as problem:
            return ENDED + never_executed("disk-full" if problem.errno in NO_SPACE else "claim: %s" % problem)
        try:
            try:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return TAKEN
            if os.fstat(record).st_size:
                return TAKEN  # somebody found the lock free and has judged this claim
            return self.execute_claimed(ident, gpus, record)
        finally:
            os.close(record)

    def execute_claimed(self, ident, gpus, record):
        # ORDER: the record, then the look for a tombstone; whoever cancels writes first and looks second.
        started = time.time()
        head = b',"started":%.6f,"gpu_ids":%s,%s}' % (started, compact(gpus), self.me)
        try:
            write_record(record, b'{"state":"claimed"' + head)
        except OSError:
            return ENDED + never_executed("disk-full")
        self.id = ident
        cause = get_tombstone(self.home, ident)
        if cause:
            status = compact({"state": "cancelled", "cause": cause, "stdout_size": 0, "stderr_size": 0})
            write_record(record, status)
            return ENDED + status
        execution = Execution(self, ident, record, started, gpus, head)
        status = pack_status(execution.run())
        write_record(record, status)
        return (RETIRED if execution.kept else ENDED) + status


def never_executed(cause):
    return pack_status(
        {
            "state": "exited",
            "started": None,
            "ended": time.time(),
            "exit_code": None,
            "signal": None,
            "cause": cause[:100],
            "stdout_size": 0,
            "stderr_size": 0,
        }
    )

"""What the disk says: memory is rebuilt from it at the start, and an attempt without a runner is judged by it."""

import fcntl
import os
import time

from .clearing import clear_away
from .encoding import parse
from .logfile import log
from .records import FINAL, folder_of, get_tombstone, is_claimed, pack_status, read_record, sized, write_record
from .spec import forget_torn, is_number, read_spec


def recover(attempts, journal):
    """Rebuilds memory from the files. Acknowledged attempts are not opened."""
    home, waiting = attempts.home, []
    acked, ends, owners = journal.read()
    attempts.orphans.find(acked | attempts.forgotten)
    names = set(os.listdir(home + "/attempts"))
    attempts.owners.update((ident, owner) for ident, owner in owners.items() if ident in names)
    tombstones = set(os.listdir(home + "/tombstones"))
    for ident in names:
        if ident in acked or ident in attempts.forgotten:
            continue
        kept = read_spec(home, ident)
        if kept is None:
            forget_torn(home, ident)
            continue
        attempt = attempts.add(ident, kept)
        if ident in ends or is_claimed(home, ident):
            attempt.state = "running"
            attempts.queue.take(attempt, ())
            if ident in ends:
                attempts.end(attempt, ends[ident])
            else:
                judge(attempts, attempt)
            if attempt.state == "ended":
                attempt.ended -= age_of(attempt.status)
            continue
        cause = get_tombstone(home, ident) if ident in tombstones else None
        if cause:
            attempts.never(attempt, {"state": "cancelled", "cause": cause})
        elif kept["boot"] != attempts.boot:
            attempts.never(attempt, {"state": "stale", "cause": "rebooted"})
        else:
            waiting.append(attempt)
    for attempt in sorted(waiting, key=lambda attempt: attempt.seq):
        attempts.queue.add(attempt)
    ends = {ident: raw for ident, raw in ends.items() if attempts.get(ident)}
    journal.open(acked.intersection(names), ends, attempts.owners)


def age_of(status):
    """How long ago an attempt ended that a daemon finds at its start, as far as clocks tell."""
    ended = (parse(status) or {}).get("ended")
    return max(0.0, time.time() - ended) if is_number(ended) else 0.0


def judge(attempts, attempt):
    """Decides about a claimed attempt without a runner of ours, by the lock of its record.

    Locked: a runner lives, and the attempt is adopted. Free: that runner is dead; the end is in the record, or follows
    from it, or what the runner left is cleared away first.
    """
    attempt.runner = None
    try:
        record = os.open(folder_of(attempts.home, attempt.id) + "/record", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        if attempt in attempts.adopted or not os.path.exists(folder_of(attempts.home, attempt.id)):
            return attempts.orphans.watch(attempt)  # there was a claim: it may run, and must not run again
        return attempts.requeue(attempt)
    except OSError as problem:
        return adopt(attempts, attempt, {}, problem)
    found = {}
    try:
        found = read_record(record)
        fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = read_record(record)  # its runner may have written the end in between
        verdict = verdict_of(found, attempts.boot)
        verdict = pack_status(sized(attempts.home, attempt.id, verdict)) if verdict else None
        if verdict and found.get("state") not in FINAL:
            write_record(record, verdict)
    except OSError as problem:
        return adopt(attempts, attempt, found, problem)
    finally:
        os.close(record)
    if not verdict and found.get("orphan"):
        if found.get("gpu_ids") and not attempt.gpus:
            attempts.queue.take_gpus(attempt, found["gpu_ids"])
        return attempts.orphans.watch(attempt)
    attempts.adopted.discard(attempt)
    if verdict:
        return attempts.end(attempt, verdict)
    orphans = attempts.hands.orphans()
    attempts.hands.fork(
        lambda: clear_away(attempts.home, attempt.id, orphans),
        lambda result: attempts.end(attempt, result) if result else attempts.adopted.add(attempt),
    )


def verdict_of(found, boot):
    """The end that follows from a record whose lock is free; None while processes of it may live."""
    if found.get("state") in FINAL:
        return found
    if not found:
        return {"state": "lost", "cause": "never-started", "ended": time.time()}
    if found.get("boot", boot) != boot:
        return {"state": "lost", "cause": "rebooted", "started": found.get("started")}
    return None


def adopt(attempts, attempt, found, problem):
    """It is looked at again soon. The GPUs it holds, as its record says, are not free."""
    if not isinstance(problem, BlockingIOError):
        log("record of", attempt.id, problem)
    if not attempt.gpus and found.get("gpu_ids"):
        attempts.queue.take_gpus(attempt, found["gpu_ids"])
    attempts.adopted.add(attempt)

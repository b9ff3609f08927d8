"""The attempts of this host that are not acknowledged, and how each goes from the queue to its end."""

import json
import signal
import time

from .disk import remove
from .encoding import compact, parse
from .orphans import Orphans
from .processes import send_signal
from .records import FINAL, folder_of, get_tombstone, is_claimed, peek, put_tombstone, sized, status_on_disk
from .spec import shape_of
from .waiting import Attempt

CANCELLED = "cancelled"  # the cause that clients give who want an attempt no more


class Attempts:
    """Memory only; `recovery.recover` builds it from the files.

    `adopted` are running without a runner of this daemon: their records are looked at until they can be judged.
    `killing` have a tombstone and are signalled again at each tick, as a signal may come at the wrong moment.
    """

    MAX_DEATHS = 3

    def __init__(self, home, boot, queue, hands, news, journal):
        self.home, self.boot = home, boot
        self.queue, self.hands, self.news, self.journal = queue, hands, news, journal
        self.by_id, self.owners = {}, {}  # the latter of those that were adopted by another owner
        self.forgotten = set()
        self.next_seq = 0
        self.adopted, self.killing = set(), set()
        self.orphans = Orphans(self)

    def get(self, ident):
        return self.by_id.get(ident)

    def add(self, ident, kept):
        """An attempt as its spec.json tells it. It is not in the queue yet."""
        owner = self.owner_of(ident, kept)
        attempt = self.by_id[ident] = Attempt(ident, owner, kept["seq"], shape_of(kept["spec"]))
        self.next_seq = max(self.next_seq, attempt.seq + 1)
        return attempt

    def enqueue_new(self, ident, owner, shape):
        attempt = self.by_id[ident] = Attempt(ident, owner, self.next_seq, shape)
        self.next_seq += 1
        self.queue.add(attempt)

    def owner_of(self, ident, kept):
        return self.owners.get(ident, kept["owner"])

    def adopt(self, idents, owner):
        """From now on they concern another owner, for ever."""
        self.journal.write_owner(idents, owner)
        for ident in idents:
            self.owners[ident] = owner
            if ident in self.by_id:
                self.by_id[ident].owner = owner

    def is_any_unfinished(self, owners=None):
        return any(
            attempt.state in ("queued", "running") and (owners is None or attempt.owner in owners)
            for attempt in self.by_id.values()
        )

    def is_any_awaited(self, now, seconds):
        """Whether a result is here that ended within so many seconds and that its client has not taken yet."""
        return any(
            attempt.awaited and attempt.state == "ended" and now - attempt.ended < seconds
            for attempt in self.by_id.values()
        )

    def has_any_of(self, owner):
        return any(attempt.owner == owner for attempt in self.by_id.values())

    def count(self):
        """{owner: {"queued", "running"}} of what is not at its end."""
        counts = {}
        for attempt in self.by_id.values():
            if attempt.state in ("queued", "running"):
                counts.setdefault(attempt.owner, {"queued": 0, "running": 0})[attempt.state] += 1
        return counts

    def dispatch(self):
        """Hands what can start now to runners."""
        while self.hands.are_free():
            attempt = self.queue.next()
            if attempt is None:
                return
            hand = self.hands.take_runner()
            attempt.state, attempt.runner, hand.attempt = "running", hand, attempt
            attempt.ended = time.time()
            order = attempt.id + (" " + ",".join(map(str, attempt.gpus)) if attempt.gpus else "")
            try:
                hand.sock.send(order.encode())
            except OSError:
                continue  # it died idle: the end of its connection leads to judge and back into the queue
            self.news.tell_started(attempt)

    def requeue(self, attempt):
        """Its runner died before the claim: nothing was executed, and another may try."""
        self.queue.give_back(attempt)
        attempt.deaths += 1
        attempt.gpus, attempt.state = (), "queued"
        cause = get_tombstone(self.home, attempt.id)
        if cause or attempt.deaths > self.MAX_DEATHS:
            self.never(attempt, {"state": "cancelled", "cause": cause or "runner-died"})
        else:
            self.queue.add(attempt, first=True)

    def end(self, attempt, raw):
        """An end that is final and, but for a full disk, in the record."""
        self.queue.give_back(attempt)
        attempt.state, attempt.status, attempt.runner, attempt.gpus = "ended", raw, None, ()
        self.adopted.discard(attempt)
        self.killing.discard(attempt)
        attempt.awaited, attempt.ended = is_wanted(parse(raw) or {}), time.monotonic()
        self.journal.ended.append(attempt)
        self.news.tell(attempt, raw)

    def never(self, attempt, status):
        """A queued attempt that will not start here. Its place in the queue is passed over when its turn comes."""
        status = dict(status, stdout_size=0, stderr_size=0)
        attempt.state, attempt.status, attempt.ended = "ended", compact(status), time.monotonic()
        remove(folder_of(self.home, attempt.id) + "/secrets")
        self.news.tell(attempt, attempt.status)

    def tell_again(self, ident, kept):
        """A duplicate start of what was acknowledged: whoever asks has forgotten, so it is reported again."""
        attempt = self.by_id.get(ident) or self.remember(ident, kept)
        if attempt.state == "ended":
            self.news.tell(attempt, attempt.status)

    def remember(self, ident, kept):
        """An attempt that is on disk alone: acknowledged, or accepted by a daemon that lost this home meanwhile."""
        attempt = self.add(ident, kept)
        status = status_on_disk(self.home, ident)
        if status is None:
            if kept["boot"] == self.boot:
                put_tombstone(self.home, ident, "forgotten")  # ORDER: as for cancel
            status = sized(self.home, ident, {"state": "stale", "cause": "forgotten"})
        if status["state"] in FINAL and (status["state"] != "stale" or not is_claimed(self.home, ident)):
            attempt.state, attempt.status = "ended", compact(status)
        else:
            attempt.state = "running"
            self.queue.take(attempt, ())
            self.adopted.add(attempt)
        return attempt

    def acknowledge(self, ident):
        attempt = self.by_id.get(ident)
        if attempt and attempt.state == "ended":
            del self.by_id[ident]
            attempt.state = "acked"
            self.journal.acked.append(ident)

    def status(self, attempt):
        if attempt.state == "ended":
            return json.loads(attempt.status.decode())
        if attempt.state == "queued":
            return {"state": "queued"}
        found = peek(self.home, attempt.id) or {}
        status = {"state": "running", "started": attempt.ended or None}
        for name in ("started", "pid", "gpu_ids"):
            if found.get(name):
                status[name] = found[name]
        if attempt in self.orphans.known:
            status["orphan"] = True
        return status

    def kill(self, attempt):
        """Tells the runner, whoever forked it, to look for the tombstone."""
        if attempt in self.orphans.known:
            self.orphans.kill(attempt)
        elif attempt.runner:
            send_signal(attempt.runner.pid, attempt.runner.start, signal.SIGTERM)
        else:
            found = peek(self.home, attempt.id) or {}
            if isinstance(found.get("runner"), int):
                send_signal(found["runner"], found.get("runner_start"), signal.SIGTERM)
        self.killing.add(attempt)

    def kill_again(self):
        for attempt in list(self.killing):
            if attempt.state == "running":
                self.kill(attempt)
            else:
                self.killing.discard(attempt)


def is_wanted(status):
    """Whether an end left something that somebody may come for: what was cancelled is nobody's any more."""
    return status.get("state") in ("exited", "lost") and status.get("cause") != CANCELLED

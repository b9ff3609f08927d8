"""The queue, and what is free on this host."""

import heapq
from collections import deque


class Attempt:
    """What the daemon knows of an attempt. States: queued, running (handed to a runner), ended, acked."""

    __slots__ = ("awaited", "deaths", "ended", "gpus", "id", "owner", "runner", "seq", "shape", "state", "status")

    def __init__(self, ident, owner, seq, shape):
        self.id, self.owner, self.seq, self.shape = ident, owner, seq, shape
        self.state = "queued"
        self.status = None  # JSON of the end
        self.gpus = ()
        self.runner = None  # the hand, while a runner of this daemon has it
        self.ended = 0.0  # while running: when it was handed over (wall clock); then: when it ended (monotonic)
        self.deaths = 0  # of runners that had not claimed it yet
        self.awaited = False  # it ended, and left what its client may still come for


class Queue:
    """First come first served with backfill, and what is free on this host.

    Attempts of one shape wait in one line, so an event looks at shapes, not at attempts, and at no more than DEPTH of
    them. A line that waits for a named slot is set aside until that slot is given back: overtaking cannot delay it.
    After its head was overtaken DEPTH times, nothing starts before the head.

    `heads` is a heap of (seq, shape); an entry may be outdated, and is put right when its turn comes. An attempt that
    will not start keeps its place, and is passed over.
    """

    DEPTH = 64

    def __init__(self):
        self.lines, self.heads, self.aside = {}, [], {}
        self.total = self.free = (0, 0)
        self.gpus, self.free_gpus, self.used_gpus, self.slots = 0, [], set(), set()
        self.head, self.overtaken = None, 0

    def resize(self, cpus, memory, gpus):
        old = self.total
        self.total = (int(round(cpus * 1000)), int(memory))  # noqa: RUF046
        self.free = (self.free[0] + self.total[0] - old[0], self.free[1] + self.total[1] - old[1])
        self.gpus = int(gpus)
        self.free_gpus = sorted(set(range(self.gpus)) - self.used_gpus)

    def describe_total(self):
        return {"cpus": self.total[0] / 1000.0, "memory": self.total[1], "gpus": self.gpus}

    def describe_free(self):
        return {"cpus": self.free[0] / 1000.0, "memory": self.free[1], "gpus": len(self.free_gpus)}

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
        return (
            min(shape[0], self.total[0]) <= self.free[0]
            and min(shape[1], self.total[1]) <= self.free[1]
            and shape[2] <= len(self.free_gpus)
        )

    def take(self, attempt, gpus=None):
        shape = attempt.shape
        self.free = (self.free[0] - shape[0], self.free[1] - shape[1])
        self.take_gpus(attempt, self.free_gpus[: shape[2]] if gpus is None else gpus)
        self.slots.update(shape[3])

    def take_gpus(self, attempt, gpus):
        attempt.gpus = gpus
        if gpus:
            self.used_gpus.update(gpus)
            self.free_gpus = [gpu for gpu in self.free_gpus if gpu not in gpus]

    def give_back(self, attempt):
        shape = attempt.shape
        self.free = (self.free[0] + shape[0], self.free[1] + shape[1])
        if attempt.gpus:
            self.used_gpus.difference_update(attempt.gpus)
            self.free_gpus = sorted(self.free_gpus + [gpu for gpu in attempt.gpus if gpu < self.gpus])
        for slot in shape[3]:
            self.slots.discard(slot)
            for waiting in self.aside.pop(slot, ()):
                heapq.heappush(self.heads, (self.lines[waiting][0].seq, waiting))

    def next(self):
        """Takes the resources of the next attempt to start and returns it, or None."""
        passed, chosen = [], None
        while self.heads and len(passed) < self.DEPTH:
            seq, shape = heapq.heappop(self.heads)
            line = self.startable_line(seq, shape)
            if line is None:
                continue
            if self.fits(shape):
                chosen = line.popleft()
                if line:
                    heapq.heappush(self.heads, (line[0].seq, shape))
                else:
                    del self.lines[shape]
                self.take(chosen)
                break
            passed.append((seq, shape))
            if len(passed) == 1 and not self.may_overtake(seq):
                break
        if chosen and passed:
            self.overtaken += 1
        for item in passed:
            heapq.heappush(self.heads, item)
        return chosen

    def startable_line(self, seq, shape):
        """The line of an entry of the heap; None where the entry was outdated, or waits for a slot."""
        line = self.lines[shape]
        while line and line[0].state != "queued":
            line.popleft()
        if not line:
            del self.lines[shape]
            return None
        if line[0].seq != seq:
            heapq.heappush(self.heads, (line[0].seq, shape))
            return None
        for slot in shape[3]:
            if slot in self.slots:
                self.aside.setdefault(slot, []).append(shape)
                return None
        return line

    def may_overtake(self, seq):
        """Whether anything may start before the head of the queue, which does not fit now."""
        if self.head != seq:
            self.head, self.overtaken = seq, 0
        return self.overtaken < self.DEPTH

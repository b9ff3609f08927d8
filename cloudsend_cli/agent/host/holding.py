"""Why attempts wait although their places are free: others load this machine."""

import math
import time

from .machine import read_load


class LoadLimit:
    """Holds the queue while others load the machine by more than `most`.

    What is ours of the load average is not known, but follows from the CPUs that our attempts have taken, averaged
    over the same minute as the kernel does: so neither a start nor an end looks like somebody else's load.
    """

    EVERY, MINUTE = 3.0, 60.0

    def __init__(self, queue):
        self.queue = queue
        self.most = None
        self.held = False
        self.look_at, self.ours, self.seen = 0.0, None, 0.0

    def limit(self, most):
        self.most, self.held, self.look_at = most, False, 0.0

    def holds(self, now):
        """Looks again every few seconds while it holds, and before each start while it does not."""
        if self.most is None:
            return False
        if now >= self.look_at:
            load = read_load()
            self.held = load is not None and max(0.0, load - self.count_ours(now)) > self.most
            self.look_at = now + self.EVERY if self.held else 0.0
        return self.held

    def count_ours(self, now):
        """To be called now and then, as it takes the CPUs that are taken now for those since the last call."""
        taken = (self.queue.total[0] - self.queue.free[0]) / 1000.0
        if self.ours is None:
            self.ours = taken
        else:
            self.ours += (taken - self.ours) * (1.0 - math.exp((self.seen - now) / self.MINUTE))
        self.seen = now
        return self.ours

    def tick(self):
        if self.most is not None:
            self.count_ours(time.monotonic())

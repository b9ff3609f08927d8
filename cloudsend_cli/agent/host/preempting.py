"""What the daemon does while a notice stands: nothing starts, and what is here ends, as the notice says why.

It needs no memory. Each attempt has its tombstone before its runner hears of it, so that a daemon that is killed in
the middle goes on where it was when the next one finds the notice.
"""

from .leaving import cause_of
from .logfile import log


class Preempting:
    BATCH = 5000  # attempts of a queue, in one turn of the loop

    def __init__(self, rented, attempts, cancel):
        self.rented, self.attempts, self.cancel = rented, attempts, cancel

    def holds(self):
        return self.rented.notice is not None

    def tick(self):
        if not self.holds():
            return
        cause = cause_of(self.rented.notice)
        unfinished = [a for a in self.attempts.by_id.values() if a.state in ("queued", "running")]
        fresh = [a for a in unfinished if a not in self.attempts.killing]
        fresh.sort(key=lambda attempt: attempt.state == "queued")  # what runs needs the time
        for attempt in fresh[: self.BATCH]:
            try:
                self.cancel(attempt.id, cause)
            except OSError as problem:
                log("preempting", attempt.id, problem)

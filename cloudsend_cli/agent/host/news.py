"""What the owners of attempts are told: many changes in one frame, and not every start."""

import time
from collections import deque

from .encoding import compact


class News:
    """Sends at once after a pause, else a few milliseconds' worth together. What nobody hears is in the report."""

    EVERY, RUNNING_AFTER = 0.004, 0.010

    def __init__(self, peers):
        self.peers = peers
        self.items, self.sent = {}, 0.0  # {owner: {attempt: JSON of its status}}
        self.fresh = deque()  # (when, attempt) started, not yet told: most end sooner

    def tell(self, attempt, raw):
        self.items.setdefault(attempt.owner, {})[attempt.id] = raw

    def tell_started(self, attempt):
        self.fresh.append((time.monotonic(), attempt))

    def wake(self):
        """When there is something to send, in monotonic seconds."""
        wake = self.sent + self.EVERY if self.items else float("inf")
        return min(wake, self.fresh[0][0] + self.RUNNING_AFTER) if self.fresh else wake

    def send(self, now):
        while self.fresh and now - self.fresh[0][0] >= self.RUNNING_AFTER:
            attempt = self.fresh.popleft()[1]
            if attempt.state == "running":
                status = {"state": "running", "started": attempt.ended}
                if attempt.gpus:
                    status["gpu_ids"] = attempt.gpus
                self.tell(attempt, compact(status))
        if not self.items or now - self.sent < self.EVERY:
            return
        self.sent = now
        for owner, items in self.items.items():
            peers = self.peers.of(owner)
            if peers:
                self.send_to(peers, items)
        self.items.clear()

    def send_to(self, peers, items):
        texts = [b'"%s":%s' % (ident.encode(), raw) for ident, raw in items.items()]
        for i in range(0, len(texts), 512):
            frame = b'{"ev":"changes","items":{%s}}\n' % b",".join(texts[i : i + 512])
            for peer in peers:
                peer.send_raw(frame)
        self.peers.touched.update(peers)

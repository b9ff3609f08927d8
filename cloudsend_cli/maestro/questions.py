"""What commands want from machines of a run: asked over its links, and answered when the machines have answered."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from functools import partial

from cloudsend_cli.core.naming import parse_attempt_id
from cloudsend_cli.core.state import RunState
from cloudsend_cli.engine.asking import Ask, Conversation, error_text
from cloudsend_cli.engine.hostlink import HostLink
from cloudsend_cli.engine.hostpool import RunHosts
from cloudsend_cli.engine.results import Home
from cloudsend_cli.engine.transfer import fetch_files

from .pids import ask_pid
from .server import Connection
from .sockets import Message

READ_FIELDS = ("attempt", "stream", "offset", "length")


class Questions:
    """Each gives the reply that can be given at once; None: it comes later, with `send_replies` after a `wake`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._replies: list[tuple[Connection, Message]] = []

    def read_logs(self, connection: Connection, message: Message, hosts: RunHosts | None) -> Message | None:
        """Pieces of many logs, each from the machine that has it; the reply comes when all have answered or cannot."""
        places = message.get("places")
        wanted = [p for p in places if isinstance(p, dict)] if isinstance(places, list) else []
        blocks: list[Message | None] = [None] * len(wanted)
        by_link: dict[HostLink, list[int]] = {}
        for index, place in enumerate(wanted):
            link = hosts.link_of(str(place.get("node"))) if hosts is not None else None
            if link is None:
                blocks[index] = {"error": "there is no connection to the job's machine now"}
            else:
                by_link.setdefault(link, []).append(index)
        reply: Message = {"re": message.get("id"), "blocks": blocks}
        left = set(by_link)

        def finish(link: HostLink) -> None:
            with self._lock:
                left.discard(link)
                last = not left
            if last:
                self._post(connection, reply)

        for link, indices in by_link.items():
            asks = [Ask("read", {k: wanted[i].get(k) for k in READ_FIELDS}) for i in indices]
            link.converse(partial(_read_blocks, asks, indices, blocks, partial(finish, link)), partial(finish, link))
        return None if by_link else {"blocks": blocks}

    def fetch(
        self, connection: Connection, message: Message, hosts: RunHosts | None, state: RunState | None
    ) -> Message | None:
        """Results of a job now, also while it runs; the reply comes when they are in place."""
        number, results = message.get("number"), message.get("results")
        if hosts is None or state is None or not isinstance(number, int) or not isinstance(results, str):
            return {"later": "the run is not loaded yet"}
        job = state.jobs.get(number)
        link = hosts.link_of(job.node) if job is not None else None
        if job is None or link is None:
            return {"later": "no connection to the job's machine"}
        attempt, patterns = state.attempt_of(job), [o.pattern for o in job.spec.outputs]
        home = Home(results, state.run.id, job.spec.name)
        reply: Message = {"re": message.get("id")}

        def conversation() -> Conversation:
            reply["problem"] = yield from fetch_files(attempt, patterns, home)
            self._post(connection, reply)

        def dropped() -> None:
            reply["later"] = "the job's machine does not answer now"
            self._post(connection, reply)

        link.converse(conversation, dropped)
        return None

    def find_pid(self, connection: Connection, message: Message, hosts: RunHosts | None) -> Message | None:
        attempt = message.get("attempt")
        link = hosts.link_of(str(message.get("node"))) if hosts is not None else None
        if link is None or not isinstance(attempt, str) or parse_attempt_id(attempt) is None:
            return {"pid": None}
        ask_pid(link, attempt, lambda pid: self._post(connection, {"re": message.get("id"), "pid": pid}))
        return None

    def _post(self, connection: Connection, reply: Message) -> None:
        self._replies.append((connection, reply))
        self._wake()

    def send_replies(self) -> None:
        while self._replies:
            connection, reply = self._replies.pop(0)
            connection.send(reply)


def _read_blocks(
    asks: list[Ask], indices: list[int], blocks: list[Message | None], finish: Callable[[], None]
) -> Conversation:
    frames = yield asks
    for index, ask, frame in zip(indices, asks, frames, strict=True):
        if frame.ok:
            length = ask.fields.get("length")
            asked = frame.payload[:length] if isinstance(length, int) else frame.payload  # never more than that
            data = base64.b64encode(asked).decode("ascii")
            blocks[index] = {"data": data, "total": frame.get("total")}
        elif frame.error_code in {"unknown", "not-found"}:
            blocks[index] = {"data": ""}  # nothing was written yet
        else:
            blocks[index] = {"error": error_text(frame)}
    finish()

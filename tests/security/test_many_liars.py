"""Rows 7 and 21: many machines that lie, flood or say nothing at real links, beside a good one that works on."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fuzzing import FUZZ
from liar import BOOT, Answer, Liar, Request, frame, honest, reply
from real_stack import find_processes, wait_for

from cloudsend_cli.agent.client import GREETING, REFUSAL
from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.model import UNBOUNDED, AttemptStatus, HostAddress, HostView, JobSpec, Resources, Upload
from cloudsend_cli.core.ports import Host
from cloudsend_cli.engine import asking, hostlink
from cloudsend_cli.engine.hearsay import HERE
from cloudsend_cli.engine.hostpool import HostPool, RunFacts, RunHosts
from cloudsend_cli.hosts.local import LocalHost

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"
MEMORY_MOST = 200 << 20
RUN = "rabcde"


# ---- conversations -------------------------------------------------------------------------------------------------


def instead(op: str, data: bytes | Callable[[Request], bytes]) -> Answer:
    """Honest but for what is said to one request."""

    def answer(request: Request) -> bytes:
        if request["op"] != op or "id" not in request:
            return honest(request)
        return data if isinstance(data, bytes) else data(request)

    return answer


def error(message: object, code: object = "os") -> Callable[[Request], bytes]:
    return lambda request: frame(re=request["id"], ok=False, error={"code": code, "message": message})


def raw(text: str) -> Callable[[Request], bytes]:
    """A line with the request's id in place of ID."""
    return lambda request: text.replace("ID", str(request["id"])).encode() + b"\n"


def foreign(request: Request) -> bytes:
    """Verdicts on attempts of all numbers."""
    run = request["attempts"][0]["id"].split(".")[0]
    return reply(request, results={f"{run}.{n}.1": f"bad-spec: {ESCAPE}" for n in range(50)})


GREETINGS: dict[str, bytes] = {
    "nothing": b"",
    "garbage": os.urandom(5000) + b"\n",
    "zeros": b"\0" * 100_000,
    "noise without end": b"Welcome!\n" * 300_000,
    "a line without end": b"x" * (2 << 20),
    "escapes": ESCAPE.encode() * 100 + b"\n",
    "a refusal in escapes": REFUSAL + json.dumps({"code": ESCAPE, "message": ESCAPE * 1000}).encode() + b"\n",
    "a refusal without words": REFUSAL + b"{}\n",
    "a refusal that is a list": REFUSAL + b"[]\n",
    "a refusal of numbers": REFUSAL + b'{"code":7,"message":[1]}\n',
    "half a greeting": GREETING[:9],
    "a greeting that is a list": GREETING + b"[]\n",
    "a greeting nested deeply": GREETING + b"[" * 100_000 + b"\n",
}
ANSWERS: dict[str, Answer] = {
    "no answer to hello": instead("hello", b""),
    "an error in escapes": instead("hello", error(ESCAPE)),
    "an error of a megabyte": instead("hello", error("e" * 1_000_000)),
    "an error of numbers": instead("hello", error(10**300, code=[1])),
    "an error that is a text": instead("hello", raw('{"re":ID,"ok":false,"error":"no"}')),
    "an error that is a list": instead("hello", raw('{"re":ID,"ok":false,"error":[[]]}')),
    "taken by nobody": instead("hello", error(ESCAPE, code="taken")),
    "neither good nor bad": instead("hello", raw('{"re":ID}')),
    "good without facts": instead("hello", raw('{"re":ID,"ok":true}')),
    "facts of other kinds": instead(
        "hello", lambda r: reply(r, boot=[1], pid={"a": ESCAPE}, resources=[9], load={}, free="x", others="y")
    ),
    "facts beyond measure": instead(
        "hello", lambda r: reply(r, boot="b" * 100_000, pid=ESCAPE, resources={"cpus": 10**300, "memory": -1})
    ),
    "the answer to another request": instead("hello", lambda r: reply({"id": r["id"] + 100}) + reply({"id": -1})),
    "parts of an answer to nothing": instead("hello", lambda r: reply({"id": 999}, more=True)),
    "an answer to true": instead("hello", lambda r: frame(re=True, ok=True) + frame(re="1", ok=True) + honest(r)),
    "parts without end": instead("hello", lambda r: reply(r, more=True, x=["y"] * 1000) * 200),
    "two answers": instead("hello", lambda r: honest(r) * 2),
    "no UTF-8": instead("hello", b"\xff\xfe{}\n"),
    "no JSON": instead("hello", b"{re:1}\n"),
    "numbers that are none": instead("hello", raw('{"re":ID,"ok":true,"load":NaN,"resources":{"cpus":Infinity}}')),
    "a number of 5,000 digits": instead("hello", raw('{"re":ID,"ok":true,"load":%s}' % ("9" * 5000))),
    "half a frame": instead("hello", b'{"re":1,"ok":tr'),
    "a payload below nothing": instead("hello", raw('{"re":ID,"ok":true,"size":-1}')),
    "a payload of 2^63": instead("hello", raw('{"re":ID,"ok":true,"size":9223372036854775808}')),
    "a payload that does not come": instead("hello", raw('{"re":ID,"ok":true,"size":1000}')),
    "a payload that is true": instead("hello", raw('{"re":ID,"ok":true,"size":true}')),
    "nested deeply": instead("hello", raw('{"re":ID,"ok":true,"x":' + "[" * 100_000)),
    "a report that is a list": instead("report", lambda r: reply(r, attempts=[1], environments={"a": 1})),
    "a report of texts": instead("report", lambda r: reply(r, attempts={"x": "y", "": None})),
    "no report": instead("report", error(ESCAPE)),
    "a report that never comes": instead("report", b""),
    "a start without verdicts": instead("start", raw('{"re":ID,"ok":true}')),
    "verdicts that are a list": instead("start", lambda r: reply(r, results=["queued"])),
    "verdicts of numbers": instead("start", lambda r: reply(r, results={s["id"]: 7 for s in r["attempts"]})),
    "verdicts in escapes": instead("start", lambda r: reply(r, results={s["id"]: ESCAPE for s in r["attempts"]})),
    "verdicts on other jobs": instead("start", foreign),
    "a start that is refused": instead("start", error("x" * 100_000, code="fenced")),
    "a start that never is answered": instead("start", b""),
    "files that are a list": instead("missing", lambda r: reply(r, missing=["x"])),
    "files held beyond their end": instead("missing", lambda r: reply(r, missing=dict.fromkeys(r["files"], 1 << 70))),
    "files that it never takes": instead("put", error("again", code="offset")),
    "files at odd places": instead(
        "put", raw('{"re":ID,"ok":false,"error":{"code":"offset","message":"x","offset":-7}}')
    ),
    "a digest that is never right": instead("put", error("no", code="digest")),
    "events of no kind": lambda r: frame(ev=["x"]) + frame(ev="changes", items=[1]) + frame(x=1) + honest(r),
    "logs that nobody follows": lambda r: frame(b"x" * 1000, ev="log", attempt="../x", offset=-1) * 20 + honest(r),
}


class Crowd:
    """One run on a good machine and on many that lie."""

    def __init__(self, folder: Path, liars: dict[str, Liar]) -> None:
        self.liars = liars
        self.by_key = {liar.address.key: liar for liar in liars.values()}
        self.log: list[str] = []
        self.pool = HostPool(self.open, "owner", 1, self.log.append)
        facts = RunFacts({"PATH": "/usr/bin:/bin"}, str(folder / "results"), dict)
        self.woken = threading.Event()
        self.hosts = RunHosts(
            RUN, self.pool, self.woken.set, lambda: facts, lambda: None, folder / "logs",
            resumes=folder / "resume", weigh=lambda *_: HERE,
        )  # fmt: skip
        self.views: dict[str, HostView] = {}
        self.attempts: dict[str, AttemptStatus] = {}
        here = HostAddress("local", f"local:{folder / 'agent'}", home=str(folder / "agent"))
        self.hosts.connect("good", here, Resources(2.0))
        for name, liar in liars.items():
            self.hosts.connect(name, liar.address, UNBOUNDED)

    def open(self, address: HostAddress) -> Host:
        return self.by_key.get(address.key) or LocalHost(address)

    def is_connected(self, name: str) -> bool:
        return name in self.views and self.views[name].connected

    def until(self, happened: Callable[[], object]) -> None:
        end = time.monotonic() + 15
        while not happened():
            if time.monotonic() > end:
                waiting = {n: liar.sessions for n, liar in self.liars.items() if not self.is_connected(n)}
                raise AssertionError(f"not within a minute: {waiting}")
            self.woken.wait(0.2)
            self.woken.clear()
            for node, item in self.hosts.drain().items():
                self.views[node] = item.view
                if node == "good":
                    self.attempts.update(item.attempts)

    def work(self, number: int, upload: Upload) -> None:
        """Give all machines something to do, and wait until the good one has done it."""
        attempt = f"{RUN}.{number}.1"
        job = JobSpec("j", ("/bin/sh", "-c", "echo good"), "echo")
        for name in self.liars:
            if self.is_connected(name):
                start = AttemptStart(f"{RUN}.{1000 + number}.1", replace(job, uploads=(upload,)))
                self.hosts.start(name, BOOT, [start], [upload])
        self.hosts.start("good", self.views["good"].boot, [AttemptStart(attempt, job)], [])
        self.until(lambda: attempt in self.attempts and self.attempts[attempt].ended)
        assert self.attempts[attempt].exit_code == 0

    def close(self) -> None:
        self.hosts.close()
        self.pool.close()


def test_one_good_machine_among_many_liars(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, summary_line: Callable[[str], None]
) -> None:
    for place, name, seconds in (
        (asking, "HELLO_LIMIT", 1.5),
        (asking, "RETRY_TAKEN", 0.5),
        (hostlink, "RETRY_REFUSED", (0.5,)),
    ):
        monkeypatch.setattr(place, name, seconds)
    monkeypatch.setenv("CLOUDSEND_AGENT_IDLE", "1")
    data = b"u" * 1000
    (state_dir / "upload").write_bytes(data)
    upload = Upload("upload", hashlib.sha256(data).hexdigest(), len(data), 0o644, str(state_dir / "upload"))
    liars = {f"greeting: {n}": Liar(f"greeting{i}", greeting=g) for i, (n, g) in enumerate(GREETINGS.items())}
    liars.update({n: Liar(f"liar{i}", answer) for i, (n, answer) in enumerate(ANSWERS.items())})
    crowd = Crowd(state_dir, liars)
    try:
        crowd.until(lambda: crowd.is_connected("good"))
        for number in range(3):
            crowd.work(number, upload)
        crowd.until(lambda: all(liar.sessions > 1 or crowd.is_connected(name) for name, liar in liars.items()))
        assert {f"host {key}" for key in crowd.by_key} <= {thread.name for thread in threading.enumerate()}
        for view in crowd.views.values():
            assert view.error.isprintable() and len(view.error) <= 600
        assert all(len(line) < 1500 and line.isprintable() for line in crowd.log), max(crowd.log, key=len)
        for liar in liars.values():
            liar.answer, liar.greeting = honest, GREETING + b"{}\n"
        crowd.until(lambda: all(view.connected for view in crowd.views.values()))
        summary_line(f"lying agents beside a good one: {len(liars)}, each heard again when it was honest")
    finally:
        crowd.close()
        wait_for(lambda: not find_processes(state_dir))


# ---- floods --------------------------------------------------------------------------------------------------------


def peak(reset: bool = False) -> int:
    """The most memory that this process has had, in bytes, since the last reset."""
    if reset:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


MB = 1 << 20
FLOODS: dict[str, Callable[[], bytes]] = {
    "empty frames": lambda: b"{}\n" * 80_000,
    "frames of empty objects": lambda: b'{"ev":"x","items":[' + b"{}," * 300_000 + b"{}]}\n",
    "changes of attempts": lambda: frame(
        ev="changes", items={f"rabcde.{n}.1": {"state": "lost"} for n in range(20_000)}),
    "logs that nobody follows": lambda: frame(b"x" * MB, ev="log", attempt="rabcde.1.1", stream="stdout", offset=0),
    "parts of an answer": lambda: b'{"re":2,"ok":true,"more":true,"attempts":{' + b",".join(
        b'"%d":{"a":[{}]}' % n for n in range(random.randrange(10**9), 10**9 * 2, 10**9 // 30_000)) + b"}}\n",
    "payloads that nobody asked for": lambda: frame(b"x" * MB, re=2, ok=True),
    "a line without end": lambda: b"x" * MB,
    "noise before the greeting": lambda: b"noise\n" * 100_000,
}  # fmt: skip


def test_who_talks_much_unasked_is_heard_less_often() -> None:
    patience = hostlink.Patience()
    assert patience.pause(hostlink.UNASKED_BURST) == 0.0
    assert patience.pause(hostlink.UNASKED_RATE // 10) == pytest.approx(0.1, abs=0.05)
    assert patience.pause(1 << 40) == hostlink.PAUSE_MOST


# What has no end is given up; the others are nothing but slow.
GIVEN_UP = {"parts of an answer", "a line without end", "noise before the greeting"}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_fills_no_memory(name: str, state_dir: Path, summary_line: Callable[[str], None]) -> None:
    liar = Liar("flood", greeting=b"" if name.startswith("noise") else GREETING + b"{}\n")
    pool = HostPool(lambda address: liar, "owner", 1, lambda _: None)
    hosts = RunHosts(
        RUN, pool, lambda: None, lambda: RunFacts({}, "", dict), lambda: None, state_dir,
        resumes=state_dir, weigh=lambda *_: HERE,
    )  # fmt: skip
    before = peak(reset=True)
    sent = 0
    piece = FLOODS[name]()  # ORDER: before there is a link, which gives up a machine that is silent meanwhile
    try:
        hosts.connect("flood", liar.address, None)
        wait_for(lambda: liar.sessions)
        # What is to be given up is sent until it is; the others for a while.
        until = time.monotonic() + 60
        most = 2 if name in GIVEN_UP else 4
        while time.monotonic() < until and (not sent or liar.sessions < most):
            if liar.say(piece):
                if not sent and name not in GIVEN_UP:
                    until = time.monotonic() + 1.5 * max(1.0, FUZZ / 4)
                sent += len(piece)
            else:
                time.sleep(0.01)
            hosts.drain()
        grown = peak() - before
    finally:
        hosts.close()
        pool.close()
    assert sent > 0
    assert liar.sessions > 1 or name not in GIVEN_UP
    summary_line(f"flood of {name}: {sent >> 20} MB sent, {grown >> 20} MB kept at most")
    assert grown < MEMORY_MOST, f"{grown >> 20} MB after {sent >> 20} MB"

"""A process that rents, keeps, takes and gives back machines, and dies at the effect that it is told.

Each line on its standard input is a list in JSON: number, state directory, journal, two requests. A fork of it lives
the life of the journal from where the last one died, and is killed before its n-th effect (0: never). An effect is a
file that appears, or a call that changes something at AWS. The answer is `killed`, `done`, or what went wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from warm_maestros import set_times
from warm_process import load_boto

from cloudsend_cli.core.model import ProviderDefinition
from cloudsend_cli.errors import UnreachableError
from cloudsend_cli.providers.aws.provider import AwsProvider

T = TypeVar("T")
ATTEMPTS = 2  # of the SDK at each call, instead of four: it waits seconds between them
FILES = {"os.rename", "os.link"}
PATIENCE = 30.0


def die_at(number: int) -> None:
    """SIGKILL before the effect of that number."""
    left = number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in FILES or (event == "http.client.send" and is_change(arguments[1])):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def is_change(data: object) -> bool:
    return isinstance(data, (bytes, bytearray)) and b"Action=" in data and b"Action=Describe" not in data


def insist(call: Callable[[], T]) -> T:
    """As the engine does: the same call again while nobody knows what became of it."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except UnreachableError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not insist(condition):
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.02)


class Life:
    """Step by step; what is done is in the journal, as the engine's commits are in its store."""

    def __init__(self, state_dir: Path, journal: Path, requests: list[str]) -> None:
        self.provider = AwsProvider(ProviderDefinition("aws", "aws", '{"region":"eu-west-3"}'), state_dir)
        self.journal, self.requests = journal, requests
        self.known: dict[str, str] = {}
        if journal.exists():
            for line in journal.read_text().splitlines():
                self.known.update(json.loads(line))

    def live(self) -> None:
        for step in (
            self.rent_first,
            self.rent_second,
            self.await_both,
            self.keep,
            self.give_back,
            self.take,
            self.end,
        ):
            if step.__name__ not in self.known:
                self.note({step.__name__: step() or ""})

    def note(self, words: dict[str, str]) -> None:
        with open(self.journal, "a", encoding="ascii") as file:
            file.write(json.dumps(words) + "\n")
        self.known.update(words)

    def rent_first(self) -> str:
        return insist(lambda: self.provider.create_instance("run1", "aws-0", 1, "token-a", self.requests[0]))

    def rent_second(self) -> str:
        return insist(lambda: self.provider.create_instance("run1", "aws-1", 1, "token-b", self.requests[1]))

    def await_both(self) -> None:
        until(lambda: [s.state for s in self.provider.list_instances("run1")] == ["running", "running"])

    def keep(self) -> None:
        insist(lambda: self.provider.keep_instance("run1", "aws-0", self.known["rent_first"]))

    def give_back(self) -> None:
        second = self.known["rent_second"]
        insist(lambda: self.provider.terminate_instance("run1", "aws-1", second))
        until(lambda: {s.instance_id: s.state for s in self.provider.list_instances("run1")} == {second: "terminated"})

    def take(self) -> str:
        return insist(lambda: self.provider.create_instance("run2", "aws-0", 1, "token-c", self.requests[0]))

    def end(self) -> None:
        insist(lambda: self.provider.terminate_instance("run2", "aws-0", self.known["take"]))
        until(lambda: [s.state for s in self.provider.list_instances("run2")] == ["terminated"])


def main() -> None:
    set_times({"cloudsend_cli.providers.aws.clients.ATTEMPTS": ATTEMPTS})
    load_boto()  # once, before the forks
    print("ready", flush=True)
    for line in sys.stdin:
        number, state_dir, journal, *requests = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                if number:
                    die_at(number)
                Life(Path(state_dir), Path(journal), requests).live()
                status = 0
            except BaseException:  # noqa: BLE001
                os.write(writer, traceback.format_exc()[-3000:].encode())
            finally:
                os._exit(status)
        os.close(writer)
        _, status = os.waitpid(pid, 0)
        with open(reader, encoding="utf-8") as told:
            words = told.read()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps("killed" if killed else words if status else "done"), flush=True)


if __name__ == "__main__":
    main()

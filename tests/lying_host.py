"""What a lying host runs in place of the command that it is asked to run: the command, with frames changed on the way.

It stands between sshd (by ForceCommand) and the real agent, both ways. ~/lies.json says what is changed:
`next`: a list of lies, one for each of the next frames of the agent; `manifests`: {number of a job: a list of results
to name instead}; `touch`: how often a result changes after its manifest was made; `flip`: how often a byte of a file
is flipped, each way ({"put": 1, "read": 2}). The file is written anew as lies are used up.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import random
import subprocess
import sys
import threading
import time
from typing import Any

HOME = os.path.expanduser("~/")
LIES = HOME + "lies.json"
HELD = HOME + "lies.lock"
FRAMES = HOME + "frames.bin"  # of all connections, to be said again
GREETING = b"cloudsend-agent-1 "
asked: dict[int, dict[str, Any]] = {}


def take(kind: str, key: str = "") -> Any:
    """One lie of this kind, used up; None when there is none left."""
    with open(HELD, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with open(LIES) as file:
                lies = json.load(file)
        except (OSError, ValueError):
            return None
        found = lies.get(kind)
        if kind == "next":
            taken = found.pop(0) if found else None
        elif kind == "manifests":
            return (found or {}).get(key)  # for ever
        else:
            left = (found or {}).get(key, 0)
            taken = left > 0 or None
            if left:
                found[key] = left - 1
        with open(LIES + ".new", "w") as file:
            json.dump(lies, file)
        os.replace(LIES + ".new", LIES)
        return taken


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def flip(payload: bytes) -> bytes:
    place = len(payload) // 2
    return payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]


class Frames:
    """Bytes in, (line, fields, payload) out; what comes before the first frame is passed on as it is."""

    def __init__(self, out: int, is_first: Any) -> None:
        self._rest = b""
        self._out = out
        self._is_first = is_first
        self._begun = False

    def feed(self, data: bytes) -> Any:
        self._rest += data
        while True:
            line, newline, after = self._rest.partition(b"\n")
            if not newline:
                if not self._begun and self._rest and not self._could_begin():
                    write_all(self._out, self._rest)
                    self._rest = b""
                return
            if not self._begun:
                begins = self._is_first(line)
                if begins is None:
                    write_all(self._out, line + newline)
                    self._rest = after
                    continue
                self._begun = True
                if begins == "after":
                    write_all(self._out, line + newline)
                    self._rest = after
                    continue
            fields = json.loads(line)
            size = fields.get("size", 0) if "re" in fields or "op" in fields or fields.get("ev") == "log" else 0
            if len(after) < size:
                return
            self._rest = after[size:]
            yield fields, after[:size]

    def _could_begin(self) -> bool:
        """A line that is not whole is held back only where it may be the first frame."""
        return self._is_first is not upwards or self._rest.startswith(b'{"id":'[: len(self._rest)])


def upwards(line: bytes) -> str | None:
    return "here" if line.startswith(b'{"id":') else None


def downwards(line: bytes) -> str | None:
    return "after" if GREETING in line else None


def render(fields: dict[str, Any], payload: bytes) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n" + payload


def from_client(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    out = child.stdin.fileno()
    frames = Frames(out, upwards)
    while data := os.read(0, 1 << 16):
        for fields, content in frames.feed(data):
            payload = content
            asked[fields.get("id", 0)] = dict(fields)
            if fields.get("op") == "put" and payload and take("flip", "put"):
                payload = flip(payload)
            if fields.get("op") == "read" and "path" in fields and lies_about(fields["attempt"]) is not None:
                fields["path"] = "out.txt"  # whatever name we gave it
            write_all(out, render(fields, payload))
    child.stdin.close()


def lies_about(attempt: str) -> Any:
    return take("manifests", attempt.split(".")[1])


def from_agent(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    frames = Frames(1, downwards)
    while data := os.read(child.stdout.fileno(), 1 << 16):
        for fields, content in frames.feed(data):
            payload = content
            question = asked.get(fields.get("re", 0), {})
            if question.get("op") == "manifest":
                wrong = lies_about(question["attempt"])
                if wrong is not None:
                    fields["files"] = wrong
                if take("touch", "out.txt"):
                    [work] = glob.glob(f"{HOME}.cloudsend/agent/*/attempts/{question['attempt']}/work/out.txt")
                    with open(work, "r+b") as file:
                        file.write(b"%020d" % time.time_ns())
            if question.get("op") == "read" and "path" in question and payload and take("flip", "read"):
                payload = flip(payload)
            whole = render(fields, payload)
            lie = take("next")
            if lie is not None:
                tell(lie, whole, child)
            with open(FRAMES, "ab") as seen:
                seen.write(whole)
            write_all(1, whole)


def tell(lie: dict[str, Any], whole: bytes, child: subprocess.Popen[bytes]) -> None:
    """The lie comes before the frame, or in place of its end."""
    kind = lie["kind"]
    if kind == "text":
        write_all(1, lie["text"].encode("utf-8", "surrogateescape"))
    elif kind == "repeat":
        write_all(1, lie["text"].encode() * lie["count"])
    elif kind == "random":
        write_all(1, random.Random(1).randbytes(4096))
    elif kind == "again":
        with open(FRAMES, "rb") as seen:
            write_all(1, seen.read()[-200_000:])
    elif kind == "cut":
        write_all(1, whole[: len(whole) // 2])
        child.kill()
        os._exit(0)
    else:
        raise SystemExit(f"no lie {kind}")


def main() -> None:
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "true")
    child = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    threading.Thread(target=from_client, args=(child,), daemon=True).start()
    from_agent(child)
    sys.exit(child.wait())


if __name__ == "__main__":
    main()

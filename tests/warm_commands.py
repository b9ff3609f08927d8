"""Commands in processes that have loaded cloudsend already, which start in a tenth of the time of an interpreter.

Each has its own environment, directory, streams and exit status. Where its start, its end or its pid is the point,
tests start an interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PIPE = 1 << 16  # bytes that fit into a pipe
ROOM = 500  # bytes for the command lines of maestros
# An interpreter and modules read these when they start: with others than the tests' own a command is started as usual.
AT_START = ("LANG", "LC_", "TZ", "PYTHON", "LD_", "PATH", "TMPDIR")
NO_MATTER = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}

warm: dict[str, object] = {"maestros": False, "times": {}}  # see warm_maestros.py
_lock = threading.Lock()
_processes: dict[int, str] = {}  # where that of this process listens


def run(
    words: Sequence[str],
    *,
    environ: Mapping[str, str],
    folder: Path,
    stdin: str = "",
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """What `python -m cloudsend_cli WORDS` does and says; its streams are pipes."""
    command = [sys.executable, "-m", "cloudsend_cli", *words]
    if at_start(environ) != at_start(os.environ) or len(stdin) > PIPE // 4:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, env=environ, cwd=folder, check=False
        )
    end = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        line.connect(address())
        request = {"words": [*words], "environ": {**environ}, "folder": str(folder), **warm}
        out, err = _ask(line, request, stdin)
        for stream in (out, err):
            stack.callback(os.close, stream)
        told = {out: b"", err: b""}
        try:
            _read(told, end)
            line.settimeout(max(0.01, end - time.monotonic()))
            status = int(line.recv(PIPE))
        except TimeoutError:
            raise subprocess.TimeoutExpired(command, timeout, told[out], told[err]) from None
    return subprocess.CompletedProcess(command, status, _text(told[out]), _text(told[err]))


def _ask(line: socket.socket, request: Mapping[str, object], stdin: str) -> tuple[int, int]:
    """The reading ends of its stdout and stderr."""
    ins, written = os.pipe()
    os.write(written, stdin.encode())
    os.close(written)
    (out, outs), (err, errs) = os.pipe(), os.pipe()
    try:
        socket.send_fds(line, [json.dumps(request).encode()], [ins, outs, errs])
    except OSError:
        os.close(out)
        os.close(err)
        raise
    finally:
        for number in (ins, outs, errs):
            os.close(number)
    return out, err


def _read(told: dict[int, bytes], end: float) -> None:
    """Until all writers have closed them, also those that a command left behind."""
    with selectors.DefaultSelector() as selector:
        for stream in told:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, PIPE)
                told[key.fd] += data
                if not data:
                    selector.unregister(key.fd)


def _text(data: bytes) -> str:
    return data.decode().replace("\r\n", "\n").replace("\r", "\n")  # as subprocess reads text


def at_start(environ: Mapping[str, str]) -> dict[str, str]:
    """What a process that has started does not look at again."""
    return {name: value for name, value in environ.items() if name.startswith(AT_START) and name not in NO_MATTER}


def address() -> str:
    """Where this process's own listens that commands are forks of."""
    with _lock:
        if os.getpid() not in _processes:
            _processes[os.getpid()] = _start()
        return _processes[os.getpid()]


def _start() -> str:
    folder = tempfile.mkdtemp(prefix="cs-warm-", dir="/tmp")
    address = f"{folder}/socket"
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm_process.py")), address, "-" * ROOM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # both are pipes, as they are of commands: Python asks when it starts
        cwd="/",
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    said = process.stdout.readline()
    assert said == "ready\n", said + process.stdout.read()
    process.stdout.close()
    atexit.register(_end, process, Path(folder), os.getpid())
    return address


def _end(process: subprocess.Popen[str], folder: Path, owner: int) -> None:
    if os.getpid() != owner:
        return
    assert process.stdin is not None
    process.stdin.close()
    process.wait(10)
    (folder / "socket").unlink(missing_ok=True)
    folder.rmdir()

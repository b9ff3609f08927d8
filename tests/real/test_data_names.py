"""D4: files whose names are any bytes, there and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from ssh_cluster import Cluster

from cloudsend_cli.errors import ConfigError

TEXTS = [
    *(
        "café",
        "cafe\u0301",
        "日本語 🎉",
        " ",
        "  two  spaces  ",
        " leading",
        "trailing ",
        "\n",
        "a\nb",
        "\r\n",
        "tab\there",
    ),
    *(
        "-rf",
        "--",
        "~",
        "~root",
        "$HOME",
        "`id`",
        "$(id)",
        "'",
        '"',
        "\\",
        "a\\nb",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "#",
        "!",
        ";",
    ),
    *(
        "&",
        "|",
        "<",
        ">",
        "\x1b[31mred\x1b[0m",
        "\x7f",
        "%s",
        "%00",
        "...",
        ".hidden",
        "..x",
        "x" * 255,
        "CON",
        "aux.txt",
    ),
    *("Case", "case", "\u202etxt.exe", "\ufeffbom", "\x85next"),
]
NAMES = {name.encode() for name in TEXTS}
NAMES |= {bytes([byte]) + b"x" for byte in range(1, 256) if byte != ord("/")}
NAMES |= {b"\xff\xfe\x80", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\xaf", b"\xff" * 255}
# Makes results with all these names, in two directories, and tells what names the upload has there.
PROGRAM = """
import os, sys

for folder in (b"results", b"results/in \\xff\\n"):
    os.makedirs(folder)
    for line in open("names.hex"):
        name = bytes.fromhex(line)
        with open(folder + b"/" + name, "wb") as file:
            file.write(b"in " + folder + b": " + name)
os.symlink(b"x" * 255, b"results/link \\xff")
for name in sorted(os.listdir(b"sent")):
    with open(b"sent/" + name, "rb") as file:
        print(name.hex(), file.read().hex())
"""


def contents(folder: bytes) -> dict[bytes, bytes]:
    found = {}
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                found[name] = file.read()
    return found


def is_text(name: bytes) -> bool:
    return name.decode("utf-8", "replace").encode() == name


def write_all(folder: Path, names: Iterable[bytes]) -> None:
    folder.mkdir()
    for name in names:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(b"sent: " + name)


def test_d4_files_of_every_name_come_home_and_go_there_byte_for_byte(
    cluster: Callable[..., Cluster], summary_line: Callable[[str], None]
) -> None:
    made = cluster()
    sent = {name for name in NAMES if is_text(name)}
    write_all(made.files / "sent", sent)
    (made.files / "names.hex").write_text("".join(f"{name.hex()}\n" for name in NAMES))
    (made.files / "program.py").write_text(PROGRAM)
    upload = ["sent", "names.hex", "program.py"]
    run = made.run({"name": "é 'x' $y", "run": "python3 program.py", "upload": upload, "output": "results"})
    [done] = made.client.list_jobs(run)
    assert (done.state, done.outputs) == ("succeeded", "home"), made.tail(done.id, "stderr")
    [home] = made.client.fetch(done.id)
    for folder in (b"results", b"results/in \xff\n"):
        there = os.path.join(os.fsencode(home), folder)
        assert contents(there) == {name: b"in " + folder + b": " + name for name in NAMES}
    assert os.readlink(os.path.join(os.fsencode(home), b"results/link \xff")) == b"x" * 255
    lines = made.tail(done.id).decode("ascii").splitlines()
    assert lines == [f"{name.hex()} {(b'sent: ' + name).hex()}" for name in sorted(sent)]
    summary_line(f"names: {len(NAMES)} of every kind came home, {len(sent)} went there")


def test_d4_a_file_to_send_whose_name_is_no_text_is_refused_by_its_name_and_never_left_out(
    cluster: Callable[..., Cluster],
) -> None:
    made = cluster()
    write_all(made.files / "sent", [b"good", b"caf\xe9"])
    with pytest.raises(ConfigError, match=r"caf\\udce9.*not valid UTF-8"):
        made.submit(jobs=[{"run": "ls sent", "upload": "sent"}])

"""Results of machines that lie: whatever they name or send, nothing is written outside, and the error is clear.

Names, sizes and links that `tests/engine/test_results.py` has are not repeated here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fence import snapshot
from lies import Lie, entry, fetch, link, with_payload

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.engine.results import MANIFEST, Home, job_directory

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def refusing(**error: object) -> Callable[[dict[str, Any]], Frame]:
    return lambda fields: Frame(ok=False, error=error)


PLAIN = "not a plain relative path"
NO_NAME = "which is no name of a file"
MALFORMED = "malformed"
ONE = [entry("good")]
GOOD = {"good": b"x"}


def beside(*items: object, **more: Any) -> Lie:
    """Something that makes the whole be refused, beside a good file that must not come home either."""
    return Lie([*ONE, *items], **more)


LIES: dict[str, Lie] = {
    # Names that lead elsewhere.
    "absolute, into the fence": beside(entry("{fence}/elsewhere/x"), words=PLAIN),
    "one up": beside(entry("../x"), words=PLAIN),
    "many up": beside(entry("../" * 40 + "{fence}/elsewhere/x"), words=PLAIN),
    "down and up": beside(entry("d/../../x"), words=PLAIN),
    "up at the end": beside(entry("d/.."), words=PLAIN),
    "the parent": beside(entry(".."), words=PLAIN),
    "itself": beside(entry("./x"), words=PLAIN),
    "two slashes in front": beside(entry("//elsewhere/x"), words=PLAIN),
    "a slash behind": beside(entry("x/"), words=PLAIN),
    "NUL and a suffix": beside(entry("x\0.txt"), words=PLAIN),
    "NUL after dots": beside(entry("..\0/x"), words=PLAIN),
    "half of a surrogate pair": beside(entry("x\ud800"), words=NO_NAME),
    "a component of 256 bytes": beside(entry("é" * 128), words="File name too long"),
    "a path of 5,000 bytes": beside(entry("/".join("x" * 9 for _ in range(500))), words="File name too long"),
    "3,000 directories": beside(entry("/".join("d" * 3000) + "/x"), words="File name too long"),
    "our manifest": beside(entry(MANIFEST), words="cloudsend's own name"),
    "our manifest, with a dot": beside(entry("./" + MANIFEST), words=PLAIN),
    "a name that is a number": beside(entry(7), words=MALFORMED),
    "a name that is a list": beside(entry(["x"]), words=MALFORMED),
    "a name that is nothing": beside(entry(None), words=MALFORMED),
    "a name that is an object": beside(entry({"path": "x"}), words=MALFORMED),
    "a name in escapes": beside(entry(f"../{ESCAPE}"), words="'../\\x1b]0;owned\\x07"),
    # Names that are odd and lead nowhere.
    "backslashes": Lie([entry("..\\..\\x")], home={"..\\..\\x": b"x"}),
    "a drive": Lie([entry("C:\\x"), entry("c:")], home={"C:\\x": b"x", "c:": b"x"}),
    "devices of Windows": Lie([entry(n) for n in ("CON", "nul.txt", "aux", "COM1")], home=dict.fromkeys(
        ("CON", "nul.txt", "aux", "COM1"), b"x")),
    "a home directory": Lie([entry("~/x"), entry("~root/x")], home={"~/x": b"x", "~root/x": b"x"}),
    "an option": Lie([entry("-rf"), entry("--help/-x")], home={"-rf": b"x", "--help/-x": b"x"}),
    "shell text": Lie([entry("$(touch precious);`id`|x&")], home={"$(touch precious);`id`|x&": b"x"}),
    "newline and escapes": Lie([entry(f"a\nb{ESCAPE}")], home={f"a\nb{ESCAPE}": b"x"}),
    "right to left": Lie([entry("cod\u202egpj.exe")], home={"cod\u202egpj.exe": b"x"}),
    "capitals": Lie([entry("a"), entry("A")], home={"a": b"x", "A": b"x"}),
    "two spellings of é": Lie([entry(unicodedata.normalize(f, "é")) for f in ("NFC", "NFD")], home={
        unicodedata.normalize(f, "é"): b"x" for f in ("NFC", "NFD")}),
    "dots and spaces": Lie([entry(n) for n in ("...", "x ", " ", "x.", "..x")], home=dict.fromkeys(
        ("...", "x ", " ", "x.", "..x"), b"x")),
    "names of versions beside": Lie([entry("job~1"), entry("job~1 x")], home={"job~1": b"x", "job~1 x": b"x"}),
    # Names of ours further down, where the results of another job may lie.
    "a manifest of another job": Lie([*ONE, entry("part/" + MANIFEST)], home=GOOD),
    "a file below such a name": Lie([*ONE, entry(f"part/{MANIFEST}/x")], home=GOOD),
    "an arrival of another job": Lie([*ONE, entry(".partial-part-r.2.1/x")], home=GOOD),
    "a link for an arrival": Lie([*ONE, link(".partial-part-r.2.1", "good")], home=GOOD),
    "a link for a manifest": Lie([*ONE, link("part/" + MANIFEST, "../good")], home=GOOD),
    # Twice, and as two things.
    "the same twice": beside(entry("x"), entry("x"), words="twice"),
    "the same, other bytes": beside(entry("x"), entry("x", b"yy"), words="twice"),
    "a file and a directory": beside(entry("x"), entry("x/y"), words="exists"),
    "a directory and a file": beside(entry("x/y"), entry("x"), words="exists"),
    "a file and a link": Lie([entry("x"), link("x", "/etc/passwd")], home={"x": b"x"}),
    "a link and a file through it": Lie([link("l", "{fence}/elsewhere"), entry("l/x")], home={"l/x": b"x"}),
    "a link up and a file through it": Lie([link("l", "../.."), entry("l/x")], home={"l/x": b"x"}),
    "a link to a link and a file": Lie([link("l", "m"), link("m", "."), entry("l/x")], home={"l/x": b"x"}),
    # Links.
    "a link out of the fence": Lie([*ONE, link("l", "{fence}/precious")], home=GOOD),
    "a link up": Lie([*ONE, link("l", "../../../precious")], home=GOOD),
    "a link to itself": Lie([*ONE, link("l", "l")], home=GOOD),
    "links in a circle": Lie([*ONE, link("l", "m"), link("m", "l")], home=GOOD),
    "a link into /proc": Lie([*ONE, link("l", "/proc/self/root/etc/passwd")], home=GOOD),
    "a link in an absolute disguise": Lie([*ONE, link("l", "//{fence}/precious")], home=GOOD),
    "NUL in a goal": Lie([*ONE, link("l", "good\0/../..")], home=GOOD),
    "no goal": Lie([*ONE, link("l", None)], home=GOOD),
    "a link of no name": Lie([*ONE, link("", "good")], home=GOOD),
    "a link named up": Lie([*ONE, link("../l", "good")], home=GOOD),
    "a link by way of a link that leads to a shallower place": Lie(
        [entry("t/f"), entry("p/elsewhere"), link("p/q/l", "../../t"), link("x", "p/q/l/../../elsewhere")],
        home={"t/f": b"x", "p/elsewhere": b"x"}, links={"p/q/l": "../../t"}),
    "a link up after a name": Lie([*ONE, entry("d/x"), link("l", "d/../good")], home={**GOOD, "d/x": b"x"}),
    "ten thousand links": Lie([*ONE, *(link(f"l{n}", "/etc") for n in range(10_000))], home=GOOD),
    "a good link": Lie([*ONE, link("d/l", "../good")], home=GOOD, links={"d/l": "../good"}),
    # Kinds of members that archives have.
    "a hard link in words": beside({"path": "h", "hardlink": "../../precious"}, words=MALFORMED),
    "a hard link with a size": Lie([entry("h", type="hardlink", linkname="../precious")], home={"h": b"x"}),
    "a device in words": Lie([entry("d", type="chr", major=1, minor=3, mode=0o20666)], home={"d": b"x"}),
    "a pipe in words": Lie([entry("p", type="fifo", mode=0o10644)], home={"p": b"x"}),
    "an owner and attributes": Lie(
        [entry("o", uid=0, gid=0, xattr={"security.capability": "x"}, pax={"path": "../x"})], home={"o": b"x"}),
    # Sizes.
    "a size below nothing": beside(entry("x", size=-1), words=MALFORMED),
    "a size of 2^63": beside(entry("x", size=1 << 63), words=MALFORMED),
    "a size of a thousand digits": beside(entry("x", size=10**1000), words=MALFORMED),
    "a size of 2^59": beside(entry("x", size=1 << 59), words="are free in"),
    "sizes that only together are too large": Lie([entry(f"{n}", size=1 << 45) for n in range(999)], words="are free"),
    "half a byte": beside(entry("x", size=0.5), words=MALFORMED),
    "a size that is no number": beside(entry("x", size=math.nan), words=MALFORMED),
    "a size in words": beside(entry("x", size="1"), words=MALFORMED),
    "a size that is true": beside(entry("x", size=True), words=MALFORMED),
    "a size of nothing": beside({"path": "x", "sha256": "0" * 64}, words=MALFORMED),
    "less than was said": beside(entry("x", b"xxx"), words="x became shorter"),
    "nothing at all": beside(entry("x", b"xxx"), words="good became shorter", reply=lambda f: with_payload(b"")),
    "nothing said, bytes sent": Lie([entry("x", b"")], home={"x": b""}, sent={"x": b"more"}),
    "endless bytes for one": beside(
        entry("x"), words="became shorter", reply=lambda f: with_payload(b"x" * (1 << 20))),
    # Digests.
    "a wrong digest": beside(entry("x", sha256="0" * 64), words="changed while it was sent"),
    "the digest of another": beside(entry("x", sha256=hashlib.sha256(b"y").hexdigest()), words="changed while"),
    "a digest in capitals": beside(entry("x", sha256=hashlib.sha256(b"x").hexdigest().upper()), words=MALFORMED),
    "a digest with a path": beside(entry("x", sha256="../" * 20 + "abcd"), words=MALFORMED),
    "a digest with a newline": beside(entry("x", sha256="0" * 64 + "\n"), words=MALFORMED),
    # Modes and times.
    "all bits": Lie([entry("x", mode=0o7777777)], home={"x": b"x"}),
    "no bits": Lie([entry("x", mode=0)], home={"x": b"x"}),
    "a time beyond all calendars": Lie([entry("x", mtime_ns=1 << 200)], home={"x": b"x"}),
    "a time that is no number": Lie([entry("x", mtime_ns=math.nan)], home={"x": b"x"}),
    # Replies.
    "an error in escapes": beside(words="no?", reply=refusing(code="os", message=f"no{ESCAPE}")),
    "an error of a megabyte": beside(words="eeee", reply=refusing(code="os", message="e" * (1 << 20))),
    "an error without words": beside(words="code", reply=refusing(code="os")),
    "an error that is a list": beside(words="[1, 2]", reply=lambda f: Frame(ok=False, error=[1, 2])),
    "neither good nor bad": beside(words="None", reply=lambda f: Frame()),
    "good in other words": beside(words="None", reply=lambda f: Frame(ok="yes")),
    # The list itself.
    "no list": Lie({"x": 1}, words="not a list"),
    "a text for a list": Lie("x" * 100_000, words="not a list"),
    "a list of texts": Lie(["x"], words=MALFORMED),
    "a list of lists": Lie([[["x"]]], words=MALFORMED),
    "a refused list": Lie(Frame(ok=False, error={"code": "unknown", "message": "no such attempt"}), words="no such"),
    "a good answer without a list": Lie(Frame(ok=True), words="not a list"),
    "two thousand empty files": Lie([entry(f"{n % 100}/{n}", b"") for n in range(2000)], home={
        f"{n % 100}/{n}": b"" for n in range(2000)}),
}  # fmt: skip


def fill(value: Any, fence: str) -> Any:
    """The lie with the real paths of this test."""
    if isinstance(value, str):
        return value.replace("{fence}", fence)
    if isinstance(value, dict) and not isinstance(value, Frame):
        return {fill(k, fence): fill(v, fence) for k, v in value.items()}
    return [fill(v, fence) for v in value] if isinstance(value, list) else value


def files_below(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != MANIFEST
    }


@pytest.mark.parametrize("name", LIES)
def test_nothing_is_written_outside(name: str, fenced: Path) -> None:
    lie = LIES[name]
    lie = Lie(**{**vars(lie), "files": fill(lie.files, str(fenced))})
    home = Home(str(Path.cwd() / "results"), "r", "job")
    destination = job_directory(home)
    before = snapshot(fenced, leave_out=destination)
    problem = fetch(lie, home)
    outside = snapshot(fenced, leave_out=destination)
    for made in (destination.parent, destination.parent.parent):  # these, and nothing else, are made on the way
        outside.pop(str(made), None)
    assert outside == before
    if lie.words:
        assert lie.words in problem
        assert len(problem) <= 1000
        assert not destination.exists()
        return
    assert problem == ""
    assert files_below(destination) == lie.home
    made_links = {str(p.relative_to(destination)): os.readlink(p) for p in destination.rglob("*") if p.is_symlink()}
    assert made_links == lie.links
    for path in destination.rglob("*"):
        assert path.resolve().is_relative_to(destination)
        mode = path.lstat().st_mode
        assert stat.S_ISLNK(mode) or not mode & 0o7022, oct(mode)
    json.loads((destination / MANIFEST).read_text())


def test_the_corpus_is_large_enough(summary_line: Callable[[str], None]) -> None:
    assert len(LIES) >= 60
    summary_line(f"hostile results: {len(LIES)}")


# ---- one machine's results and those of another --------------------------------------------------------------------


def test_a_machine_cannot_write_among_the_results_of_another_job(fenced: Path) -> None:
    """Seen: the machine of a job `job` sent `part/a`, and had the results of the job `job/part`."""
    results = str(fenced / "results")
    assert fetch(Lie([entry("mine")]), Home(results, "r", "job"), "r.1.1") == ""
    assert fetch(Lie([entry("a")]), Home(results, "r", "job/part"), "r.2.1") == ""
    evil = Lie([entry("mine"), entry("part/a", b"evil")], sent={"part/a": b"evil"})
    assert "holds the results of another job, r.2" in fetch(evil, Home(results, "r", "job"), "r.1.1")
    assert (fenced / "results/r/job/part/a").read_bytes() == b"x"


def test_a_machine_cannot_make_the_results_of_another_job_look_late(fenced: Path) -> None:
    results = str(fenced / "results")
    forged = json.dumps({"attempt": "r.2.999", "files": []}).encode()
    evil = Lie([entry("part/" + MANIFEST, forged), entry("part/x")], sent={"part/" + MANIFEST: forged})
    assert fetch(evil, Home(results, "r", "job"), "r.1.1") == ""
    assert fetch(Lie([entry("a")]), Home(results, "r", "job/part"), "r.2.1") == ""
    assert (fenced / "results/r/job/part/a").read_bytes() == b"x"


@pytest.mark.parametrize("evil", [[entry("part")], [entry("good"), link("part", "good")], [
    entry("d/x"), link("part", "d")]], ids=["file", "link", "link to a directory"])  # fmt: skip
def test_a_machine_cannot_keep_the_results_of_another_job_from_coming_home(evil: list[Any], fenced: Path) -> None:
    results = str(fenced / "results")
    assert fetch(Lie(evil), Home(results, "r", "job"), "r.1.1") == ""
    assert fetch(Lie([entry("a")]), Home(results, "r", "job/part"), "r.2.1") == ""
    assert fetch(Lie([entry("b")]), Home(results, "r", "job/part/deep"), "r.3.1") == ""
    assert (fenced / "results/r/job/part/a").read_bytes() == b"x"
    assert (fenced / "results/r/job/part/deep/b").read_bytes() == b"x"
    assert not (fenced / "results/r/job/d/a").exists()

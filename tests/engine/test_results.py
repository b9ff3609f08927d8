"""Results come home whole, under their own names, and never outside their directory, whatever a host says."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.engine.asking import Ahead, Ask
from cloudsend_cli.engine.results import MANIFEST, Home, ResultError, job_directory, parse_manifest
from cloudsend_cli.engine.transfer import fetch_files

from .engine_machine import Machine


class LyingHost:
    """Answers a fetch as it likes."""

    def __init__(self, manifest: object, contents: dict[str, bytes] | None = None) -> None:
        self.manifest = manifest
        self.contents = contents or {}
        self.turns = 0

    def fetch(self, home: Home, attempt: str = "r.1.1") -> str:
        conversation = fetch_files(attempt, ["**"], home)
        under_way: deque[list[Ask]] = deque()
        try:
            wish = next(conversation)
            while True:
                self.turns += not isinstance(wish, Ahead)
                under_way.append(wish.asks if isinstance(wish, Ahead) else wish)
                asks = [] if isinstance(wish, Ahead) else under_way.popleft()
                wish = conversation.send([self.answer(a.op, a.fields) for a in asks])
        except StopIteration as end:
            return str(end.value)

    def answer(self, op: str, fields: dict[str, Any]) -> Frame:
        if op == "manifest":
            return Frame(ok=True, files=self.manifest)
        data = self.contents.get(fields["path"], b"")
        reply = Frame(ok=True)
        reply.payload = data[fields["offset"] : fields["offset"] + fields["length"]]
        return reply


def entry(path: str, data: bytes = b"x", **more: object) -> dict[str, object]:
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "mode": 0o644, **more}


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path / "results"), "r", "job")


HOSTILE = [
    "../outside", "a/../../outside", "/etc/outside", "//outside", "", ".", "..", "a//b", "a/./b", "a/", "a\0b",
    "\ud800", "x" * 300, "/".join(["d" * 200] * 30), MANIFEST,
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE, ids=lambda p: repr(p)[:20])
def test_a_hostile_name_is_refused_and_nothing_is_written(tmp_path: Path, home: Home, path: str) -> None:
    good = entry("good")
    host = LyingHost([good, entry(path)], {"good": b"x", path: b"x"})
    assert host.fetch(home) != ""
    assert tree(tmp_path) == {}
    assert not (tmp_path / "results" / "r").exists() or os.listdir(tmp_path / "results" / "r") == []


MALFORMED = [
    None, {}, "x", [1], [None], [{}], [{"path": 3}], [{"path": "a"}], [entry("a", size=-1)], [entry("a", size=True)],
    [entry("a", size=1.5)], [entry("a", size=1 << 70)], [entry("a", sha256="x")], [entry("a", sha256="A" * 64)],
    [entry("a", sha256=None)], [entry("a"), entry("a")],
]  # fmt: skip


@pytest.mark.parametrize("manifest", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_manifest_is_refused(manifest: object) -> None:
    with pytest.raises(ResultError):
        parse_manifest(manifest)


def test_odd_modes_and_times_are_tamed(home: Home) -> None:
    odd = [entry("a", mode=0o6777), entry("b", mode="rwx"), entry("c", mtime_ns=1 << 80), entry("d", mtime_ns=-5)]
    assert LyingHost(odd, dict.fromkeys("abcd", b"x")).fetch(home) == ""
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in job_directory(home).iterdir() if p.name != MANIFEST}
    assert modes == {"a": 0o755, "b": 0o644, "c": 0o644, "d": 0o644}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("l", "/etc/passwd"), ("l", "../a"), ("l", "nothing"), ("l", "."), ("d", "a"), ("a", "d/b"), ("../l", "a"),
        ("l/m", "a"), (MANIFEST, "a"), ("l", 3), ("l", "a\ud800"), ("l", "d/../../a"), ("l", ""),
    ],
)  # fmt: skip
def test_links_that_lead_elsewhere_are_left_out_and_named(home: Home, path: str, target: object) -> None:
    links = [{"path": path, "link": target}] + ([{"path": "l", "link": "/tmp"}] if path == "l/m" else [])
    assert LyingHost([*links, entry("a"), entry("d/b")], {"a": b"x", "d/b": b"x"}).fetch(home) == ""
    found = tree(job_directory(home))
    assert sorted(found) == [MANIFEST, "a", "d/b"]
    assert path in json.loads(found[MANIFEST])["links_left_out"]


def test_links_among_the_results_come_home(home: Home) -> None:
    links = [{"path": "latest", "link": "d/b"}, {"path": "d/up", "link": "../a"}, {"path": "dir", "link": "d"}]
    for attempt in ("r.1.1", "r.1.1", "r.1.2"):
        host = LyingHost([*links, entry("a"), entry("d/b")], {"a": b"x", "d/b": b"x"})
        assert host.fetch(home, attempt) == ""
        made = {p: os.readlink(job_directory(home) / p) for p in ("latest", "d/up", "dir")}
        assert made == {"latest": "d/b", "d/up": "../a", "dir": "d"}


def test_a_file_where_a_directory_should_be_fails_and_leaves_nothing(tmp_path: Path, home: Home) -> None:
    assert LyingHost([entry("a"), entry("a/b")], {"a": b"x", "a/b": b"x"}).fetch(home) != ""
    assert tree(tmp_path) == {}


def test_more_than_the_disk_holds_is_refused_before_it_is_asked_for(tmp_path: Path, home: Home) -> None:
    host = LyingHost([entry("a", size=1 << 59)])
    assert "are free in" in host.fetch(home)
    assert (host.turns, tree(tmp_path)) == (1, {})


@pytest.mark.parametrize("sent", [b"y", b"", b"xx"])
def test_other_bytes_than_promised_are_refused(tmp_path: Path, home: Home, sent: bytes) -> None:
    host = LyingHost([entry("good"), entry("bad", b"x")], {"good": b"x", "bad": sent})
    problem = host.fetch(home)
    if sent == b"xx":
        assert problem == ""  # never more is asked for than was promised
    else:
        assert problem.startswith("bad ")
        assert tree(tmp_path) == {}


def test_many_small_files_cost_few_round_trips(home: Home) -> None:
    names = [f"d{n % 7}/f{n}" for n in range(500)]
    host = LyingHost([entry(n, n.encode()) for n in names], {n: n.encode() for n in names})
    assert host.fetch(home) == ""
    assert host.turns == 9
    assert len(tree(job_directory(home))) == 501


def test_the_manifest_tells_whose_results_these_are(home: Home) -> None:
    assert LyingHost([entry("caf\udce9"), entry("empty", b"")], {"caf\udce9": b"x"}).fetch(home) == ""
    manifest = json.loads((job_directory(home) / MANIFEST).read_text())
    assert manifest["attempt"] == "r.1.1"
    assert [f["path"] for f in manifest["files"]] == ["caf\udce9", "empty"]
    assert (job_directory(home) / os.fsdecode(b"caf\xe9")).read_bytes() == b"x"


# ---- what lay there before -----------------------------------------------------------------------------------------


def test_results_of_an_earlier_attempt_are_kept_beside(home: Home) -> None:
    for attempt, data in (("r.1.1", b"1"), ("r.1.2", b"2"), ("r.1.3", b"3")):
        assert LyingHost([entry("a", data)], {"a": data}).fetch(home, attempt) == ""
    directory = job_directory(home)
    found = {p.name: (p / "a").read_bytes() for p in directory.parent.iterdir()}
    assert found == {"job": b"3", "job~1": b"1", "job~2": b"2"}


def test_results_of_an_earlier_attempt_that_come_late_do_not_take_the_place_of_newer_ones(home: Home) -> None:
    for attempt, data in (("r.1.2", b"new"), ("r.1.1", b"old")):
        assert LyingHost([entry("a", data)], {"a": data}).fetch(home, attempt) == ""
    assert (job_directory(home) / "a").read_bytes() == b"new"
    assert (job_directory(home).with_name("job~1") / "a").read_bytes() == b"old"


def test_the_same_attempt_again_replaces_its_files_and_leaves_the_users(home: Home) -> None:
    assert LyingHost([entry("a", b"1"), entry("d/b", b"1")], {"a": b"1", "d/b": b"1"}).fetch(home) == ""
    directory = job_directory(home)
    (directory / "d" / "plot.png").write_bytes(b"the user's own")
    assert LyingHost([entry("a", b"2"), entry("d/b", b"2")], {"a": b"2", "d/b": b"2"}).fetch(home) == ""
    assert {k: v for k, v in tree(directory).items() if k != MANIFEST} == {
        "a": b"2", "d/b": b"2", "d/plot.png": b"the user's own",
    }  # fmt: skip
    assert os.listdir(directory.parent) == ["job"]


def test_what_the_user_put_there_is_not_overwritten(home: Home) -> None:
    directory = job_directory(home)
    (directory / "d").mkdir(parents=True)
    (directory / "a").write_bytes(b"the user's own")
    (directory / "d" / "other").write_bytes(b"stays")
    assert LyingHost([entry("a", b"1"), entry("d/b", b"1")], {"a": b"1", "d/b": b"1"}).fetch(home) == ""
    assert (directory / "a").read_bytes() == b"1"
    assert (directory.with_name("job~1") / "a").read_bytes() == b"the user's own"
    assert (directory / "d" / "other").read_bytes() == b"stays"


@pytest.mark.parametrize("outer_first", [True, False])
def test_jobs_whose_names_lie_in_each_other_keep_all_results(home: Home, outer_first: bool) -> None:
    inner, outer = Home(home.results_dir, "r", "job/part"), home
    for one in (outer, inner) if outer_first else (inner, outer):
        assert LyingHost([entry("a", one.name.encode())], {"a": one.name.encode()}).fetch(one, f"{one.name}.1.1") == ""
    again = LyingHost([entry("a", b"newer")], {"a": b"newer"})
    assert again.fetch(outer, "r.1.2") == ""
    assert (job_directory(outer) / "a").read_bytes() == b"newer"
    assert (job_directory(inner) / "a").read_bytes() == b"job/part"


def test_nothing_is_written_through_a_link_that_lies_there(tmp_path: Path, home: Home) -> None:
    directory = job_directory(home)
    directory.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (directory / "d").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in LyingHost([entry("d/b")], {"d/b": b"x"}).fetch(home)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_two_fetches_of_one_attempt_at_once_do_not_disturb_each_other(home: Home) -> None:
    host = LyingHost([entry("a")], {"a": b"x"})
    first = fetch_files("r.1.1", ["**"], home)
    manifest = next(first)
    assert isinstance(manifest, list)
    ahead = first.send([host.answer(a.op, a.fields) for a in manifest])
    assert isinstance(ahead, Ahead)
    assert first.send([]) == []
    assert host.fetch(home) == ""
    with pytest.raises(StopIteration) as end:
        first.send([host.answer(a.op, a.fields) for a in ahead.asks])
    assert end.value.value == ""
    assert os.listdir(job_directory(home).parent) == ["job"]


def test_a_fetch_that_was_killed_leaves_nothing_that_disturbs_the_next(home: Home) -> None:
    partial = job_directory(home).with_name(".partial-job-r.1.1")
    partial.mkdir(parents=True)
    (partial / "a").write_bytes(b"half")
    assert LyingHost([entry("a")], {"a": b"x"}).fetch(home) == ""
    assert os.listdir(job_directory(home).parent) == ["job"]


# ---- with a real agent ---------------------------------------------------------------------------------------------


def test_every_name_a_file_can_have_comes_home(machine: Machine) -> None:
    machine.connect()
    script = (
        "mkdir -p 'a b/new\nline' -- '-rf'; printf 1 > 'a b/new\nline/x'; printf 2 > -rf/'$HOME;`id`';"
        ' printf 3 > "$(printf \'caf\\351\')"; printf 4 > é; printf 5 > "$(printf %0255d 0)"; : > empty; ln -s / root'
    )
    machine.start(machine.job(1, script, outputs=["**"]))
    assert machine.ended(1).exit_code == 0
    assert machine.fetch(1, "**") == ""
    found = tree(job_directory(Home(str(machine.results), machine.run, "j1")))
    del found[MANIFEST]
    assert found == {
        "a b/new\nline/x": b"1", "-rf/$HOME;`id`": b"2", "caf\udce9": b"3", "é": b"4", "0" * 255: b"5", "empty": b"",
    }  # fmt: skip


def test_large_results_arrive_whole(machine: Machine) -> None:
    machine.connect()
    machine.start(machine.job(1, "head -c 20000000 /dev/urandom > big; sha256sum < big", outputs=["big"]))
    assert machine.ended(1).exit_code == 0
    assert machine.fetch(1, "big") == ""
    home = job_directory(Home(str(machine.results), machine.run, "j1"))
    log = machine.home / "attempts" / f"{machine.run}.1.1" / "stdout"
    assert log.read_text().split()[0] == hashlib.sha256((home / "big").read_bytes()).hexdigest()


def test_results_of_a_failed_job_come_home_too(machine: Machine) -> None:
    machine.connect()
    machine.start(machine.job(1, "echo partly > out; exit 1", outputs=["out", "never"]))
    assert machine.ended(1).exit_code == 1
    assert machine.fetch(1, "out", "never") == ""
    assert (job_directory(Home(str(machine.results), machine.run, "j1")) / "out").read_text() == "partly\n"


def test_a_file_that_changes_while_it_is_sent_is_refused_or_whole(machine: Machine, tmp_path: Path) -> None:
    machine.connect()
    stop = tmp_path / "stop"
    script = f"head -c 3000000 /dev/zero > f; while [ ! -e {stop} ]; do head -c 3000000 /dev/urandom > f; done"
    machine.start(machine.job(1, script))
    machine.running(1)
    problems = {machine.fetch(1, "f") for _ in range(3)}
    stop.touch()
    assert machine.ended(1).exit_code == 0
    for problem in problems - {""}:
        assert problem == "f changed while it was sent, or arrived damaged" or "became shorter" in problem
    assert machine.fetch(1, "f") == ""

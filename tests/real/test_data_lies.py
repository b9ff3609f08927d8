"""D1, D2, D3, D6: hosts that lie, and bytes that change, between the agent and us."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from network_faults import FaultyCluster, Watch
from real_stack import wait_for
from sshlab import Lab, LabHost

from cloudsend_cli.errors import CloudsendError, UnreachableError

MakeHosts = Callable[..., list[LabHost]]
LIAR = (Path(__file__).parents[1] / "lying_host.py").read_text(encoding="utf-8")
TRUE = b"what the job wrote\n"
MEMORY_MOST = 400 << 20


@pytest.fixture
def cluster(state_dir: Path, shared_lab: Lab, lab_hosts: MakeHosts) -> Iterator[FaultyCluster]:
    """The first host lies, the second does not."""
    made = FaultyCluster(state_dir, shared_lab, lab_hosts(2))
    made.hosts[0].write("/usr/local/bin/liar", LIAR, mode=0o755, root=True)
    made.hosts[0].sshd(ForceCommand="/usr/bin/python3 /usr/local/bin/liar")
    yield made
    made.close()


def tell_lies(host: LabHost, **lies: object) -> None:
    host.write("lies.new", json.dumps(lies))
    host.sh("mv lies.new lies.json")


def lies_left(host: LabHost) -> Any:
    return json.loads(host.read("lies.json"))


def text(*lines: object) -> dict[str, object]:
    words = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    return {"kind": "text", "text": "".join(f"{word}\n" for word in words)}


# What no agent says: the connection is of no more use.
NONSENSE: dict[str, dict[str, object]] = {
    "garbage": text("\x00\x01 garbage \udcff"),
    "no newline": {"kind": "random"},
    "a payload of 1 GiB": text({"re": 1, "ok": True, "size": 1 << 30}),
    "a payload of less than nothing": text({"re": 1, "ok": True, "size": -1}),
    "a size that is no number": text({"re": 1, "ok": True, "size": "9"}),
    "a log of 1 GiB": text({"ev": "log", "attempt": "x", "size": 1 << 30}),
    "a line of 4 MiB": {"kind": "repeat", "text": "x" * 1024, "count": 4096},
    "nested without end": text('{"ev":' + "[" * 200_000),
    "a list": text([1, 2]),
    "null": text("null"),
    "half a frame": {"kind": "cut"},
    "an infinite number of parts": {
        "kind": "repeat",
        "text": json.dumps({"re": 1, "ok": True, "more": True, "attempts": {"x" * 10_000: {}}}) + "\n",
        "count": 7_000,
    },
}


def strange(run: str, own: str, other: str) -> dict[str, dict[str, object]]:
    """What is in the form of frames, and nonsense: it is left aside, or the connection is given up, as may be."""
    ended = {"state": "exited", "exit_code": 3, "started": 1, "ended": 2, "stdout_size": 5, "stderr_size": 5}
    running = {"state": "running", "started": 1e300, "pid": 1}

    def changes(items: object) -> dict[str, object]:
        return text({"ev": "changes", "items": items})

    return {
        "old frames again": {"kind": "again"},
        "replies to nothing": text(
            {"re": 10**9, "ok": True}, {"re": 0, "ok": True}, {"re": -1}, {"re": True}, {"re": []}
        ),
        "events of odd kinds": text(
            {"ev": 5}, {"ev": None}, {"ev": {"a": 1}}, {}, {"ev": "error", "error": "x\x1b[2J"}
        ),
        "no numbers": text('{"ev":"heartbeat","load":NaN,"free":{"cpus":Infinity,"memory":1e999},"disk_free":"x"}'),
        "vitals of odd kinds": text({"ev": "heartbeat", "free": [1], "load": {}, "others": -5, "disk_free": True}),
        "changes that are a list": changes([1, 2]),
        "statuses of odd kinds": changes({own: 5, f"{own}x": None, "": [], other: "exited"}),
        "a start in a year that no calendar has": changes({own: running}),
        "the end of another machine's job": changes({other: ended}),
        "ends of attempts that there never were": changes(
            {f"{run}.9.1": ended, f"{run}.1.7": ended, "zzzzzz.1.1": ended}
        ),
        "ends under names that are paths": changes(
            {name: ended for name in (f"{own}/../../../../evil", f"../{own}", f"{run}./etc/evil.1", f"{run}.1.1\x00")}
        ),
        "words that are no text": text(
            '{"ev":"changes","items":{"' + own + '":{"state":"\\ud800","cause":"\\udcff"}}}'
        ),
        "a flood": {"kind": "repeat", "text": json.dumps({"ev": "heartbeat", "load": 1}) + "\n", "count": 20_000},
    }


def provoke(cluster: FaultyCluster, run: str, liar: LabHost, lie: dict[str, object]) -> None:
    """Have the lie told, and wait until the machine serves again."""
    tell_lies(liar, next=[lie])
    while lies_left(liar)["next"]:
        with contextlib.suppress(UnreachableError):
            cluster.tail(liar.name)

    def serves() -> bool:
        with contextlib.suppress(UnreachableError):
            return cluster.phase(run, liar.name) == "RUNNING" and bool(cluster.tail(liar.name))
        return False

    wait_for(serves)


def test_d1_a_host_that_talks_nonsense_harms_only_itself_and_its_job_goes_on(
    cluster: FaultyCluster, summary_line: Callable[[str], None]
) -> None:
    liar, honest = cluster.hosts
    run = cluster.submit(jobs=[cluster.writer(liar), cluster.writer(honest)])
    watch = Watch(cluster.state, run)
    try:
        for host in cluster.hosts:
            watch.until(host.name, "RUNNING", 0.0)
        jobs = cluster.jobs(run)
        for what, lie in NONSENSE.items():
            before = cluster.count_connections(liar)
            provoke(cluster, run, liar, lie)
            assert cluster.count_connections(liar) > before, what
        others = strange(run, str(jobs[liar.name].uid), str(jobs[honest.name].uid))
        for lie in others.values():
            provoke(cluster, run, liar, lie)
            assert {job.state for job in cluster.jobs(run).values()} == {"running"}
        for host in cluster.hosts:
            host.write("stop", "")
        cluster.settle(run)
        for host in cluster.hosts:
            job = cluster.jobs(run)[host.name]
            assert (job.state, job.attempt) == ("succeeded", 1)
            assert cluster.ledger(host) == [job.uid]
            assert cluster.tail(host.name) == cluster.truth(host)
        assert "UNKNOWN" not in watch.seen(honest.name)
        assert cluster.count_connections(honest) == 1
        words = cluster.command("list", "jobs", "-o", "json")
        assert words.finish() == 0
        assert {job["state"] for job in json.loads(words.data)} == {"succeeded"}
        assert cluster.log_of_maestro().count("Traceback") == 0
        assert "\x1b" not in cluster.log_of_maestro()
        summary_line(
            f"lies: {len(NONSENSE) + len(others)} kinds of nonsense from a host, maestro at {peak(cluster) >> 20} MiB"
        )
        assert peak(cluster) < MEMORY_MOST
    finally:
        watch.close()


def peak(cluster: FaultyCluster) -> int:
    """The most memory that the maestro had."""
    pid = cluster.maestro()
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def entry(path: object, **more: object) -> dict[str, object]:
    """A result as an agent names it; whatever is asked for under the name, the host sends TRUE."""
    digest = hashlib.sha256(TRUE).hexdigest()
    return {"path": path, "size": len(TRUE), "mode": 0o644, "mtime_ns": 10**18, "sha256": digest, **more}


def link(path: str, target: object) -> dict[str, object]:
    return {"path": path, "link": target}


def hostile(outside: Path, other: str) -> list[object]:
    """Lists of results that name what is not the job's: `outside` is a directory, `other` the name of another job."""
    up = [f"{'../' * n}evil" for n in range(1, 9)]
    paths: list[object] = [*up, *(f"a/{path}" for path in up)]
    paths += [f"{outside}/evil", f"/{outside}/evil", f"//{outside}/evil", f"{outside}/../evil"]
    paths += [f"../{other}/out.txt", f"../{other}/.cloudsend.json", f"../../{other}/evil", "a/../../../evil"]
    paths += ["..", ".", "", "/", "./evil", "a//evil", "a/./evil", "a/..", "evil/", "evil/.", ".cloudsend.json"]
    paths += ["evil\0", "\0", "a\0/../../evil", "\ud800", "\udc2e\udc2e/evil", "out.txt/evil"]
    paths += ["x" * 300, "x" * 5000, "x/" * 3000 + "evil", 5, None, True, ["evil"], {"a": "evil"}]
    odd = [entry("evil", size=size) for size in (-1, 1 << 62, 1 << 50, len(TRUE) + 1, True, 1.5, "9", None)]
    odd += [entry("evil", sha256=sha) for sha in ("0" * 64, "../evil", None, [])]
    through = [
        [link("l", str(outside)), entry("l/evil")],
        [link("l", ".."), entry("l/evil")],
        [link("l", "../.."), entry("l/evil")],
        [link("l", "."), entry("l/evil")],
        [link("a/l", ".."), entry("a/l/l/evil"), entry("out.txt")],
        [link("l", f"../{other}"), entry("l/out.txt")],
        [link("l", str(outside)), link("l/m", "evil")],
        [link("out.txt", f"{outside}/evil"), entry("out.txt")],
        [entry("out.txt"), link("l", "l")],
        [entry("out.txt"), link("l", f"{outside}/kept")],
        [entry("out.txt"), link("l", "../../../../../../../../etc/passwd")],
        [entry("out.txt"), link("../l", "out.txt")],
        [entry("out.txt"), link(f"{outside}/l", "out.txt")],
        [entry("out.txt"), link("l", None), link("m", 5), link("n", "")],
        [entry("out.txt"), link(".cloudsend.json", "out.txt")],
        [entry("out.txt"), entry("out.txt")],
        [entry("a"), entry("a/evil")],
        [entry("a/evil"), entry("a")],
        [entry("a", mode=0o6777), entry("b", mode=-1), entry("c", mode="rwx")],
        [entry("a", mtime_ns=1 << 90), entry("b", mtime_ns=-5), entry("c", mtime_ns="now")],
    ]
    good = entry("out.txt")
    second: list[object] = [*map(entry, paths), *odd, {"path": "evil"}, "evil", 7, None, []]
    return [[good, one] for one in second] + [*through, None, {}, 5, "evil", {"out.txt": good}, [[]]]


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below: mode, and content or target."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            about = path.lstat()
            if path.is_symlink():
                content = os.fsencode(path.readlink())
            else:
                content = b"" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(root))] = (about.st_mode, content)
    return found


def test_d2_no_byte_is_written_outside_whatever_a_host_says_that_its_results_are_called(
    cluster: FaultyCluster, tmp_path: Path, summary_line: Callable[[str], None]
) -> None:
    liar, honest = cluster.hosts
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("as it was")
    script = f"printf '%s' '{TRUE.decode()}' >out.txt"
    cases = hostile(outside, "honest")
    jobs = [cluster.job(liar, f"evil-{number}", script, output="out.txt") for number in range(len(cases))]
    config = cluster.config(jobs=[cluster.job(honest, "honest", script, output="out.txt"), *jobs])
    # The first job of a run has the number 1, and it is the honest one's.
    tell_lies(liar, manifests={str(number + 2): case for number, case in enumerate(cases)})
    around = {place: tree(place) for place in (outside, cluster.files, Path.home() / ".ssh") if place.exists()}
    run = cluster.client.submit(config).run
    cluster.settle(run)
    results = Path(cluster.client.find_run(run).results_dir)
    ended = cluster.jobs(run)
    assert {job.state for job in ended.values()} == {"succeeded"}
    assert ended["honest"].outputs == "home"
    assert (results / "honest" / "out.txt").read_bytes() == TRUE
    assert set(tree(results / "honest")) == {"out.txt", ".cloudsend.json"}
    for place, before in around.items():
        after = tree(place)
        if place == cluster.files:
            top = results.relative_to(place).parts[0]
            after = {path: what for path, what in after.items() if Path(path).parts[0] != top}
        assert after == before
    names = {f"evil-{number}" for number in range(len(cases))}
    refused = 0
    for path in results.parent.rglob("*"):
        inside = path.relative_to(results).parts if path != results and results in path.parents else ()
        assert path == results or inside, path
        if inside in {(name,) for name in ("results.csv", "results.json", ".cloudsend-results.json")}:
            continue  # the tables of the run
        assert not inside or inside[0] in names | {"honest"}, path
        if path.is_symlink():
            assert path.resolve().is_relative_to(results / inside[0]), path
        elif path.is_file() and path.name != ".cloudsend.json":
            assert path.read_bytes() == TRUE
            assert path.lstat().st_mode & 0o7022 == 0
    refused = sum(ended[name].outputs.startswith("failed: ") for name in names)
    assert refused > 60
    assert all("\n" not in job.outputs and "\x1b" not in job.outputs for job in ended.values())
    assert cluster.log_of_maestro().count("Traceback") == 0
    summary_line(f"lies: {len(cases)} lists of results, {refused} refused, no byte outside")


def test_d3_d6_results_and_uploads_that_change_on_the_way_are_brought_whole_or_not_at_all(
    cluster: FaultyCluster,
) -> None:
    """What changes once is brought by the next try; what changes at each try is not brought, and it is said."""
    liar = cluster.hosts[0]
    upload = cluster.files / "upload.bin"

    def run_one(name: str, **lies: dict[str, int]) -> str:
        upload.write_bytes(os.urandom(700_000))
        tell_lies(liar, **lies)
        script = "sha256sum <upload.bin; cat upload.bin >out.txt"
        run = cluster.run(cluster.job(liar, name, script, upload="upload.bin", output="out.txt"), fresh=True)
        job = cluster.jobs(run)[name]
        assert (job.state, job.attempt) == ("succeeded", 1), job
        assert cluster.tail(name) == f"{hashlib.sha256(upload.read_bytes()).hexdigest()}  -\n".encode()
        return job.outputs

    def came_home(name: str) -> bytes:
        results = cluster.client.find_run(cluster.client.find_job(name).run).results_dir
        return Path(results, name, "out.txt").read_bytes()

    once = {"flip": {"put": 1, "read": 1}, "touch": {"out.txt": 1}}
    assert run_one("once", **once) == "home"
    assert lies_left(liar) == {"flip": {"put": 0, "read": 0}, "touch": {"out.txt": 0}}
    assert came_home("once")[20:] == upload.read_bytes()[20:]
    assert came_home("once")[:20].isdigit()
    outputs = run_one("always", touch={"out.txt": 99})
    assert outputs.startswith("failed: ")
    assert "changed" in outputs
    assert not Path(cluster.client.find_run("@last").results_dir, "always").exists()
    with pytest.raises(CloudsendError, match="changed"):
        cluster.client.fetch("always")
    tell_lies(liar)
    cluster.client.fetch("always")
    assert came_home("always")[20:] == upload.read_bytes()[20:]

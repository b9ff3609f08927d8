"""Rows 2 and 3, on the machine: whatever a client writes into a spec, the agent lays files out below the job's
directory and nowhere else. `tests/agent/test_hostile.py` has ids and the plain cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent.conftest import Client, Host, sh
from fence import snapshot

REFUSED, FAILS, RUNS = "bad-spec", "start-failed", "runs"


def file(path: str, **more: object) -> dict[str, object]:
    return {"path": path, "sha256": "SHA", **more}


def link(path: str, target: str) -> dict[str, object]:
    return {"path": path, "link": target}


# What the spec holds, and what becomes of it. FENCE is a directory that nobody may touch, HOME the agent's.
SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "absolute": ({"files": [file("FENCE/x")]}, REFUSED),
    "up": ({"files": [file("../x")]}, REFUSED),
    "up to the record": ({"files": [file("../record")]}, REFUSED),
    "up after a name": ({"files": [file("a/../../spec.json")]}, REFUSED),
    "dots in disguise": ({"files": [file("a/./../x")]}, REFUSED),
    "two slashes": ({"files": [file("a//x")]}, REFUSED),
    "a slash behind": ({"files": [file("a/")]}, REFUSED),
    "NUL": ({"files": [file("a\0/../x")]}, REFUSED),
    "nothing": ({"files": [file("")]}, REFUSED),
    "a path of 5,000 bytes": ({"files": [file("d/" * 2500 + "x")]}, REFUSED),
    "a name of 300 bytes": ({"files": [file("x" * 300)]}, FAILS),
    "two hundred directories": ({"files": [file("d/" * 200 + "x")]}, RUNS),
    "the same twice": ({"files": [file("x"), file("x")]}, FAILS),
    "a file and a directory": ({"files": [file("x"), file("x/y")]}, FAILS),
    "through a link out": ({"files": [link("l", "FENCE"), file("l/x")]}, FAILS),
    "through a link up": ({"files": [link("l", ".."), file("l/x")]}, FAILS),
    "through two links": ({"files": [link("l", "m"), link("m", "FENCE"), file("l/x")]}, FAILS),
    "through a link to a file of the agent": ({"files": [link("l", "../record"), file("l")]}, FAILS),
    "a link onto a file": ({"files": [file("x"), link("x", "FENCE/precious")]}, FAILS),
    "a link named up": ({"files": [link("../l", "x")]}, REFUSED),
    "a link without a goal": ({"files": [link("l", "")]}, REFUSED),
    "a link with NUL": ({"files": [link("l", "a\0b")]}, REFUSED),
    "a digest that is a path": ({"files": [{"path": "x", "sha256": "../" * 21 + "x"}]}, REFUSED),
    "a digest in capitals": ({"files": [{"path": "x", "sha256": "A" * 64}]}, REFUSED),
    "a digest with a newline": ({"files": [{"path": "x", "sha256": "a" * 64 + "\n"}]}, REFUSED),
    "bits of a set-user program": ({"files": [file("x", mode=0o7777)], "private_files": True}, RUNS),
    "a mode that is no number": ({"files": [file("x", mode="0644")]}, REFUSED),
    "files that are no list": ({"files": {"path": "x"}}, REFUSED),
    "an environment up": ({"environment": "../../x"}, REFUSED),
    "an environment with a slash": ({"environment": "a/b"}, REFUSED),
    "an environment that is hidden": ({"environment": ".ssh"}, REFUSED),
    "an environment of 200 letters": ({"environment": "e" * 200}, REFUSED),
    "a directory up": ({"cwd": "../.."}, REFUSED),
    "a directory up after a name": ({"cwd": "a/../../.."}, REFUSED),
    "a directory with NUL": ({"cwd": "a\0"}, REFUSED),
    "a directory through a link": ({"cwd": "l/made", "files": [link("l", "FENCE")]}, RUNS),
    "an output up": ({"outputs": [{"pattern": "../../**"}]}, REFUSED),
    "an output of everything": ({"outputs": [{"pattern": "/"}]}, REFUSED),
    "a pattern that never ends": ({"outputs": [{"pattern": "*a" * 200}]}, RUNS),
    "a variable's name with =": ({"env": {"A=B": "c"}}, REFUSED),
    "a variable with NUL": ({"env": {"A": "b\0c"}}, REFUSED),
    "LD_PRELOAD": ({"env": {"LD_PRELOAD": "FENCE/precious", "LD_LIBRARY_PATH": "FENCE"}}, RUNS),
    "a variable of ours": ({"env": {"CLOUDSEND_RUN_DIR": "FENCE", "CLOUDSEND_ATTEMPT": "x"}}, RUNS),
    "no command": ({"argv": []}, REFUSED),
    "a command with NUL": ({"argv": ["true\0"]}, REFUSED),
    "a kind of its own": ({"kind": "root"}, REFUSED),
    "a build of what is ours": ({"kind": "build", "environment": "agent.sock"}, RUNS),
    "secrets that pretend": ({"has_secrets": True}, REFUSED),
}


def fill(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        for word, meaning in words.items():
            value = value.replace(word, meaning)
        return value
    if isinstance(value, dict):
        return {fill(k, words): fill(v, words) for k, v in value.items()}
    return [fill(v, words) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, agent_file: Path) -> Any:
    folder = tmp_path_factory.mktemp("machine")
    fence = folder / "fence"
    fence.mkdir()
    (fence / "precious").write_bytes(b"the user's own")
    host = Host(folder / "h", agent_file)
    client = host.attach(resources={"cpus": 4, "memory": 1 << 34, "gpus": 0})
    yield folder, host, client
    host.close()


@pytest.mark.parametrize("name", SPECS)
def test_nothing_is_laid_out_elsewhere(name: str, machine: tuple[Path, Host, Client]) -> None:
    folder, host, agent = machine
    content, outcome = SPECS[name]
    words = {"FENCE": str(folder / "fence"), "SHA": agent.put(b"data")}
    ident = f"s.{list(SPECS).index(name)}.1"
    spec = {**sh(ident, "true"), **fill(content, words)}
    place = host.home / "attempts" / ident
    before = snapshot(folder, leave_out=place)
    answer = agent.start(spec)[ident]
    if outcome == REFUSED:
        assert answer.startswith("bad-spec"), answer
        assert not place.exists()
    else:
        assert answer == "queued"
        status = agent.wait(ident)
        assert status["state"] == "exited"
        assert (status["cause"] == FAILS) == (outcome == FAILS), status
        assert status["exit_code"] == (126 if "cwd" in content else None if outcome == FAILS else 0)
    after = snapshot(folder, leave_out=place)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    # The agent's own: its log and journal; the mark of a build that succeeded; how often an upload is linked.
    own = {str(host.home / name) for name in ("agent.log", "journal", "envs/agent.sock", "envs/agent.sock/.ready")}
    assert {path for path in changed if path not in own} == set()
    for path in place.rglob("*"):
        assert path.is_symlink() or not path.lstat().st_mode & 0o7000, path


def test_the_table_is_large_enough(summary_line: Callable[[str], None]) -> None:
    assert len(SPECS) >= 40
    summary_line(f"hostile specs: {len(SPECS)}")

"""Bytes, types, ids and paths that nobody should send; and clients that were superseded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudsend_cli.agent.client import (
    AgentRefused,
    ChannelClosed,
    FrameDecoder,
    ProtocolError,
    agent_sha256,
    agent_source,
    encode_frame,
)

from .conftest import Client, Host, sh, wait_for


def raw(host: Host, data: bytes) -> bytes:
    """Everything the daemon says to these bytes until it hangs up, or for a quarter of a second."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(0.25)
    sock.connect(str(host.home / "agent.sock"))
    got = b""
    try:
        sock.sendall(data)
        while more := sock.recv(65536):
            got += more
    except (TimeoutError, ConnectionError, BrokenPipeError):
        pass
    finally:
        sock.close()
    return got


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\xfe garbage\n",
        b"x" * (2 << 20),
        b"[" * 500_000 + b"\n",
        b"[1,2]\n",
        b'"text"\n',
        b'{"id":1,"op":"hello","size":-1}\n',
        b'{"id":1,"op":"put","size":99999999}\n',
        b'{"id":1,"op":"put","size":true}\n',
        b'{"id":1,"op":"put","size":"7"}\n',
        b'{"op":\n',
    ],
)
def test_garbage_ends_its_connection_and_nothing_else(host: Host, agent: Client, data: bytes) -> None:
    answer = raw(host, data)
    # What is still unread when the daemon hangs up takes its last words along.
    assert b'"code":"protocol"' in answer or len(data) > 1 << 20
    assert agent.run(sh("a.1", "true"))["exit_code"] == 0


def test_unknown_ops_and_fields_are_no_crash(host: Host, agent: Client) -> None:
    assert agent.call("no-such-op", anything={"a": [1]}).error_code == "unknown-op"
    assert agent.call("report", extra=1).ok
    assert b"hello-first" in raw(host, b'{"id":1,"op":"report"}\n')
    assert agent.call("hello", owner=7).error_code == "bad-request"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SPEC_FIELDS = [
    "id",
    "argv",
    "env",
    "secrets",
    "cwd",
    "cpus",
    "memory",
    "gpus",
    "slots",
    "environment",
    "files",
    "private_files",
    "outputs",
    "timeout",
    "grace",
    "kind",
    "keep_children",
    "about",
]
OPS = [
    "hello",
    "start",
    "cancel",
    "revoke",
    "ack",
    "report",
    "missing",
    "put",
    "manifest",
    "read",
    "follow",
    "unfollow",
    "ping",
    "claim",
    "release",
    "inventory",
    "adopt",
    "forget",
]
FIELDS = [
    "attempts",
    "attempt",
    "cause",
    "boot",
    "owner",
    "epoch",
    "resources",
    "files",
    "sha256",
    "size_total",
    "offset",
    "mode",
    "patterns",
    "path",
    "stream",
    "length",
    "id",
    "max_load",
    "after",
    "logs",
    "age",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(op=st.sampled_from(OPS), fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
def test_wrong_types_in_any_field_are_refused_in_words(agent: Client, op: str, fields: dict[str, Any]) -> None:
    if op == "hello":
        fields = {**fields, "owner": "another"}
    fields.pop("id", None)
    reply = agent.call(op, **fields)
    assert reply.ok or reply.error_code not in (None, "internal"), reply
    assert agent.call("hello", owner="tests", epoch=1, resources={"cpus": 4, "memory": 1 << 34, "gpus": 2}).ok


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(SPEC_FIELDS), value=JSON)
def test_wrong_types_in_any_field_of_a_spec_never_harm(agent: Client, field: str, value: Any) -> None:
    spec = {**sh("h.1", "true"), field: value}
    (answer,) = agent.start(spec).values()
    assert answer in ("queued", "duplicate", "mismatch") or answer.startswith("bad-spec"), answer
    if answer == "queued" and spec["id"] == "h.1" and field != "id":
        assert agent.wait("h.1")["state"] == "exited"


@pytest.mark.parametrize(
    "ident",
    ["", ".", "..", "../x", "a/b", "/etc", "-x", ".hidden", "a\nb", "a\0b", "a b", "é", "x" * 129, 7, None, ["a"]],
)
def test_hostile_ids_never_become_paths(agent: Client, host: Host, ident: Any) -> None:
    assert list(agent.start({"id": ident, "argv": ["true"]}).values()) == ["bad-spec: id"]
    assert agent.call("cancel", attempts=[ident]).error_code == "bad-request"
    assert agent.call("read", attempt=ident, stream="stdout").error_code == "bad-request"
    assert list((host.home / "attempts").iterdir()) == []
    assert list((host.home / "tombstones").iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a\0b", "./a", "x" * 5000])
def test_hostile_paths_stay_below_the_work_directory(agent: Client, path: str) -> None:
    sha = agent.put(b"data")
    assert agent.start(sh("a.1", "true", files=[{"path": path, "sha256": sha}]))["a.1"].startswith("bad-spec")
    agent.run(sh("a.2", "echo x > x"))
    assert agent.call("read", attempt="a.2", path=path, offset=0, length=9).error_code == "bad-request"
    if path != "a//b" and path.strip("/") == path:
        assert agent.call("manifest", attempt="a.2", patterns=[path]).error_code == "bad-request"


def test_a_link_among_the_uploads_is_not_followed(agent: Client, tmp_path: Path) -> None:
    sha = agent.put(b"data")
    outside = tmp_path / "outside"
    outside.mkdir()
    files = [{"path": "way", "link": str(outside)}, {"path": "way/in", "sha256": sha}]
    assert agent.run(sh("a.1", "true", files=files))["cause"] == "start-failed"
    assert list(outside.iterdir()) == []
    agent.run(sh("a.2", f"ln -s {tmp_path} dir; mkfifo pipe; echo s > {tmp_path}/secret"))
    assert agent.call("read", attempt="a.2", path="dir/secret", offset=0, length=9).error_code == "not-found"
    assert agent.call("read", attempt="a.2", path="pipe", offset=0, length=9).error_code == "not-found"
    assert [f["path"] for f in agent.call("manifest", attempt="a.2", patterns=["dir", "**"])["files"]] == ["dir"]


def test_an_older_client_is_fenced_off_but_may_look(host: Host) -> None:
    old = host.attach(epoch=3)
    new = host.attach(epoch=4)
    other = host.attach(owner="somebody-else", epoch=1)
    assert old.call("start", boot=old.boot, attempts=[sh("a.1", "true")]).error_code == "fenced"
    assert old.call("cancel", attempts=["a.1"]).error_code == "fenced"
    assert old.call("report").ok
    assert new.run(sh("a.1", "true"))["exit_code"] == 0
    assert other.run(sh("b.1", "true"))["exit_code"] == 0
    assert set(new.report()) == {"a.1"}
    assert set(new.call("report", attempts=["b.1", "a.1", "c.1"])["attempts"]) == {"a.1"}
    assert new.call("report", attempts=[])["attempts"] == {}
    assert new.call("report", attempts="a.1").error_code == "bad-request"
    assert "b.1" not in new.status
    host.crash(new)
    again = host.attach(epoch=3)
    assert again.call("ack", attempts=["a.1"]).error_code == "fenced"
    assert set(again.call("report", all=True)["attempts"]) == {"a.1", "b.1"}


def test_a_report_longer_than_a_frame_arrives_whole(agent: Client) -> None:
    specs = [sh(f"{'x' * 100}.{i}", "sleep 60", cpus=4) for i in range(6000)]
    for at in range(0, len(specs), 200):
        agent.start(*specs[at : at + 200])
    assert len(agent.report()) == 6000
    answers = agent.call("cancel", attempts=[spec["id"] for spec in specs[1:]])["results"]
    assert set(answers.values()) == {"tombstoned"}


def test_a_report_longer_than_what_a_client_may_leave_unread_arrives_whole(host: Host) -> None:
    """Ends of a day on which no client came. What is asked meanwhile is answered afterwards, and in order."""
    client = host.attach()
    host.crash(client)
    kept = json.dumps({"digest": "x", "boot": client.boot, "owner": "tests", "seq": 1, "spec": {"argv": ["true"]}})
    end = json.dumps({"state": "exited", "exit_code": 0, "detail": "x" * 900})
    with (host.home / "journal").open("a") as journal:
        for i in range(12_000):
            folder = host.home / "attempts" / f"old.{i}"
            folder.mkdir()
            (folder / "spec.json").write_text(kept)
            journal.write(f"e old.{i} {end}\n")
    (host.home / "attempts" / 'not"an id').mkdir()
    again = host.attach()
    asked = [again.channel.request("report"), again.channel.request("report", all=True)]
    started = again.start(sh("new.1", "exit 3"))
    reports = [again.replies.pop(ident)["attempts"] for ident in asked]
    assert [len(report) for report in reports] == [12_000, 12_000]
    assert started == {"new.1": "queued"}
    assert again.wait("new.1")["exit_code"] == 3
    peak = next(
        line for line in Path(f"/proc/{again.about['pid']}/status").read_text().splitlines() if "VmHWM" in line
    )
    assert int(peak.split()[1]) < 100_000


def test_the_decoder_skips_noise_and_refuses_garbage() -> None:
    hello = b'Welcome!\nmotd \xff\ncloudsend-agent-1 {"protocol":1}\n{"ev":"log","size":3}\nab\n{"ev":"x"}\n'
    for cut in range(1, len(hello)):
        decoder = FrameDecoder()
        frames = decoder.feed(hello[:cut]) + decoder.feed(hello[cut:])
        assert decoder.hello == {"protocol": 1}
        assert [frame.event for frame in frames] == ["log", "x"]
        assert frames[0].payload == b"ab\n"
    with pytest.raises(AgentRefused, match="no"):
        FrameDecoder().feed(b'x\ncloudsend-agent-error {"code":"c","message":"no"}\n')
    for bad in (b"nonsense\n", b"[]\n", b"x" * (2 << 20), b'{"ev":"log","size":-1}\n', b"[" * 100_000 + b"\n"):
        with pytest.raises(ProtocolError):
            FrameDecoder(greeting=False).feed(bad)
    with pytest.raises(ProtocolError, match="without end"):
        FrameDecoder().feed(b"noise\n" * 300_000)


@given(fields=st.dictionaries(st.text(), JSON), payload=st.binary(max_size=50), cut=st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_what_is_encoded_is_decoded(fields: dict[str, Any], payload: bytes, cut: int) -> None:
    fields = {**fields, "re": 1}
    fields.pop("size", None)
    data = encode_frame(fields, payload)
    decoder = FrameDecoder(greeting=False)
    frames = [frame for at in range(0, len(data), cut) for frame in decoder.feed(data[at : at + cut])]
    assert len(frames) == 1
    assert frames[0].payload == payload
    assert json.loads(json.dumps({k: v for k, v in frames[0].items() if k != "size"})) == fields


def test_a_late_answer_for_a_client_that_left_disturbs_nobody(host: Host) -> None:
    gone = host.attach()
    gone.run(sh("a.1", "truncate -s 1G big"))
    children = Path(f"/proc/{gone.about['pid']}/task/{gone.about['pid']}/children")
    before = set(children.read_text().split())
    gone.channel.request("manifest", attempt="a.1", patterns=["big"])
    gone.call("report")
    (reader,) = set(children.read_text().split()) - before
    wait_for(lambda: any(os.path.realpath(fd).endswith("/big") for fd in Path(f"/proc/{reader}/fd").iterdir()))
    os.kill(int(reader), signal.SIGSTOP)
    gone.close()
    # The daemon knows the next client by the number that the first one's connection had.
    client = host.attach()
    os.kill(int(reader), signal.SIGCONT)
    wait_for(lambda: reader not in children.read_text().split())
    assert client.run(sh("a.2", "exit 4"))["exit_code"] == 4


def test_the_source_is_the_same_from_every_process() -> None:
    code = "from cloudsend_cli.agent.client import agent_sha256; print(agent_sha256())"
    told = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, **more}, text=True).strip()
        for more in ({"TZ": "Asia/Tokyo"}, {"PYTHONHASHSEED": "1"}, {"LC_ALL": "C"})
    }
    assert told == {agent_sha256()}


def test_the_source_is_what_is_put_on_hosts(host: Host) -> None:
    import hashlib

    assert hashlib.sha256(agent_source()).hexdigest() == agent_sha256()
    client = host.attach()
    assert client.about["sha"] == agent_sha256()
    client.socket.close()
    with pytest.raises((ChannelClosed, OSError, ValueError)):
        client.step()

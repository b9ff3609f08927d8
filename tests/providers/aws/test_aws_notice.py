"""What the switch tells of a notice that the provider will take the machine back."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from deadman_machine import Machine, until


class Imds(ThreadingHTTPServer):
    """IMDSv2: a token by PUT, then answers to those who show it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.token, self.tokens, self.asked = "token-0", 0, 0
        self.notice: dict[str, str] | None = None


class _Answer(BaseHTTPRequestHandler):
    server: Imds

    def do_PUT(self) -> None:
        good = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.server.tokens += 1
        self.reply(200 if good else 400, self.server.token)

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.headers.get("X-aws-ec2-metadata-token") != self.server.token:
            self.reply(401, "")
        elif self.server.notice is None or self.path != "/latest/meta-data/spot/instance-action":
            self.reply(404, "not found")
        else:
            self.reply(200, json.dumps(self.server.notice))

    def reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def imds(machine: Machine) -> Iterator[Imds]:
    server = Imds()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    machine.env["CLOUDSEND_DEADMAN_IMDS"] = f"http://127.0.0.1:{server.server_port}"
    yield server
    machine.kill()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_notice_comes_and_goes(machine: Machine, imds: Imds) -> None:
    machine.start(spot=1)
    notice = machine.rented / "notice"
    until(lambda: imds.asked > 2)
    assert not notice.exists()
    imds.notice = {"action": "terminate", "time": "2026-11-21T12:00:00Z"}
    until(notice.exists)
    assert json.loads(notice.read_text()) == imds.notice
    imds.notice = None
    until(lambda: not notice.exists())
    assert imds.tokens == 1


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_token_that_ran_out_is_asked_for_again(machine: Machine, imds: Imds) -> None:
    machine.start(spot=1)
    until(lambda: imds.asked > 1)
    imds.token = "token-1"
    imds.notice = {"action": "terminate", "time": "2026-11-21T12:00:00Z"}
    until((machine.rented / "notice").exists)
    assert imds.tokens >= 2


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_silent_metadata_service_neither_hides_nor_makes_a_notice(machine: Machine, imds: Imds) -> None:
    machine.start(spot=1)
    imds.notice = {"action": "stop", "time": "2026-11-21T12:00:00Z"}
    notice = machine.rented / "notice"
    until(notice.exists)
    imds.shutdown()
    imds.server_close()
    machine.pass_time(10)
    assert notice.exists()
    machine.pass_time(1200)
    assert machine.ended, "it goes on watching"


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_notice_of_the_provider_goes_before_its_own_and_its_own_stays_when_that_is_withdrawn(
    machine: Machine, imds: Imds
) -> None:
    machine.start(spot=1, life=1000, setting="eco_life")
    notice = machine.rented / "notice"
    imds.notice = {"action": "terminate", "time": "2026-11-21T12:00:00Z"}
    until(notice.exists)
    machine.pass_time(950)
    assert json.loads(notice.read_text()) == imds.notice
    imds.notice = None
    until(lambda: "eco_life" in notice.read_text())
    for _ in range(3):
        machine.await_look()
        assert json.loads(notice.read_text())["action"] == "eco_life"
    imds.notice = {"action": "terminate", "time": "2026-11-21T12:00:00Z"}
    until(lambda: "terminate" in notice.read_text())
    machine.pass_time(60)
    assert "lived for" in machine.ended


def test_machine_on_demand_asks_for_no_notice(machine: Machine, imds: Imds) -> None:
    machine.start(spot=0)
    machine.pass_time(10)
    assert imds.asked == imds.tokens == 0

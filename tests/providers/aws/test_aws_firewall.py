"""Addresses of callers, and whom a security group lets in. Calls of AWS are in tests/ec2."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cloudsend_cli.errors import ConfigError, UnreachableError
from cloudsend_cli.providers.aws import firewall
from cloudsend_cli.providers.aws.firewall import VARIABLE, Group, fetch_caller_address, lets_in, parse_networks


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("192.0.2.7", ["192.0.2.7/32"]),
        ("192.0.2.7/24", ["192.0.2.0/24"]),
        ("192.0.2.7,2001:db8::/64", ["192.0.2.7/32", "2001:db8::/64"]),
    ],
)
def test_networks(text: str, networks: list[str]) -> None:
    assert parse_networks(text) == networks


@pytest.mark.parametrize("text", ["home", "192.0.2", "192.0.2.7/33", "192.0.2.7,,"])
def test_what_is_no_network_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=VARIABLE):
        parse_networks(text)


@pytest.mark.parametrize(
    ("open_to", "networks", "inside"),
    [
        (("192.0.2.7/32",), ["192.0.2.7/32"], True),
        (("192.0.2.0/24",), ["192.0.2.7/32"], True),
        (("0.0.0.0/0",), ["2001:db8::1/128"], False),
        (("192.0.2.7/32",), ["192.0.2.0/24"], False),
        (("198.51.100.1/32", "2001:db8::/32"), ["192.0.2.7/32", "2001:db8::1/128"], True),
        ((), ["192.0.2.7/32"], False),
    ],
)
def test_whom_a_group_lets_in(open_to: tuple[str, ...], networks: list[str], inside: bool) -> None:
    assert lets_in(Group("sg-1", "vpc-1", open_to), networks) is inside


class Answer(BaseHTTPRequestHandler):
    text = b"192.0.2.55\n"
    asked = 0

    def do_GET(self) -> None:
        Answer.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.text)))
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    firewall._addresses.clear()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()
    firewall._addresses.clear()


def test_address_is_asked_for_once_in_a_while(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Answer.asked
    assert [fetch_caller_address(service) for _ in range(3)] == ["192.0.2.55/32"] * 3
    assert Answer.asked == before + 1


@pytest.mark.parametrize("text", [b"<html>log in to the hotel's network</html>", b"", b"\xff"])
def test_answer_that_is_no_address_is_none(service: str, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(Answer, "text", text)
    with pytest.raises(UnreachableError, match="public address") as caught:
        fetch_caller_address(service)
    assert VARIABLE in caught.value.hint

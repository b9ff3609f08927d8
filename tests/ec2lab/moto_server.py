"""moto behind the lab: its process, and calls of our own to it. Nobody but the lab talks to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode
from xml.etree import ElementTree as Tree

from sshlab import NotHere
from sshlab.commands import DEADLINE, read_line

from .wire import ApiError, Reply, Request, parse_xml, text

ACCOUNT = "123456789012"


class MotoServer:
    def __init__(self, images: Path) -> None:
        try:
            import moto  # noqa: F401
        except ImportError:
            raise NotHere("no moto in this environment (pip install 'moto[ec2,ssm]' flask flask-cors)") from None
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))},
            "MOTO_AMIS_PATH": str(images),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("moto_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
        )
        try:
            assert self._process.stdout is not None
            self.port = int(read_line(self._process.stdout, "moto says its port"))
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.terminate()
        self._process.wait(DEADLINE)

    def reset(self) -> None:
        self._post("/moto-api/reset", {}, b"")

    def forward(self, request: Request) -> Reply:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in {"authorization", "content-type", "x-amz-target", "x-amz-date", "x-amz-security-token"}
        }
        tries = 3 if request.action.startswith("Describe") else 1  # its server drops a connection now and then
        for left in reversed(range(tries)):
            try:
                reply = self._post(request.path, headers, request.body)
                break
            except http.client.RemoteDisconnected:
                if not left:
                    raise
        if reply.body[:9].lower() in {b"<!doctype", b"<html>\n<h"}:
            raise RuntimeError(f"moto cannot do {request.action} with {request.params}: {reply.body[:500]!r}")
        return reply

    def query(self, region: str, action: str, params: Mapping[str, str], service: str = "ec2") -> Tree.Element:
        """A call of the lab's own."""
        body = urlencode({"Action": action, "Version": "2016-11-15", **params}).encode()
        reply = self._post("/", lab_headers(region, service), body)
        root = parse_xml(reply.body)
        if reply.status >= 400:
            error = root.find(".//Error")
            assert error is not None, reply.body
            raise ApiError(text(error, "Code"), text(error, "Message"), reply.status)
        return root

    def _post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", path, body, dict(headers))
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), answer.headers.get("Content-Type", ""))


def lab_headers(region: str, service: str) -> dict[str, str]:
    scope = f"LAB/20260101/{region}/{service}/aws4_request"
    return {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        "Host": f"{service}.{region}.amazonaws.com",
    }


def write_images(path: Path, images: list[dict[str, object]]) -> None:
    path.write_text(json.dumps(images))

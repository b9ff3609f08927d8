"""The bytes of the API: the query protocol of EC2 and STS, the JSON protocol of the others, and their errors."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree as Tree

CREDENTIAL = re.compile(r"Credential=([^/]+)/(\d+)/([^/]+)/([^/]+)/aws4_request")
STATUS = {
    "AuthFailure": 401,
    "UnauthorizedOperation": 403,
    "AccessDenied": 403,
    "AccessDeniedException": 400,
    "DryRunOperation": 412,
    "InternalError": 500,
    "InsufficientInstanceCapacity": 500,
    "InsufficientHostCapacity": 500,
    "InsufficientReservedInstanceCapacity": 500,
    "InsufficientCapacity": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "Unavailable": 503,
}


class ApiError(Exception):
    """What a handler raises to answer with an error of the API."""

    def __init__(self, code: str, message: str = "", status: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message or f"{code} (injected by the lab)"
        self.status = status or STATUS.get(code, 400)


@dataclass
class Request:
    """One request as it came, and what it asks for."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    access_key: str = ""
    region: str = ""
    service: str = ""
    action: str = ""
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def is_json(self) -> bool:
        return "x-amz-target" in self.headers

    def list(self, name: str) -> list[str]:
        """Values of `name.1`, `name.2` and so on, in this order."""
        found = [(int(key[len(name) + 1 :]), value) for key, value in self.params.items() if _is_item(key, name)]
        return [value for _, value in sorted(found)]

    def groups(self, name: str) -> list[dict[str, str]]:
        """What is below `name.1.`, `name.2.` and so on."""
        found: dict[int, dict[str, str]] = {}
        for key, value in self.params.items():
            if match := re.fullmatch(re.escape(name) + r"\.(\d+)\.(.+)", key):
                found.setdefault(int(match[1]), {})[match[2]] = value
        return [found[number] for number in sorted(found)]

    def filters(self) -> dict[str, list[str]]:
        filters = {}
        for group in self.groups("Filter"):
            values = sorted((int(key[6:]), value) for key, value in group.items() if key.startswith("Value."))
            filters[group["Name"]] = [value for _, value in values]
        return filters

    def is_true(self, name: str) -> bool:
        return str(self.params.get(name, "")).lower() == "true"

    def with_params(self, params: Mapping[str, str]) -> Request:
        """The same request with other parameters, for what is behind us: signatures are not read there."""
        body = urlencode(params).encode()
        return Request(
            self.method, self.path, self.headers, body, self.access_key, self.region, self.service, self.action,
            dict(params),
        )  # fmt: skip


def _is_item(key: str, name: str) -> bool:
    return key.startswith(f"{name}.") and key[len(name) + 1 :].isdigit()


def parse_request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
    request = Request(method, path, {name.lower(): value for name, value in headers.items()}, body)
    if found := CREDENTIAL.search(request.headers.get("authorization", "")):
        request.access_key, _, request.region, request.service = found.groups()
    target = request.headers.get("x-amz-target")
    if target is not None:
        request.action = target.rpartition(".")[2]
        request.params = json.loads(body or b"{}")
    elif method == "POST":
        request.params = dict(parse_qsl(body.decode(), keep_blank_values=True))
        request.action = request.params.get("Action", "")
    return request


@dataclass
class Reply:
    status: int
    body: bytes
    kind: str = "text/xml;charset=UTF-8"


def reply_json(data: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(data).encode(), "application/x-amz-json-1.1")


def reply_error(request: Request, error: ApiError) -> Reply:
    if request.is_json:
        return reply_json({"__type": error.code, "message": error.message, "Message": error.message}, error.status)
    root = Tree.Element("Response" if request.service == "ec2" else "ErrorResponse")
    parent = Tree.SubElement(root, "Errors") if request.service == "ec2" else root
    element = Tree.SubElement(parent, "Error")
    if request.service != "ec2":
        Tree.SubElement(element, "Type").text = "Sender" if error.status < 500 else "Receiver"
    Tree.SubElement(element, "Code").text = error.code
    Tree.SubElement(element, "Message").text = error.message
    Tree.SubElement(root, "RequestID" if request.service == "ec2" else "RequestId").text = str(uuid.uuid4())
    return Reply(error.status, to_bytes(root))


def parse_xml(body: bytes) -> Tree.Element:
    """Without the name space, which no client reads."""
    return Tree.fromstring(re.sub(rb'\sxmlns="[^"]*"', b"", body, count=1))


def to_bytes(root: Tree.Element) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + Tree.tostring(root)


def reply_xml(root: Tree.Element) -> Reply:
    return Reply(200, to_bytes(root))


def build_xml(name: str, content: Mapping[str, Any]) -> Tree.Element:
    """EC2's form: a list is items, None is left out."""
    root = Tree.Element(name)
    Tree.SubElement(root, "requestId").text = str(uuid.uuid4())
    fill(root, content)
    return root


def fill(parent: Tree.Element, content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if value is None:
            continue
        element = Tree.SubElement(parent, key)
        if isinstance(value, Mapping):
            fill(element, value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for item in value:
                part = Tree.SubElement(element, "item")
                if isinstance(item, Mapping):
                    fill(part, item)
                else:
                    part.text = str(item)
        else:
            element.text = str(value).lower() if isinstance(value, bool) else str(value)


def put(element: Tree.Element, name: str, value: Mapping[str, Any] | Sequence[Any] | str | bool | None) -> None:
    """Replace a child; None removes it."""
    for old in element.findall(name):
        element.remove(old)
    fill(element, {name: value})


def text(element: Tree.Element, path: str, default: str = "") -> str:
    found = element.find(path)
    return default if found is None or found.text is None else found.text

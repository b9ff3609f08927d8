"""Who may call: keys, signatures, the time of a request, denied actions."""

from __future__ import annotations

import calendar
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import parse_qsl, quote

from .wire import ApiError, Request

MOST_SKEW = 300.0
EXPIRED = {"ec2": "RequestExpired", "sts": "ExpiredToken"}
NOT_EXPIRED_EC2 = "ExpiredTokenException"


@dataclass
class Credential:
    access_key: str
    secret: str
    session_token: str | None = None
    expires: float | None = None
    denied: list[str] = field(default_factory=list)  # `TerminateInstances`, `ec2:Run*`
    most_skew: float = MOST_SKEW  # seconds by which its callers' clocks may be wrong
    may: Callable[[Request], bool] | None = None  # of a policy: what it does not allow is denied


class Access:
    def __init__(self) -> None:
        self.credentials: dict[str, Credential] = {}
        self.skew = 0.0  # seconds by which the cloud's clock is ahead of this machine's

    def now(self) -> float:
        return time.time() + self.skew

    def check(self, request: Request) -> Credential:
        """The caller's, or the error that the service gives."""
        known = self.credentials.get(request.access_key)
        if known is None:
            raise self._refusal(
                request, "InvalidClientTokenId", "The security token included in the request is invalid."
            )
        if known.expires is not None and known.expires <= self.now():
            code = EXPIRED.get(request.service, NOT_EXPIRED_EC2)
            text = (
                "Request has expired."
                if code == "RequestExpired"
                else "The security token included in the request is expired"
            )
            raise ApiError(code, text, 400 if request.service != "sts" else 403)
        if known.session_token != request.headers.get("x-amz-security-token"):
            raise self._refusal(
                request, "InvalidClientTokenId", "The security token included in the request is invalid."
            )
        if abs(self._sent(request) - self.now()) > known.most_skew:
            if request.service == "ec2":
                raise ApiError("RequestExpired", "Request has expired.", 400)
            code = "SignatureDoesNotMatch" if request.service == "sts" else "InvalidSignatureException"
            raise ApiError(code, "Signature not yet current or expired", 403 if request.service == "sts" else 400)
        if not hmac.compare_digest(sign(request, known.secret), _signature(request)):
            text = "The request signature we calculated does not match the signature you provided."
            raise self._refusal(request, "SignatureDoesNotMatch", text)
        return known

    def allow(self, request: Request, who: Credential) -> None:
        names = (request.action, f"{request.service}:{request.action}")
        denied = any(fnmatchcase(name, pattern) for name in names for pattern in who.denied)
        if denied or (who.may is not None and not who.may(request)):
            raise refused_action(request)

    @staticmethod
    def _refusal(request: Request, code: str, text: str) -> ApiError:
        if request.service == "ec2":
            return ApiError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
        if request.is_json:
            names = {
                "InvalidClientTokenId": "UnrecognizedClientException",
                "SignatureDoesNotMatch": "InvalidSignatureException",
            }
            return ApiError(names[code], text, 400)
        return ApiError(code, text, 403)

    @staticmethod
    def _sent(request: Request) -> float:
        try:
            return calendar.timegm(time.strptime(request.headers.get("x-amz-date", ""), "%Y%m%dT%H%M%SZ"))
        except ValueError:
            return 0.0


def refused_action(request: Request) -> ApiError:
    who = "arn:aws:iam::123456789012:user/lab"
    if request.service == "ec2":
        text = f"You are not authorized to perform this operation. User: {who} is not authorized to perform: ec2:{request.action}"  # noqa: E501
        return ApiError("UnauthorizedOperation", text, 403)
    code = "AccessDeniedException" if request.is_json else "AccessDenied"
    return ApiError(
        code,
        f"User: {who} is not authorized to perform: {request.service}:{request.action}",
        400 if request.is_json else 403,
    )


def _parts(request: Request) -> dict[str, str]:
    header = request.headers.get("authorization", "").partition(" ")[2]
    return {name.strip(): value for name, _, value in (part.partition("=") for part in header.split(","))}


def _signature(request: Request) -> str:
    return _parts(request).get("Signature", "")


def sign(request: Request, secret: str) -> str:
    """What AWS's signature version 4 of this request is."""
    parts = _parts(request)
    signed = parts.get("SignedHeaders", "").split(";")
    path, _, query = request.path.partition("?")
    pairs = sorted((quote(key, "-_.~"), quote(value, "-_.~")) for key, value in parse_qsl(query, True))
    lines = [f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in signed]
    canonical = "\n".join([
        request.method, quote(path or "/", "/-_.~"), "&".join(f"{key}={value}" for key, value in pairs),
        "".join(lines), ";".join(signed), hashlib.sha256(request.body).hexdigest(),
    ])  # fmt: skip
    scope = parts.get("Credential", "").partition("/")[2]
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", request.headers.get("x-amz-date", ""), scope, digest])
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

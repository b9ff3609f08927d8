"""A provider of type aws in `providers.yml`, and the one that needs no file. No secret is ever taken or repeated."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping as AbstractMapping
from dataclasses import replace

from .check import Field, Report, Schema, Table, check_mapping, clip, read_value, text_value
from .context import ProviderInfo
from .document import Mapping, Node, Scalar, render_inline, show_text
from .given import Values
from .rented import render_json
from .schema import INSTANCE, node_value

AWS_TYPE = "aws"

_TEXT: Schema = {"type": ["string", "null"]}
_NO_KEYS = "keys never live in this file"
_USE_A_PROFILE = "put them into ~/.aws with `aws configure`, and name their profile with 'profile'"
_SECRETS = re.compile(
    r"(aws_?)?(secret|access|session|security)?_?(access)?_?(keys?|token|secret|credentials?)(_?id)?"
)
_MORE_SECRETS = frozenset({"password", "aws_cred_file", "cred_file"})
_ACCESS_KEY = re.compile(r"(AKIA|ASIA)[A-Z0-9]{12,}|[A-Za-z0-9/+=]{40}")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+){1,2}-[0-9]{1,2}")
_OWN = frozenset({"provider", "type", "region", "labels"})  # keys of machines that mean something else here
MACHINE_TYPE = "machine_type"  # what the `type` of machines is called here


def profile_value(report: Report, node: Node, path: str) -> str | None:
    """The name of a profile; a key itself is refused and never repeated."""
    if isinstance(node, Scalar) and _ACCESS_KEY.fullmatch(node.text.strip()):
        report.error(f"{path}: contains a key itself, not the name of a profile", node.place, _USE_A_PROFILE, path)
        return None
    text = text_value(report, node, path)
    if text is not None and (not text.strip() or not text.isprintable()):
        report.error(f"{path}: {clip(text)} is not the name of a profile", node.place, "see ~/.aws/config", path)
        return None
    return text


def parse_region(text: str) -> str:
    """A region by its form: which there are changes, and only AWS knows."""
    region = text.strip()
    if _REGION.fullmatch(region):
        return region
    if _REGION.fullmatch(region[:-1]):
        raise ValueError(f"is a zone; write {region[:-1]}, and zone: {region} for its machines")
    raise ValueError("is not a region; write eu-west-3")


AWS = Table(
    "providers",
    (
        Field("name", (), node_value, {"type": ["string", "number", "null"]}, "What configs call it; default: `aws`."),
        Field("type", (), node_value, {"const": AWS_TYPE}, "`aws`."),
        Field(
            "profile",
            (),
            profile_value,
            _TEXT,
            "Profile of `~/.aws`; default: what `AWS_PROFILE` and the other variables say.",
        ),
        Field(
            "region",
            ("aws_region",),
            read_value(parse_region),
            _TEXT,
            "Region; default: that of the profile, or `AWS_REGION`.",
        ),
        Field("defaults", (), node_value, {"type": ["object", "null"]}, "Defaults of `instances` that use it."),
    ),
)
FLAT = Table(
    "providers",
    (
        replace(INSTANCE.by_name[MACHINE_TYPE], name=MACHINE_TYPE, aliases=()),
        *(field for field in INSTANCE.fields if field.name not in _OWN),
    ),
)
_ENTRY = Table("providers", (*AWS.fields, *FLAT.fields))


def read_aws(report: Report, node: Mapping, defaults: Values, path: str) -> tuple[ProviderInfo, Values]:
    """The keys besides name, type and defaults: what is the provider's own, and defaults that stand flat."""
    values = check_mapping(report, _without_secrets(report, node, path), _ENTRY, path)
    flat = {"type" if name == MACHINE_TYPE else name: v for name, v in values.items() if name in FLAT.by_name}
    for name, given in flat.items():
        if name in defaults:
            message = f"{given.path}: {given.key.text!r} stands here and in 'defaults'; give it once"
            report.error(message, given.key.place, f"move it to {path}.defaults", given.path)
    own = {name: values[name] for name in ("profile", "region") if name in values}
    info = replace(
        _make_info(**{name: str(given.value) for name, given in own.items() if given.value is not None}),
        origins=tuple((name, render_inline(given.node), given.node.place.origin) for name, given in own.items()),
    )
    return info, {**flat, **defaults}


def implicit_aws(defaults: AbstractMapping[str, Node]) -> ProviderInfo:
    """`aws` with the ordinary credentials, for configs and commands that name it."""
    return replace(_make_info(), defaults=defaults, implicit=True)


def _make_info(profile: str | None = None, region: str | None = None) -> ProviderInfo:
    return ProviderInfo(AWS_TYPE, AWS_TYPE, rendered=render_json({"profile": profile, "region": region}))


def _without_secrets(report: Report, node: Mapping, path: str) -> Mapping:
    kept = []
    for key, value in node.entries:
        word = key.text.lower().replace("-", "_")
        if _SECRETS.fullmatch(word) or word in _MORE_SECRETS:
            name = show_text(key.text)
            report.error(f"{path}.{name}: {_NO_KEYS}", key.place, _USE_A_PROFILE, f"{path}.{name}")
        else:
            kept.append((key, value))
    return Mapping(kept, node.place, min(node.own, len(kept)))


# ---- what is found -------------------------------------------------------------------------------------------------

_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def find_credentials(environ: AbstractMapping[str, str]) -> str:
    """Where credentials of AWS seem to be, "" where none are seen. Reads no secret and asks nobody."""
    for name in _VARIABLES:
        if environ.get(name):
            return name
    home = environ.get("HOME", "")
    for name, variable in (("credentials", "AWS_SHARED_CREDENTIALS_FILE"), ("config", "AWS_CONFIG_FILE")):
        path = environ.get(variable) or (os.path.join(home, ".aws", name) if home else "")
        if path and os.path.isfile(path) and os.path.getsize(path):
            return path if environ.get(variable) else f"~/.aws/{name}"
    return ""

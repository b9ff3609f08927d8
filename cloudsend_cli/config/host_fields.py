"""The keys of a provider of type ssh and of its hosts: what each may be. No secret is ever taken or repeated."""

from __future__ import annotations

from .addresses import (
    HostWord,
    parse_host_word,
    parse_jump,
    parse_name,
    parse_program,
    parse_remote_path,
    parse_user,
)
from .check import (
    Field,
    Parse,
    Report,
    Schema,
    Table,
    clip,
    describe_node,
    flag_value,
    read_value,
    text_value,
    whole_value,
)
from .document import Mapping, Node, Scalar, is_null, show_text
from .schema import INSTANCE, labels_value, node_value
from .values import MAX_MEMORY, parse_cpus, parse_gpu, parse_number, parse_size

_TEXT: Schema = {"type": ["string", "null"]}
_WORD: Schema = {"type": ["string", "number", "null"]}
_AMOUNT: Schema = {"type": ["number", "string", "null"]}
_KEYS_ONLY = "logging in with a password is not supported, and none is kept in a file"
_USE_A_KEY = (
    "make a key with ssh-keygen, put it there with ssh-copy-id, and name it with 'key' or let ssh-agent hold it"
)
_SECRETS = frozenset({"password", "passwd", "passphrase", "key_password", "key_passphrase", "sshpass"})


def key_value(report: Report, node: Node, path: str) -> str | None:
    """The path of a private key; a key itself is refused and never repeated."""
    text = text_value(report, node, path) if not _is_key(node) else None
    if text is None:
        if _is_key(node):
            message = f"{path}: contains a key itself, not the path of a file with it"
            report.error(message, node.place, "keys never live in this file: write key: ~/.ssh/id_ed25519", path)
        return None
    if not text.strip() or any(ord(c) < 32 or ord(c) == 127 for c in text):
        report.error(f"{path}: {clip(text)} is not a path", node.place, "write key: ~/.ssh/id_ed25519", path)
        return None
    return text


def _is_key(node: Node) -> bool:
    return isinstance(node, Scalar) and ("PRIVATE KEY" in node.text or node.text.startswith(("ssh-", "ecdsa-sha2-")))


def host_value(report: Report, node: Node, path: str) -> HostWord | None:
    if not isinstance(node, Scalar) or is_null(node) or (node.plain and node.kind != "str"):
        hint = "a name, an address or user@host:port; quote a name that looks like a number"
        report.error(f"{path}: expected a host, not {describe_node(node)}", node.place, hint, path)
        return None
    word = None if _holds_password(report, node, path) else read_value(parse_host_word)(report, node, path)
    return word if isinstance(word, HostWord) else None


def jump_value(report: Report, node: Node, path: str) -> object:
    return None if _holds_password(report, node, path) else read_value(parse_jump)(report, node, path)


def _holds_password(report: Report, node: Node, path: str) -> bool:
    """`me:secret@host` is refused without repeating it."""
    if not isinstance(node, Scalar) or not any(":" in hop.rpartition("@")[0] for hop in node.text.split(",")):
        return False
    report.error(f"{path}: there is a ':' before the '@': {_KEYS_ONLY}", node.place, _USE_A_KEY, path)
    return True


def parse_declared_cpus(text: str) -> float:
    _certain(text)
    return parse_cpus(text)


def parse_declared_memory(text: str) -> int:
    _certain(text)
    size = parse_size(text)
    if not 0 < size <= MAX_MEMORY:
        raise ValueError("must be more than nothing")
    return size


def parse_declared_gpus(text: str) -> int:
    _certain(text)
    kind, count = parse_gpu(text)
    if kind:
        raise ValueError(f"has a kind; write {count}, and labels: [{kind.replace(' ', '-')}]")
    return count


def _certain(text: str) -> None:
    if text.strip().endswith("+"):
        raise ValueError(f"is not how much there is; write {text.strip()[:-1]}")


def parse_load(text: str) -> float:
    load = parse_number(text)
    if load <= 0:
        raise ValueError("must be more than 0")
    return load


def _field(names: str, parse: Parse, schema: Schema, doc: str) -> Field:
    name, *aliases = names.split()
    return Field(name, tuple(aliases), parse, schema, doc)


_SHARED = (
    _field("user", read_value(parse_user), _WORD, "Who logs in; default: what `~/.ssh/config` says, else your name."),
    _field("port", whole_value(1, 65535), {"type": ["integer", "null"], "minimum": 1, "maximum": 65535},
           "Port; default: what `~/.ssh/config` says, else 22."),
    _field("key", key_value, _TEXT, "Path of a private key, relative to this file; default: ssh-agent and `~/.ssh`."),
    _field("jump", jump_value, _TEXT,
           "Machines in between, `user@host:port`, separated by commas; `none`: not those of the provider."),
    _field("python", read_value(parse_program), _TEXT, "Python 3.6 or later on the host; default: it is looked for."),
    _field("home", read_value(parse_remote_path), _TEXT,
           "Directory on the host for all that cloudsend keeps there; default: below `~/.cloudsend` there."),
    _field("shared", flag_value, {"type": ["boolean", "null"]},
           "Use it also while another user's cloudsend does; default: false."),
    _field("max_load", read_value(parse_load), _AMOUNT, "Start nothing while the host's load is above this."),
    _field("labels", labels_value, {"type": ["string", "array", "null"]},
           "Words by which `instances` choose hosts; a host's name is one of them."),
)  # fmt: skip

SSH = Table(
    "providers",
    (
        _field("name", node_value, _WORD, "What configs call it; default: `ssh`."),
        _field("type", node_value, {"const": "ssh"}, "`ssh`."),
        _field("hosts", node_value, {}, "The hosts: names, or mappings with the keys below."),
        *_SHARED,
        _field("defaults", node_value, {"type": ["object", "null"]}, "Defaults of `instances` that use it."),
    ),
)
HOST = Table(
    "hosts",
    (
        _field("host", host_value, _TEXT, "Name of `~/.ssh/config`, DNS name or address; also `user@host:port`."),
        _field("name", read_value(parse_name), _WORD, "Short name; default: made from `host`."),
        _field("cpus", read_value(parse_declared_cpus), _AMOUNT, "CPUs that jobs may use; default: all."),
        _field("memory", read_value(parse_declared_memory), _AMOUNT, "Memory that jobs may use: 64GB; default: all."),
        _field("gpus gpu", read_value(parse_declared_gpus), _AMOUNT, "GPUs that jobs may use; default: all."),
        *_SHARED,
    ),
)
DEFAULTS = Table("defaults", INSTANCE.fields)


def without_secrets(report: Report, node: Mapping, path: str) -> Mapping:
    """The mapping without keys that ask for a password, each of which is reported."""
    kept = []
    for key, value in node.entries:
        if key.text.lower() in _SECRETS:
            name = show_text(key.text)
            report.error(f"{path}.{name}: {_KEYS_ONLY}", key.place, _USE_A_KEY, f"{path}.{name}")
        else:
            kept.append((key, value))
    return Mapping(kept, node.place, min(node.own, len(kept)))

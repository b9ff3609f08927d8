"""Who we are to AWS: the owner tag, the secret that machines' first host keys come from, the key pair for logins.

All of it is in <state directory>/aws, is made once, and stays for as long as the directory does.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudsend_cli.errors import StateDirError

FOLDER = "aws"
_KEY_TYPE = b"ssh-ed25519"
_MAGIC = b"openssh-key-v1\0"
_BLOCK = 8  # what the private part of a key without a passphrase is padded to
_LINE = 70


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ed25519 key pair in OpenSSH's forms."""

    private: str
    public: str  # without a comment


@dataclass(frozen=True, slots=True)
class Identity:
    """Of one state directory."""

    owner: str  # 16 hex digits: the value of the tag cloudsend:owner
    secret: bytes
    login_public: str
    login_path: str  # of the private key

    def host_key(self, token: str) -> KeyPair:
        """The first host key of the machine that was launched with this token; always the same one."""
        seed = hmac.new(self.secret, f"host-key:{token}".encode(), hashlib.sha256).digest()
        return render_key_pair(seed, "cloudsend-host")


def open_identity(state_dir: Path) -> Identity:
    """The identity of the state directory, made if there is none. Two processes at once agree on one."""
    folder = open_folder(state_dir)
    try:
        if (folder / "secret").exists() and not (folder / "identity").exists():
            raise ValueError("`identity` is gone, by whose tag our machines are known")
        owner = _keep(folder / "identity", secrets.token_hex(8))
        secret = _keep(folder / "secret", secrets.token_hex(32))
        if not (folder / "login").exists():
            _keep(folder / "login", render_key_pair(secrets.token_bytes(32), "cloudsend-login").private)
        public = read_public_key((folder / "login").read_text("ascii"))
        _keep(folder / "login.pub", f"{public} cloudsend-{owner}")
        return Identity(_checked(owner, 16), bytes.fromhex(_checked(secret, 64)), public, str(folder / "login"))
    except (OSError, ValueError) as problem:
        raise StateDirError(
            f"the identity in {folder} cannot be used: {problem}",
            hint="machines that were rented with it carry its tag: mend the files rather than remove them",
        ) from problem


def open_folder(state_dir: Path) -> Path:
    folder = state_dir / FOLDER
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # not open to others, whoever is first to make it
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as problem:
        raise StateDirError(f"{folder} cannot be made: {problem}", hint="is there room on the disk?") from problem
    return folder


def list_regions(state_dir: Path) -> list[str]:
    """Every region in which anything was ever rented, or was going to be."""
    return _read_lines(state_dir / FOLDER / "regions")


def list_run_regions(state_dir: Path, provider: str, run: str) -> list[str]:
    """The regions in which machines of this run can be. Where nothing is recorded of the run, all there are."""
    return _read_lines(_run_file(state_dir, provider, run)) or list_regions(state_dir)


def record_region(state_dir: Path, region: str, provider: str = "", run: str = "") -> None:
    """On the disk before the first request that makes something in the region."""
    folder = open_folder(state_dir)
    files = [folder / "regions"]
    if run:
        (folder / "runs").mkdir(mode=0o700, exist_ok=True)
        files.append(_run_file(state_dir, provider, run))
    with locked(folder):
        for file in files:
            if region not in _read_lines(file):
                write_file(file, "".join(f"{name}\n" for name in [*_read_lines(file), region]))


def _run_file(state_dir: Path, provider: str, run: str) -> Path:
    name = hashlib.sha256(f"{provider} {run}".encode()).hexdigest()[:16]
    return state_dir / FOLDER / "runs" / f"{name}.regions"


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").split()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as problem:
        raise StateDirError(f"{path} cannot be read: {problem}", hint="it names regions, one per line") from problem


# ---- files --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process and thread at a time."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_file(path: Path, text: str) -> None:
    """Whole or not at all, and durable."""
    temporary = path.with_name(f".{path.name[:60]}-{secrets.token_hex(6)}")
    try:
        _write_new(temporary, text)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as problem:
        raise StateDirError(f"{path} cannot be written: {problem}", hint="is there room on the disk?") from problem
    finally:
        temporary.unlink(missing_ok=True)


def _keep(path: Path, text: str) -> str:
    """What the file has; `text` if there was none. Never replaced."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
        try:
            _write_new(temporary, text + "\n")
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return path.read_text("ascii").strip()


def _write_new(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _checked(text: str, length: int) -> str:
    if len(text) != length or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{length} hexadecimal digits are expected")
    return text


# ---- keys ---------------------------------------------------------------------------------------------------------


def render_key_pair(seed: bytes, comment: str) -> KeyPair:
    """OpenSSH's private form has two random words, which would differ in a repeated request: here they are not."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = _text(_KEY_TYPE) + _text(raw)
    check = hashlib.sha256(b"check:" + seed).digest()[:4]
    secret = check + check + public + _text(seed + raw) + _text(comment.encode("ascii"))
    secret += bytes(range(1, 1 + -len(secret) % _BLOCK))
    whole = (
        _MAGIC + _text(b"none") + _text(b"none") + _text(b"") + struct.pack(">I", 1) + _text(public) + _text(secret)
    )
    body = base64.b64encode(whole).decode()
    lines = [body[i : i + _LINE] for i in range(0, len(body), _LINE)]
    private = "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----"])
    return KeyPair(private, f"ssh-ed25519 {base64.b64encode(public).decode()}")


def read_public_key(private: str) -> str:
    """The public part of a private key that `render_key_pair` made. ValueError: it is none."""
    body = "".join(line for line in private.split("\n") if line and not line.startswith("-----"))
    whole = base64.b64decode(body, validate=True)
    start = len(_MAGIC) + len(_text(b"none") * 2 + _text(b"")) + 4
    (length,) = struct.unpack(">I", whole[start : start + 4] or b"\0\0\0\0")
    public = whole[start + 4 : start + 4 + length]
    if not whole.startswith(_MAGIC) or not public.startswith(_text(_KEY_TYPE)) or len(public) != length:
        raise ValueError("login is no ed25519 key in OpenSSH's form")
    return f"ssh-ed25519 {base64.b64encode(public).decode()}"


def _text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data

"""Claims on machines that exist already: one file for each node and generation, in `<state directory>/claims`.

Idempotency: a claim's file appears whole and is created exclusively, so that the same token finds the same claim.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from cloudsend_cli.core.naming import digest
from cloudsend_cli.errors import ProviderError, UnreachableError

_ID = re.compile(r"(?P<run>[a-z0-9]+)--(?P<node>[A-Za-z0-9._~%@+=,-]+)--(?P<generation>\d{1,18})")
_LONGEST = 180  # characters of a node's name in a file name, which holds 255 bytes
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim as its file has it. `problem`: why the file says nothing more than its name does."""

    instance_id: str
    run: str
    node: str
    generation: int
    token: str = ""
    provider: str = ""
    request: str = ""
    problem: str = ""


class Claims:
    """The claims of one provider."""

    def __init__(self, state_dir: Path, provider: str) -> None:
        self._folder = state_dir / "claims"
        self._provider = provider

    def make(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        """The claim's id. ProviderError: it cannot be written, or another request has it."""
        instance_id = f"{run}--{_file_part(node)}--{generation}"
        if not _ID.fullmatch(instance_id):
            raise ProviderError(f"{run!r} and {node!r} cannot name a claim")
        words = {"token": token, "provider": self._provider, "node": node, "request": request}
        try:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the mode is that of the last one only
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._write(instance_id, json.dumps(words))
        except OSError as problem:
            raise ProviderError(f"the claim could not be written: {problem}") from problem
        known = self._read(instance_id)
        if known is None or (known.token, known.provider) != (token, self._provider):
            raise ProviderError(
                f"{self._folder / instance_id}.json is the claim of another request",
                hint="was the state directory copied? Remove the file if nothing uses it",
            )
        return instance_id

    def _write(self, instance_id: str, text: str) -> None:
        path = self._folder / f"{instance_id}.json"
        temporary = self._folder / f".{digest(instance_id)}-{os.getpid()}-{threading.get_ident()}"
        try:
            with open(temporary, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                known = self._read(instance_id)
                if known is not None and known.problem:
                    os.replace(temporary, path)  # what a power loss or a full disk left of it
            self._sync()
        finally:
            temporary.unlink(missing_ok=True)

    def _sync(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def list(self, run: str | None = None) -> list[Claim]:
        """This provider's claims, of one run or of all. A damaged file counts when its name begins with ours.

        UnreachableError when the directory cannot be read.
        """
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        except OSError as problem:
            raise UnreachableError(f"the claims cannot be read: {problem}") from problem
        found = []
        for name in names:
            match = _ID.fullmatch(name.removesuffix(".json"))
            if match is None or not name.endswith(".json") or run not in (None, match["run"]):
                continue
            claim = self._read(match[0])
            if claim is not None and self._is_ours(claim):
                found.append(claim)
        return found

    def list_providers(self, run: str) -> tuple[str, ...]:
        """The providers, whichever, that have claims of this run."""
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            return ()
        idents = (name.removesuffix(".json") for name in names if name.startswith(f"{run}--"))
        claims = (self._read(ident) for ident in idents)
        return tuple(sorted({claim.provider for claim in claims if claim is not None and claim.provider}))

    def _is_ours(self, claim: Claim) -> bool:
        if claim.problem:
            return claim.node == self._provider or claim.node.startswith(f"{self._provider}-")
        return claim.provider == self._provider

    def _read(self, instance_id: str) -> Claim | None:
        """None: there is no such file."""
        match = _ID.fullmatch(instance_id)
        if match is None:
            return None
        path = self._folder / f"{instance_id}.json"
        named = Claim(instance_id, match["run"], unquote(match["node"]), int(match["generation"]))
        try:
            with open(path, "rb") as file:
                words = json.loads(file.read(_LARGEST))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as problem:
            return _damaged(named, f"{path} cannot be read: {problem}")
        if not isinstance(words, dict) or not all(isinstance(words.get(key), str) for key in ("token", "request")):
            return _damaged(named, f"{path} is not a claim")
        provider, node = words.get("provider", "local"), words.get("node", named.node)
        if not isinstance(provider, str) or not isinstance(node, str):
            return _damaged(named, f"{path} is not a claim")
        return Claim(instance_id, named.run, node, named.generation, words["token"], provider, words["request"])

    def release(self, instance_id: str) -> None:
        """Remove the claim. What is no claim of ours, or gone, is left as it is."""
        claim = self._read(instance_id)
        if claim is None or not self._is_ours(claim):
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / f"{instance_id}.json").unlink()
        except OSError as problem:
            raise ProviderError(f"the claim could not be released: {problem}") from problem


def _damaged(claim: Claim, problem: str) -> Claim:
    return Claim(claim.instance_id, claim.run, claim.node, claim.generation, problem=problem)


def _file_part(node: str) -> str:
    """The node's name as a part of a file name, the same for the same name and another for any other."""
    text = quote(node, safe="@+=,")
    return text if 0 < len(text) <= _LONGEST else f"{text[:100].rpartition('%')[0] or text[:100]}-{digest(node)}"

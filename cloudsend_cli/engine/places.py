"""Machines that providers name before any run uses them, and what users may call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from cloudsend_cli.core.model import HostAddress, ProviderDefinition, Resources
from cloudsend_cli.core.renting import KEPT
from cloudsend_cli.errors import AmbiguousError, NotFoundError

__all__ = ["KEPT", "Place", "find_places", "is_like_any"]


@dataclass(frozen=True, slots=True)
class Place:
    """One machine of one provider, as it is configured now. `request` is what its provider makes a claim of."""

    provider: ProviderDefinition
    node: str
    label: str
    address: HostAddress
    request: str
    capacity: Resources | None = None

    def names(self) -> tuple[str, ...]:
        """What a user may call it; the last two may be those of other machines too."""
        return (self.node, f"{self.provider.name}/{self.label}", self.label, self.address.host)


def find_places(places: Sequence[Place], refs: Iterable[str]) -> list[Place]:
    """Those that the words name, each once. NotFoundError names near matches, AmbiguousError what a word fits."""
    found: dict[str, Place] = {}
    for ref in refs:
        exact = [p for p in places if ref in p.names()[:2]]
        loose = exact or [p for p in places if ref in p.names()]
        if not loose:
            raise _not_found(ref, places)
        if len({p.address.key for p in loose}) > 1:
            raise AmbiguousError(
                f"{ref!r} fits several hosts: {', '.join(p.node for p in loose)}", hint="use the whole name of one"
            )
        found[loose[0].node] = loose[0]
    return list(found.values())


def is_like_any(places: Sequence[Place], ref: str) -> bool:
    """Whether the word is a machine's name, or may be one that was mistyped."""
    return bool(_near(ref, places)) or "/" in ref


def _near(ref: str, places: Sequence[Place]) -> list[str]:
    return get_close_matches(ref, {name: None for place in places for name in place.names()}, n=3, cutoff=0.5)


def _not_found(ref: str, places: Sequence[Place]) -> NotFoundError:
    near = _near(ref, places)
    hint = f"did you mean {', '.join(near)}?" if near else "`cloudsend info provider P` names the hosts of a provider"
    return NotFoundError(f"no host {ref!r} in providers.yml", hint=hint)

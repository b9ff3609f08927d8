"""How long jobs took in earlier runs of their project. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class History:
    """Mean seconds of executions that succeeded, of the newest run in which there were any."""

    by_hash: Mapping[str, float] = field(default_factory=dict)
    by_name: Mapping[str, float] = field(default_factory=dict)

    def expect(self, content: str, name: str) -> float:
        """Of the same content, else of the same name; 0: not known."""
        found = self.by_hash.get(content, 0.0)
        return found or self.by_name.get(name, 0.0)


NO_HISTORY = History()

"""The machine of the tests of the dead man's switch, once with each shell that is here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deadman_machine import SHELLS, Machine


@pytest.fixture(params=SHELLS, ids=lambda words: words[0])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine", request.param)
    yield made
    made.close()

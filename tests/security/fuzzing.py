"""How long the fuzzers of these tests work."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# One variable makes every fuzzer of these tests work longer: CLOUDSEND_FUZZ=20 makes 10,000 names of 500.
FUZZ = float(os.environ.get("CLOUDSEND_FUZZ", "1"))


def fuzz(examples: int) -> settings:
    """So many examples, or more."""
    return settings(
        max_examples=max(1, round(examples * FUZZ)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

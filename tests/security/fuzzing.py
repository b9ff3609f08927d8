"""How long the fuzzers of these tests work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from campaigns import pick
from hypothesis import HealthCheck, settings

# One variable makes every fuzzer of these tests work longer: CLOUDSEND_FUZZ=20 makes 10,000 names of 500.
FUZZ = float(os.environ.get("CLOUDSEND_FUZZ", pick("0.5", "1")))
CAMPAIGN = pytest.mark.campaign("fuzz")


def fuzz(examples: int) -> Callable[[Any], Any]:
    """So many examples, or more; half of them unless the campaign is full."""
    most = max(1, round(examples * FUZZ))
    chosen = settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck))
    return lambda test: CAMPAIGN(chosen(test))

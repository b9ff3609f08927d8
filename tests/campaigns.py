"""How much of a campaign is played: a sample that holds each kind of case, or with CLOUDSEND_CAMPAIGN=full all of it.

A test of which `pick` leaves something out is marked with `pytest.mark.campaign(NAME)`: the end of a run names it.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")
VARIABLE = "CLOUDSEND_CAMPAIGN"
FULL = os.environ.get(VARIABLE) == "full"


def pick(sample: T, full: T) -> T:
    """The one that is played."""
    return full if FULL else sample

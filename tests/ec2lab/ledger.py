"""What the machines cost.

EC2's rule: an instance is billed by the second from `running` to the moment at which it is told to stop or terminate
(pending, stopping and shutting-down cost nothing), at least 60 s for each start. The price is that of the launch.
Not counted: disks, public addresses, traffic, and that a spot machine which EC2 takes back in its first hour is free.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from .instance import Instance

LEAST = 60


@dataclass(frozen=True)
class Row:
    """One time of running of one instance."""

    instance_id: str
    region: str
    zone: str
    type: str
    market: str
    price: float  # dollars per hour
    start: float
    end: float | None  # None: it runs
    seconds: int  # billed

    @property
    def dollars(self) -> float:
        return self.seconds / 3600 * self.price


def rows_of(one: Instance, now: float | None = None) -> list[Row]:
    rows, start = [], None
    with one.changed:
        history = list(one.history)
    for moment in [*history, None]:
        if moment is not None and moment.state == "running":
            start = moment.since if start is None else start
        elif start is not None:
            end = None if moment is None else moment.since
            lasted = (end or now or time.time()) - start
            seconds = max(LEAST, math.ceil(lasted))
            rows.append(Row(one.id, one.region, one.zone, one.type, one.market, one.price, start, end, seconds))
            start = None
    return rows

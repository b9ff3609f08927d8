"""What can be had: prices, capacity of pools, quotas, and limits of how often one may ask. All settable by tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .wire import ApiError

ON_DEMAND, SPOT = "on-demand", "spot"
# Dollars per hour of Linux in us-east-1; what is not here costs 0.05 per virtual CPU.
PRICES = {
    "t3.micro": 0.0104, "t3.small": 0.0208, "t3.medium": 0.0416, "t3.large": 0.0832, "t4g.small": 0.0168,
    "m5.large": 0.096, "m5.xlarge": 0.192, "m5.2xlarge": 0.384, "m6i.large": 0.096, "m6i.xlarge": 0.192,
    "m7i.large": 0.1008, "m7i.xlarge": 0.2016, "m7i.2xlarge": 0.4032, "m7g.large": 0.0816, "m7g.xlarge": 0.1632,
    "c5.large": 0.085, "c6i.large": 0.085, "c6i.xlarge": 0.17, "c7i.large": 0.08925, "c7i.xlarge": 0.1785,
    "c7i.2xlarge": 0.357, "c7i.4xlarge": 0.714, "r5.large": 0.126, "r6i.large": 0.126, "r7i.large": 0.1323,
    "g4dn.xlarge": 0.526, "g4dn.2xlarge": 0.752, "g5.xlarge": 1.006, "g5.2xlarge": 1.212, "g6.xlarge": 0.8048,
    "p3.2xlarge": 3.06, "p4d.24xlarge": 32.7726,
}  # fmt: skip
QUOTAS = {
    "L-1216C47A": ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", "acdhimrtz"),
    "L-DB2E81BA": ("Running On-Demand G and VT instances", "gv"),
    "L-417A185B": ("Running On-Demand P instances", "p"),
    "L-34B43A08": ("All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", "acdhimrtz"),
    "L-3819A6DF": ("All G and VT Spot Instance Requests", "gv"),
    "L-7212CCBC": ("All P4, P3 and P2 Spot Instance Requests", "p"),
}
SPOT_QUOTAS = {"L-34B43A08", "L-3819A6DF", "L-7212CCBC"}
MANY = 1152.0
MESSAGES = {
    "InsufficientInstanceCapacity": "We currently do not have sufficient {type} capacity in the Availability Zone you "
    "requested ({zone}). Our system will be working on provisioning additional capacity.",
    "Unsupported": "Your requested instance type ({type}) is not supported in your requested Availability Zone "
    "({zone}).",
    "UnfulfillableCapacity": "Unable to fulfill capacity due to your request configuration.",
}


def quota_code(instance_type: str, market: str) -> str:
    family = instance_type[0]
    codes = [code for code, (_, letters) in QUOTAS.items() if family in letters]
    return next((code for code in codes if (code in SPOT_QUOTAS) == (market == SPOT)), "L-1216C47A")


@dataclass
class Market:
    vcpus: Callable[[str], int]
    on_demand: dict[str, float] = field(default_factory=lambda: dict(PRICES))
    """Type: dollars per hour."""
    spot: dict[tuple[str, str], float] = field(default_factory=dict)
    """(zone, type): dollars per hour now. What is not here is 35 % of the price on demand."""
    spot_history: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    """(zone, type): earlier prices, as (time, dollars)."""
    capacity: dict[tuple[str, str, str], int | str] = field(default_factory=dict)
    """(zone, type, market), each may be `*`: how many can still be had, or the error that is given."""
    failing: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """The same: how many launches succeed and then turn to terminated for want of capacity."""
    quotas: dict[tuple[str, str], float] = field(default_factory=dict)
    """(region, code): virtual CPUs; what is not here is 1152."""
    guard: threading.Lock = field(default_factory=threading.Lock)

    def price(self, zone: str, instance_type: str, market: str) -> float:
        if market == SPOT:
            return self.spot.get((zone, instance_type), round(self.price(zone, instance_type, ON_DEMAND) * 0.35, 4))
        return self.on_demand.get(instance_type) or 0.05 * self.vcpus(instance_type)

    def history(self, zone: str, instance_type: str) -> list[tuple[float, float]]:
        """Newest first."""
        old = self.spot_history.get((zone, instance_type), [])
        return sorted([*old, (time.time() - 3600, self.price(zone, instance_type, SPOT))], reverse=True)

    @staticmethod
    def _keys(zone: str, instance_type: str, market: str) -> list[tuple[str, str, str]]:
        return [
            (one, kind, way) for one in (zone, "*") for kind in (instance_type, "*") for way in (market, "*")
        ]  # the most exact first

    def take(self, zone: str, instance_type: str, market: str, least: int, most: int) -> int:
        """How many of these are given. None is taken if it is fewer than `least`: an error says why."""
        with self.guard:
            for key in self._keys(zone, instance_type, market):
                left = self.capacity.get(key)
                if isinstance(left, str):
                    raise ApiError(left, MESSAGES.get(left, "").format(type=instance_type, zone=zone))
                if left is not None:
                    if left < least:
                        code = "InsufficientInstanceCapacity"
                        raise ApiError(code, MESSAGES[code].format(type=instance_type, zone=zone))
                    given = min(left, most)
                    self.capacity[key] = left - given
                    return given
        return most

    def give_back(self, zone: str, instance_type: str, market: str, count: int) -> None:
        """What was taken for a launch that then failed."""
        with self.guard:
            for key in self._keys(zone, instance_type, market):
                if isinstance(left := self.capacity.get(key), int):
                    self.capacity[key] = left + count
                    return

    def can_take(self, zone: str, instance_type: str, market: str, least: int) -> bool:
        with self.guard:
            for key in self._keys(zone, instance_type, market):
                if (left := self.capacity.get(key)) is not None:
                    return not isinstance(left, str) and left >= least
        return True

    def turns_to_terminated(self, zone: str, instance_type: str, market: str) -> bool:
        with self.guard:
            for key in self._keys(zone, instance_type, market):
                if self.failing.get(key, 0) > 0:
                    self.failing[key] -= 1
                    return True
        return False

    def quota(self, region: str, code: str) -> float:
        return self.quotas.get((region, code), MANY)

    def allowed_by_quota(
        self, region: str, instance_type: str, market: str, used: float, least: int, most: int
    ) -> int:
        """How many more, when so many virtual CPUs are in use under the same quota."""
        each = self.vcpus(instance_type)
        free = int((self.quota(region, quota_code(instance_type, market)) - used) // each)
        if free >= least:
            return min(free, most)
        if market == SPOT:
            raise ApiError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        limit = int(self.quota(region, quota_code(instance_type, market)))
        raise ApiError(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance "
            "bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )


@dataclass
class Bucket:
    size: float
    refill: float  # a second
    tokens: float = field(init=False)
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = self.size

    def take(self, count: float) -> bool:
        now = time.monotonic()
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.refill)
        self.at = now
        if self.tokens < count:
            return False
        self.tokens -= count
        return True


class Limits:
    """Token buckets by action, of a region; `*` is one bucket for what has none of its own. None by default."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[float, float]] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._guard = threading.Lock()

    def set(self, action: str, size: float, refill: float) -> None:
        with self._guard:
            self._sizes[action] = (size, refill)
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if key[1] != action}

    def clear(self) -> None:
        with self._guard:
            self._sizes.clear()
            self._buckets.clear()

    def check(self, region: str, action: str) -> None:
        with self._guard:
            name = action if action in self._sizes else "*"
            if name not in self._sizes:
                return
            bucket = self._buckets.setdefault((region, name), Bucket(*self._sizes[name]))
            if not bucket.take(1):
                raise ApiError("RequestLimitExceeded", "Request limit exceeded.", 503)

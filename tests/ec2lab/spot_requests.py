"""The spot requests that RunInstances makes: moto makes none."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from .instance import GONE, Instance
from .show import stamp
from .wire import ApiError, Reply, Request, build_xml, reply_xml


@dataclass
class SpotRequest:
    id: str
    region: str
    instance: Instance | None  # None: it may start one
    price: str
    tags: dict[str, str]
    made: float = field(default_factory=time.time)
    cancelled: bool = False

    @property
    def state(self) -> str:
        if self.instance is not None and self.instance.state in GONE:
            return "closed"
        return "cancelled" if self.cancelled else "open" if self.instance is None else "active"

    def shown(self) -> dict[str, object]:
        shown: dict[str, object] = {
            "spotInstanceRequestId": self.id,
            "spotPrice": self.price,
            "type": "one-time",
            "state": self.state,
            "createTime": stamp(self.made),
            "productDescription": "Linux/UNIX",
            "tagSet": [{"key": key, "value": value} for key, value in self.tags.items()],
        }
        if self.instance is not None:
            shown["instanceId"] = self.instance.id
            shown["launchedAvailabilityZone"] = self.instance.zone
            shown["launchSpecification"] = {"imageId": self.instance.image, "instanceType": self.instance.type}
        return shown


class SpotRequests:
    def __init__(self) -> None:
        self._requests: dict[str, SpotRequest] = {}

    def clear(self) -> None:
        self._requests.clear()

    def add(self, one: Instance, max_price: float | None, tags: dict[str, str]) -> str:
        made = SpotRequest(f"sir-{secrets.token_hex(4)}", one.region, one, f"{max_price or one.price:.6f}", tags)
        self._requests[made.id] = made
        return made.id

    def add_open(self, region: str, tags: dict[str, str]) -> str:
        made = SpotRequest(f"sir-{secrets.token_hex(4)}", region, None, "1.000000", tags)
        self._requests[made.id] = made
        return made.id

    def open(self) -> list[SpotRequest]:
        return [one for one in list(self._requests.values()) if one.state in {"open", "active"}]

    def tags_of(self, request_id: str) -> dict[str, str] | None:
        found = self._requests.get(request_id)
        return None if found is None else dict(found.tags)

    def tag(self, request_id: str, tags: dict[str, str]) -> bool:
        if (found := self._requests.get(request_id)) is not None:
            found.tags.update(tags)
        return found is not None

    def describe(self, request: Request) -> Reply:
        wanted, filters = request.list("SpotInstanceRequestId"), request.filters()
        shown = []
        for one in list(self._requests.values()):
            if one.region == request.region and (not wanted or one.id in wanted) and _fits(one, filters):
                shown.append(one.shown())
        return reply_xml(build_xml("DescribeSpotInstanceRequestsResponse", {"spotInstanceRequestSet": shown}))

    def cancel(self, request: Request) -> Reply:
        done = []
        for name in request.list("SpotInstanceRequestId"):
            if name not in self._requests:
                raise ApiError(
                    "InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{name}' does not exist"
                )
            self._requests[name].cancelled = True
            done.append({"spotInstanceRequestId": name, "state": "cancelled"})
        return reply_xml(build_xml("CancelSpotInstanceRequestsResponse", {"spotInstanceRequestSet": done}))


def _fits(one: SpotRequest, filters: dict[str, list[str]]) -> bool:
    for name, patterns in filters.items():
        values = {
            "state": [one.state],
            "instance-id": [one.instance.id] if one.instance is not None else [],
            "spot-instance-request-id": [one.id],
            "tag-key": list(one.tags),
        }.get(name)
        if values is None:
            values = [one.tags[name[4:]]] if name.startswith("tag:") and name[4:] in one.tags else []
        if not any(fnmatchcase(value, pattern) for value in values for pattern in patterns):
            return False
    return True

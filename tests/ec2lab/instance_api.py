"""What one does with instances that exist."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .fleet import Fleet
from .instance import CODES, Instance
from .launch_api import LaunchApi
from .moto_server import MotoServer
from .show import OF_THE_LAB, fits, overlay, stamp
from .spot_requests import SpotRequests
from .wire import ApiError, Reply, Request, build_xml, parse_xml, put, reply_xml, text

SHOWN_AFTER_END = 3600.0
ALL = "1000"


@dataclass
class Lag:
    """How far what is shown is behind what is; seconds."""

    hidden: float = 0.0
    """A new instance is not found."""
    stale: float = 0.0
    """States are those of so long ago."""
    empty: int = 0
    """So many of the next lists of instances are empty, though there are some."""
    blank: int = 0
    """So many of the next pages hold nothing and a token for what is there."""
    page: int | None = None
    """No list is longer, whatever was asked for; the rest is on further pages."""
    forget: float = SHOWN_AFTER_END
    """How long a terminated instance is shown."""


class InstanceApi:
    def __init__(self, moto: MotoServer, fleet: Fleet, launches: LaunchApi, spot: SpotRequests) -> None:
        self._moto, self._fleet, self._launches, self._spot = moto, fleet, launches, spot
        self.lag = Lag()
        self.refuse_end: set[str] = set()  # ids that are protected, "*" is all
        self.handlers: dict[str, Callable[[Request], Reply]] = {
            "RunInstances": launches.run_instances,
            "DescribeInstances": self.describe,
            "DescribeInstanceStatus": self.describe_status,
            "TerminateInstances": self.terminate,
            "StopInstances": self.stop,
            "StartInstances": self.start,
            "RebootInstances": self.reboot,
            "GetConsoleOutput": self.console,
            "DescribeInstanceAttribute": self.describe_attribute,
            "ModifyInstanceAttribute": self.modify_attribute,
            "CreateTags": self.tag,
            "DeleteTags": self.tag,
            "DescribeSpotInstanceRequests": spot.describe,
            "CancelSpotInstanceRequests": spot.cancel,
        }

    def find(self, request: Request, ids: list[str]) -> list[Instance]:
        """Those that the API knows by now; any other is an error."""
        if not ids:
            raise ApiError("MissingParameter", "The request must contain the parameter InstanceId")
        malformed = [one for one in ids if not one.startswith("i-")]
        if malformed:
            raise ApiError("InvalidInstanceID.Malformed", f'Invalid id: "{malformed[0]}"')
        known = self._fleet.instances
        lost = [one for one in ids if one not in known or not self._is_shown(known[one], request.region)]
        if lost:
            names = ", ".join(lost)
            text_of = (
                f"The instance ID{'s' if len(lost) > 1 else ''} '{names}' do{'' if len(lost) > 1 else 'es'} not exist"
            )
            raise ApiError("InvalidInstanceID.NotFound", text_of)
        return [known[one] for one in ids]

    def _is_shown(self, one: Instance, region: str) -> bool:
        now = time.time()
        if one.region != region or now - one.first_launch < self.lag.hidden:
            return False
        return one.state != "terminated" or now - one.history[-1].since < self.lag.forget

    def _shown_ids(self, region: str, ids: list[str], patterns: list[str] | None) -> list[str]:
        known = [one.id for one in list(self._fleet.instances.values()) if self._is_shown(one, region)]
        return [
            one
            for one in known
            if (not ids or one in ids) and (patterns is None or any(fnmatchcase(one, pattern) for pattern in patterns))
        ]

    # Look

    def describe(self, request: Request) -> Reply:
        ids, filters = request.list("InstanceId"), request.filters()
        if ids:
            self.find(request, ids)
        shown = self._shown_ids(request.region, ids, filters.pop("instance-id", None))
        if not shown:
            return reply_xml(build_xml("DescribeInstancesResponse", {"reservationSet": []}))
        filters["instance-id"] = shown  # not what ended long ago: moto forgets nothing
        ours = {name: values for name, values in filters.items() if name in OF_THE_LAB}
        params = {"Action": "DescribeInstances", "Version": request.params["Version"], "MaxResults": ALL}
        number = 0
        for name, values in filters.items():
            if name not in ours:
                number += 1
                params[f"Filter.{number}.Name"] = name
                params |= {f"Filter.{number}.Value.{place}": value for place, value in enumerate(values, 1)}
        reply = self._moto.forward(request.with_params(params))
        root = parse_xml(reply.body)
        if reply.status != 200:
            return reply
        reservations = root.find("reservationSet")
        assert reservations is not None
        for reservation in list(reservations):
            items = reservation.find("instancesSet")
            assert items is not None
            for item in list(items):
                one = self._fleet.instances.get(text(item, "instanceId"))
                if one is None:
                    items.remove(item)
                    continue
                overlay(item, one, time.time() - self.lag.stale)
                if not fits(item, ours):
                    items.remove(item)
            if len(items) == 0:
                reservations.remove(reservation)
        if self.lag.empty > 0 and not ids:
            self.lag.empty -= 1
            for reservation in list(reservations):
                reservations.remove(reservation)
        start, size = int(request.params.get("NextToken") or 0), int(request.params.get("MaxResults") or 1 << 30)
        end = start + min(size, self.lag.page or size)
        if self.lag.blank > 0:
            self.lag.blank -= 1
            end = start
        everything = list(reservations)
        for reservation in [*everything[:start], *everything[end:]]:
            reservations.remove(reservation)
        put(root, "nextToken", str(end) if end < len(everything) else None)
        return reply_xml(root)

    def describe_status(self, request: Request) -> Reply:
        ids = request.list("InstanceId")
        known = self.find(request, ids) if ids else list(self._fleet.instances.values())
        every = request.is_true("IncludeAllInstances")
        shown = []
        for one in known:
            state = one.at(time.time() - self.lag.stale).state
            if self._is_shown(one, request.region) and (every or state == "running"):
                health = "impaired" if one.impaired else "ok" if one.boots else "initializing"
                health = health if state == "running" else "not-applicable"
                status = {"status": health}
                shown.append({
                    "instanceId": one.id, "availabilityZone": one.zone,
                    "instanceState": {"code": CODES[state], "name": state},
                    "systemStatus": status, "instanceStatus": status,
                })  # fmt: skip
        return reply_xml(build_xml("DescribeInstanceStatusResponse", {"instanceStatusSet": shown}))

    def console(self, request: Request) -> Reply:
        one = self.find(request, [request.params["InstanceId"]])[0]
        output = base64.b64encode(one.console.encode()[-65536:]).decode()
        content = {"instanceId": one.id, "timestamp": stamp(time.time()), "output": output}
        return reply_xml(build_xml("GetConsoleOutputResponse", content))

    # Act

    def terminate(self, request: Request) -> Reply:
        known = self.find(request, request.list("InstanceId"))
        for one in known:
            if one.protected or self.refuse_end & {"*", one.id}:
                raise ApiError(
                    "OperationNotPermitted",
                    f"The instance '{one.id}' may not be terminated. Modify its 'disableApiTermination' instance "
                    "attribute and try again.",
                )
        return self._change("TerminateInstancesResponse", known, self._fleet.terminate)

    def stop(self, request: Request) -> Reply:
        known = self.find(request, request.list("InstanceId"))
        for one in known:
            if one.market == "spot":
                raise ApiError(
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{one.id}' because it is associated with a one-time Spot "
                    "Instance request. You can only stop Spot Instances associated with persistent Spot Instance "
                    "requests.",
                )
            self._needs(one, {"running", "pending", "stopping", "stopped"})
        force = request.is_true("Force")
        return self._change("StopInstancesResponse", known, lambda one: self._fleet.stop(one, force=force))

    def start(self, request: Request) -> Reply:
        known = self.find(request, request.list("InstanceId"))
        for one in known:
            self._needs(one, {"stopped", "running", "pending"})
        return self._change("StartInstancesResponse", known, self._fleet.start)

    def reboot(self, request: Request) -> Reply:
        for one in self.find(request, request.list("InstanceId")):
            self._needs(one, {"running", "pending"})
            self._fleet.reboot(one)
        return reply_xml(build_xml("RebootInstancesResponse", {"return": True}))

    @staticmethod
    def _needs(one: Instance, states: set[str]) -> None:
        if one.state not in states:
            text_of = f"The instance '{one.id}' is not in a state from which it can be {'/'.join(sorted(states))}."
            raise ApiError("IncorrectInstanceState", text_of)

    @staticmethod
    def _change(name: str, known: list[Instance], act: Callable[[Instance], object]) -> Reply:
        shown = []
        for one in known:
            before = one.state
            act(one)
            shown.append({
                "instanceId": one.id,
                "currentState": {"code": CODES[one.state], "name": one.state},
                "previousState": {"code": CODES[before], "name": before},
            })  # fmt: skip
        return reply_xml(build_xml(name, {"instancesSet": shown}))

    # Attributes and tags

    def describe_attribute(self, request: Request) -> Reply:
        one = self.find(request, [request.params["InstanceId"]])[0]
        name = request.params["Attribute"]
        values = {
            "disableApiTermination": {"value": one.protected},
            "instanceInitiatedShutdownBehavior": {"value": one.shutdown},
            "instanceType": {"value": one.type},
            "userData": {"value": base64.b64encode(one.user_data).decode()},
            "groupSet": [{"groupId": group} for group in one.groups],
        }
        if name not in values:
            return self._moto.forward(request)
        content = {"instanceId": one.id, name: values[name]}
        return reply_xml(build_xml("DescribeInstanceAttributeResponse", content))

    def modify_attribute(self, request: Request) -> Reply:
        one = self.find(request, [request.params["InstanceId"]])[0]
        params = request.params
        name, value = str(params.get("Attribute", "")), str(params.get("Value", ""))
        protected = params.get("DisableApiTermination.Value", value if name == "disableApiTermination" else None)
        shutdown = params.get("InstanceInitiatedShutdownBehavior.Value")
        groups = request.list("GroupId")
        if protected is not None:
            one.protected = protected == "true"
        if shutdown is None and name == "instanceInitiatedShutdownBehavior":
            shutdown = value
        if shutdown is not None:
            one.shutdown = shutdown
        if groups:
            one.groups = groups
            self._fleet.apply_firewall(one)
        if protected is None and shutdown is None:
            return self._moto.forward(request)
        return reply_xml(build_xml("ModifyInstanceAttributeResponse", {"return": True}))

    def tag(self, request: Request) -> Reply:
        ids = request.list("ResourceId")
        instances = [one for one in ids if one.startswith("i-")]
        if instances:
            self.find(request, instances)
        tags = {group["Key"]: group.get("Value", "") for group in request.groups("Tag")}
        for one in ids:
            self._spot.tag(one, tags)
        return self._moto.forward(request)

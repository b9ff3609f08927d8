"""What moto lacks around the instances: spot prices, SSM's public parameters, price list, quotas, groups in use."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from . import images
from .fleet import Fleet
from .instance import Instance
from .launch_api import LaunchApi
from .market import QUOTAS, Market
from .moto_server import MotoServer
from .show import stamp
from .wire import ApiError, Reply, Request, build_xml, parse_xml, reply_json, reply_xml, text

QUOTA_OWNER = {"ServiceCode": "ec2", "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)"}
LOCATIONS = {"us-east-1": "US East (N. Virginia)", "eu-west-3": "Europe (Paris)", "eu-west-1": "Europe (Ireland)"}


class Services:
    def __init__(
        self,
        moto: MotoServer,
        fleet: Fleet,
        market: Market,
        launches: LaunchApi,
        groups_changed: Callable[[str], None],
    ) -> None:
        self._moto, self._fleet, self._market, self._launches = moto, fleet, market, launches
        self._groups_changed = groups_changed
        self.parameters: dict[tuple[str, str], str | None] = {}  # (region, name): beside those of the images
        self.handlers: dict[str, Callable[[Request], Reply]] = {
            "DescribeSpotPriceHistory": self.spot_prices,
            "DescribeImages": self.describe_images,
            "GetParameter": self.parameter,
            "GetParameters": self.parameter_list,
            "GetParametersByPath": self.parameters_below,
            "GetProducts": self.products,
            "GetServiceQuota": self.quota,
            "ListServiceQuotas": self.quotas,
            "ImportKeyPair": self.key_pair,
            "CreateKeyPair": self.key_pair,
            "DeleteSecurityGroup": self.delete_group,
            "AuthorizeSecurityGroupIngress": self.change_group,
            "RevokeSecurityGroupIngress": self.change_group,
            "ModifySecurityGroupRules": self.change_group,
        }

    # EC2

    def spot_prices(self, request: Request) -> Reply:
        kinds, filters = request.list("InstanceType"), request.filters()
        kinds = kinds or filters.get("instance-type", []) or sorted(self._market.on_demand)
        found = self._moto.query(request.region, "DescribeAvailabilityZones", {})
        zones = [text(item, "zoneName") for item in found.iterfind("availabilityZoneInfo/item")]
        wanted = request.params.get("AvailabilityZone")
        wanted_zones = [wanted] if wanted else filters.get("availability-zone", zones)
        since = _time(request.params.get("StartTime"))
        rows = []
        for kind in kinds:
            for zone in [zone for zone in zones if zone in wanted_zones]:
                for when, price in self._market.history(zone, kind):
                    rows.append({
                        "instanceType": kind, "productDescription": "Linux/UNIX", "spotPrice": f"{price:.6f}",
                        "timestamp": stamp(when), "availabilityZone": zone,
                    })  # fmt: skip
                    if since is not None and when <= since:
                        break  # the one that was in force at the start is shown, and nothing older
        start, size = int(request.params.get("NextToken") or 0), int(request.params.get("MaxResults") or 1000)
        content: dict[str, Any] = {"spotPriceHistorySet": rows[start : start + size]}
        content["nextToken"] = str(start + size) if start + size < len(rows) else ""
        return reply_xml(build_xml("DescribeSpotPriceHistoryResponse", content))

    def describe_images(self, request: Request) -> Reply:
        """Those of the region alone, as moto has one list for all; only Amazon's have its alias."""
        for name in request.list("ImageId"):
            if images.region_of(name) not in (None, request.region):
                raise ApiError("InvalidAMIID.NotFound", f"The image id '[{name}]' does not exist")
        reply = self._moto.forward(request)
        if reply.status != 200:
            return reply
        root = parse_xml(reply.body)
        found = root.find("imagesSet")
        assert found is not None
        for item in list(found):
            if images.region_of(text(item, "imageId")) not in (None, request.region):
                found.remove(item)
            elif text(item, "imageOwnerId") != images.AMAZON:  # moto gives the alias to all that it read from its file
                for alias in item.findall("imageOwnerAlias"):
                    item.remove(alias)
        return reply_xml(root)

    def key_pair(self, request: Request) -> Reply:
        """The public part is kept for machines of this key."""
        reply = self._moto.forward(request)
        if reply.status == 200:
            name = str(request.params["KeyName"])
            if request.action == "ImportKeyPair":
                import base64

                public = base64.b64decode(request.params["PublicKeyMaterial"]).decode().strip()
            else:
                private = text(parse_xml(reply.body), "keyMaterial")
                command = ["ssh-keygen", "-y", "-f", "/dev/stdin"]
                done = subprocess.run(command, input=private, capture_output=True, text=True, check=True, timeout=20)
                public = done.stdout.strip()
            self._launches.public_keys[request.region, name] = public
        return reply

    def delete_group(self, request: Request) -> Reply:
        group = request.params.get("GroupId")
        users = [one.id for one in self._living(request.region) if group in one.groups]
        if users:
            raise ApiError("DependencyViolation", f"resource {group} has a dependent object")
        return self._moto.forward(request)

    def change_group(self, request: Request) -> Reply:
        reply = self._moto.forward(request)
        self._groups_changed(request.region)
        return reply

    def _living(self, region: str) -> list[Instance]:
        known = list(self._fleet.instances.values())
        return [one for one in known if one.region == region and one.state != "terminated"]

    # SSM

    def _value(self, region: str, name: str) -> str | None:
        if (region, name) in self.parameters:
            return self.parameters[region, name]
        return images.parameters(region).get(name)

    @staticmethod
    def _shown(region: str, name: str, value: str) -> dict[str, object]:
        arn = f"arn:aws:ssm:{region}::parameter{name}"
        return {"Name": name, "Type": "String", "Value": value, "Version": 1, "ARN": arn, "DataType": "aws:ec2:image"}

    def parameter(self, request: Request) -> Reply:
        name = str(request.params["Name"])
        value = self._value(request.region, name)
        if value is None:
            if name.startswith("/aws/"):
                raise ApiError("ParameterNotFound", "")
            return self._moto.forward(request)
        return reply_json({"Parameter": self._shown(request.region, name, value)})

    def parameter_list(self, request: Request) -> Reply:
        pairs = [(name, self._value(request.region, name)) for name in request.params["Names"]]
        known = [self._shown(request.region, name, value) for name, value in pairs if value is not None]
        return reply_json({"Parameters": known, "InvalidParameters": [name for name, value in pairs if value is None]})

    def parameters_below(self, request: Request) -> Reply:
        below = str(request.params["Path"]).rstrip("/") + "/"
        everything = {
            **images.parameters(request.region),
            **{name: value for (region, name), value in self.parameters.items() if region == request.region},
        }
        found = [
            self._shown(request.region, name, value)
            for name, value in sorted(everything.items())
            if value is not None and name.startswith(below)
        ]
        return reply_json({"Parameters": found})

    # Prices and quotas

    def products(self, request: Request) -> Reply:
        wanted = {one["Field"]: one["Value"] for one in request.params.get("Filters", [])}
        region = wanted.get("regionCode", "us-east-1")
        kinds = [wanted["instanceType"]] if "instanceType" in wanted else sorted(self._market.on_demand)
        fixed = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
                 "licenseModel": "No License required", "marketoption": "OnDemand", "regionCode": region,
                 "servicecode": "AmazonEC2", "location": LOCATIONS.get(region, region)}  # fmt: skip
        lines = []
        for kind in kinds:
            attributes = {
                **fixed,
                "instanceType": kind,
                "vcpu": str(self._market.vcpus(kind)),
                "operation": "RunInstances",
            }
            if all(attributes.get(name, value) == value for name, value in wanted.items()):
                lines.append(json.dumps(_product(kind, attributes, self._market.price("", kind, "on-demand"))))
        start, size = int(request.params.get("NextToken") or 0), int(request.params.get("MaxResults") or 100)
        content: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": lines[start : start + size]}
        if start + size < len(lines):
            content["NextToken"] = str(start + size)
        return reply_json(content)

    def quota(self, request: Request) -> Reply:
        code = str(request.params["QuotaCode"])
        if request.params["ServiceCode"] != "ec2" or code not in QUOTAS:
            raise ApiError("NoSuchResourceException", "The request failed because the specified quota does not exist.")
        return reply_json({"Quota": self._quota(request.region, code)})

    def quotas(self, request: Request) -> Reply:
        return reply_json({"Quotas": [self._quota(request.region, code) for code in QUOTAS]})

    def _quota(self, region: str, code: str) -> dict[str, object]:
        return {
            **QUOTA_OWNER,
            "QuotaCode": code,
            "QuotaName": QUOTAS[code][0],
            "QuotaArn": f"arn:aws:servicequotas:{region}:123456789012:ec2/{code}",
            "Value": self._market.quota(region, code),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }


def _product(kind: str, attributes: dict[str, str], price: float) -> dict[str, object]:
    sku = f"LAB{kind.replace('.', '').upper()}"
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{price:.10f}"}, "beginRange": "0", "endRange": "Inf"}
    term = {"priceDimensions": {f"{sku}.JRTCKXETXF.6YS6EN2CT7": dimension}, "sku": sku, "termAttributes": {}}
    product = {"productFamily": "Compute Instance", "attributes": attributes, "sku": sku}
    return {"product": product, "serviceCode": "AmazonEC2", "terms": {"OnDemand": {f"{sku}.JRTCKXETXF": term}}}


def _time(value: str | None) -> float | None:
    import calendar

    return None if not value else calendar.timegm(time.strptime(value[:19], "%Y-%m-%dT%H:%M:%S"))

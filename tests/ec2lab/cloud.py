"""The cloud of one test: what it is made of, and what a test does to it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from sshlab import Lab, NotHere
from sshlab.namespace_host import NamespaceHost
from sshlab.spec import NEEDS_NAMESPACES

from . import images
from .access import Access, Credential
from .faults import Call, Fault, Gate, When
from .firewall import Firewall
from .fleet import Delays, Fleet
from .front import Front
from .imds import ADDRESS, Metadata
from .instance import GONE, SPOT, Instance
from .instance_api import InstanceApi, Lag
from .launch_api import Broken, LaunchApi
from .leaks import list_leaks
from .ledger import Row, rows_of
from .market import Limits, Market
from .moto_server import MotoServer, write_images
from .policy import Policy
from .service_files import write_service_files
from .services import Services
from .spot_requests import SpotRequests
from .timekeeper import Timekeeper
from .wire import ApiError, Reply, Request, text

KEY, SECRET = "AKIALABLABLABLABLAB0", "lab/secret/of/nobody/0000000000000000000"


class Cloud:
    """Keyword arguments are fields of Delays. Needs hosts in namespaces; raises NotHere where they cannot be."""

    def __init__(self, *, region: str = "eu-west-3", **delays: float) -> None:
        self.region = region
        missing = [tool for tool in ("sudo", "curl") if shutil.which(tool) is None]
        if missing:
            raise NotHere(f"machines need {', '.join(missing)} (apt-get install {' '.join(missing)})")
        self._closed = False
        self._guard = threading.Lock()
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}  # by service and region
        self._delays = delays
        self.is_new = True  # until a test has it
        self.lab = Lab()
        self._moto: MotoServer | None = None
        self._front: Front | None = None
        self._metadata: Metadata | None = None
        self._time: Timekeeper | None = None
        try:
            if self.lab.level != "namespaces":
                raise NotHere(NEEDS_NAMESPACES)
            self._router = self._put_metadata_address()
            path = self.lab.directory / "images.json"
            write_images(path, images.as_moto_reads())
            self._moto = MotoServer(path)
            write_service_files(self.lab.directory / "boto")
            self._time = Timekeeper()
            self._fleet = Fleet(self.lab, self._time, self._forget)
            self.market = Market(self.vcpus)
            self.limits = Limits()
            self.access = Access()
            self._spot = SpotRequests()
            self._launches = LaunchApi(self._moto, self._fleet, self.market, self._spot)
            self._instances = InstanceApi(self._moto, self._fleet, self._launches, self._spot)
            self._firewall = Firewall(self._moto, self._fleet)
            self._services = Services(self._moto, self._fleet, self.market, self._launches, self._firewall.reload)
            self._front = Front(self._router.client, self.access, self._carry, self._limit)
            self._metadata = Metadata(f"/proc/{self._keeper}/ns/net", self._fleet.of_address)
            self._set_defaults()
        except BaseException:
            self.close()
            raise

    def _put_metadata_address(self) -> Any:
        made: Any = self.lab._level
        self._keeper: int = made.keeper
        made.router._ip(f"address add {ADDRESS}/32 dev lo")
        return made.router

    def _set_defaults(self) -> None:
        self._fleet.delays = Delays(**self._delays)
        self.access.credentials[KEY] = Credential(KEY, SECRET)

    # For a client

    @property
    def url(self) -> str:
        assert self._front is not None
        return self._front.url

    @property
    def environ(self) -> dict[str, str]:
        """For a client in a process of its own: this cloud, its key, and nothing of the user's own account."""
        nowhere = str(self.lab.directory / "no-such-file")
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_DATA_PATH": str(self.lab.directory / "boto"),
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), self._router.client])),
        }

    @property
    def client_address(self) -> str:
        """From which machines see us come; `GET {url}/checkip` says it too."""
        return str(self._router.client)

    def client(self, service: str = "ec2", region: str | None = None, **more: Any) -> Any:
        """A plain boto3 client of this cloud, whatever the environment says. One session makes all: EC2's model is
        parsed once; and one client serves all who ask for the same."""
        import boto3
        import botocore.loaders
        import botocore.session

        where = region or self.region
        with self._guard:
            if self._session is None:
                plain = botocore.session.Session()
                plain.register_component("data_loader", botocore.loaders.Loader())  # whole, whatever the environment
                self._session = boto3.session.Session(KEY, SECRET, botocore_session=plain)
            made = None if more else self._clients.get((service, where))
            if made is None:
                made = self._session.client(service, where, endpoint_url=self.url, **more)
            if not more:
                self._clients[service, where] = made
            return made

    def image(self, name: str = "noble", region: str | None = None, arch: str = "x86_64") -> str:
        """The id of an image of the lab by a part of its name; the stranger's is not among them."""
        found = [
            one for one in images.IMAGES if name in one.name and one.arch == arch and one.owner != images.STRANGER
        ]
        return found[0].id(region or self.region)

    # What happened

    @property
    def calls(self) -> list[Call]:
        assert self._front is not None
        return self._front.calls

    def calls_of(self, *actions: str) -> list[Call]:
        return [call for call in self.calls if call.action in actions]

    @property
    def instances(self) -> list[Instance]:
        """All there ever were, also terminated ones, in order of launch."""
        return list(self._fleet.instances.values())

    @property
    def alive(self) -> list[Instance]:
        """Those that are neither terminated nor on the way there."""
        return [one for one in self.instances if one.state not in GONE]

    def instance(self, instance_id: str) -> Instance:
        return self._fleet[instance_id]

    def host(self, instance_id: str) -> NamespaceHost:
        """The machine under an instance, once it is made: cut its network, look into it, pause it."""
        one = self._fleet[instance_id]
        with one.work:
            if one.host is None:
                raise LookupError(f"{instance_id} has no machine now: it is {one.state}")
            return one.host

    def wait(self, instance_id: str, state: str, timeout: float = 30) -> Instance:
        one = self._fleet[instance_id]
        if one.state != state:
            one.wait(state, timeout)
        return one

    def ledger(self) -> list[Row]:
        return [row for one in self.instances for row in rows_of(one)]

    def bill(self) -> float:
        """Dollars for machines until now; see the ledger's rule."""
        return sum(row.dollars for row in self.ledger())

    def leaks(self) -> list[str]:
        """What is still there in any region that was called, such as `instance i-… running in eu-west-3`."""
        assert self._moto is not None
        regions = {self.region, *(call.region for call in self.calls if call.region)}
        return list_leaks(self._moto, self._fleet, self._spot, sorted(regions))

    @property
    def failures(self) -> list[str]:
        """What went wrong in the lab itself."""
        assert self._front is not None and self._time is not None
        return [*self._front.failures, *self._time.failures]

    # Faults of calls: `when` compares parameters as they are on the wire, or is a function of the request

    def inject(
        self,
        action: str,
        error: str,
        *,
        message: str = "",
        status: int | None = None,
        times: int | None = 1,
        skip: int = 0,
        when: When | None = None,
        region: str | None = None,
        after: bool = False,
    ) -> Fault:
        """Answer with an error; `after`: the work is done nevertheless. times=None: until it is lifted."""
        return self._fault(action, error=ApiError(error, message, status), times=times, skip=skip, when=when,
                           region=region, after=after)  # fmt: skip

    def lose_reply(self, action: str, **how: Any) -> Fault:
        """The work is done, and the connection closed without an answer. SDKs try again by themselves: see times."""
        return self._fault(action, drop=True, after=True, **how)

    def lose_request(self, action: str, **how: Any) -> Fault:
        return self._fault(action, drop=True, **how)

    def delay(self, action: str, seconds: float, *, after: bool = False, **how: Any) -> Fault:
        return self._fault(action, delay=seconds, after=after, **how)

    def deliver_twice(self, action: str, **how: Any) -> Fault:
        return self._fault(action, twice=True, **how)

    def hold(self, action: str, *, after: bool = False, **how: Any) -> Gate:
        """Stop the next call before or after its effect: wait for gate.reached, and let it go by gate.release()."""
        gate = Gate(after)
        self._fault(action, gate=gate, after=after, **how)
        return gate

    def _fault(self, action: str, **how: Any) -> Fault:
        assert self._front is not None
        return self._front.faults.add(Fault(action, **how))

    def lift(self, *faults: Fault) -> None:
        """These faults of calls, or all."""
        assert self._front is not None
        for fault in faults:
            self._front.faults.remove(fault)
        if not faults:
            self._front.faults.clear()

    def outage(self, region: str, how: str | None = "drop") -> None:
        """Of all services of a region: connections are closed (`drop`), or a code of errors; None: it is over."""
        assert self._front is not None
        if how is None:
            self._front.outages.pop(region, None)
        else:
            self._front.outages[region] = how

    @property
    def lag(self) -> Lag:
        """How far DescribeInstances is behind: set its fields."""
        return self._instances.lag

    @property
    def delays(self) -> Delays:
        return self._fleet.delays

    # Credentials

    @property
    def credential(self) -> Credential:
        """Of `environ`: its `expires`, `denied` and `may` may be set."""
        return self.access.credentials[KEY]

    def add_credential(
        self, key: str, secret: str, token: str | None = None, expires: float | None = None
    ) -> Credential:
        made = Credential(key, secret, token, expires)
        self.access.credentials[key] = made
        return made

    def expire_credentials(self) -> None:
        self.credential.expires = 0.0

    def renew_credentials(self) -> None:
        self.credential.expires = None

    def deny(self, *actions: str) -> None:
        """UnauthorizedOperation for these (`TerminateInstances`, `ec2:Run*`), DryRun included."""
        self.credential.denied += actions

    def allow(self, *actions: str) -> None:
        """Take back what deny() did for these, or for all."""
        self.credential.denied = [one for one in self.credential.denied if actions and one not in actions]

    def enforce(self, policy: Mapping[str, Any]) -> Policy:
        """For the key of `environ`: what this IAM policy does not allow is UnauthorizedOperation."""
        made = Policy(policy, self._tags_of)
        self.credential.may = made.allows
        return made

    # Machines

    def break_next(self, how: str = "no sshd", times: int | None = 1, region: str | None = None) -> None:
        """The next machines boot without sshd, with `no cloud-init`, are `impaired`, or there is `no machine`."""
        self._launches.break_next.append(Broken(how, times, region))

    boot_broken = break_next

    @property
    def machine_environ(self) -> dict[str, str]:
        """Of logins on machines that are launched from now on, beside the usual."""
        return self._fleet.environ

    def protect(self, instance_id: str = "*") -> None:
        """TerminateInstances is refused."""
        self._instances.refuse_end.add(instance_id)

    def unprotect(self, instance_id: str = "*") -> None:
        self._instances.refuse_end.discard(instance_id)

    def linger(self, instance_id: str = "*") -> None:
        """What is terminated stays shutting-down until let_end()."""
        self._fleet.lingering.add(instance_id)

    def let_end(self, instance_id: str = "*") -> None:
        self._fleet.lingering.discard(instance_id)
        for one in self.instances:
            if one.state == "shutting-down":
                self._fleet.finish(one)

    def notice(
        self, instance_id: str, seconds: float = 2.0, *, withdrawn: bool = False, action: str = "terminate"
    ) -> None:
        """Announce by IMDS that a spot machine is taken back in so many seconds, and do it; or take that back."""
        if withdrawn:
            self._fleet.withdraw(self._fleet[instance_id])
        else:
            self._fleet.notice(self._fleet[instance_id], seconds, action)

    def reclaim(self, instance_id: str) -> None:
        """Take a spot machine back without notice: silence, then Server.SpotInstanceTermination."""
        self._fleet.terminate(self._fleet[instance_id], SPOT, silent=True)

    # As somebody at the console, past all faults

    def request_spot(self, tags: Mapping[str, str], region: str | None = None) -> str:
        """A request that no machine runs by: it may start one at any time."""
        return self._spot.add_open(region or self.region, dict(tags))

    def terminate(self, instance_id: str) -> None:
        self._fleet.terminate(self._fleet[instance_id])

    def stop(self, instance_id: str, *, force: bool = False) -> None:
        """`force`: as if the power had failed."""
        self._fleet.stop(self._fleet[instance_id], force=force)

    def start(self, instance_id: str) -> None:
        self._fleet.start(self._fleet[instance_id])

    def reboot(self, instance_id: str) -> None:
        self._fleet.reboot(self._fleet[instance_id])

    def retag(self, resource_id: str, tags: Mapping[str, str | None], region: str | None = None) -> None:
        """None removes a tag."""
        assert self._moto is not None
        where = region or (self._fleet[resource_id].region if resource_id in self._fleet.instances else self.region)
        for action, pairs in (
            ("CreateTags", {key: value for key, value in tags.items() if value is not None}),
            ("DeleteTags", {key: None for key, value in tags.items() if value is None}),
        ):
            params = {"ResourceId.1": resource_id}
            for number, (key, value) in enumerate(pairs.items(), 1):
                params[f"Tag.{number}.Key"] = key
                if value is not None:
                    params[f"Tag.{number}.Value"] = value
            if pairs:
                self._moto.query(where, action, params)

    def tags(self, instance_id: str) -> dict[str, str]:
        return self._tags_of(self._fleet[instance_id].region, instance_id)

    def _tags_of(self, region: str, resource_id: str) -> dict[str, str]:
        assert self._moto is not None
        if (tags := self._spot.tags_of(resource_id)) is not None:
            return tags
        params = {"Filter.1.Name": "resource-id", "Filter.1.Value.1": resource_id}
        found = self._moto.query(region, "DescribeTags", params)
        return {text(item, "key"): text(item, "value") for item in found.iterfind("tagSet/item")}

    def set_parameter(self, name: str, value: str | None, region: str | None = None) -> None:
        """A public parameter of SSM; None: it is not there."""
        self._services.parameters[region or self.region, name] = value

    @property
    def asked_metadata(self) -> list[tuple[str, str]]:
        """(instance, path) of what machines have read at 169.254.169.254."""
        assert self._metadata is not None
        return self._metadata.asked

    def vcpus(self, kind: str) -> int:
        """Of a type; raises what EC2 says of one that does not exist."""
        if kind not in self._vcpus:
            assert self._moto is not None
            try:
                found = self._moto.query("us-east-1", "DescribeInstanceTypes", {"InstanceType.1": kind})
                self._vcpus[kind] = int(text(found, "instanceTypeSet/item/vCpuInfo/defaultVCpus"))
            except (ApiError, ValueError):
                message = f"Invalid value '{kind}' for InstanceType."
                raise ApiError("InvalidParameterValue", message) from None
        return self._vcpus[kind]

    _vcpus: dict[str, int] = {}  # noqa: RUF012

    # The lab's own

    def _carry(self, request: Request, call: Call) -> Reply:
        assert self._moto is not None
        for handlers in (self._instances.handlers, self._services.handlers):
            if (handler := handlers.get(request.action)) is not None:
                return handler(request)
        return self._moto.forward(request)

    def _limit(self, request: Request) -> None:
        if request.service == "ec2":
            self.limits.check(request.region, request.action)

    def _forget(self, one: Instance) -> None:
        """What was an ended instance's own: disks and interfaces."""
        assert self._moto is not None
        self._moto.query(one.region, "TerminateInstances", {"InstanceId.1": one.id})
        known = self._moto.query(one.region, "DescribeNetworkInterfaces", {})
        here = {text(item, "networkInterfaceId") for item in known.iterfind("networkInterfaceSet/item")}
        for interface in here & set(one.interfaces):
            where = {"NetworkInterfaceId": interface}
            found = self._moto.query(one.region, "DescribeNetworkInterfaces", {"NetworkInterfaceId.1": interface})
            with suppress(ApiError):  # of an instance that has ended, moto detaches it and then says that it cannot
                attachment = text(found, "networkInterfaceSet/item/attachment/attachmentId")
                self._moto.query(one.region, "DetachNetworkInterface", {"AttachmentId": attachment})
            self._moto.query(one.region, "DeleteNetworkInterface", where)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        assert self._time is not None
        self._time.close()
        yield
        self._time = Timekeeper()
        self._fleet._time = self._time

    def reset(self) -> None:
        """As new: no machine, no fault, no record, and every setting as it was."""
        assert self._front is not None and self._moto is not None and self._metadata is not None
        self.is_new = False
        self._front.faults.clear()
        self._front.outages.clear()
        failures = self.failures
        with self._quiet():
            self.lab.remove(*list(self.lab.hosts))
            for one in self.instances:
                if one.number is not None:
                    self.lab.give_number(one.number)
            self._fleet.instances.clear()
            self._fleet.lingering.clear()
            self._fleet.environ.clear()
            self._moto.reset()
            self._launches.clear()
            self._spot.clear()
            self._firewall.clear()
            self.limits.clear()
            fresh = Market(self.vcpus)
            self.market.__dict__.update({name: value for name, value in fresh.__dict__.items() if name != "guard"})
            self._instances.lag = Lag()
            self._instances.refuse_end.clear()
            self._services.parameters.clear()
            self.access.credentials.clear()
            self.access.skew = 0.0
            self._metadata.asked.clear()
            self._front.failures.clear()
            self._front.calls = []
            self._set_defaults()
        if failures:
            raise AssertionError("the lab itself failed:\n" + "\n".join(failures))

    def __enter__(self) -> Cloud:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every machine and process; raises nothing."""
        if self._closed:
            return
        self._closed = True
        if self._front is not None:
            self._front.close()
        if self._time is not None:
            self._time.close()
        if self._metadata is not None:
            self._metadata.close()
        if self._moto is not None:
            self._moto.close()
        self.lab.close()

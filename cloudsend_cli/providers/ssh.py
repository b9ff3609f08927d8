"""Hosts that exist and that the user named. Nothing is ever created or destroyed: an instance is a claim on a host.

Idempotency: see claims. No network is used here: whether a host answers is its link's affair.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cloudsend_cli.core.model import (
    UNBOUNDED,
    HostAddress,
    InstanceSpec,
    InstanceStatus,
    MachinePlan,
    Offer,
    ProviderDefinition,
    Resources,
    list_known,
)
from cloudsend_cli.errors import ConfigError, Problem

from .claims import Claims

Host = Mapping[str, object]  # one entry of `hosts`, checked and complete

_ADDRESS_SETTINGS = ("key", "jump", "python", "shared", "max_load")
_SIZES = ("cpus", "memory", "gpus")
_SHOWN_MOST = 12


class SshProvider:
    """The hosts of one definition, in the order of its list."""

    slow = False

    def __init__(self, definition: ProviderDefinition, state_dir: Path) -> None:
        self.name = definition.name
        self._hosts = parse_hosts(definition.settings)
        self._claims = Claims(state_dir, definition.name)

    def check(self, spec: InstanceSpec) -> list[str]:
        if not self._hosts:
            return [f"provider {self.name!r} has no hosts"]
        wanted = Wanted(spec)
        unknown = [label for label in wanted.labels if not any(label in _labels(host) for host in self._hosts)]
        if unknown:
            known = sorted({label for host in self._hosts for label in _labels(host)})
            near = difflib.get_close_matches(unknown[0], known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"labels there: {_join(known)}"
            return [f"labels: no host of provider {self.name!r} carries {unknown[0]!r}; {hint}"]
        fitting = [host for host in self._hosts if wanted.fits(host)]
        if not fitting:
            return [f"no host of provider {self.name!r} fits: {_join(map(_describe, self._hosts))}"]
        if spec.number > len(fitting):
            return [self._too_many(spec.number, fitting)]
        return []

    def _too_many(self, number: int, fitting: Sequence[Host]) -> str:
        names = _join(str(host["name"]) for host in fitting)
        what = "1 host fits" if len(fitting) == 1 else f"{len(fitting)} hosts fit"
        return f"number: {number} is more than provider {self.name!r} has: {what}: {names}"

    def largest(self, spec: InstanceSpec) -> Resources | None:
        """The largest host that fits, None while the size of one of them is not declared."""
        wanted = Wanted(spec)
        sizes = [wanted.capacity(host) for host in self._hosts if wanted.fits(host)]
        known = [size for size in sizes if size is not None and len(list_known(size)) == len(_SIZES)]
        if not known or len(known) < len(sizes):
            return None
        return max(known, key=lambda size: (size.gpus, size.cpus, size.memory))

    def plan_machines(self, specs: Sequence[InstanceSpec]) -> Sequence[MachinePlan]:
        """Each host once. ConfigError when earlier specs leave too few for a later one."""
        plans: list[MachinePlan] = []
        taken: set[str] = set()
        for spec in specs:
            wanted = Wanted(spec)
            fitting = [host for host in self._hosts if wanted.fits(host)]
            free = [host for host in fitting if host["name"] not in taken]
            if not free or spec.number > len(free):
                raise ConfigError([Problem(self._none_left(spec, fitting, free))])
            for host in free[: spec.number or None]:
                taken.add(str(host["name"]))
                offer = Offer(render_request(host), wanted.capacity(host))
                plans.append(MachinePlan((offer,), str(host["name"])))
        return plans

    def _none_left(self, spec: InstanceSpec, fitting: Sequence[Host], free: Sequence[Host]) -> str:
        if not fitting or spec.number > len(fitting):
            return next(iter(self.check(spec)), f"provider {self.name!r} has no hosts")
        left = _join(str(host["name"]) for host in free) or "none"
        asked = f"{spec.number} of them are" if spec.number > 1 else "one is"
        return (
            f"{asked} asked for, and earlier instances have taken the others of provider {self.name!r}; left: {left}"
        )

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        return self._claims.make(run, node, generation, token, request)

    def list_instances(self, run: str) -> Sequence[InstanceStatus]:
        """Claims keep the address that they were made with. A damaged one is unknown, not gone, and is named."""
        found = []
        for claim in self._claims.list(run):
            address = read_address(claim.request)
            problem = claim.problem or ("" if address else f"the claim {claim.instance_id} names no host")
            state = "running" if address is not None else "unknown"
            found.append(InstanceStatus(claim.instance_id, claim.node, claim.generation, state, address, problem))
        return found

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        """Release the claim. What runs on the host is never touched by it."""
        self._claims.release(instance_id)


class Wanted:
    """What one InstanceSpec asks of a host: sizes such as `8` or `8+`, and labels."""

    def __init__(self, spec: InstanceSpec) -> None:
        settings = dict(spec.settings)
        self._capacity = spec.capacity
        self.labels = [label for label in settings.get("labels", "").split(",") if label]
        self._least: dict[str, float] = {}
        self._exact: dict[str, float] = {}
        for name, key in zip(_SIZES, ("cpus", "memory", "gpu"), strict=True):
            text = settings.get(key, "")
            number = _parse_number(text.rpartition(":")[2].removesuffix("+"))
            if number is not None:
                self._least[name] = number
                if not text.endswith("+"):
                    self._exact[name] = number

    def fits(self, host: Host) -> bool:
        """What the host does not declare fits."""
        if not set(self.labels) <= set(_labels(host)):
            return False
        sizes = {name: _number(host.get(name)) for name in self._least}
        return all(size is None or size >= self._least[name] for name, size in sizes.items())

    def capacity(self, host: Host) -> Resources | None:
        """What jobs get of the host: what is asked for exactly, else what it declares; None: what is found there."""
        if self._capacity is not None:
            return self._capacity
        cpus, memory, gpus = (self._exact.get(name, _number(host.get(name))) for name in _SIZES)
        if cpus is None and memory is None and gpus is None:
            return None
        return Resources(
            UNBOUNDED.cpus if cpus is None else cpus,
            UNBOUNDED.memory if memory is None else int(memory),
            UNBOUNDED.gpus if gpus is None else int(gpus),
        )


# ---- entries -------------------------------------------------------------------------------------------------------


def parse_hosts(settings: str) -> list[Host]:
    """The hosts of a definition's settings. What is no host, as a later version may write it, is left out."""
    try:
        words = json.loads(settings)
    except ValueError:
        return []
    hosts = words.get("hosts") if isinstance(words, dict) else None
    found = [host for host in hosts if isinstance(host, dict)] if isinstance(hosts, list) else []
    return [host for host in found if host.get("host") and isinstance(host.get("name"), str)]


def render_request(host: Host) -> str:
    """The whole entry; the same text for the same host."""
    return json.dumps(host, sort_keys=True, separators=(",", ":"))


def read_address(request: str) -> HostAddress | None:
    """The address of a host by the request that `plan_machines` made for it; None when it names none."""
    try:
        host = json.loads(request)
    except ValueError:
        return None
    if not isinstance(host, dict) or not isinstance(host.get("host"), str) or not host["host"]:
        return None
    texts = {key: _text(host.get(key)) for key in (*_ADDRESS_SETTINGS, "user", "home")}
    port = host.get("port")
    return HostAddress(
        kind="ssh",
        key=_machine_key(host, texts),
        home=texts["home"],
        host=host["host"],
        port=port if isinstance(port, int) else 0,
        user=texts["user"],
        settings=tuple((key, texts[key]) for key in _ADDRESS_SETTINGS if texts[key]),
    )


def _machine_key(host: Host, texts: Mapping[str, str]) -> str:
    """What tells machines apart. Behind two bastions, one private address is two machines."""
    name = str(host["host"])
    name = f"[{name}]" if ":" in name else name
    key = f"ssh:{texts['user']}@{name}" if texts["user"] else f"ssh:{name}"
    key += f":{host['port']}" if host.get("port") else ""
    key += f" by way of {texts['jump']}" if texts["jump"] else ""
    return key + (f" in {texts['home']}" if texts["home"] else "")


def _labels(host: Host) -> list[str]:
    """Its own name is one of them."""
    labels = host.get("labels")
    return [str(host["name"]), *(str(label) for label in labels)] if isinstance(labels, list) else [str(host["name"])]


def _describe(host: Host) -> str:
    """Such as `gpu1 (8 CPUs, 16 GB of memory)`, with what it declares."""
    sizes = {name: _number(host.get(name)) for name in _SIZES}
    parts = [f"{sizes['cpus']:g} CPUs"] if sizes["cpus"] is not None else []
    parts += [f"{sizes['memory'] / 1e9:g} GB of memory"] if sizes["memory"] is not None else []
    parts += [f"{sizes['gpus']:g} GPUs"] if sizes["gpus"] is not None else []
    parts += _labels(host)[1:]
    return f"{host['name']} ({', '.join(parts)})" if parts else str(host["name"])


def _join(words: Iterable[str]) -> str:
    words = list(words)
    left = len(words) - _SHOWN_MOST
    return ", ".join(words[:_SHOWN_MOST]) + (f" and {left} more" if left > 0 else "")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else ""
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, (str, int)) else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

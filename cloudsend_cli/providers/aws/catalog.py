"""Types of machines: sizes, choices of cores, and a price to fall back on. Pure, but for one shipped file.

Sources of types.json. Sizes, valid cores, threads, GPUs and markets: what EC2's DescribeInstanceTypes said in
us-east-1, as recorded by moto 5.2.5 (October 2026). Prices: on-demand, Linux, us-east-1, dollars per hour, of AWS's
price list on the date in the file, as recorded by karpenter-provider-aws. Prices elsewhere are approximations: that
price times the ratio of m5.large there and in us-east-1, of SkyPilot's catalog (version 8). For m6g, which was
compared, it is within 1 % but in ap-south-1, where Graviton and AMD types cost less than is told here. For a region
that is not in the file nothing is known. Types newer than the file are asked for at AWS when a plan is made.

Columns: name, vCPUs, valid numbers of cores, valid threads per core, MiB of memory, GPUs, architecture, price, flags
(m bare metal, b burstable, o no spot, x before Nitro, s accelerators that are no GPUs or a family of its own rules,
p a part of a GPU).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from cloudsend_cli.core.model import Resources

from .settings import Amount, Wanted

MEMORY_SHARE = 0.95  # of a machine's memory; the rest is the kernel's and its firmware's
_MIB = 1 << 20
_GIB_IN_GB = 1.074
_LEFT_OUT = frozenset("mbxsp")  # flags of types that are rented only when they are named
_BURSTABLE = "b"
_BURSTABLE_LEAST = 2 << 30  # bytes of memory: smaller ones hold little more than their system


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One type. `cores` is empty where the number of cores cannot be chosen."""

    name: str
    cpus: int
    memory: int  # bytes
    cores: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    gpus: int = 0
    gpu_kind: str = ""
    arm: bool = False
    price: float | None = None  # dollars per hour, on demand in us-east-1
    flags: str = ""

    @property
    def spot(self) -> bool:
        return "o" not in self.flags

    @property
    def arch(self) -> str:
        return "arm64" if self.arm else "x86_64"


@dataclass(frozen=True, slots=True)
class Choice:
    """A type with the number of cores that is chosen on it; None: all of them."""

    type: InstanceType
    cores: int | None = None
    threads: int | None = None

    @property
    def cpus(self) -> int:
        return self.cores * (self.threads or 1) if self.cores else self.type.cpus

    @property
    def capacity(self) -> Resources:
        return Resources(float(self.cpus), int(self.type.memory * MEMORY_SHARE), self.type.gpus)


# ---- the shipped table ---------------------------------------------------------------------------------------------


@cache
def _load() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files(__package__).joinpath("types.json").read_text("utf-8"))
    return loaded


@cache
def load_types() -> Mapping[str, InstanceType]:
    return {row.partition(" ")[0]: _parse_row(row) for row in _load()["types"]}


def price_date() -> str:
    """When the shipped prices were true."""
    return str(_load()["date"])


def estimate_price(kind: InstanceType, region: str) -> float | None:
    """Dollars per hour on demand by the shipped table; None where nobody knows."""
    factor = _load()["regions"].get(region)
    return None if factor is None or kind.price is None else round(kind.price * float(factor), 5)


def _parse_row(row: str) -> InstanceType:
    name, cpus, cores, threads, memory, gpus, arch, price, flags = row.split(" ")
    count, _, kind = gpus.partition("x")
    return InstanceType(
        name,
        int(cpus),
        int(memory) * _MIB,
        _parse_numbers(cores),
        _parse_numbers(threads),
        0 if gpus == "-" else int(count),
        kind.replace("_", " "),
        arch == "arm",
        None if price == "-" else float(price),
        flags.replace("-", ""),
    )


def _parse_numbers(text: str) -> tuple[int, ...]:
    """`2-8/2` is 2, 4, 6, 8; parts are separated by commas."""
    found: list[int] = []
    for part in [] if text == "-" else text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return tuple(found)


def parse_described(reply: Mapping[str, Any]) -> InstanceType:
    """One entry of DescribeInstanceTypes, for types newer than the table."""
    cpus, gpus = reply["VCpuInfo"], reply.get("GpuInfo", {}).get("Gpus", [])
    special = {"InferenceAcceleratorInfo", "FpgaInfo", "NeuronInfo", "MediaAcceleratorInfo"} & set(reply)
    flags = [
        "m" if reply.get("BareMetal") else "",
        "b" if reply.get("BurstablePerformanceSupported") else "",
        "o" if "spot" not in reply.get("SupportedUsageClasses", ["spot"]) else "",
        "s" if special else "",
    ]
    return InstanceType(
        reply["InstanceType"],
        int(cpus["DefaultVCpus"]),
        int(reply["MemoryInfo"]["SizeInMiB"]) * _MIB,
        tuple(cpus.get("ValidCores", ())),
        tuple(cpus.get("ValidThreadsPerCore", ())),
        sum(max(int(gpu.get("Count", 0)), int(gpu.get("LogicalGpuCount", 0))) for gpu in gpus),
        str(gpus[0].get("Name", "")) if gpus else "",
        "arm64" in reply.get("ProcessorInfo", {}).get("SupportedArchitectures", ()),
        None,
        "".join(flags),
    )


# ---- what fits -----------------------------------------------------------------------------------------------------


def list_choices(wanted: Wanted, known: Mapping[str, InstanceType], arm: bool = False) -> list[Choice]:
    """The types that may be rented, in the user's order, or the cheapest first.

    Without a type of his own the user gets x86 machines (with `arm`: those of an image for arm), as most software is
    made for them, that have the promised speed all the time and a known price, and GPUs only if he asks for GPUs.
    """
    if wanted.types:
        named = [known[name] for name in wanted.types if name in known]
        return [
            choice for kind in named if (choice := choose_cores(wanted, kind)) and _has_rest(wanted, kind, named=True)
        ]
    return [Choice(kind) for kind in _list_fitting(wanted, known, arm, _LEFT_OUT)]


def find_burstable(wanted: Wanted, known: Mapping[str, InstanceType], arm: bool = False) -> InstanceType | None:
    """The cheapest type that would fit but for its speed, which is promised for a part of the time only."""
    if wanted.types:
        return None
    fitting = _list_fitting(wanted, known, arm, _LEFT_OUT - {_BURSTABLE})
    return next((kind for kind in fitting if _BURSTABLE in kind.flags and kind.memory >= _BURSTABLE_LEAST), None)


def _list_fitting(
    wanted: Wanted, known: Mapping[str, InstanceType], arm: bool, left_out: frozenset[str]
) -> list[InstanceType]:
    """The cheapest first."""
    found = [k for k in known.values() if k.arm == arm and k.price is not None and not set(k.flags) & left_out]
    fitting = [kind for kind in found if _fits(wanted.cpus, kind.cpus) and _has_rest(wanted, kind, named=False)]
    fitting = [kind for kind in fitting if wanted.cpus or wanted.memory or kind.gpus or kind.cpus >= 2]
    return sorted(fitting, key=lambda kind: (kind.price or 0.0, -kind.cpus, kind.name))


def choose_cores(wanted: Wanted, kind: InstanceType) -> Choice | None:
    """As many CPUs of a named type as asked for, with one thread a core where that can be; None: it cannot be had."""
    cpus = wanted.cpus
    if cpus is None or cpus.value == kind.cpus or (cpus.more and cpus.value <= kind.cpus):
        return Choice(kind)
    if cpus.more or cpus.value != int(cpus.value):
        return None
    count = int(cpus.value)
    for threads in (1, 2):
        if threads in kind.threads and count % threads == 0 and count // threads in kind.cores:
            return Choice(kind, count // threads, threads)
    return None


def _has_rest(wanted: Wanted, kind: InstanceType, *, named: bool) -> bool:
    """Memory and GPUs. A named type may have more of both than asked for."""
    if wanted.memory is not None and not _fits_memory(wanted.memory, kind.memory, more=named):
        return False
    if wanted.gpus is None and not wanted.gpu_kind:
        return named or kind.gpus == 0
    least = wanted.gpus or Amount(1, more=True)
    enough = kind.gpus >= least.value if named else _fits(least, kind.gpus)
    return enough and (not wanted.gpu_kind or _same(wanted.gpu_kind, kind.gpu_kind))


def _fits(amount: Amount | None, value: float) -> bool:
    return amount is None or (value >= amount.value if amount.more else value == amount.value)


def _fits_memory(amount: Amount, value: int, *, more: bool) -> bool:
    """16 GB is a machine with 16 GB or with 16 GiB."""
    return value >= amount.value and (more or amount.more or value <= amount.value * _GIB_IN_GB)


def _same(wanted: str, kind: str) -> bool:
    """`a10g` is A10G, `rtx-pro-6000` is RTX PRO Server 6000, `nvidia l4` is L4."""
    words = [word for word in re.split(r"[^a-z0-9]+", wanted.lower()) if word != "nvidia"]
    have = re.split(r"[^a-z0-9]+", kind.lower())
    return bool(words) and all(word in have for word in words)


def largest_choice(choices: Iterable[Choice]) -> Choice | None:
    return max(choices, key=lambda c: (c.type.gpus, c.cpus, c.type.memory), default=None)


# ---- what does not fit, in user words ------------------------------------------------------------------------------


def list_type_problems(wanted: Wanted, known: Mapping[str, InstanceType]) -> list[str]:
    """Why there is nothing to rent. A type that is not in the table may be new: only AWS can tell."""
    problems = list_slips(wanted, known)
    if problems or any(name not in known for name in wanted.types) or list_choices(wanted, known):
        return problems
    if list_choices(wanted, known, arm=True) and not wanted.types:
        return []
    return [_explain_named(wanted, known) if wanted.types else _explain_need(wanted, known)]


def list_slips(wanted: Wanted, known: Mapping[str, InstanceType]) -> list[str]:
    """Of the types that are named, those that cannot be any."""
    return [text for name in wanted.types if (text := _suspect(name, known))]


def _suspect(name: str, known: Mapping[str, InstanceType]) -> str:
    """A size that no family has, or a family that none resembles, is a slip of the pen."""
    if name in known:
        return ""
    family, _, size = name.partition(".")
    sizes = {other.partition(".")[2] for other in known}
    families = {other.partition(".")[0] for other in known}
    if size in sizes and re.fullmatch(r"[a-z]{1,4}-?[0-9]+[a-z0-9-]*", family):
        return ""
    near = difflib.get_close_matches(
        name, [n for n in known if family not in families or n.startswith(f"{family}.")], 1
    )
    return f"type: AWS has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _explain_named(wanted: Wanted, known: Mapping[str, InstanceType]) -> str:
    kinds = [known[name] for name in wanted.types]
    if wanted.cpus is not None and not any(choose_cores(wanted, kind) for kind in kinds):
        return f"cpus: {wanted.cpus.value:g} cannot be had: {'; '.join(describe_cores(kind) for kind in kinds[:4])}"
    if wanted.memory is not None and not any(kind.memory >= wanted.memory.value for kind in kinds):
        sizes = ", ".join(f"{kind.name} has {show_memory(kind.memory)}" for kind in kinds[:6])
        return f"memory: {show_memory(wanted.memory.value)} cannot be had: {sizes}"
    gpus = ", ".join(f"{kind.name} has {_show_gpus(kind)}" for kind in kinds[:6])
    return f"gpu: {_show_wanted_gpus(wanted)} cannot be had: {gpus}"


def _explain_need(wanted: Wanted, known: Mapping[str, InstanceType]) -> str:
    asked = []
    if wanted.cpus:
        asked.append(f"{wanted.cpus.value:g}{' or more' if wanted.cpus.more else ''} CPUs")
    if wanted.memory:
        asked.append(f"{show_memory(wanted.memory.value)}{' or more' if wanted.memory.more else ''} of memory")
    if wanted.gpus or wanted.gpu_kind:
        asked.append(_show_wanted_gpus(wanted))
    key = "gpu" if wanted.gpus or wanted.gpu_kind else "cpus" if wanted.cpus else "memory"
    hint = _nearest(wanted, known)
    return f"{key}: no type of AWS has {', '.join(asked)}" + (f"; {hint}" if hint else "; name one with 'type'")


def _nearest(wanted: Wanted, known: Mapping[str, InstanceType]) -> str:
    if wanted.gpu_kind:
        kinds = sorted({kind.gpu_kind for kind in known.values() if kind.gpu_kind})
        if not any(_same(wanted.gpu_kind, kind) for kind in kinds):
            return f"there are {', '.join(kinds)}"
    more = Wanted(
        cpus=Amount(wanted.cpus.value, more=True) if wanted.cpus else None,
        memory=Amount(wanted.memory.value, more=True) if wanted.memory else None,
        gpus=Amount(wanted.gpus.value, more=True) if wanted.gpus else None,
        gpu_kind=wanted.gpu_kind,
    )
    found = list_choices(more, known)
    if not found:
        return ""
    kind = found[0].type
    return (
        f"the next is {kind.name} with {kind.cpus} CPUs and {show_memory(kind.memory)}; add '+' for at least so much"
    )


def describe_cores(kind: InstanceType) -> str:
    """Such as `c5.4xlarge has 16, or 2, 4, 6, 8 cores`."""
    if not kind.cores:
        return f"{kind.name} has {kind.cpus} and no choice of cores"
    return f"{kind.name} has {kind.cpus}, or with one thread each {', '.join(map(str, kind.cores))}"


def show_memory(size: float) -> str:
    return f"{size / 1e9:.4g} GB"


def _show_gpus(kind: InstanceType) -> str:
    return f"{kind.gpus} {kind.gpu_kind}" if kind.gpus else "none"


def _show_wanted_gpus(wanted: Wanted) -> str:
    count = f"{wanted.gpus.value:g}{' or more' if wanted.gpus.more else ''}" if wanted.gpus else "1"
    return f"{count} {wanted.gpu_kind or ('GPU' if count == '1' else 'GPUs')}"

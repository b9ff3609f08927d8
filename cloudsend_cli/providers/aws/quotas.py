"""The account's limits: how many CPUs of a family and market may run at once in a region, and how many do.

They are read before anything is rented. What AWS calls vCPUs counts here: those of the type, also where some are off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from string import ascii_lowercase

from cloudsend_cli.errors import CloudsendError

from .catalog import InstanceType, load_types
from .clients import Account
from .settings import ON_DEMAND, SPOT

SERVICE = "ec2"
_COUNTED = ("pending", "running")

# Service quotas of EC2 by the letters that a type's family begins with, with the digit after them where that matters.
_CODES: dict[str, tuple[str, str, str]] = {
    # beginning: (what it is called, on demand, spot; "" where there is no such market)
    "": ("Standard", "L-1216C47A", "L-34B43A08"),
    "dl": ("DL", "L-6E869C2A", "L-85EED4F7"),
    "f": ("F", "L-74FC7D96", "L-88CF9481"),
    "g": ("G and VT", "L-DB2E81BA", "L-3819A6DF"),
    "gr": ("G and VT", "L-DB2E81BA", "L-3819A6DF"),
    "vt": ("G and VT", "L-DB2E81BA", "L-3819A6DF"),
    "hpc": ("HPC", "L-F7808C92", ""),
    "inf": ("Inf", "L-1945791B", "L-B5D1601B"),
    "p": ("P", "L-417A185B", "L-C4BD4855"),
    "p2": ("P", "L-417A185B", "L-7212CCBC"),
    "p3": ("P", "L-417A185B", "L-7212CCBC"),
    "p4": ("P", "L-417A185B", "L-7212CCBC"),
    "trn": ("Trn", "L-2C3B7624", "L-6B0D517C"),
    "u": ("High Memory", "L-43DA4232", ""),
    "x": ("X", "L-7295265B", "L-E3A00192"),
}


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit. `used` counts what runs already, whoever started it."""

    code: str
    name: str
    limit: float
    used: float = 0.0

    @property
    def left(self) -> float:
        return max(0.0, self.limit - self.used)


def quota_code(kind: str, market: str) -> str:
    """ "" where no limit is known."""
    return _row(kind)[2 if market == SPOT else 1]


def quota_name(kind: str, market: str) -> str:
    return f"{_row(kind)[0]} {'spot' if market == SPOT else 'on-demand'}"


def quota_link(region: str, code: str) -> str:
    return f"https://{region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/{code}"


def _row(kind: str) -> tuple[str, str, str]:
    family = kind.partition(".")[0]
    letters = family[: len(family) - len(family.lstrip(ascii_lowercase))]
    generation = family[: len(letters) + 1]
    return _CODES.get(generation) or _CODES.get(letters) or _CODES[""]


# ---- asking AWS ----------------------------------------------------------------------------------------------------


def fetch_quotas(account: Account, region: str, wanted: Iterable[tuple[str, str]]) -> dict[str, Quota]:
    """By code, for pairs of type and market. What the account may not ask for is left out."""
    names = {quota_code(kind, market): quota_name(kind, market) for kind, market in wanted}
    names.pop("", None)
    with ThreadPoolExecutor(max_workers=4) as pool:
        counting = pool.submit(_try_count, account, region)
        limits = dict(zip(names, pool.map(lambda code: _try_limit(account, region, code), names), strict=True))
        used = counting.result()
    return {
        code: Quota(code, names[code], limit, used.get(code, 0.0) if used else 0.0)
        for code, limit in limits.items()
        if limit is not None
    }


def fetch_limit(account: Account, region: str, code: str) -> float:
    reply = account.call(
        f"tell the limits of {region}",
        "service-quotas",
        "get_service_quota",
        region,
        ServiceCode=SERVICE,
        QuotaCode=code,
    )
    return float(reply["Quota"]["Value"])


def count_running(account: Account, region: str) -> dict[str, float]:
    """vCPUs in use by quota code, of all machines of the account."""
    used: dict[str, float] = {}
    for page in account.pages(
        f"count the machines in {region}",
        "ec2",
        "describe_instances",
        region,
        Filters=[{"Name": "instance-state-name", "Values": list(_COUNTED)}],
    ):
        for reservation in page.get("Reservations", []):
            for machine in reservation.get("Instances", []):
                kind = str(machine.get("InstanceType", ""))
                code = quota_code(kind, SPOT if machine.get("InstanceLifecycle") == "spot" else ON_DEMAND)
                options = machine.get("CpuOptions") or {}
                known = load_types().get(kind)
                running = int(options.get("CoreCount", 1)) * int(options.get("ThreadsPerCore", 1))
                used[code] = used.get(code, 0.0) + (known.cpus if known else running)
    return used


def _try_limit(account: Account, region: str, code: str) -> float | None:
    try:
        return fetch_limit(account, region, code)
    except CloudsendError:
        return None


def _try_count(account: Account, region: str) -> dict[str, float] | None:
    try:
        return count_running(account, region)
    except CloudsendError:
        return None


# ---- what that means -----------------------------------------------------------------------------------------------


def list_shortages(
    region: str, machines: Sequence[tuple[InstanceType, str]], quotas: Mapping[str, Quota]
) -> list[str]:
    """A warning for each limit that these machines, as (type, market), exceed, with how many of them will be had."""
    by_code: dict[str, list[tuple[InstanceType, str]]] = {}
    for kind, market in machines:
        by_code.setdefault(quota_code(kind.name, market), []).append((kind, market))
    warnings = []
    for code, wanted in by_code.items():
        needed = sum(kind.cpus for kind, _ in wanted)
        if code not in quotas or needed <= quotas[code].left:
            continue
        quota, left, had = quotas[code], quotas[code].left, 0
        for kind, _ in wanted:
            if kind.cpus <= left:
                left, had = left - kind.cpus, had + 1
        counts = Counter(f"{kind.name} ({market})" for kind, market in wanted)
        names = ", ".join(f"{count} {name}" for name, count in counts.items())
        verb = "needs" if len(wanted) == 1 else "need"
        warnings.append(
            f"quota: {names} {verb} {needed} vCPUs in {region}, where the account may have {quota.limit:g} "
            f"({quota.name}) and uses {quota.used:g}: {had} of {len(wanted)} can run at once now; "
            f"more: {quota_link(region, code)}"
        )
    return warnings


def is_hopeless(kind: InstanceType, market: str, quotas: Mapping[str, Quota], cpus: int | None = None) -> bool:
    """Whether the account could not have one such machine even if it used nothing else.

    `cpus`: those that are switched on, of which AWS does not say whether they alone count.
    """
    quota = quotas.get(quota_code(kind.name, market))
    return quota is not None and quota.limit < (kind.cpus if cpus is None else cpus)


def explain_hopeless(region: str, kind: InstanceType, market: str, quotas: Mapping[str, Quota]) -> str:
    quota = quotas[quota_code(kind.name, market)]
    return (
        f"{kind.name} needs {kind.cpus} vCPUs, and the account may have {quota.limit:g} ({quota.name}) in {region}; "
        f"ask for more: {quota_link(region, quota.code)}"
    )

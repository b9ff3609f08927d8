"""What machines cost per hour: asked of AWS, remembered for a while in the state directory, else the shipped table.

No plan ever fails for want of a price: what cannot be asked is told with the date of the table, or as unknown.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudsend_cli.errors import CloudsendError

from .catalog import InstanceType, estimate_price, price_date
from .clients import Account
from .identity import locked, open_folder, write_file
from .settings import ON_DEMAND, SPOT

KEPT_ON_DEMAND = 7 * 86400
KEPT_SPOT = 600
FILE = "prices.json"
SHOWN_SPOT = "Linux/UNIX"

_ENDPOINTS = {
    "ap": "ap-south-1",
    "eu": "eu-central-1",
    "me": "eu-central-1",
    "af": "eu-central-1",
    "il": "eu-central-1",
}
_HOME = "us-east-1"
_FILTERS = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
_METAL = {"tenancy": "Dedicated"}
_GIB_MONTH = {"gp3": 0.08, "gp2": 0.10, "standard": 0.05, "snapshot": 0.05}  # us-east-1, of AWS's pages, 2026
_ADDRESS_HOUR = 0.005  # every public IPv4 address, in use or not
_HOURS_MONTH = 730


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per hour in one region. `dated`: when those on demand were true where AWS did not say so now."""

    region: str
    on_demand: Mapping[str, float]  # by type
    spot: Mapping[tuple[str, str], float]  # by (type, zone)
    dated: str = ""

    def find(self, kind: str, zone: str, market: str) -> float | None:
        """None where nobody knows. A spot machine never costs more than one on demand."""
        if market == SPOT and (kind, zone) in self.spot:
            return self.spot[kind, zone]
        return self.on_demand.get(kind)


def list_prices(
    account: Account, region: str, kinds: Sequence[InstanceType], markets: Iterable[str], state_dir: Path
) -> Prices:
    """Prices of these types; calls AWS for what the file of the state directory does not have fresh enough."""
    now, markets = time.time(), tuple(markets)
    kept = _read(state_dir)
    names = [kind.name for kind in kinds]
    stale = [n for n in names if ON_DEMAND in markets and not _fresh(kept, f"{region} {n}", now, KEPT_ON_DEMAND)]
    spot_stale = [n for n in names if SPOT in markets and not _fresh(kept, _spot(account, region, n), now, KEPT_SPOT)]
    asked: dict[str, Any] = {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        spot_call = pool.submit(fetch_spot_prices, account, region, spot_stale) if spot_stale else None
        for name, price in zip(stale, pool.map(lambda n: _try_on_demand(account, region, n), stale), strict=True):
            if price is not None:
                asked[f"{region} {name}"] = {"at": now, "price": price}
        zones = spot_call.result() if spot_call is not None else None
        if zones is not None:
            for name in spot_stale:
                asked[_spot(account, region, name)] = {"at": now, "zones": zones.get(name, {})}
    if asked:
        _keep(state_dir, asked, now)
    prices = _assemble(account, region, kinds, {**kept, **asked}, now)
    return prices if ON_DEMAND in markets else replace(prices, dated="")


def _assemble(
    account: Account, region: str, kinds: Sequence[InstanceType], known: Mapping[str, Any], now: float
) -> Prices:
    on_demand, spot, dated = {}, {}, ""
    for kind in kinds:
        if _fresh(known, f"{region} {kind.name}", now, KEPT_ON_DEMAND):
            on_demand[kind.name] = float(known[f"{region} {kind.name}"]["price"])
        elif (price := estimate_price(kind, region)) is not None:
            on_demand[kind.name] = price
            dated = price_date()
        key = _spot(account, region, kind.name)
        if _fresh(known, key, now, KEPT_SPOT):
            spot.update({(kind.name, zone): float(price) for zone, price in known[key]["zones"].items()})
    return Prices(region, on_demand, spot, dated)


def _spot(account: Account, region: str, name: str) -> str:
    """By account too, as each has its own names for the zones."""
    return f"{region} {name} {SPOT} {account.profile}".rstrip()


# ---- asking AWS ----------------------------------------------------------------------------------------------------


def _try_on_demand(account: Account, region: str, name: str) -> float | None:
    with contextlib.suppress(CloudsendError):
        return fetch_on_demand_price(account, region, name)
    return None


def fetch_on_demand_price(account: Account, region: str, name: str) -> float | None:
    """One type on demand with Linux; None where the price list does not have it."""
    endpoint = _ENDPOINTS.get(region.partition("-")[0], _HOME)
    wanted = {**_FILTERS, **(_METAL if ".metal" in name else {}), "instanceType": name, "regionCode": region}
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
    reply = account.call(
        f"tell the price of {name} in {region}",
        "pricing",
        "get_products",
        endpoint,
        ServiceCode="AmazonEC2",
        Filters=filters,
        MaxResults=20,
    )
    found = [price for text in reply.get("PriceList", []) if (price := parse_product(text)) is not None]
    return max(found, default=None)


def parse_product(text: str) -> float | None:
    """Dollars per hour of one entry of the price list; None where it is no price by the hour, or nothing."""
    try:
        terms = json.loads(text)["terms"]["OnDemand"]
        prices = [
            float(part["pricePerUnit"]["USD"])
            for term in terms.values()
            for part in term["priceDimensions"].values()
            if part.get("unit", "Hrs") == "Hrs"
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return max((price for price in prices if price > 0), default=None)


def fetch_spot_prices(account: Account, region: str, names: Sequence[str]) -> dict[str, dict[str, float]] | None:
    """By type and zone, as of now; None where AWS did not tell."""
    newest: dict[tuple[str, str], tuple[datetime.datetime, float]] = {}
    start = datetime.datetime.now(datetime.timezone.utc)
    try:
        for page in account.pages(
            "tell spot prices",
            "ec2",
            "describe_spot_price_history",
            region,
            InstanceTypes=list(names),
            ProductDescriptions=[SHOWN_SPOT],
            StartTime=start,
        ):
            for entry in page.get("SpotPriceHistory", []):
                key, at = (entry["InstanceType"], entry["AvailabilityZone"]), entry["Timestamp"]
                if key not in newest or at > newest[key][0]:
                    newest[key] = (at, float(entry["SpotPrice"]))
    except CloudsendError:
        return None
    found: dict[str, dict[str, float]] = {}
    for (name, zone), (_, price) in newest.items():
        found.setdefault(name, {})[zone] = price
    return found


# ---- the file ------------------------------------------------------------------------------------------------------


def _fresh(known: Mapping[str, Any], key: str, now: float, limit: float) -> bool:
    at = known.get(key, {}).get("at")
    return isinstance(at, (int, float)) and 0 <= now - at < limit


def _read(state_dir: Path) -> dict[str, Any]:
    """What is damaged or of another version is as good as nothing."""
    try:
        known = json.loads((open_folder(state_dir) / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: entry for key, entry in known.items() if isinstance(entry, dict) and _is_sound(entry)}


def _is_sound(entry: Mapping[str, Any]) -> bool:
    zones = entry.get("zones", {})
    prices = [*zones.values(), entry.get("price", 0)] if isinstance(zones, dict) else [None]
    return all(isinstance(price, (int, float)) for price in prices) and ("zones" in entry or "price" in entry)


def _keep(state_dir: Path, asked: Mapping[str, Any], now: float) -> None:
    """Without what is too old. That it cannot be written costs the next plan its calls, and nothing else."""
    folder = open_folder(state_dir)
    with contextlib.suppress(OSError, CloudsendError), locked(folder):
        merged = {**_read(state_dir), **asked}
        merged = {key: entry for key, entry in merged.items() if _fresh(merged, key, now, KEPT_ON_DEMAND)}
        write_file(folder / FILE, json.dumps(merged, sort_keys=True, separators=(",", ":")))


# ---- what else costs -----------------------------------------------------------------------------------------------


def estimate_storage(kind: str, size: int) -> float | None:
    """Dollars per hour of `size` GiB, about: disks cost up to a half more outside of the United States."""
    price = _GIB_MONTH.get(kind)
    return None if price is None else round(price * size / _HOURS_MONTH, 6)


def estimate_address() -> float:
    """Dollars per hour of one public address."""
    return _ADDRESS_HOUR

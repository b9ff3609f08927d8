"""What to rent for a run: what the user asked for, checked, and what AWS has of it, asked once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cloudsend_cli.core.model import Aside, InstanceSpec, MachinePlan, ProviderDefinition, Resources
from cloudsend_cli.errors import CloudsendError, ConfigError, Problem, QuotaError

from .catalog import (
    Choice,
    InstanceType,
    estimate_price,
    find_burstable,
    largest_choice,
    list_choices,
    list_slips,
    list_type_problems,
    load_types,
    parse_described,
)
from .clients import Account
from .errors import read_error
from .images import Image, fetch_default_images, fetch_image
from .network import Place, choose_places, fetch_offerings, fetch_routed, fetch_subnets
from .offers import (
    Candidate,
    Facts,
    decide_life,
    describe_refusal,
    drop_dear,
    explain_short_life,
    explain_small_budget,
    find_split_problem,
    plan_candidates,
    plan_lives,
    render_offers,
    split_machines,
)
from .prices import list_prices
from .quotas import explain_hopeless, fetch_quotas, list_shortages
from .settings import ON_DEMAND, SPOT, Wanted, parse_settings

T = TypeVar("T")

REMEMBERED = 120.0  # seconds: a config is checked and submitted with the answers to one set of questions
_LOOKED_AT = 60  # of the types that would do, how many are looked for in the region
_CONSIDERED = 4  # of those that are there, how many become offers


# ---- without asking ------------------------------------------------------------------------------------------------


def check_spec(definition: ProviderDefinition, spec: InstanceSpec) -> list[str]:
    """Problems in user words, each beginning with its key where it has one; pure."""
    wanted, problems = parse_settings(definition, spec)
    known = load_types()
    if problems:
        return problems + list_slips(wanted, known)
    split = find_split_problem(wanted, known)
    return [split] if split else list_type_problems(split_machines(wanted, known)[0], known)


def find_largest(definition: ProviderDefinition, spec: InstanceSpec) -> Resources | None:
    """The largest machine that may come of it; None: a type newer than the table, or nothing fits. Pure."""
    wanted, problems = parse_settings(definition, spec)
    known = load_types()
    if problems or any(name not in known for name in wanted.types):
        return None
    choices = list_choices(split_machines(wanted, known)[0], known)
    largest = largest_choice(choices if wanted.types else choices[:_CONSIDERED])
    return largest.capacity if largest else None


# ---- asking --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Machine:
    """One machine on its way to a plan."""

    wanted: Wanted
    candidates: list[Candidate]
    facts: Facts
    warnings: list[str]
    asides: tuple[Aside, ...] = ()


class Planner:
    """Plans machines of one account. Only reads; what AWS said is remembered for REMEMBERED seconds."""

    def __init__(self, definition: ProviderDefinition, account: Account, state_dir: Path) -> None:
        self._definition = definition
        self._account = account
        self._state_dir = state_dir
        self._memory: dict[tuple[Any, ...], tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def plan(self, specs: Sequence[InstanceSpec]) -> list[MachinePlan]:
        """The machines in the order of `specs`. ConfigError, QuotaError: it cannot be had so; nothing was rented."""
        machines: list[_Machine] = []
        wrong = _Wrong()
        for spec in specs:
            with wrong.noting():
                machines += self._plan_spec(spec)
        wrong.tell()
        if not machines:
            return []
        self._warn_shortages(machines)
        budget = machines[0].wanted.budget
        if small := explain_small_budget(budget, [machine.candidates[0] for machine in machines]):
            raise _wrong(small)
        shares = plan_lives(budget, [machine.candidates[0] for machine in machines])
        lives = [decide_life(m.wanted, m.candidates[0], s) for m, s in zip(machines, shares, strict=True)]
        first = machines[0].warnings
        if budget is not None and None in shares:
            first.append(
                "budget: the price of a machine is not known; the machines cannot keep to the budget themselves"
            )
        first += [text for text in [explain_short_life(budget, lives, len(machines))] if text]
        return [
            MachinePlan(
                render_offers(m.wanted, drop_dear(m.candidates, share), m.facts, share),
                "",
                tuple(dict.fromkeys(m.warnings)),
                m.asides,
            )
            for m, share in zip(machines, shares, strict=True)
        ]

    def _plan_spec(self, spec: InstanceSpec) -> list[_Machine]:
        """The machines of one spec. Those that are alike are planned once; the first has the warnings."""
        problems = check_spec(self._definition, spec)
        if problems:
            raise ConfigError([Problem(text) for text in problems])
        wanted, _ = parse_settings(self._definition, spec)
        region = wanted.region or self._account.region
        wrong = _Wrong()
        known = load_types()
        with wrong.noting():
            known = {**known, **self._fetch_types(region, wanted)}
        with wrong.noting():
            self._find_image(region, wanted)
        if wrong.problems:  # what else is wrong is told at once: without what is wrong already
            types = tuple(name for name in wanted.types if name in known)
            with wrong.noting():
                if types or not wanted.types:
                    self._plan_machine(region, replace(wanted, types=types, image="", explode=False), known)
        wrong.tell()
        parts = split_machines(wanted, known)
        planned: dict[Wanted, _Machine] = {}
        machines = []
        for part in parts:
            if part not in planned:
                planned[part] = self._plan_machine(region, part, known)
                machines.append(planned[part])
            else:
                machine = planned[part]
                machines.append(replace(machine, warnings=[]))
        if len(parts) > wanted.number > 1:
            text = f"number: {wanted.number} times the {len(parts) // wanted.number} machines of explode"
            machines[0].warnings.append(f"{text} are {len(parts)} machines")
        return machines

    def _plan_machine(self, region: str, wanted: Wanted, known: Mapping[str, InstanceType]) -> _Machine:
        image = self._find_image(region, wanted)
        choices = list_choices(wanted, known, arm=image is not None and image.arch == "arm64")
        if not wanted.types and wanted.markets == (SPOT,):
            choices = [choice for choice in choices if choice.type.spot]
        choices = choices[:_LOOKED_AT]
        if not choices:
            raise _wrong(next(iter(list_type_problems(wanted, known)), "type: no type of AWS fits"))
        choices, facts, warnings = self._ask(region, wanted, choices, image)
        candidates, refused = plan_candidates(wanted, choices, facts)
        hopeless = [explain_hopeless(region, kind, market, facts.quotas) for kind, market in refused.hopeless]
        if not candidates and hopeless:
            raise QuotaError(f"the account's limits allow none of the machines: {hopeless[0]}")
        if not candidates:
            raise _wrong(describe_refusal(wanted, refused, region))
        warnings += [f"quota: {text}" for text in hopeless]
        if wanted.types and refused.absent:
            warnings.append(f"type: {', '.join(refused.absent)} cannot be had in the subnets of {region}")
        chosen = facts.images[candidates[0].choice.type.name]
        if wanted.disk_named and chosen.disk > wanted.disk:
            warnings.append(f"disk: the image {chosen.id} needs {chosen.disk} GB; machines get as much")
        if facts.prices.dated:
            about = "" if region == "us-east-1" else ", and are approximations for this region"
            warnings.append(f"prices on demand are those of {facts.prices.dated}{about}: AWS did not tell them now")
        return _Machine(wanted, candidates, facts, warnings, tuple(_list_asides(wanted, known, candidates[0], region)))

    def _ask(
        self, region: str, wanted: Wanted, choices: list[Choice], image: Image | None
    ) -> tuple[list[Choice], Facts, list[str]]:
        """What AWS says, several questions at a time."""
        kinds = [choice.type for choice in choices]
        names = tuple(kind.name for kind in kinds)
        markets = [(kind.name, market) for kind in kinds for market in wanted.markets]
        with ThreadPoolExecutor(max_workers=8) as pool:
            subnets = self._start(pool, ("subnets", region), lambda: fetch_subnets(self._account, region))
            zones = self._start(pool, ("zones", region, *names), lambda: fetch_offerings(self._account, region, names))
            quotas = self._start(
                pool, ("quotas", region, *markets), lambda: fetch_quotas(self._account, region, markets)
            )
            places, warnings = self._choose_places(region, wanted, subnets.result())
            open_zones = {place.zone for place in places}
            there = [choice for choice in choices if zones.result().get(choice.type.name, frozenset()) & open_zones]
            if not wanted.types:
                there = there[:_CONSIDERED]
            there_kinds = [choice.type for choice in there]
            there_names = tuple(kind.name for kind in there_kinds)
            images = self._start(
                pool,
                ("images", region, wanted.image, wanted.user, *there_names),
                lambda: self._choose_images(region, wanted, there_kinds, image),
            )
            prices = self._start(
                pool,
                ("prices", region, wanted.markets, *there_names),
                lambda: list_prices(self._account, region, there_kinds, wanted.markets, self._state_dir),
            )
            by_type, more = images.result()
            facts = Facts(region, places, zones.result(), by_type, prices.result(), quotas.result())
        absent = [choice for choice in choices if choice not in there] if wanted.types else []
        return there + absent, facts, warnings + more

    def _choose_places(
        self, region: str, wanted: Wanted, subnets: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Place, ...], list[str]]:
        places, warnings = choose_places(region, wanted, subnets)
        if all(place.public for place in places):
            return places, warnings
        vpc = places[0].vpc
        routed = self._remember(("routes", region, vpc), lambda: fetch_routed(self._account, region, vpc, subnets))
        return choose_places(region, wanted, subnets, routed)

    def _choose_images(
        self, region: str, wanted: Wanted, kinds: Sequence[InstanceType], image: Image | None
    ) -> tuple[dict[str, Image], list[str]]:
        if not kinds:
            return {}, []
        if image is None:
            return fetch_default_images(self._account, region, wanted, kinds)
        fitting = {kind.name: image for kind in kinds if kind.arch == image.arch}
        left = [kind for kind in kinds if kind.name not in fitting]
        if not fitting:
            have = ", ".join(f"{kind.name} {kind.arch}" for kind in left[:4])
            raise _wrong(f"image: {image.id} is made for {image.arch}; the machines are {have}")
        names = ", ".join(kind.name for kind in left)
        more = [f"image: {image.id} is made for {image.arch}: {names} cannot use it"] if left else []
        return fitting, [*image.warnings, *more]

    def _find_image(self, region: str, wanted: Wanted) -> Image | None:
        key = ("image", region, wanted.image, wanted.user)
        return self._remember(key, lambda: self._fetch_image(region, wanted))

    def _fetch_image(self, region: str, wanted: Wanted) -> Image | None:
        return fetch_image(self._account, region, wanted) if wanted.image else None

    def _fetch_types(self, region: str, wanted: Wanted) -> dict[str, InstanceType]:
        """Those that are named and not in the table."""
        new = tuple(name for name in wanted.types if name not in load_types())
        return self._remember(("types", region, *new), lambda: fetch_types(self._account, region, new)) if new else {}

    def _warn_shortages(self, machines: Sequence[_Machine]) -> None:
        """What the limits leave of all that the first offers ask for together."""
        for region in dict.fromkeys(machine.facts.region for machine in machines):
            here = [machine for machine in machines if machine.facts.region == region]
            asked = [(m.candidates[0].choice.type, m.candidates[0].market) for m in here]
            quotas = {code: quota for m in here for code, quota in m.facts.quotas.items()}
            here[0].warnings.extend(list_shortages(region, asked, quotas))

    def _start(self, pool: ThreadPoolExecutor, key: tuple[Any, ...], fetch: Callable[[], T]) -> Future[T]:
        return pool.submit(self._remember, key, fetch)

    def _remember(self, key: tuple[Any, ...], fetch: Callable[[], T]) -> T:
        with self._lock:
            at, value = self._memory.get(key, (0.0, None))
        if value is None or time.monotonic() - at > REMEMBERED:
            value = fetch()
            with self._lock:
                self._memory[key] = (time.monotonic(), value)
        answer: T = value
        return answer


def _list_asides(wanted: Wanted, known: Mapping[str, InstanceType], first: Candidate, region: str) -> Iterator[Aside]:
    kind = find_burstable(wanted, known, arm=first.choice.type.arm)
    price = estimate_price(kind, region) if kind is not None else None
    if kind is not None and price is not None and first.price is not None and price < first.price:
        why = "slowed down, or charged extra, where it works all the time: taken only where `type` names it"
        yield Aside(f"{kind.name}, {region}, {ON_DEMAND}", price, why)


class _Wrong:
    """What is wrong with the machines that are asked for, gathered so that all of it is told at once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._hints: list[str] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            self.problems += [problem for problem in error.problems if problem not in self.problems]
            self._hints.append(error.hint)
        except CloudsendError:
            if not self.problems:  # a refusal, or that nobody answers, says less than what has to be mended
                raise

    def tell(self) -> None:
        if self.problems:
            raise ConfigError(self.problems, hint=self._hints[0] if len(self._hints) == 1 else "")


def fetch_types(account: Account, region: str, names: Sequence[str]) -> dict[str, InstanceType]:
    """Types as AWS describes them now. ConfigError: one does not exist there."""
    try:
        pages = account.pages(
            f"look at {', '.join(names)}", "ec2", "describe_instance_types", region, InstanceTypes=list(names)
        )
        found = [parse_described(entry) for page in pages for entry in page.get("InstanceTypes", [])]
    except CloudsendError as error:
        code, words, _ = read_error(error.__cause__) if error.__cause__ else ("", "", 0)
        if code.startswith("InvalidInstanceType") or code == "InvalidParameterValue":
            raise _wrong(f"type: AWS has no {' or '.join(names)} in {region}: {words}") from error
        raise
    missing = [name for name in names if name not in {kind.name for kind in found}]
    if missing:
        raise _wrong(f"type: AWS has no {' or '.join(missing)} in {region}")
    return {kind.name: kind for kind in found}


def _wrong(message: str) -> ConfigError:
    return ConfigError([Problem(message)])

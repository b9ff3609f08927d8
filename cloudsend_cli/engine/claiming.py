"""Machines that a user keeps without any run: claimed here by a file, and on the machine by its agent.

ORDER: the file comes first and goes last, so that what was claimed on a machine is always known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.core.naming import digest, token
from cloudsend_cli.core.ports import Host, Provider
from cloudsend_cli.errors import CapacityError, CloudsendError, UnreachableError

from .direct import Direct
from .places import KEPT, Place
from .wire import parse_status

GENERATION = 1
OpenHost = Callable[[HostAddress], Host]


@dataclass(frozen=True, slots=True)
class Owner:
    """This state directory, as agents know it."""

    id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Released:
    """What became of a claim, or of a rented machine. `running` and `queued` are our own attempts, which go on."""

    name: str
    provider: str
    was_claimed: bool
    running: int = 0
    queued: int = 0
    others: int = 0
    rented: bool = False  # it ends, and so does what it costs
    instance_id: str = ""
    price: float | None = None  # dollars per hour
    cost: float | None = None  # dollars since it was rented, whoever used it; None: not known

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "provider": self.provider,
            "released": self.was_claimed,
            "jobs": self.running,
            "queued": self.queued,
            "others": self.others,
            "rented": self.rented,
            "instance_id": self.instance_id or None,
            "price_per_hour": self.price,
            "cost": None if self.cost is None else round(self.cost, 6),
        }


def claim_one(
    places: Sequence[Place], taken: Sequence[str], provider: Provider, open_host: OpenHost, owner: Owner
) -> tuple[Place, str, Frame]:
    """The first of these machines that can be had: (which, its instance id, what its agent says of it).

    `taken`: nodes that are claimed already. CapacityError tells of each why not; the error of the only one is its own.
    """
    problems: list[tuple[Place, CloudsendError]] = []
    for place in places:
        if place.node in taken:
            problems.append((place, CapacityError("it is claimed already by this state directory")))
            continue
        try:
            return place, *_claim(place, provider, open_host, owner)
        except CloudsendError as problem:
            problems.append((place, problem))
    if len(problems) == 1 and problems[0][0].node not in taken:
        raise problems[0][1]
    if problems and all(isinstance(problem, UnreachableError) for _, problem in problems):
        raise UnreachableError(
            "none of the machines answers", hint="`cloudsend check` says more", context=_list_words(problems)
        )
    raise CapacityError(
        "no machine is free", hint="`cloudsend check` and `cloudsend list instances` say more",
        context=_list_words(problems),
    )  # fmt: skip


def _list_words(problems: Sequence[tuple[Place, CloudsendError]]) -> str:
    return "\n".join(f"{place.node}: {problem.message}" for place, problem in problems)


def make_claim(place: Place, provider: Provider) -> str:
    """The file of the claim; made again it is the same."""
    proof = token(KEPT, place.node, GENERATION, digest(place.request))
    return provider.create_instance(KEPT, place.node, GENERATION, proof, place.request)


def _claim(place: Place, provider: Provider, open_host: OpenHost, owner: Owner) -> tuple[str, Frame]:
    instance = make_claim(place, provider)
    try:
        with Direct(open_host(place.address), owner.id, owner.epoch) as talk:
            # A machine that its owner shares is kept for us without keeping others out.
            if dict(place.address.settings).get("shared") != "true":
                talk.ask("claim")
            return instance, talk.hello
    except BaseException:
        provider.terminate_instance(KEPT, place.node, instance)
        raise


def release(
    name: str, instance: str, address: HostAddress | None, provider: Provider, open_host: OpenHost, owner: Owner
) -> Released:
    """Give a claim back. Whatever runs on the machine goes on. UnreachableError: it is still claimed."""
    told = Released(name, provider.name, was_claimed=True)
    if address is not None:
        with Direct(open_host(address), owner.id, owner.epoch) as talk:
            talk.ask("release")
            attempts = talk.ask("report").get("attempts")
            states = [parse_status(s).state for s in attempts.values()] if isinstance(attempts, dict) else []
            others = talk.hello.get("others")
            told = Released(
                name,
                provider.name,
                was_claimed=True,
                running=states.count("running"),
                queued=states.count("queued"),
                others=others if isinstance(others, int) else 0,
            )
    provider.terminate_instance(KEPT, name, instance)
    return told

"""The lab's network: one router namespace, one veth to this machine, one to each host. All faults are made there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from .commands import run

CLIENT, ROUTER = 254, 253  # the last numbers of the addresses of this machine and of the router
FIRST_NETWORK = (198 << 24) + (18 << 16)  # 198.18.0.0/15: made for tests of networks, routed nowhere
RULES = """
table ip lab {
    map to { type ifname : verdict; }
    map from { type ifname : verdict; }
    chain forward {
        type filter hook forward priority 0;
        oifname vmap @to
        iifname vmap @from
    }
}
"""


def dotted(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


@dataclass
class Faults:
    """What is wrong with the way to one host now."""

    off: bool = False
    cut_in: bool = False
    cut_out: bool = False
    reset: bool = False
    hidden: bool = False  # from this machine, not from other hosts
    loss: float = 0.0  # percent, each way
    allowed: tuple[str, ...] | None = None  # no fault, but rules of the same place: who may begin a connection

    def rules(self, towards: bool) -> list[str]:
        rules = []
        if self.off or self.loss >= 100 or (self.cut_in if towards else self.cut_out):
            rules.append("drop")
        if self.hidden:
            rules.append(f"{'iifname' if towards else 'oifname'} uplink drop")
        if self.reset:
            rules.append("meta l4proto tcp reject with tcp reset")
        if towards and self.allowed is not None:
            begins = "tcp flags & (syn | ack) == syn"
            rules += [f"{begins} {match} accept" for match in self.allowed] + [f"{begins} drop"]
        if 0 < self.loss < 100:
            rules.append(f"numgen random mod 10000 < {round(self.loss * 100)} drop")
        return rules


class Router:
    """The namespace between this machine and the hosts of one lab; `enter` says how commands get there.

    A host keeps its number and with it its port and MAC addresses; its address may change.
    """

    def __init__(self, slot: int, keeper: int, enter: Callable[[str], list[str]]) -> None:
        self.slot = slot
        self.network = FIRST_NETWORK + (slot << 8)
        self.uplink = f"cslab{slot}"
        self._enter = enter
        self.client, self.router = self.address(CLIENT), self.address(ROUTER)
        self.guard = threading.Lock()
        self._has_private = False
        here, there = self._macs(CLIENT)
        self._ip_outside(
            f"link add {self.uplink} address {here} type veth peer name uplink address {there} netns {keeper}",
            f"address add {self.client}/32 dev {self.uplink}",
            f"link set {self.uplink} up",
            f"neighbour replace {self.router} lladdr {there} dev {self.uplink} nud permanent",
            f"route add {self.router} dev {self.uplink} scope link src {self.client}",
            f"route add {dotted(self.network)}/24 via {self.router} dev {self.uplink} src {self.client}",
        )
        self._ip(
            f"address add {self.router}/32 dev uplink",
            "link set uplink up",
            f"neighbour replace {self.client} lladdr {here} dev uplink nud permanent",
            f"route add {self.client} dev uplink scope link",
            # An address without a host answers nothing at all, as that of a machine that is off.
            f"route add blackhole {dotted(self.network)}/24",
        )
        self._nft(RULES)

    def address(self, number: int) -> str:
        return dotted(self.network + number)

    def private(self, number: int) -> str:
        return dotted(self.network + (1 << 16) + number)

    def add_private_network(self) -> None:
        """Second addresses of hosts: what this machine sends there is dropped, and does not take another way."""
        with self.guard:
            if self._has_private:
                return
            self._has_private = True
        network = f"{self.private(0)}/24"
        self._ip_outside(f"route add {network} via {self.router} dev {self.uplink} src {self.client}")
        self._ip(f"route add blackhole {network}")
        self._nft(f"insert rule ip lab forward iifname uplink ip daddr {network} drop\n")

    def add_port(self, number: int) -> None:
        """Make the place of a host's rules, before it is first plugged in."""
        port = f"h{number}"
        self._nft(
            f"add chain ip lab to-{port}\nadd chain ip lab from-{port}\n"
            f'add element ip lab to {{ "{port}" : jump to-{port} }}\n'
            f'add element ip lab from {{ "{port}" : jump from-{port} }}\n'
        )

    def remove_port(self, number: int) -> None:
        port = f"h{number}"
        self._nft(
            f'delete element ip lab to {{ "{port}" }}\ndelete element ip lab from {{ "{port}" }}\n'
            f"delete chain ip lab to-{port}\ndelete chain ip lab from-{port}\n"
        )

    def plug_in(self, number: int, pid: int, *addresses: str) -> None:
        """Put eth0 into the namespace of `pid` and route the addresses there."""
        ours, theirs = self._macs(number)
        self._ip(
            f"link add h{number} address {ours} type veth peer name eth0 address {theirs} netns {pid}",
            f"link set h{number} up",
            *(line for address in addresses for line in self._routes(number, address)),
        )

    def move(self, number: int, address: str) -> None:
        """Route another address to a host."""
        self._ip(*self._routes(number, address))

    def unplug(self, number: int) -> None:
        self._ip(f"link delete h{number}")

    def apply(self, number: int, faults: Faults) -> None:
        """All at once, in place of what was before."""
        lines = []
        for chain, towards in (("to", True), ("from", False)):
            lines.append(f"flush chain ip lab {chain}-h{number}")
            lines += [f"add rule ip lab {chain}-h{number} {rule}" for rule in faults.rules(towards)]
        self._nft("\n".join(lines) + "\n")

    def lines_inside(self, number: int, address: str, *more: str) -> str:
        """What a host says to `ip -batch` to have this address on its interface."""
        router, _ = self._macs(number)
        addresses = "".join(f"address add {one}/32 dev eth0\n" for one in (address, *more))
        return (
            "link set lo up\n"
            "address flush dev eth0\n"
            f"{addresses}"
            "link set eth0 up\n"
            f"neighbour replace {self.router} lladdr {router} dev eth0 nud permanent\n"
            f"route replace {self.router} dev eth0 scope link src {address}\n"
            f"route replace default via {self.router} src {address}\n"
        )

    def close(self) -> None:
        self._ip_outside(f"link delete {self.uplink}")

    def _macs(self, number: int) -> tuple[str, str]:
        """Of both ends of one veth."""
        rest = f"{self.slot >> 8:02x}:{self.slot & 255:02x}:00:{number:02x}"
        return f"02:01:{rest}", f"02:02:{rest}"

    def _routes(self, number: int, address: str) -> tuple[str, str]:
        _, theirs = self._macs(number)
        return (
            f"neighbour replace {address} lladdr {theirs} dev h{number} nud permanent",
            f"route replace {address}/32 dev h{number}",
        )

    @staticmethod
    def _ip_outside(*lines: str) -> None:
        run(["ip", "-batch", "-"], "\n".join(lines) + "\n")

    def _ip(self, *lines: str) -> None:
        run([*self._enter("net"), "ip", "-batch", "-"], "\n".join(lines) + "\n")

    def _nft(self, rules: str) -> None:
        with self.guard:  # of two transactions at a time the later is refused
            run([*self._enter("net"), "nft", "-f", "-"], rules)

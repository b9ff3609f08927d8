"""Who may change things here, and what clients have said of this host: both are kept in epochs.json."""

import os
import re

from .disk import read_file, write_durably
from .encoding import compact, parse
from .protocol import Refused
from .spec import is_number


def is_owner(value):
    return isinstance(value, str) and 0 < len(value) <= 200


class Owners:
    """The highest epoch of each owner that was ever seen: an older client of the same owner is fenced off.

    `alone` are the owners that do not want to share this machine with other homes.
    """

    def __init__(self, home, queue, limit):
        self.path, self.queue, self.limit = home + "/epochs.json", queue, limit
        kept = parse(read_file(self.path))
        self.kept = dict({"epochs": {}, "resources": None}, **(kept if isinstance(kept, dict) else {}))
        self.found = discover_resources()
        self.heed()

    @property
    def alone(self):
        return [owner for owner, shared in self.kept.get("shared", {}).items() if shared is False]

    def heed(self):
        resources = dict(self.found, **(self.kept["resources"] or {}))
        self.queue.resize(resources["cpus"], resources["memory"], resources["gpus"])
        if self.kept.get("max_load") != self.limit.most:
            self.limit.limit(self.kept.get("max_load"))

    def is_fenced(self, peer):
        return self.kept["epochs"].get(peer.owner, 0) > peer.epoch

    def only_looks(self, peer):
        return is_look(peer.owner, peer.epoch)

    def introduce(self, peer, frame, admit):
        """Takes in who a client is; admit(owner, alone) may refuse. It is on disk before the client hears of it."""
        owner, epoch = frame.get("owner"), frame.get("epoch", 0)
        if not is_owner(owner) or type(epoch) is not int or epoch < 0:
            raise Refused("bad-request", "owner is a string, epoch a whole number")
        kept = dict(self.kept)
        if frame.get("resources") is not None:
            kept["resources"] = self.read_resources(frame["resources"])
        if "max_load" in frame:
            kept["max_load"] = read_max_load(frame["max_load"])
        if frame.get("shared") is not None and not is_look(owner, epoch):
            if not isinstance(frame["shared"], bool):
                raise Refused("bad-request", "shared is true or false")
            kept["shared"] = dict(kept.get("shared", {}), **{owner: frame["shared"]})
        admit(owner, kept.get("shared", {}).get(owner) is False and not is_look(owner, epoch))
        kept["epochs"] = dict(kept["epochs"], **{owner: max(epoch, kept["epochs"].get(owner, 0))})
        if kept != self.kept:
            write_durably(self.path, compact(kept))
            self.kept = kept
            self.heed()
        peer.owner, peer.epoch = owner, epoch

    def read_resources(self, resources):
        if not isinstance(resources, dict) or not all(is_number(resources.get(name, 0)) for name in self.found):
            raise Refused("bad-request", "resources are numbers: cpus, memory, gpus")
        return {name: resources[name] for name in self.found if name in resources}


def is_look(owner, epoch):
    """A client that looks whether this host is fit, and wants nothing done."""
    return owner == "check" and epoch == 0


def read_max_load(value):
    if value is not None and not is_number(value):
        raise Refused("bad-request", "max_load is a number or null")
    return value


def discover_resources():
    memory = re.search(rb"MemTotal:\s+(\d+) kB", read_file("/proc/meminfo") or b"")
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory": int(memory.group(1)) << 10 if memory else 0,
        "gpus": count_gpus(),
    }


def count_gpus():
    try:
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        pass
    if not any(os.access(folder + "/nvidia-smi", os.X_OK) for folder in os.environ.get("PATH", "").split(":")):
        return 0
    import subprocess

    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )
        return done.stdout.count(b"GPU ")
    except (OSError, subprocess.SubprocessError):
        return 0

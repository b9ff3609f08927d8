"""The cgroup of a host, where the machine lets us make one: freezes it, and limits its memory and its processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

from .commands import wait_for
from .spec import PREFIX, NotHere

PROCESSES_MOST = 4000  # of one host: a fork storm fills its own table, and not that of the machine


def mounted_hierarchies() -> dict[str, Path]:
    """Where the controllers are: `freezer`, `memory` and `pids` of version 1, `v2` of version 2."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.setdefault("v2", Path(where))
        elif kind == "cgroup":
            for name in {"freezer", "memory", "pids"} & set(options.split(",")):
                found.setdefault(name, Path(where))
    return found


class Cgroup:
    """Directories of one name in each hierarchy that is of use. May be none: then nothing is frozen or limited."""

    def __init__(self, name: str) -> None:
        self.name = f"{PREFIX}-{name}"
        self.places: dict[str, Path] = {}
        for kind, where in mounted_hierarchies().items():
            with contextlib.suppress(OSError):
                (where / self.name).mkdir(exist_ok=True)
                self.places[kind] = where / self.name
                if (most := where / self.name / "pids.max").exists():
                    most.write_text(str(PROCESSES_MOST))
        v2 = self.places.get("v2")
        self.freezes_v2 = v2 is not None and (v2 / "cgroup.freeze").exists()

    @property
    def can_freeze(self) -> bool:
        return self.freezes_v2 or "freezer" in self.places

    @property
    def directories(self) -> list[str]:
        return [str(place) for place in self.places.values()]

    def freeze(self, frozen: bool) -> None:
        if self.freezes_v2:
            place = self.places["v2"]
            (place / "cgroup.freeze").write_text("1" if frozen else "0")
            events = place / "cgroup.events"
            wait_for(lambda: f"frozen {frozen:d}" in events.read_text(), f"{self.name} frozen: {frozen}")
        else:
            state = self.places["freezer"] / "freezer.state"
            wanted = "FROZEN" if frozen else "THAWED"
            state.write_text(wanted)
            wait_for(lambda: state.read_text().strip() == wanted, f"{self.name} {wanted}")

    def limit_memory(self, size: int | None) -> None:
        """Set or lift the limit, of all its processes together."""
        if "memory" in self.places:
            limit = self.places["memory"] / "memory.limit_in_bytes"
        elif "v2" in self.places and (self.places["v2"] / "memory.max").exists():
            limit = self.places["v2"] / "memory.max"
        else:
            raise NotHere("no memory controller of cgroups that can be written")
        limit.write_text(("-1" if limit.name.endswith("bytes") else "max") if size is None else str(size))

    def remove(self) -> None:
        for place in self.places.values():
            remove_cgroup(place)


def remove_cgroup(place: Path) -> None:
    def gone() -> bool:
        with contextlib.suppress(FileNotFoundError):
            try:
                place.rmdir()
            except OSError:
                return False  # a process that is just dying is still in it
        return True

    wait_for(gone, f"{place} is empty")


def cgroups_of(slot: int) -> list[Path]:
    return [place for where in mounted_hierarchies().values() for place in where.glob(f"{PREFIX}-{slot}-*")]


def thaw_cgroups_of(slot: int) -> None:
    """In version 1, what is frozen does not even die."""
    for place in cgroups_of(slot):
        for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if (place / file).exists():
                (place / file).write_text(word)


def remove_cgroups_of(slot: int) -> None:
    """What is left of the hosts of one lab, whose processes are dead or dying."""
    for place in cgroups_of(slot):
        remove_cgroup(place)

"""Which providers a run uses: those of `providers.yml`, or a host that is named on the spot."""

from __future__ import annotations

from .check import Report, did_you_mean
from .context import LoadContext, ProviderInfo
from .document import Place
from .given import Given
from .hosts import AD_HOC, read_ad_hoc


class Providers:
    """Finds providers by what the user calls them."""

    def __init__(self, report: Report, context: LoadContext) -> None:
        self.report = report
        self.known = dict(context.providers)
        self.override: str | None = None
        self.places: dict[str, Place] = {}  # of those that were asked for by `provider`

    def find(self, name: str, place: Place, path: str, before: str = "") -> ProviderInfo | None:
        """None: there is no such provider, and that is reported."""
        info = self.known.get(name)
        if info is None and name.startswith(AD_HOC):
            hosts = read_ad_hoc(self.report, name, place)
            if hosts is None:
                return None
            info = ProviderInfo(name, "ssh", rendered=hosts.settings, origins=tuple(hosts.origins))
            self.known[name] = info
        if info is None:
            hint = did_you_mean(name, self.known) or "known: " + ", ".join(sorted(self.known))
            self.report.error(f"{before}unknown provider {name!r}", place, hint, path)
        return info

    def choose(self, given: Given | None, override: str | None) -> list[ProviderInfo]:
        """The providers of the run, in order of preference; those of this version first and alone."""
        wanted: list[tuple[str, Place]] = []
        if override is not None:
            wanted = [(override, Place("--provider"))]
        elif given is not None and isinstance(given.value, list):
            wanted = [(name, node.place) for name, node in given.value]
        if not wanted:
            others = [n for n, info in self.known.items() if info.type != "local" and not info.implicit]
            wanted = [(others[0] if len(others) == 1 else "local", Place(""))]
        self.override = override
        chosen: list[ProviderInfo] = []
        refused = []
        for name, place in wanted:
            info = self.find(name, place, "provider")
            if info is not None and info.unavailable:
                refused.append((info, place))
            elif info is not None and info not in chosen:
                chosen.append(info)
                self.places[name] = place
        for info, place in refused:
            if chosen:
                self.report.warn(f"provider {info.name!r} is left out: {info.unavailable}", place, path="provider")
            else:
                hint = "use --provider local"
                self.report.error(f"provider {info.name!r}: {info.unavailable}", place, hint, "provider")
        return chosen

"""What all tests share: directories, their order, and the last line: tiers that were skipped, campaigns in part."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import campaigns
import pytest
from long_files import order_files

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

# The first folder below tests/ says the tier; the marker `real` wins over it.
TIERS = {
    "core": "core",
    "config": "core",
    "environments": "core",
    "contracts": "contract",
    "hosts": "contract",
    "providers": "contract",
    "store": "contract",
    "engine": "crash world",
    "simulation": "crash world",
    "agent": "agent",
    "maestro": "agent",
    "api": "CLI",
    "cli": "CLI",
    "security": "security",
    "real": "real",
}
TESTS = Path(__file__).parent
SUMMARY_PROPERTY = "line of the summary"
CAMPAIGN_PROPERTY = "campaign that was played in part"

# A shell starts what it puts into the background with SIGINT ignored, and children inherit that: then no Ctrl-C would
# reach the commands under test. Under nohup it is SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def name_python() -> None:
    """Jobs start python3: where that is a script that looks for one, as pyenv has, it takes longer than they do."""
    found, real = shutil.which("python3"), Path(sys.base_prefix, "bin", "python3")
    if found is None or not real.exists():
        return
    with open(found, "rb") as file:
        is_script = file.read(2) == b"#!"
    if is_script:
        os.environ["PATH"] = f"{real.parent}{os.pathsep}{os.environ['PATH']}"


name_python()
LAST_LINE = pytest.StashKey[str]()
Stats = dict[str, list[pytest.TestReport | pytest.CollectReport]]


@pytest.fixture
def weird_path(tmp_path: Path) -> Path:
    """A directory for every path that reaches a shell: space, quotes, `;`, `$`, newline, `*`, not ASCII."""
    path = tmp_path / "a b'c\"d;e$HOME\nf*é"
    path.mkdir()
    return path


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A private state directory with a name short enough for the path of a unix socket."""
    path = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def summary_line(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a line after the run, whether or not output is captured: counts that may not drop unseen."""
    return lambda text: record_property(SUMMARY_PROPERTY, text)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: what is left when one worker is done is handed out in small."""
    real = {item.path: item.get_closest_marker("real") is not None for item in items}
    names = {path: path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else "" for path in real}
    places = {name: place for place, name in enumerate(order_files([(names[path], real[path]) for path in real]))}
    items.sort(key=lambda item: places[names[item.path]])
    if not campaigns.FULL:
        for item in items:
            item.user_properties += [(CAMPAIGN_PROPERTY, mark.args[0]) for mark in item.iter_markers("campaign")]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """One worker plays a whole file, and all of the agent's: agents find what they end by names that these share."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            return "agents" if file.startswith("tests/agent/") or "rented_agent" in file else file

    return ByFile(config, log)


def tier_of(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Name the tier of a test, or None for the tests of the project itself."""
    if "real" in getattr(report, "keywords", {}):
        return "real"
    parts = report.nodeid.split("::")[0].split("/")
    folder = parts[1] if parts[0] == "tests" and len(parts) > 1 else parts[0]
    return TIERS.get(folder)


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr)


def describe_skipped(stats: Stats, whole_suite: bool) -> str:
    """Say which tiers were skipped, wholly or in part, and why."""
    total: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for category in ("passed", "failed", "error", "xfailed", "xpassed", "skipped"):
        for report in stats.get(category, []):
            tier = tier_of(report)
            if tier is None or (report.when == "teardown" and category == "error"):
                continue
            total[tier] += 1
            if category == "skipped":
                reasons[tier][skip_reason(report)] += 1
    parts = []
    for tier in dict.fromkeys(TIERS.values()):
        skipped = sum(reasons[tier].values())
        if skipped:
            why = "; ".join(f"{count} for: {reason}" for reason, count in sorted(reasons[tier].items()))
            parts.append(f"{tier} ({'all' if skipped == total[tier] else 'part'}: {why})")
        elif whole_suite and not total[tier]:
            parts.append(f"{tier} (it has no tests yet)")
    return "tiers skipped: " + (", ".join(parts) or "none")


def pytest_collection_finish() -> None:
    # The tests themselves live until the end: each full collection of garbage would go through thousands of them.
    gc.collect()
    gc.freeze()


def properties_of(stats: Stats, wanted: str) -> list[str]:
    """What tests that were executed have told under this name."""
    return [
        str(value)
        for reports in stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in getattr(report, "user_properties", ())
        if name == wanted
    ]


def describe_campaigns(stats: Stats) -> str:
    names = sorted(set(properties_of(stats, CAMPAIGN_PROPERTY)))
    if not names:
        return ""
    return f"campaigns played in part ({campaigns.VARIABLE}=full plays all of them): {', '.join(names)}\n"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    stats = terminalreporter.stats
    lines = properties_of(stats, SUMMARY_PROPERTY)
    if lines:
        terminalreporter.section("reported by tests")
        for line in lines:
            terminalreporter.write_line(line)
    selected = config.getoption("keyword") or config.getoption("markexpr")
    whole_suite = config.args == config.getini("testpaths") and not selected
    config.stash[LAST_LINE] = describe_campaigns(stats) + describe_skipped(stats, whole_suite)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    # ORDER: after pytest's own last line, so that a tier that did not run is what is read last.
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and LAST_LINE in config.stash:
        reporter.ensure_newline()
        reporter.write_line(config.stash[LAST_LINE])

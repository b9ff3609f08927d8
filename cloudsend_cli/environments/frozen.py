"""What is installed in an environment that exists: read from its files, nothing in it is executed."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from typing import Any

from .sources import Sources

_BOOTSTRAP = frozenset({"pip", "setuptools", "wheel", "distribute"})


def normal_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def freeze_venv(
    sources: Sources, directory: str, *, key: str = "pip_directory", by_pip_only: bool = False
) -> list[str]:
    """Like `pip freeze`: `name==version`, or `name @ URL`, without what a new environment has anyway."""
    found: dict[str, str] = {}
    places = _site_packages(sources, directory)
    if not places and not by_pip_only:
        sources.problem(key, f"{directory} is no Python environment: it has no site-packages")
    for place in places:
        for entry in sources.names(place):
            if entry.endswith((".dist-info", ".egg-info")):
                _freeze_package(sources, f"{place}/{entry}", key, found, by_pip_only)
    return sorted(found.values(), key=str.lower)


def _site_packages(sources: Sources, directory: str) -> list[str]:
    places = [
        f"{directory}/{lib}/{python}/site-packages"
        for lib in ("lib", "lib64")
        for python in sources.names(f"{directory}/{lib}")
        if re.match(r"(python|pypy)[\d.]+t?$", python)
    ]
    return [place for place in places if sources.names(place)]


def _freeze_package(sources: Sources, info: str, key: str, found: dict[str, str], by_pip_only: bool) -> None:
    raw = sources.bytes_or_none(f"{info}/METADATA") or sources.bytes_or_none(f"{info}/PKG-INFO")
    if raw is None or (by_pip_only and _text(sources, f"{info}/INSTALLER").strip() != "pip"):
        return
    from email.parser import HeaderParser  # 10 ms, for what few configs ask for

    headers = HeaderParser().parsestr(raw.decode("utf-8", "replace"))
    name, version = str(headers["Name"] or "").strip(), str(headers["Version"] or "").strip()
    if not name or not version or normal_name(name) in _BOOTSTRAP or normal_name(name) in found:
        return
    line = f"{name}=={version}"
    direct = _text(sources, f"{info}/direct_url.json")
    if direct:
        url = _direct_url(direct)
        if url is None:
            hint = "publish it, or upload its directory with the job"
            sources.problem(key, f"{name} was installed from a directory of this machine", hint=hint)
            return
        line = f"{name} @ {url}"
    if sources.one_line(key, line):
        found[normal_name(name)] = line


def _text(sources: Sources, path: str) -> str:
    return (sources.bytes_or_none(path) or b"").decode("utf-8", "replace")


def _direct_url(text: str) -> str | None:
    try:
        values: dict[str, Any] = json.loads(text)
        url = str(values["url"])
        if "vcs_info" in values:
            vcs = values["vcs_info"]
            url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        if values.get("subdirectory"):
            url += f"#subdirectory={values['subdirectory']}"
    except (ValueError, KeyError, TypeError):
        return None
    return None if "dir_info" in values else url


def freeze_conda(sources: Sources, directory: str) -> tuple[list[str], list[str], list[str]]:
    """(`name=version=build` of each package, channels by number of packages, what pip put there)."""
    packages: list[str] = []
    channels: Counter[str] = Counter()
    key = "conda_directory"
    for name in sources.names(f"{directory}/conda-meta"):
        if not name.endswith(".json"):
            continue
        try:
            record = json.loads(_text(sources, f"{directory}/conda-meta/{name}"))
            line = "{name}={version}={build}".format_map(record)
            channel = _channel(str(record.get("channel", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            sources.problem(key, f"{directory}/conda-meta/{name} is no record of a package")
            continue
        if sources.one_line(key, line):
            packages.append(line)
            channels[channel] += 1
    if not packages:
        sources.problem(key, f"{directory} is no conda environment: it has no conda-meta/*.json")
    order = sorted((c for c in channels if c), key=lambda c: (-channels[c], c))
    return sorted(packages), order, freeze_venv(sources, directory, key=key, by_pip_only=True)


def _channel(url: str) -> str:
    """The channel of a package's record, without the platform."""
    url = url.rstrip("/")
    if re.fullmatch(r"(noarch|[a-z]+-[a-z0-9]+)", os.path.basename(url)) and "/" in url:
        url = os.path.dirname(url)
    return re.sub(r"^https://conda\.anaconda\.org/", "", url)

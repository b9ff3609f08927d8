"""Which Python a host has: scripts that run there as root."""

from __future__ import annotations

from pathlib import Path

from .rootfs import pyenv_versions
from .spec import NotHere

ASIDE = "/var/lib/hidden-pythons"
EACH = (
    'for directory in /usr/local/bin /usr/local/sbin /usr/bin /usr/sbin /bin /sbin; do [ -L "$directory" ] && continue'
)
# What the machine has is moved aside once, so that it can be put back; what was put in its place later is removed.
HIDE = rf"""
set -e
{EACH}
    [ -e "{ASIDE}$directory/done" ] && rm -f "$directory"/python* && continue
    mkdir -p "{ASIDE}$directory"
    find "$directory" -maxdepth 1 -name 'python*' -exec mv -t "{ASIDE}$directory" '{{}}' +
    : >"{ASIDE}$directory/done"
done
"""
RESTORE = rf"""
{EACH}
    rm "{ASIDE}$directory/done"
    find "{ASIDE}$directory" -maxdepth 1 -name 'python*' -exec mv -t "$directory" '{{}}' +
done
"""
BROKEN_PROGRAM = """#!/bin/sh
echo 'python3: error while loading shared libraries: libpython3.so.1.0: cannot open shared object file' >&2
exit 127
"""
BROKEN = f"cat >/usr/bin/python3 <<'END'\n{BROKEN_PROGRAM}END\nchmod 755 /usr/bin/python3\n"


def find_here(version: str) -> Path:
    """The interpreter of a version (`3.6`) on this machine."""
    versions = pyenv_versions()
    found = [path for path in versions.iterdir() if f"{path.name}.".startswith(f"{version}.")] if versions else []
    candidates = [path / f"bin/python{version}" for path in sorted(found)]
    candidates += [Path(place, f"python{version}") for place in ("/usr/local/bin", "/usr/bin")]
    for path in candidates:
        if path.exists():
            return path
    raise NotHere(f"no Python {version} on this machine (pyenv install {version})")


def find_inside(version: str) -> str:
    """The same as a path on a host, where the machine's own are moved aside."""
    path, versions = find_here(version), pyenv_versions()
    if versions is not None and path.is_relative_to(versions):
        return str(path)
    return f"{ASIDE}{path}"


def names(choice: str) -> list[str]:
    """Under which names a choice is found in the PATH."""
    if choice.startswith("/"):
        return ["python3"]
    major = choice.partition(".")[0]
    return [*(["python"] if major == "2" else []), *dict.fromkeys((f"python{major}", f"python{choice}"))]


def script(choice: str) -> str:
    """What makes `choice` (see HostSpec.python) the only Python of a host."""
    if choice == "machine":
        return HIDE + RESTORE
    if choice == "none":
        return HIDE
    if choice == "broken":
        return HIDE + BROKEN
    path = choice if choice.startswith("/") else find_inside(choice)
    return HIDE + "".join(f"ln -s {path} /usr/bin/{name}\n" for name in names(choice))

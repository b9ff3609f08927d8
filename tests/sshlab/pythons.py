"""Which Python a host has: scripts that run there as root."""

from __future__ import annotations

from pathlib import Path

from .rootfs import PYTHONS, pyenv_versions
from .spec import NotHere

# What the machine has is moved aside once, so that it can be put back; what was put in its place is removed.
HIDE = r"""
set -e
aside=/var/lib/hidden-pythons
for directory in /usr/local/bin /usr/local/sbin /usr/bin /usr/sbin /bin /sbin; do
    [ -L "$directory" ] && continue
    [ -e "$aside$directory/done" ] && rm -f "$directory"/python* && continue
    mkdir -p "$aside$directory"
    for file in "$directory"/python*; do
        [ -e "$file" ] || [ -L "$file" ] || continue
        mv "$file" "$aside$directory/"
    done
    : >"$aside$directory/done"
done
"""
RESTORE = r"""
for directory in /usr/local/bin /usr/local/sbin /usr/bin /usr/sbin /bin /sbin; do
    [ -L "$directory" ] && continue
    rm "$aside$directory/done"
    for file in "$aside$directory"/python*; do
        [ -e "$file" ] || [ -L "$file" ] || continue
        mv "$file" "$directory/"
    done
done
"""
BROKEN = r"""
cat >/usr/bin/python3 <<'END'
#!/bin/sh
echo 'python3: error while loading shared libraries: libpython3.so.1.0: cannot open shared object file' >&2
exit 127
END
chmod 755 /usr/bin/python3
"""


def find_version(version: str) -> str | None:
    """The interpreter of a version (`3.6`), as a path inside hosts."""
    versions = pyenv_versions()
    for found in sorted(versions.glob(f"{version}*")) if versions else []:
        if found.name == version or found.name.startswith(f"{version}."):
            return f"{PYTHONS}/{found.name}/bin/python{version}"
    for place in (f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        if Path(place).exists():
            return f"/var/lib/hidden-pythons{place}"
    return None


def script(choice: str) -> str:
    """What makes `choice` (see HostSpec.python) the only Python of a host."""
    if choice == "machine":
        return HIDE + RESTORE
    if choice == "none":
        return HIDE
    if choice == "broken":
        return HIDE + BROKEN
    path = choice if choice.startswith("/") else find_version(choice)
    if path is None:
        raise NotHere(f"no Python {choice} on this machine (pyenv install {choice})")
    if choice.startswith("2"):
        return f"{HIDE}\nfor name in python python2 python{choice}; do ln -s {path} /usr/bin/$name; done\n"
    names = "python3" if choice.startswith("/") else f"python3 python{choice}"
    return f"{HIDE}\nfor name in {names}; do ln -s {path} /usr/bin/$name; done\n"

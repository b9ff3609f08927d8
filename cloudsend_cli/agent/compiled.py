"""The agent's modules as this Python has compiled them for itself, for hosts of the same Python: this machine."""

from __future__ import annotations

import marshal
import sys
from functools import lru_cache
from importlib import resources
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path

COMPILED = "CLOUDSEND_AGENT_COMPILED"  # the sha256 of the file, for the agent: see host/loading.py
PACKAGE = "cloudsend_cli.agent.host"


@lru_cache(maxsize=1)
def agent_compiled() -> bytes:
    """The file that may lie beside the agent's; nothing where Python keeps no compiled modules of this installation.

    The same bytes as long as Python's own files of them are the same, as the sha256 names the file.
    """
    folder = resources.files(PACKAGE)
    if not isinstance(folder, Path):
        return b""
    modules = {}
    try:
        for path in sorted(folder.glob("*.py")):
            modules[f"host.{path.stem}"] = _compiled(path)
    except (OSError, ValueError, ImportError, SyntaxError):
        return b""
    for own in ("host.__init__", "host.loading"):  # they are there by then
        modules.pop(own, None)
    tag = f"{sys.implementation.cache_tag} {MAGIC_NUMBER.hex()}\n"
    return tag.encode("ascii") + marshal.dumps(modules, 2)  # of version 2: later ones tell how often what is used


def _compiled(path: Path) -> bytes:
    """The code of one module, from the file in which Python keeps it, or will from now on."""
    SourceFileLoader(f"{PACKAGE}.{path.stem}", str(path)).get_code(f"{PACKAGE}.{path.stem}")
    data = Path(cache_from_source(str(path))).read_bytes()
    about = path.stat()
    flags = int.from_bytes(data[4:8], "little")
    if flags:
        known = source_hash(path.read_bytes())
    else:
        known = b"".join(int(n & 0xFFFFFFFF).to_bytes(4, "little") for n in (int(about.st_mtime), about.st_size))
    if data[:4] != MAGIC_NUMBER or data[8:16] != known:  # it may not be written
        raise ValueError(f"{path} is newer than what is kept of it")
    return data[16:]

"""The one file by which a machine executes functions: our program, with the installed cloudpickle beside it."""

from __future__ import annotations

import functools
import importlib.util
import io
import marshal
import zipfile
from pathlib import Path

LONG_AGO = (1980, 1, 1, 0, 0, 0)
UNCHECKED = (1).to_bytes(4, "little") + bytes(8)  # of compiled files: known by a hash that nobody compares


@functools.cache
def build_bundle() -> bytes:
    """A zip that Python executes. Equal bytes for equal sources: it is a part of what jobs are known by."""
    import cloudpickle

    folder = Path(cloudpickle.__file__).parent
    files = {f"cloudpickle/{path.name}": path.read_bytes() for path in folder.glob("*.py")}
    files |= {f"{name}c": compile_source(name, source) for name, source in files.items()}
    files["__main__.py"] = Path(__file__).with_name("program.py").read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        for name in sorted(files):
            bundle.writestr(zipfile.ZipInfo(name, LONG_AGO), files[name])
    return packed.getvalue()


def compile_source(name: str, source: bytes) -> bytes:
    """As an imported module is kept. Another version of Python passes it over, and takes the source."""
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    # The newest format tells which objects are shared, and that differs from process to process; this one does not.
    return importlib.util.MAGIC_NUMBER + UNCHECKED + marshal.dumps(code, 2)

"""The description of EC2 for boto3, without what nobody here calls: it is read in a tenth of the time.

Each process that talks to the lab reads it; the whole one costs a quarter of a second of the processor each time.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
PRODUCT = TESTS.parent / "cloudsend_cli" / "providers" / "aws"


def write_service_files(folder: Path) -> Path:
    """A folder for AWS_DATA_PATH. Every operation that the product or a test names is there, in either spelling."""
    import botocore
    from botocore import xform_name

    (source,) = Path(botocore.__file__).parent.glob("data/ec2/2016-11-15/service-2.json*")
    data = source.read_bytes()
    model = json.loads(gzip.decompress(data) if source.suffix == ".gz" else data)
    words = set(_words())
    operations = {
        name: told for name, told in model["operations"].items() if name in words or xform_name(name) in words
    }
    shapes: dict[str, Any] = {}
    for told in operations.values():
        _take(told, model["shapes"], shapes)
    path = folder / "ec2" / "2016-11-15" / "service-2.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(_terse({**model, "operations": operations, "shapes": shapes})), encoding="utf-8")
    return folder


def _terse(told: Any) -> Any:
    if isinstance(told, list):
        return [_terse(one) for one in told]
    if isinstance(told, dict):
        # A member may have this name too: then it is no text.
        return {name: _terse(one) for name, one in told.items() if name != "documentation" or isinstance(one, dict)}
    return told


def _words() -> Iterator[str]:
    texts = [*PRODUCT.rglob("*.py"), *PRODUCT.rglob("*.json"), *TESTS.glob("ec2*/*.py")]
    for path in texts:
        yield from re.findall(r"\w+", path.read_text(encoding="utf-8"))


def _take(told: Any, known: Mapping[str, Any], taken: dict[str, Any]) -> None:
    """All shapes that this one or this operation refers to."""
    if isinstance(told, list):
        for one in told:
            _take(one, known, taken)
    elif isinstance(told, dict):
        name = told.get("shape")
        if isinstance(name, str) and name not in taken:
            taken[name] = known[name]
            _take(known[name], known, taken)
        for one in told.values():
            _take(one, known, taken)

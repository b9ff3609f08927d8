"""Puts the newest results into docs/performance.md, between `<!-- NAME -->` and `<!-- end -->`."""

import json
import re

from bench.measuring import RESULTS, ROOT, Table

PAGE = ROOT / "docs" / "performance.md"


def write() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        machine, name = record["machine"], record["name"]
        table = Table(name, record["headers"], record["rows"]).render()
        under = f"{machine['text']}; before it: load {machine['load']}, {machine['inode_us']} µs for a new file"
        block = f"<!-- {name} -->\n{table}\n\n{under}.\n<!-- end -->"
        text = re.sub(rf"<!-- {re.escape(name)} -->.*?<!-- end -->", lambda _, b=block: b, text, flags=re.DOTALL)
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")

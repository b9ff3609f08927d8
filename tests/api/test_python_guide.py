"""docs/guides/python.md: its code is one program, which does what the guide says."""

from __future__ import annotations

import re
from pathlib import Path

from function_scripts import run_program
from real_stack import Stack

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "python.md"


def test_the_guides_code_is_executed(stack: Stack) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    printed = run_program(stack, "\n".join(blocks)).splitlines()
    rows = [line.split() for line in printed[:4]]
    assert [row[:2] for row in rows] == [[f"simulate/calls/{n}", "succeeded"] for n in range(4)]
    text = "\n".join(printed[4:])
    assert "failed exit 1 ZeroDivisionError: division by zero" in text and ", in divide" in text
    assert re.search(r"\[\(0\.001, 0, '0'\), \(0\.0001, [01], '[01]'\), \(1e-05, [01], '[01]'\)\]", text), text
    assert "JobStarted\nJobEnded\n" in text and "RunSettled\nhello\n" in text
    places = re.findall(r"(exp|static) (1000|2000) on ([01])", printed[-1])
    assert [place[:2] for place in places] == [
        ("exp", "1000"),
        ("exp", "2000"),
        ("static", "1000"),
        ("static", "2000"),
    ]
    log = (stack.files / "tasks.log").read_text()
    assert "succeeded: Report | all | 0" in log and log.count(" started: ") == 7

"""A sweep of a thousand calls on this machine, of which a sample is made by default."""

from __future__ import annotations

import pytest
from campaigns import pick
from function_scripts import run_program
from real_stack import Stack

POINTS = pick(100, 1000)


@pytest.mark.campaign("functions")
def test_a_thousand_points_on_this_machine(stack: Stack) -> None:
    source = f"""
        from cloudsend_cli import Client

        def square(x):
            return x * x

        if __name__ == "__main__":
            values = Client().map(square, ({{"x": x}} for x in range({POINTS}))).values(timeout=240)
            assert values == [x * x for x in range({POINTS})]
            print(len(values))
    """
    assert run_program(stack, source) == f"{POINTS}\n"

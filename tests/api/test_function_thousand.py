"""A sweep of a thousand calls on this machine."""

from __future__ import annotations

import pytest
from function_scripts import run_program
from real_stack import Stack


@pytest.mark.slow
def test_a_thousand_points_on_this_machine(stack: Stack) -> None:
    source = """
        from cloudsend_cli import Client

        def square(x):
            return x * x

        if __name__ == "__main__":
            values = Client().map(square, [{"x": x} for x in range(1000)]).values(timeout=240)
            assert values == [x * x for x in range(1000)]
            print(len(values))
    """
    assert run_program(stack, source) == "1000\n"

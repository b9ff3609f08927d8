"""What machines are called."""

from __future__ import annotations

import pytest

from cloudsend_cli.core.model import Rented
from cloudsend_cli.engine.instances import name_rented


@pytest.mark.parametrize(
    ("node", "name"),
    [("aws-0", "i-1"), ("aws-12b", "i-1"), ("aws-sweet", "aws-sweet"), ("aws-b", "aws-b"), ("", "i-1")],
)
def test_numbers_are_names_of_machines_within_their_run_alone(node: str, name: str) -> None:
    machine = Rented("aws", "i-1", "eu-west-3", "running", "", node, "p", "m7i.large", "spot")
    assert name_rented(machine) == name

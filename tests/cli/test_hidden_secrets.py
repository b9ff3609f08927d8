"""The line that an error points at is shown without what it keeps secret."""

from __future__ import annotations

import pytest

from cloudsend_cli.cli.problems import hide_secrets


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("aws_secret_access_key: wJalr/K7", "aws_secret_access_key: ********"),
        (
            "- {name: w, aws_secret_access_key: wJalr, region: x}",
            "- {name: w, aws_secret_access_key: *****, region: x}",
        ),
        ('  password: "a b"  # mine', "  password: *****  # mine"),
        ('{"api_key": "abc", "x": 1}', '{"api_key": *****, "x": 1}'),
        ("{token: a, password: 'b, c'}  # x", "{token: *, password: ******}  # x"),
        ('{"token": "a\\"b", "x": 1}', '{"token": ******, "x": 1}'),
        ("- me:secret@host", "- me:******@host"),
        ("hosts: [gpu1, gpu2]", "hosts: [gpu1, gpu2]"),
        ("key: ~/.ssh/id_ed25519", "key: ~/.ssh/id_ed25519"),
        ("jobs: python train.py --lr 0.1", "jobs: python train.py --lr 0.1"),
    ],
)
def test_secrets_are_stars_of_the_same_width(line: str, shown: str) -> None:
    assert hide_secrets(line) == shown
    assert len(hide_secrets(line)) == len(line)


@pytest.mark.parametrize(
    "part", ["x", "-", "token", "token:", "token =", ":", "a:", "token: ", "'", '"', "\\", "@", " \t"]
)
def test_hostile_lines_take_no_longer_than_their_length(part: str) -> None:
    """A million letters: what looks twice at each of them would not end today."""
    for line in (part * (1_000_000 // len(part)), "token: " + part * (1_000_000 // len(part)) + "\n!"):
        assert len(hide_secrets(line)) == len(line)

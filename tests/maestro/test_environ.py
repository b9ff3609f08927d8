"""What a maestro that runs already takes over from the user's newest command."""

from __future__ import annotations

import os

import pytest

from cloudsend_cli.maestro.environ import pick_variables, take_variables


@pytest.fixture(autouse=True)
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "SSH_AUTH_SOCK": "/old/agent",
        "CLOUDSEND_SSH_CONFIG": "/old/config",
        "AWS_ACCESS_KEY_ID": "old",
        "AWS_SESSION_TOKEN": "old-token",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_PROFILE", "")


def cloud() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_") and value}


def test_a_command_sends_what_logins_and_credentials_need_and_nothing_else() -> None:
    environ = {"HOME": "/home/me", "TOKEN": "t", "AWS_PROFILE": "lab", "SSH_AUTH_SOCK": "/agent"}
    assert pick_variables(environ) == {
        "SSH_AUTH_SOCK": "/agent",
        "CLOUDSEND_SSH_CONFIG": "",
        "CLOUDSEND_CALLER_CIDR": "",
        "AWS_PROFILE": "lab",
    }


def test_newer_credentials_replace_all_older_ones() -> None:
    take_variables(pick_variables({"AWS_PROFILE": "lab", "SSH_AUTH_SOCK": "/new/agent"}))
    assert cloud() == {"AWS_PROFILE": "lab"}
    assert os.environ["SSH_AUTH_SOCK"] == "/new/agent"
    assert "CLOUDSEND_SSH_CONFIG" not in os.environ


def test_a_command_without_credentials_takes_none_away() -> None:
    take_variables(pick_variables({"CLOUDSEND_SSH_CONFIG": "/new/config"}))
    assert cloud() == {"AWS_ACCESS_KEY_ID": "old", "AWS_SESSION_TOKEN": "old-token"}
    assert os.environ["SSH_AUTH_SOCK"] == "/old/agent"
    assert os.environ["CLOUDSEND_SSH_CONFIG"] == "/new/config"


@pytest.mark.parametrize("given", [None, [], "AWS_PROFILE", {"AWS_PROFILE": 1, 2: "x"}, {"AWS_X": "a\0b"}])
def test_nonsense_changes_nothing(given: object) -> None:
    before = dict(os.environ)
    take_variables(given)
    assert dict(os.environ) == before

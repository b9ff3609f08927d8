"""Row 4: what a project holds that is not for others stays here, and no link leads an upload out of the project."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.api import Client
from cloudsend_cli.config.ignore import NO_SECRETS, SECRETS, is_secret, parse_ignore
from cloudsend_cli.config.load import Loaded
from cloudsend_cli.engine.transfer import send_files
from cloudsend_cli.errors import ConfigError

SECRET_FILES = (
    ".env", ".env.local", "deploy/.env.production", "key.pem", "certs/server.key", "certs/store.p12", "x.PFX",
    "notes.kdbx", "id_rsa", "keys/id_ed25519", ".netrc", ".pgpass", ".git-credentials", ".pypirc", ".npmrc",
    "credentials.json", "service-account-42.json", ".ssh/config", ".ssh/id_rsa", ".aws/credentials", ".kube/config",
    ".gnupg/secring.gpg", ".docker/config.json", "sub/.aws/config",
)  # fmt: skip
PLAIN_FILES = (
    "train.py", "data/x.csv", "id_rsa.pub", "keys/id_ed25519.pub", ".env.example", "environment.yml", "keyboard.txt",
    "pem.txt", "monkey.csv", "data/.hidden", "credentials.md", "awsome/x",
)  # fmt: skip


class Project:
    """A directory with files, as its owner has it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "project"
        self.root.mkdir()
        self.client = Client(root / "state", environ={"HOME": str(root)})

    def write(self, *names: str, content: str = "x") -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def load(self, upload: object, **job: object) -> Loaded:
        config = self.root / "jobs.json"
        given = {"run": "true", "upload": upload, **job}
        jobs = {name: value for name, value in given.items() if value is not None}
        config.write_text(json.dumps({"jobs": jobs, "provider": "local"}))
        return self.client.validate(str(config))

    def sent(self, upload: object, **job: object) -> set[str]:
        return {file.path for file in self.load(upload, **job).spec.jobs[0].uploads} - {"jobs.json"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_files_that_look_like_secrets_stay_here(project: Project) -> None:
    project.write(*SECRET_FILES, *PLAIN_FILES, ".git/config", "a/__pycache__/b.pyc")
    assert project.sent(".") == set(PLAIN_FILES)
    (warning,) = [w for w in project.load(".").warnings if "secret" in w.message]
    assert "left out, as it looks like a secret: .aws" in warning.message
    assert "more" in warning.message
    assert ".cloudsendignore" in warning.hint


@pytest.mark.parametrize("upload", [".env", ["data", ".env"], "*.pem", ".env*", "**/*.pem", ".ssh/config"])
def test_who_names_a_secret_sends_it(project: Project, upload: object) -> None:
    project.write(".env", "a.pem", "sub/b.pem", "data/x", ".ssh/config")
    sent = project.sent(upload)
    assert sent & {".env", "a.pem", "sub/b.pem", ".ssh/config"}


def test_an_ignore_file_takes_a_secret_back_and_never_what_is_always_ignored(project: Project) -> None:
    project.write(".env", "sub/.env", "a.pem", ".git/config", ".aws/x")
    project.write(".cloudsendignore", content="!.env\n!.git\n!.aws\n")
    assert project.sent(".") == {".env", "sub/.env", ".cloudsendignore", ".aws/x"}


@given(name=st.text(max_size=12))
@fuzz(200)
def test_any_name_is_judged(name: str) -> None:
    assert isinstance(is_secret(name), bool)
    assert parse_ignore([name])(name.replace("/", "_") or "x", False) in {"", "ignored", "secret"}


def test_the_list_of_secrets_means_what_it_says() -> None:
    for pattern in SECRETS:
        assert is_secret(pattern.replace("*", "x")), pattern
    assert not any(is_secret(name) for name in NO_SECRETS)


# ---- links ---------------------------------------------------------------------------------------------------------


# The links that are made, and the upload that would bring a file from `outside`.
WAYS: dict[str, tuple[dict[str, str], object]] = {
    "a file by name": ({"l": "{outside}/id"}, "l"),
    "a file in a directory": ({"d/l": "{outside}/id"}, "d"),
    "a file in everything": ({"l": "{outside}/id"}, "."),
    "a directory by name": ({"l": "{outside}"}, "l"),
    "a directory in a directory": ({"d/l": "{outside}"}, "d"),
    "a file through a directory": ({"l": "{outside}"}, "l/id"),
    "a relative one": ({"d/l": "../../outside/id"}, "d"),
    "by a glob": ({"l": "{outside}/id"}, "*"),
    "by a deep glob": ({"d/l": "{outside}/id"}, "**/l"),
    "in two steps": ({"m": "{outside}", "l": "m/id"}, "l"),
    "into /proc": ({"l": "/proc/self/root/etc/hostname"}, "l"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_link_out_of_the_project_is_refused_by_name(project: Project, tmp_path: Path, way: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "id").write_text("private")
    project.write("train.py")
    links, upload = WAYS[way]
    for name, target in links.items():
        (project.root / name).parent.mkdir(exist_ok=True)
        (project.root / name).symlink_to(target.format(outside=outside))
    with pytest.raises(ConfigError) as caught:
        project.load(upload)
    assert "symbolic link that leads outside" in "\n".join(p.message for p in caught.value.problems)


def test_a_word_of_a_command_brings_no_file_from_outside(project: Project, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("private")
    (project.root / "l").symlink_to(tmp_path / "id")
    (project.root / "d").symlink_to(tmp_path)
    project.write("in.txt")
    assert project.sent(None, run="cat l d/id ../id ~/id /etc/hostname in.txt") == {"in.txt"}


def test_a_file_exchanged_for_a_link_after_it_was_read_is_not_sent(project: Project, tmp_path: Path) -> None:
    """What is sent must have the digest that the config's file had."""
    project.write("data")
    (tmp_path / "id").write_text("private")
    (upload,) = project.load("data").spec.jobs[0].uploads
    os.unlink(upload.source)
    os.symlink(tmp_path / "id", upload.source)
    talk = send_files([upload])
    next(talk)
    with pytest.raises(StopIteration) as end:
        talk.send([Frame(ok=True, missing={upload.sha256: 0})])
    assert end.value.value[upload.sha256].startswith("upload-changed")

"""Who we are to AWS: made once, private, the same for every process, and keys that OpenSSH takes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudsend_cli.errors import StateDirError
from cloudsend_cli.providers.aws.identity import (
    list_regions,
    list_run_regions,
    open_identity,
    record_region,
    render_key_pair,
)


def test_identity_is_made_once_and_private(tmp_path: Path) -> None:
    identity = open_identity(tmp_path)
    assert open_identity(tmp_path) == identity
    assert len(identity.owner) == 16 and len(identity.secret) == 32
    folder = tmp_path / "aws"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()} == dict.fromkeys(
        ["identity", "secret", "login", "login.pub"], 0o600
    )


def test_state_directory_is_private_whoever_makes_it(tmp_path: Path) -> None:
    open_identity(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_two_directories_are_two_owners(tmp_path: Path) -> None:
    first, second = open_identity(tmp_path / "a"), open_identity(tmp_path / "b")
    assert first.owner != second.owner and first.login_public != second.login_public


def test_all_who_begin_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: open_identity(tmp_path), range(64)))
    assert len(set(found)) == 1
    script = (
        "import sys; from pathlib import Path; from cloudsend_cli.providers.aws.identity import open_identity;"
        "i = open_identity(Path(sys.argv[1])); print(i.owner, i.secret.hex(), i.login_public)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "other")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1


@pytest.mark.parametrize("name", ["identity", "secret", "login"])
def test_damage_is_told_and_never_papered_over(tmp_path: Path, name: str) -> None:
    """With another owner tag our machines would be nobody's."""
    open_identity(tmp_path)
    (tmp_path / "aws" / name).write_text("")
    with pytest.raises(StateDirError, match="cannot be used"):
        open_identity(tmp_path)


def test_lost_owner_tag_is_not_replaced(tmp_path: Path) -> None:
    open_identity(tmp_path)
    (tmp_path / "aws/identity").unlink()
    with pytest.raises(StateDirError, match="identity` is gone"):
        open_identity(tmp_path)
    assert not (tmp_path / "aws/identity").exists()


def test_host_key_is_a_function_of_secret_and_token(tmp_path: Path) -> None:
    identity = open_identity(tmp_path)
    assert identity.host_key("cs-1") == open_identity(tmp_path).host_key("cs-1")
    assert identity.host_key("cs-1") != identity.host_key("cs-2")
    assert identity.host_key("cs-1") != open_identity(tmp_path / "other").host_key("cs-1")


def test_same_seed_renders_the_same_bytes() -> None:
    assert render_key_pair(b"s" * 32, "c") == render_key_pair(b"s" * 32, "c")


@pytest.mark.parametrize("comment", ["", "c", "cloudsend-host", "x" * 7, "x" * 8])
def test_openssh_reads_our_keys(tmp_path: Path, comment: str) -> None:
    pair = render_key_pair(b"\x01" * 32, comment)
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(pair.private + "\n")
    done = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == pair.public.split()
    import paramiko

    assert paramiko.Ed25519Key.from_private_key_file(str(path)).get_base64() == pair.public.split()[1]


def test_regions_are_kept_for_ever_and_each_run_has_its_own(tmp_path: Path) -> None:
    assert list_regions(tmp_path) == []
    record_region(tmp_path, "eu-west-3", "aws", "run1")
    record_region(tmp_path, "us-east-1", "aws", "run2")
    record_region(tmp_path, "eu-west-3", "aws", "run2")
    assert list_regions(tmp_path) == ["eu-west-3", "us-east-1"]
    assert list_run_regions(tmp_path, "aws", "run1") == ["eu-west-3"]
    assert list_run_regions(tmp_path, "aws", "run2") == ["us-east-1", "eu-west-3"]
    assert list_run_regions(tmp_path, "aws", "run3") == ["eu-west-3", "us-east-1"]
    assert list_run_regions(tmp_path, "aws-2", "run1") == ["eu-west-3", "us-east-1"]


def test_regions_of_many_at_once_are_all_kept(tmp_path: Path) -> None:
    names = [f"region-{i}" for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: record_region(tmp_path, name, "aws", "run1"), names * 2))
    assert sorted(list_regions(tmp_path)) == sorted(names)
    assert sorted(list_run_regions(tmp_path, "aws", "run1")) == sorted(names)

"""Clients of boto3: one for all threads, made anew when what they were made of has changed, and never too early."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudsend_cli.errors import AuthError, ConfigError, UnreachableError
from cloudsend_cli.providers.aws.clients import LAUNCH_ATTEMPTS, Account, forget_clients, open_client


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No account, and no way to one."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    forget_clients()
    yield
    forget_clients()


def test_threads_share_one_client() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: open_client("", "ec2", "eu-west-3"), range(32)))
    assert len(set(map(id, made))) == 1
    assert open_client("", "ec2", "eu-west-1") is not made[0]
    assert open_client("", "ec2", "eu-west-3", launching=True) is not made[0]


def test_settings() -> None:
    config = open_client("", "ec2", "eu-west-3").meta.config
    assert (config.connect_timeout, config.read_timeout) == (5, 30)
    assert config.retries["mode"] == "standard"
    assert "cloudsend/" in config.user_agent_extra
    launching = open_client("", "ec2", "eu-west-3", launching=True).meta.config
    assert launching.retries["total_max_attempts"] == LAUNCH_ATTEMPTS < config.retries["total_max_attempts"]


def test_client_is_made_anew_when_the_environment_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_client("", "ec2", "eu-west-3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    with pytest.raises(AuthError, match=r"open ec2 in eu-west-3: Partial credentials"):
        open_client("", "ec2", "eu-west-3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    second = open_client("", "ec2", "eu-west-3")
    assert second is not first
    assert open_client("", "ec2", "eu-west-3") is second


def test_client_is_made_anew_when_the_files_have_changed(tmp_path: Path) -> None:
    first = open_client("", "ec2", "eu-west-3")
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIA1\naws_secret_access_key = s\n")
    second = open_client("", "ec2", "eu-west-3")
    assert second is not first
    os.utime(tmp_path / "credentials", (1, 1))
    assert open_client("", "ec2", "eu-west-3") is not second


def test_region_of_the_definition_then_of_the_environment_then_of_the_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = Account().region
    assert "AWS_REGION" in caught.value.hint
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\n[profile work]\nregion = us-east-2\n")
    assert (Account().region, Account("work").region) == ("eu-west-1", "us-east-2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert Account().region == "eu-north-1"
    assert Account("", "eu-west-3").region == "eu-west-3"


def test_profile_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="work"):
        Account("work", "eu-west-3").call("look", "ec2", "describe_vpcs")


def test_no_credentials_and_no_way() -> None:
    with pytest.raises(AuthError, match=r"would not look around: .*credentials"):
        Account("", "eu-west-3").call("look around", "ec2", "describe_vpcs")


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setattr("cloudsend_cli.providers.aws.clients.ATTEMPTS", 1)
    with pytest.raises(UnreachableError, match="no answer of AWS to: look around"):
        Account("", "eu-west-3").call("look around", "ec2", "describe_vpcs")


def test_opening_the_provider_loads_no_sdk() -> None:
    script = (
        "import sys; from pathlib import Path; from cloudsend_cli.core.model import ProviderDefinition;"
        "from cloudsend_cli.providers.aws.provider import AwsProvider;"
        "AwsProvider(ProviderDefinition('aws', 'aws'), Path('/nowhere'));"
        "print(sorted({'boto3', 'botocore', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

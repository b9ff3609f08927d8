"""This machine as a provider: claims, and nothing is ever ended by giving one back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloudsend_cli.core.model import InstanceSpec, Resources
from cloudsend_cli.errors import ProviderError, UnreachableError
from cloudsend_cli.providers.local import LocalProvider, list_resources
from cloudsend_cli.testing.contract import ProviderContract

RUN = "r00000"


class TestLocalContract(ProviderContract):
    @pytest.fixture
    def provider(self, state_dir: Path) -> LocalProvider:
        return LocalProvider(state_dir)


def test_a_claim_made_by_twenty_at_once_is_one(state_dir: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    provider = LocalProvider(state_dir)
    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(lambda _: provider.create_instance(RUN, "local-0", 1, "t", "{}"), range(20)))
    assert len(ids) == 1
    assert len(provider.list_instances(RUN)) == 1


def test_giving_back_never_touches_a_process(state_dir: Path) -> None:
    provider = LocalProvider(state_dir)
    instance = provider.create_instance(RUN, "local-0", 1, "t", "{}")
    job = subprocess.Popen(["sleep", "60"], cwd=state_dir, env={"CLOUDSEND_RUN_DIR": f"{state_dir}/agent/attempts/x"})
    try:
        provider.terminate_instance(RUN, "local-0", instance)
        assert list(provider.list_instances(RUN)) == []
        assert job.poll() is None
    finally:
        job.kill()
        job.wait()


@pytest.mark.parametrize("name", ["../victim", "a/../../victim", "victim", ".", ""])
def test_giving_back_removes_claims_only(state_dir: Path, name: str) -> None:
    (state_dir / "claims").mkdir()
    for place in (state_dir / "victim", state_dir / "victim.json", state_dir / "claims" / "victim.json"):
        place.write_text("stays")
    LocalProvider(state_dir).terminate_instance(RUN, "local-0", name)
    assert (state_dir / "victim").exists() and (state_dir / "victim.json").exists()
    assert (state_dir / "claims" / "victim.json").exists()


def test_what_else_lies_among_the_claims_is_not_listed(state_dir: Path) -> None:
    provider = LocalProvider(state_dir)
    provider.create_instance(RUN, "local-0", 12, "t", "{}")
    for name in ("x.json", f"{RUN}--local-1--x.json", f".{RUN}--local-1--1.json", f"{RUN}--local-1--1.json~"):
        (state_dir / "claims" / name).touch()
    assert [(s.node, s.generation) for s in provider.list_instances(RUN)] == [("local-0", 12)]


def test_claims_that_cannot_be_read_are_unknown_and_not_gone(state_dir: Path) -> None:
    (state_dir / "claims").write_text("no directory")
    with pytest.raises(UnreachableError):
        LocalProvider(state_dir).list_instances(RUN)
    with pytest.raises(ProviderError):
        LocalProvider(state_dir).create_instance(RUN, "local-0", 1, "t", "{}")


def test_more_than_there_is_and_two_of_one_are_problems(state_dir: Path) -> None:
    provider, here = LocalProvider(state_dir), list_resources()
    assert here.cpus == len(os.sched_getaffinity(0)) and here.memory > 1 << 28
    assert provider.check(InstanceSpec("local", capacity=here)) == []
    assert len(provider.check(InstanceSpec("local", number=2))) == 1
    too_much = Resources(here.cpus + 1, here.memory, here.gpus)
    assert "more is asked than this machine has" in provider.check(InstanceSpec("local", capacity=too_much))[0]
    assert provider.largest(InstanceSpec("local")) == here

"""The fake that rents keeps the contract of providers."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudsend_cli.core.model import InstanceSpec
from cloudsend_cli.core.ports import Provider, Renter
from cloudsend_cli.core.renting import KEPT
from cloudsend_cli.errors import ProviderError, UnreachableError
from cloudsend_cli.testing.contract import RUN, ProviderContract
from cloudsend_cli.testing.fake_renter import REQUESTS, FakeRenter


class TestFakeRenter(ProviderContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        return FakeRenter(tmp_path)


@pytest.fixture
def renter(tmp_path: Path) -> FakeRenter:
    return FakeRenter(tmp_path, clock=lambda: 1000.0)


def test_what_is_rented_is_listed_whatever_its_run(renter: FakeRenter) -> None:
    anything: Renter = renter
    first = anything.create_instance(RUN, "n-0", 1, "t1", REQUESTS[0])
    anything.create_instance("rother", "n-0", 1, "t2", REQUESTS[2])
    assert [(m.run, m.type, m.market, m.price) for m in anything.list_rented()] == [
        (RUN, "small", "spot", 0.02), ("rother", "large", "on-demand", 0.4),
    ]  # fmt: skip
    anything.terminate_rented(first)
    assert [m.state for m in anything.list_rented()] == ["terminated", "running"]


def test_a_machine_that_is_kept_is_no_longer_its_runs(renter: FakeRenter) -> None:
    name = renter.create_instance(RUN, "n-0", 1, "t1", REQUESTS[0])
    renter.keep_instance("rother", "n-0", name)
    assert renter.list_instances(RUN)
    renter.keep_instance(RUN, "n-0", name)
    assert [m.run for m in renter.list_rented()] == [KEPT]


def test_a_refusal_is_given_once(renter: FakeRenter) -> None:
    renter.refusals["list"] = [UnreachableError("no answer")]
    with pytest.raises(UnreachableError):
        renter.list_rented()
    assert renter.list_rented() == []


def test_a_token_is_for_one_request(renter: FakeRenter) -> None:
    (plan,) = renter.plan_machines([InstanceSpec("cloud")])
    renter.create_instance(RUN, "n-0", 1, "t1", plan.request)
    with pytest.raises(ProviderError):
        renter.create_instance(RUN, "n-0", 1, "t1", REQUESTS[1])

"""A cloud for the tests of AWS: `ec2` is as new for each test, `shared_ec2` is one for all that do not mind."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
import warm_maestros
from boto_files import share_files
from ec2lab import Cloud
from sshlab import NotHere


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/ec2/"):
            item.add_marker("real")


def skip_what_is_not_here() -> Generator[None, object, object]:
    try:
        return (yield)
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    return (yield from skip_what_is_not_here())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    return (yield from skip_what_is_not_here())


# Machines of the cloud of these tests are up in half a second: who looks every two seconds waits for nothing.
TIMES = {"cloudsend_cli.engine.hiring.LOOK_AGAIN": 0.4, "cloudsend_cli.engine.observe.SLOW_PAUSE": 0.4}


@pytest.fixture(scope="module", autouse=True)
def maestros(request: pytest.FixtureRequest) -> Iterator[None]:
    """A module's own TIMES win."""
    with warm_maestros.used({**TIMES, **getattr(request.module, "TIMES", {})}):
        yield


@pytest.fixture(scope="session")
def one_cloud() -> Iterator[Cloud]:
    """The processes of the cloud that the two below hand out: starting them takes two seconds, a reset 0.1 s."""
    share_files()
    with Cloud() as made:
        yield made


@pytest.fixture
def ec2(one_cloud: Cloud) -> Iterator[Cloud]:
    """A cloud as new, for this test alone; `ec2.environ` is what a client needs. Fails if the lab itself did."""
    if not one_cloud.is_new:
        one_cloud.reset()
    one_cloud.is_new = False
    yield one_cloud
    one_cloud.reset()
    one_cloud.is_new = True


@pytest.fixture
def shared_ec2(one_cloud: Cloud) -> Iterator[Cloud]:
    """The cloud as earlier tests left it: machines stay, for tests that look for their own only."""
    one_cloud.is_new = False
    yield one_cloud
    one_cloud.lift()

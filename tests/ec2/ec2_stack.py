"""A whole cloudsend that rents from the lab: its command, its maestro, and what must hold at the end."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import warm_commands
from cloud_user import surroundings
from ec2lab import Call, Cloud, Fault, Gate, Instance
from ec2lab.access import Credential
from ec2lab.instance import GONE
from real_stack import Stack

from cloudsend_cli.api import Client
from cloudsend_cli.core.state import NodeRecord
from cloudsend_cli.core.views import Progress
from cloudsend_cli.errors import MaestroError
from cloudsend_cli.maestro.client import ensure_maestro
from cloudsend_cli.providers.aws.identity import open_identity
from cloudsend_cli.store.sqlite import SqliteStore

T = TypeVar("T")
REGIONS = ("eu-west-3", "eu-west-1", "eu-central-1", "us-east-1", "us-east-2", "us-west-2")
CLOUDSEND = [sys.executable, "-m", "cloudsend_cli"]
BUG = 70
PATIENCE = 180.0  # seconds: with machines that many use
MDS = "http://169.254.169.254"
PATH = "/ledger/"
# A line of the ledger outlives the machine that it was written on: the lab notes what is read at the metadata service.
LEDGER = (
    f"t=$(curl -sX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {MDS}/latest/api/token); "
    f'curl -so /dev/null -H "X-aws-ec2-metadata-token: $t" {MDS}{PATH}$CLOUDSEND_ATTEMPT'
)
# What a maestro calls, and no command that only plans.
CHANGING = ("CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances", "CreateTags", "TerminateInstances")
OF_MAESTRO = (*CHANGING, "DescribeSecurityGroups", "DescribeInstances")


def wait_for(happened: Callable[[], T], every: float = 0.05) -> T:
    """The first true answer. Not as often as elsewhere: six at a time look, in one process."""
    until = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < until, f"not within {PATIENCE:g} s"
        time.sleep(every)
    return found


class Hook(Gate):
    """Calls `do` where a gate would hold the call."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__(after=False)
        self._do = do

    def hold(self) -> None:
        self._do()
        self.reached.set()


class Ec2Stack(Stack):
    """`region` is this stack's alone, for where several use one cloud at a time."""

    def __init__(self, directory: Path, ec2: Cloud, region: str = "") -> None:
        super().__init__(directory)
        self.ec2 = ec2
        self.region = region or ec2.region
        self._earlier = {one.id for one in ec2.instances}
        self._since = time.time()
        self._kills = 0  # of maestros

    # ---- what is asked for

    def machine(self, **keys: object) -> dict[str, object]:
        return {"type": "m7i.large", "region": self.region, **keys}

    def config(self, name: str = "jobs.json", **config: object) -> str:
        return super().config(name, **{"project": "p", "provider": "aws", **config})

    def start_cli(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*CLOUDSEND, *words],
            cwd=self.files,
            env=self._environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def cli(self, *words: str, status: int | None = 0, timeout: float = PATIENCE) -> str:
        """What it wrote, both streams. `status`: what it must end with; None: anything but a bug."""
        done = warm_commands.run(words, environ=self._environ, folder=self.files, timeout=timeout)
        ended, said = done.returncode, done.stdout + done.stderr
        assert ended == status if status is not None else ended != BUG, f"{words}: {ended}\n{said}"
        return said

    @property
    def _environ(self) -> dict[str, str]:
        return {**os.environ, "CLOUDSEND_HOME": str(self.state), "COLUMNS": "240"}

    # ---- what there is

    @property
    def machines(self) -> list[Instance]:
        """All that this stack ever had."""
        return [one for one in self.ec2.instances if one.region == self.region and one.id not in self._earlier]

    @property
    def alive(self) -> list[Instance]:
        return [one for one in self.machines if one.state not in GONE]

    def ledger(self) -> Counter[str]:
        """How often each attempt, `run.number.attempt`, was executed on machines of this stack."""
        mine = {one.id for one in self.machines}
        asked = list(self.ec2.asked_metadata)
        return Counter(path.removeprefix(PATH) for one, path in asked if one in mine and path.startswith(PATH))

    def log(self) -> str:
        path = self.state / "maestro.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def is_over(self, run: str) -> bool:
        """Whether the run has nothing left to do, its machines included."""
        store = SqliteStore.open(self.state)
        try:
            return run not in store.list_active_runs()
        finally:
            store.close()

    def nodes(self, run: str) -> dict[str, NodeRecord]:
        store = SqliteStore.open(self.state)
        try:
            return dict(store.load(run).nodes)
        finally:
            store.close()

    # ---- what happens

    def kill_maestro_at(self, number: int, *, after: bool, actions: Sequence[str] = OF_MAESTRO) -> Fault:
        """kill -9 just before, or just after, the effect of the so-manieth of these calls from now on."""
        return self.ec2._fault(
            "*", gate=Hook(self.kill_maestro), drop=True, after=after, skip=number - 1, region=self.region,
            when=lambda request: request.action in actions,
        )  # fmt: skip

    def kill_maestro(self) -> bool:
        """Whether there was one."""
        pid = self.maestro()
        super().kill_maestro()
        self._kills += pid is not None
        return pid is not None

    def use_key(self, key: str) -> Credential:
        """What commands, and so the maestro, call with from now on: a credential of this stack alone."""
        made = self.ec2.add_credential(key, self.ec2.environ["AWS_SECRET_ACCESS_KEY"])
        self.client = Client(self.state, environ={**os.environ, "AWS_ACCESS_KEY_ID": key})
        return made

    def calls_of(self, *actions: str) -> list[Call]:
        """Those of this stack."""
        made = list(self.ec2.calls_of(*actions))
        return [call for call in made if call.region == self.region and call.time >= self._since]

    def settle(self, run: str, deadline: float = PATIENCE) -> Progress:
        return super().settle(run, deadline)

    def follow_to_end(self, run: str, deadline: float = PATIENCE) -> None:
        """As commands that come again and again would: until the run is over and its machines are given back."""
        until = time.monotonic() + deadline
        while True:
            try:
                self.settle(run, until - time.monotonic())
                break
            except MaestroError:  # it was killed while it began
                assert time.monotonic() < until
        while not self.is_over(run):
            assert time.monotonic() < until, f"{self.nodes(run)}\n{self.log()[-3000:]}"
            if self.maestro() is None:
                with contextlib.suppress(MaestroError):
                    ensure_maestro(self.state).close()
            time.sleep(0.1)

    def give_back(self) -> None:
        """All that waits for a run, as `terminate instance --all` does."""
        for machine in self.client.list_terminable():
            self.client.terminate_rented(machine)

    def wait_until_gone(self, deadline: float = PATIENCE) -> None:
        for one in self.machines:
            self.ec2.wait(one.id, "terminated", deadline)

    def leaks(self) -> list[str]:
        """What is still there in this stack's region. The security group is meant to stay: see docs/guides/aws.md."""
        return [
            leak for leak in self.ec2.leaks() if leak.endswith(f" in {self.region}") and not leak.startswith("group ")
        ]

    def groups(self) -> list[str]:
        """Security groups of this state directory."""
        mine = [{"Name": "tag:cloudsend:owner", "Values": [open_identity(self.state).owner]}]
        found = self.ec2.client("ec2", self.region).describe_security_groups(Filters=mine)["SecurityGroups"]
        return [group["GroupId"] for group in found]

    def check_jobs(self, run: str, number: int, earlier: int = 0) -> None:
        """Each succeeded and was executed once, over all its attempts. `earlier`: jobs of other runs.

        What a killed maestro had handed out may be taken back unexecuted and placed again, as its next attempt.
        """
        jobs = self.jobs(run).values()
        assert [job.state for job in jobs] == ["succeeded"] * number, [*jobs]
        assert self._kills or {job.attempt for job in jobs} == {1}, [*jobs]
        executed = Counter(attempt.rpartition(".")[0] for attempt in self.ledger().elements())
        assert sorted(executed.values()) == [1] * (number + earlier), self.ledger()

    def check_nothing_left(self, machines: int) -> None:
        """As many machines as were wanted, no more; all of them ended, and nothing left of them."""
        assert len(self.machines) == machines, [(one.id, one.state, one.token) for one in self.machines]
        self.give_back()
        self.wait_until_gone()
        assert self.leaks() == []
        assert len(self.groups()) <= 1


def in_parallel(ec2: Cloud, work: Sequence[Callable[[Ec2Stack], T]], at_once: int = len(REGIONS)) -> list[T]:
    """Each with a stack of its own, told apart by regions; the first failure of all is raised."""
    with AtOnce(ec2, at_once) as pool:
        return [one.result() for one in [pool.start(one) for one in work]]


class AtOnce:
    """Scenarios that mostly wait, several at a time: each has a stack in a region that is its own meanwhile."""

    def __init__(self, ec2: Cloud, at_once: int = len(REGIONS)) -> None:
        self.ec2 = ec2
        self._regions: queue.SimpleQueue[str] = queue.SimpleQueue()
        for region in REGIONS[:at_once]:
            self._regions.put(region)
        self._pool = ThreadPoolExecutor(at_once)
        self._started: dict[str, Future[None]] = {}

    def start(self, scenario: Callable[[Ec2Stack], T]) -> Future[T]:
        return self._pool.submit(self._play, scenario)

    def start_all(self, scenarios: Sequence[Callable[[Ec2Stack], None]]) -> None:
        self._started = {one.__name__: self.start(one) for one in scenarios}

    def finish(self, name: str) -> None:
        self._started[name].result()

    def _play(self, scenario: Callable[[Ec2Stack], T]) -> T:
        region = self._regions.get()
        directory = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
        stack = Ec2Stack(directory, self.ec2, region)
        try:
            return scenario(stack)
        except Exception as problem:
            raise AssertionError(f"{problem!r}\n{stack.log()[-2000:]}") from problem
        finally:
            stack.close()
            for one in stack.machines:
                self.ec2.terminate(one.id)
            shutil.rmtree(directory, ignore_errors=True)
            self._regions.put(region)

    def __enter__(self) -> AtOnce:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def together(scenario: Callable[[Ec2Stack], None]) -> Callable[[AtOnce], None]:
    """A test that is played at the same time as all others of its file that are chosen."""

    def test(at_once: AtOnce) -> None:
        at_once.finish(scenario.__name__)

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    test.scenario = scenario  # type: ignore[attr-defined]
    return test


def begins_early(scenario: Callable[[Ec2Stack], None]) -> Callable[[Ec2Stack], None]:
    """It waits long, and is not to be the last of its file."""
    scenario.early = True  # type: ignore[attr-defined]
    return scenario


@contextmanager
def play_together(ec2: Cloud, tests: Sequence[object]) -> Iterator[AtOnce]:
    scenarios = [test.scenario for test in tests if hasattr(test, "scenario")]
    with surroundings(ec2), AtOnce(ec2) as pool:
        os.environ["CLOUDSEND_MAESTRO_LINGER"] = "0.2"
        pool.start_all(sorted(scenarios, key=lambda scenario: not hasattr(scenario, "early")))
        yield pool
    assert ec2.failures == []


@contextmanager
def stack_of(ec2: Cloud, directory: Path) -> Iterator[Ec2Stack]:
    """Nothing of it, and no machine, is alive afterwards."""
    with surroundings(ec2):
        stack = Ec2Stack(directory, ec2)
        try:
            yield stack
        finally:
            stack.close()
    assert ec2.failures == []

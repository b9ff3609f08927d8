"""Instances, environments, jobs and processes as the seeds name them: getters over what was read last.

A client reads again when it runs, waits, is asked for states or prints; between these calls nothing changes here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from cloudsend_cli.core.machine_views import InstanceView
from cloudsend_cli.core.model import CANCELLED, FINAL_STATES, PENDING, EnvironmentBuild, JobSpec, Resources
from cloudsend_cli.core.naming import attempt_id, job_hash
from cloudsend_cli.core.views import JobView

from .states import ENDED, CloudSendInstanceState, CloudSendJobState, instance_state, job_state

Keys = Mapping[str, Any]
NO_KEYS: Keys = {}
FindHost = Callable[[str], str | None]
FindPid = Callable[[str], int | None]


def _no_pid(_: str) -> None:
    return None


class CloudSendInstance:
    """A machine of the plan; once a run has it, the machine that it stands for."""

    def __init__(self, name: str, capacity: Resources | None, rank: str, config: Keys, find_host: FindHost) -> None:
        self._name = name
        self.capacity = capacity  # planned; None: not known before it exists
        self._rank = rank
        self._config = config
        self._find_host = find_host
        self._view: InstanceView | None = None
        self._id: str | None = None
        self._jobs: list[CloudSendJob] = []

    def see(self, view: InstanceView) -> None:
        self._view = view
        self._id = view.instance_id or self._id

    def replacement(self, name: str) -> CloudSendInstance:
        """The machine that a run has asked for in its place."""
        return CloudSendInstance(name, self.capacity, self._rank, self._config, self._find_host)

    def place(self, jobs: list[CloudSendJob]) -> None:
        self._jobs = jobs

    def renew(self, capacity: Resources | None, rank: str, config: Keys) -> CloudSendInstance:
        """The same machine of a plan that was made anew."""
        self.capacity, self._rank, self._config = capacity, rank, config
        return self

    def get_name(self) -> str:
        return self._name

    def get_id(self) -> str | None:
        """The provider's, also of a machine that was given back; None: none was seen yet."""
        return self._id

    def get_rank(self) -> str:
        """Such as 1.2: the first entry of `instances`, its second machine."""
        return self._rank

    def get_state(self) -> CloudSendInstanceState:
        """TERMINATED: the run has given it back."""
        return instance_state(self._view)

    def get_cpus(self) -> float | None:
        """What it has, else what its plan says; None: not known before it exists."""
        capacity = (self._view.capacity if self._view is not None else None) or self.capacity
        return capacity.cpus if capacity is not None else None

    def get_region(self) -> str | None:
        """Of a rented machine its zone, else what the config says."""
        rental = self._view.rental if self._view is not None else None
        return (rental.kind.place if rental is not None else "") or self.get_config("region")

    def get_ip_addr(self) -> str | None:
        """Where it is reached now; None: there is no machine, or it has no address. Its provider may be asked."""
        return self._find_host(self.get_name()) if self.get_state() & CloudSendInstanceState.RUNNING else None

    def get_dns_addr(self) -> str | None:
        """The same address: names are not asked for."""
        return self.get_ip_addr()

    def get_reachability(self) -> bool:
        """Whether it was connected when it was looked at last."""
        return self._view is not None and self._view.connected is True

    def get_config(self, key: str, default: Any = None) -> Any:
        """A key of its entry in `instances`, as written."""
        return self._config.get(key, default)

    def get_data(self, key: str) -> object:
        """A field of `list instances -o json`."""
        return self._view.as_json().get(key) if self._view is not None else None

    def get_jobs(self) -> list[CloudSendJob]:
        """Those that are placed on it."""
        return list(self._jobs)

    def get_environments(self) -> list[CloudSendEnvironment]:
        """Those of its jobs."""
        found = [env for job in self._jobs if (env := job.get_env()) is not None]
        return list(dict.fromkeys(found))

    def get_active_processes(self) -> list[CloudSendProcess]:
        return [process for job in self._jobs for process in job.get_active_processes()]

    def is_rented(self) -> bool:
        """Whether it is a machine that costs money, and is there."""
        return self._view is not None and self._view.rental is not None

    def is_invalid(self) -> bool:
        """Whether no machine could be had for it."""
        return self._view is not None and self._view.state == "failed"

    def __repr__(self) -> str:
        return f"{type(self).__name__}: NAME = {self.get_name()} , ID = {self.get_id()} , STATE = {_word(self)}"


def _word(instance: CloudSendInstance) -> str:
    return instance.get_state().name or "UNKNOWN"


class CloudSendEnvironment:
    """A software set-up of the config."""

    def __init__(self, build: EnvironmentBuild, config: Keys) -> None:
        self._build = build
        self._config = config

    def get_name(self) -> str:
        return self._build.name

    def get_hash(self) -> str:
        """Of its content: it is built once per machine under this key."""
        return self._build.key

    def get_name_with_hash(self) -> str:
        return f"{self._build.name}-{self._build.key}"

    def get_config(self, key: str, default: Any = None) -> Any:
        """A key of its entry in `environments`, as written."""
        return self._config.get(key, default)

    def json(self) -> str:
        return json.dumps({**self._config, "name": self.get_name()}, default=str)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: NAME = {self.get_name()} , HASH = {self.get_hash()}"


class CloudSendJob:
    """One command of the config. What the seeds call a deployed job is the job itself."""

    def __init__(
        self,
        rank: int,
        spec: JobSpec,
        config: Keys,
        environment: CloudSendEnvironment | None,
        find_pid: FindPid = _no_pid,
    ) -> None:
        self.needs = spec.resources
        self.find_pid = find_pid  # by the id of a job
        self._rank = rank
        self._spec = spec
        self._config = config
        self._environment = environment
        self._instance: CloudSendInstance | None = None
        self._view: JobView | None = None
        self._processes: dict[str, CloudSendProcess] = {}  # by uid, in the order of their beginning

    def is_of(self, spec: JobSpec) -> bool:
        return self._spec == spec

    def renew(self, rank: int, config: Keys, environment: CloudSendEnvironment | None) -> CloudSendJob:
        """The same job of a plan that was made anew."""
        self._rank, self._config, self._environment = rank, config, environment
        return self

    def see(self, view: JobView, batch: str) -> CloudSendProcess:
        """Its newest process. Before an attempt is handed out, its id is known already: it is the next one."""
        self._view = view
        others = [process for process in self._processes.values() if process.run == view.run]
        mine = [process for process in others if process.get_uid().startswith(f"{view.id}.")]
        number = view.attempt + 1 if view.state == PENDING else max(view.attempt, 1)
        if view.state in FINAL_STATES:  # what was waited for may have ended without being started
            number = max([number, *(process.attempt for process in mine)])
        uid = attempt_id(view.run, view.number, number)
        if uid not in self._processes:
            for older in others:
                older.end()
            self._processes[uid] = CloudSendProcess(self, view.run, uid, number, batch)
        self._processes[uid].see(view)
        return self._processes[uid]

    def put_last(self, process: CloudSendProcess) -> None:
        """Its run was submitted again, after others with this job."""
        self._processes[process.get_uid()] = self._processes.pop(process.get_uid())

    def place(self, instance: CloudSendInstance | None) -> None:
        self._instance = instance

    def is_replaced(self) -> bool:
        """Whether its run was continued without it, by another client."""
        return self._view is not None and self._view.superseded

    def get_name(self) -> str:
        return self._spec.name

    def get_id(self) -> str | None:
        """`RUN.NUMBER`; None: it is not part of a run yet."""
        return self._view.id if self._view is not None else None

    def get_rank(self) -> int:
        """Its place in the config, from 0; each repetition has its own."""
        return self._rank

    def get_hash(self) -> str:
        """Of all that its result depends on: command, arguments, environment, contents of files."""
        return self._view.hash if self._view is not None else job_hash(self._spec)

    def get_config(self, key: str, default: Any = None) -> Any:
        """A key of its entry in `jobs`, as written."""
        return self._config.get(key, default)

    def get_entry(self) -> dict[str, Any]:
        """Its entry in `jobs`, as written."""
        return dict(self._config)

    def get_command(self) -> str:
        return self._spec.display

    def get_env(self) -> CloudSendEnvironment | None:
        return self._environment

    def get_instance(self) -> CloudSendInstance | None:
        """Where it is or was; before that, where the plan has it, once it was assigned."""
        return self._instance

    def get_processes(self) -> list[CloudSendProcess]:
        """Its attempts that this client has seen, oldest first."""
        return list(self._processes.values())

    def get_deployed_jobs(self) -> list[CloudSendJob]:
        """Itself, once it is part of a run."""
        return [self] if self._processes else []

    def get_active_processes(self) -> list[CloudSendProcess]:
        return [process for process in self._processes.values() if process.is_active()]

    def get_last_process(self) -> CloudSendProcess | None:
        return next(reversed(self._processes.values()), None)

    def has_processes(self) -> bool:
        return bool(self._processes)

    def has_completed(self) -> bool:
        return any(process.get_state() == CloudSendJobState.DONE for process in self._processes.values())

    def str_simple(self) -> str:
        environment = self._environment.get_name() if self._environment is not None else None
        return (
            f"{type(self).__name__}: ID = {self.get_id()} , HASH = {self.get_hash()} , ENV = {environment}: "
            f"{self.get_command()}"
        )

    def __repr__(self) -> str:
        where = self._instance.get_name() if self._instance is not None else None
        return f"{self.str_simple()} , INSTANCE = {where}"


class CloudSendProcess:
    """One attempt of a job."""

    def __init__(self, job: CloudSendJob, run: str, uid: str, attempt: int, batch: str) -> None:
        self.run = run
        self.attempt = attempt
        self._job = job
        self._uid = uid
        self._batch = batch
        self._state = CloudSendJobState.UNKNOWN
        self._reason = ""
        self._pid: int | None = None

    def see(self, view: JobView) -> None:
        self._state, self._reason = job_state(view), view.reason
        if view.superseded and view.state == CANCELLED and view.attempt:  # which says no more than that it was ended
            self._reason = f"{view.reason}; its run was continued without it"

    def end(self) -> None:
        """A newer attempt has taken its place, so it did not succeed."""
        if self.is_active():
            self._state, self._reason = CloudSendJobState.ABORTED, self._reason or "a newer attempt follows"

    def get_uid(self) -> str:
        return self._uid

    def get_pid(self) -> int | None:
        """Its number on its machine, which is asked while it runs; after that what was told last. None: not known."""
        if self._state == CloudSendJobState.RUNNING and (job := self._job.get_id()) is not None:
            self._pid = self._job.find_pid(job) or self._pid
        return self._pid

    def get_state(self) -> CloudSendJobState:
        return self._state

    def get_aborted_reason(self) -> str | None:
        """Such as `exit 3`; None unless it is ABORTED."""
        return self._reason or None if self._state == CloudSendJobState.ABORTED else None

    def get_substate(self) -> str | None:
        """Why it waits or ended, where something is to be said."""
        return self._reason or None

    def get_state_object(self, with_job: bool = True, with_config: bool = False) -> dict[str, object]:
        """As plain data; with its job's id, and with the job's entry in `jobs`."""
        found: dict[str, object] = {
            "state": self._state,
            "substate": self.get_substate(),
            "aborted_reason": self.get_aborted_reason(),
            "uid": self._uid,
        }
        if with_job:
            found["job_id"] = self._job.get_id()
        if with_config:
            found["job_config"] = self._job.get_entry()
        return found

    def get_job(self) -> CloudSendJob:
        return self._job

    def get_instance(self) -> CloudSendInstance | None:
        return self._job.get_instance()

    def get_batch_uid(self) -> str:
        """Of the submission that it belongs to."""
        return self._batch

    def is_active(self) -> bool:
        return not self._state & ENDED

    def str_simple(self) -> str:
        reason = f" ({self._reason})" if self._reason else ""
        return f"{type(self).__name__}: UID = {self._uid} , BATCH = {self._batch} , STATE = {self._state.name}{reason}"

    def __repr__(self) -> str:
        return f"{self.str_simple()} , JOB = {self._job.get_name()}"

    def __await__(self) -> Generator[None, None, CloudSendProcess]:
        """For scripts of the age in which calls were awaited."""
        yield from ()
        return self


class CloudSendRunSession(list[CloudSendProcess]):
    """The newest processes of a run: a list, and what the seeds' later documents ask of a run session."""

    def __init__(self, processes: Iterable[CloudSendProcess] = (), run: str = "", number: int = 0) -> None:
        super().__init__(processes)
        self._run = run
        self._number = number

    def get_id(self) -> str:
        """The run's id."""
        return self._run

    def get_number(self) -> int:
        """How often the run was submitted before."""
        return self._number

    def get_processes(self) -> list[CloudSendProcess]:
        return list(self)

    def get_active_processes(self, instance: CloudSendInstance | None = None) -> list[CloudSendProcess]:
        """With a machine, those that are there."""
        return [p for p in self if p.is_active() and instance in {None, p.get_instance()}]

    def get_ran_processes(self) -> list[CloudSendProcess]:
        """The newest of each job: that is all of them."""
        return list(self)

    def get_instances(self) -> list[CloudSendInstance]:
        """Where its processes are."""
        found = [instance for process in self if (instance := process.get_instance()) is not None]
        return list(dict.fromkeys(found))

    def __await__(self) -> Generator[None, None, CloudSendRunSession]:
        """For scripts of the age in which calls were awaited."""
        yield from ()
        return self


class Number(int):
    """A count, also where it is awaited."""

    def __await__(self) -> Generator[None, None, Number]:
        yield from ()
        return self


class ConfigObjects(dict[str, list[Any]]):
    """`instances`, `environments` and `jobs`, also where they are awaited."""

    def __await__(self) -> Generator[None, None, ConfigObjects]:
        yield from ()
        return self


class Directory(str):
    """A path, also where it is awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, Directory]:
        yield from ()
        return self


class Finished:
    """Of a call that has done its work when it returns; awaiting it gives None."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()

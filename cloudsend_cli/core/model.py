"""What the user wants and what is seen: frozen nouns, data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .metrics import Metrics

PENDING: Final = "pending"
RUNNING: Final = "running"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
JOB_STATES: Final = (PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED)
FINAL_STATES: Final = frozenset({SUCCEEDED, FAILED, CANCELLED})


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job needs or a machine has. Memory in bytes; cpus may be a fraction."""

    cpus: float = 1.0
    memory: int = 0
    gpus: int = 0

    def fits_in(self, room: Resources) -> bool:
        return self.cpus <= room.cpus and self.memory <= room.memory and self.gpus <= room.gpus

    def plus(self, other: Resources) -> Resources:
        return Resources(self.cpus + other.cpus, self.memory + other.memory, self.gpus + other.gpus)

    def minus(self, other: Resources) -> Resources:
        return Resources(self.cpus - other.cpus, self.memory - other.memory, self.gpus - other.gpus)


NOTHING: Final = Resources(0.0, 0, 0)
UNBOUNDED: Final = Resources(1e9, 1 << 62, 1 << 30)  # a part of a capacity that equals it is not known


def list_known(capacity: Resources) -> dict[str, float]:
    """The parts of a capacity that are known, by name."""
    parts = {
        "cpus": (capacity.cpus, UNBOUNDED.cpus),
        "memory": (capacity.memory, UNBOUNDED.memory),
        "gpus": (capacity.gpus, UNBOUNDED.gpus),
    }
    return {name: value for name, (value, unknown) in parts.items() if value < unknown}


@dataclass(frozen=True, slots=True)
class Upload:
    """One regular file that a job finds in its run directory."""

    path: str  # in the run directory, relative, with '/'
    sha256: str
    size: int
    mode: int
    source: str  # on the client: a snapshot in the state directory, or the user's file


@dataclass(frozen=True, slots=True)
class Output:
    """A file, directory or glob that a job leaves in its run directory and that comes home."""

    pattern: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """A software set-up as the user wrote it. `*_file` and `*_directory` are absolute paths on the client, or ""."""

    name: str
    apt: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    conda_file: str = ""
    conda_directory: str = ""
    conda_channels: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    pip_file: str = ""
    pip_directory: str = ""
    julia: tuple[str, ...] = ()
    setup: str = ""  # shell text, or a script's absolute path when `setup_is_file`
    setup_is_file: bool = False
    vars: tuple[tuple[str, str], ...] = ()
    allow_system_packages: bool = False


@dataclass(frozen=True, slots=True)
class EnvironmentBuild:
    """A rendered environment: built once per machine under its content key."""

    key: str
    name: str
    script: str
    slots: tuple[str, ...] = ()  # exclusive names on the host while it builds, such as a package manager's lock
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """A kind of machine the user asks for. `settings` holds what only its provider understands."""

    provider: str
    number: int = 1  # 0: as many as the provider has, where it has a certain number
    capacity: Resources | None = None  # None: whatever the machine has
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderDefinition:
    """A provider as the user configured it, kept with each run: later edits of its file do not reach what runs."""

    name: str
    type: str
    settings: str = "{}"  # JSON, checked; the provider's own


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine that could be had. `request` is the complete request as JSON text, repeated to the byte."""

    request: str
    capacity: Resources | None = None  # None: not known before the machine exists; parts of UNBOUNDED: nor are they
    price: float | None = None  # dollars per hour; None: it costs nothing, or nobody knows
    pool: str = ""  # what runs short for all offers of this pool at once, such as a type in a zone; "": nothing does
    quota: str = ""  # what the account's limit is on, for all offers of this quota at once
    keep: float = 0.0  # seconds for which it waits for the next run after its own, before it ends itself
    note: str = ""  # in the user's words: type, place, market
    least: float = 0.0  # seconds that are paid for at least, each time that such a machine is started


@dataclass(frozen=True, slots=True)
class Aside:
    """A machine that would fit and costs less, and that is not taken unless the user names it."""

    note: str  # as of an offer
    price: float  # dollars per hour, about
    why: str


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One machine of an InstanceSpec: the offers in the order in which they are tried, at least one."""

    offers: tuple[Offer, ...]
    label: str = ""  # the machine's own short name where it has one; "" lets nodes be numbered
    warnings: tuple[str, ...] = ()
    asides: tuple[Aside, ...] = ()
    waiting: bool = False  # one that waits would be taken, as far as is known without asking

    @property
    def request(self) -> str:
        return self.offers[0].request

    @property
    def capacity(self) -> Resources | None:
        return self.offers[0].capacity


Slot = tuple[tuple[str, str], ...]  # the names and values of one place, in the order in which they were declared


@dataclass(frozen=True, slots=True)
class JobGroup:
    """What the jobs of a group share: a pool of places, each of which executes one of them at a time."""

    name: str
    slots: tuple[Slot, ...] = ()  # (): the group has no pool
    max_parallel: int | None = None
    section: str = ""  # that it belongs to; "": it is none of a section


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One command with all it needs. Equal specs have equal content hashes (see naming.job_hash)."""

    name: str
    argv: tuple[str, ...]
    display: str  # the command as the user wrote it, for tables
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()  # names only; the values never enter a spec
    environment: str = ""  # key of an EnvironmentBuild
    resources: Resources = Resources()
    slots: tuple[str, ...] = ()
    uploads: tuple[Upload, ...] = ()
    private_uploads: bool = False
    outputs: tuple[Output, ...] = ()
    workdir: str = ""
    timeout: float | None = None
    grace: float = 10.0
    retries: int = 0
    retries_lost: int = 1
    after: tuple[str, ...] = ()  # names or globs of jobs of the same run
    persist: tuple[str, ...] = ()  # what a new attempt is given of the one whose machine was taken back
    on_preempt: str = ""  # a shell line that is executed before an attempt is ended for that
    after_any: tuple[str, ...] = ()  # like `after`, of jobs that may also end badly
    stage: int = 0  # all jobs of lower stages above 0 end before it begins, in whatever way; 0: it waits for none
    group: str = ""  # of the run's groups
    slot_args: bool = False  # the names and values of its slot follow its arguments
    memory_factor: float = 1.0  # by which it is given more memory after an attempt that had too little
    params: tuple[tuple[str, str], ...] = ()
    repeat_index: int = 0


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One config, loaded, checked and rendered: all that a maestro needs without the user's files."""

    project: str
    config_path: str  # absolute, or "" for `run -- CMD`
    jobs: tuple[JobSpec, ...]
    environments: tuple[EnvironmentBuild, ...] = ()
    instances: tuple[InstanceSpec, ...] = ()
    results_dir: str = ""  # absolute
    max_parallel: int | None = None
    budget: float | None = None  # dollars
    base_env: tuple[tuple[str, str], ...] = ()  # what jobs on this machine inherit from the submitting shell
    providers: tuple[ProviderDefinition, ...] = ()  # of the instances
    recover: bool = True
    auto_stop: bool = True
    settings: tuple[tuple[str, str], ...] = ()  # further globals, as text, for display and later use
    warnings: tuple[str, ...] = ()
    groups: tuple[JobGroup, ...] = ()


# ---- what is seen -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostAddress:
    """How to reach a machine. `key` identifies it: two addresses with one key are one machine."""

    kind: str  # "local" or "ssh"
    key: str
    home: str = ""  # the agent's home directory there; "" = its default
    host: str = ""
    port: int = 0  # 0: what the user's ssh configuration says, else 22
    user: str = ""  # "": what the user's ssh configuration says, else the user's own name
    settings: tuple[tuple[str, str], ...] = ()  # key, jump, python, shared, max_load, host_key


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """A machine as its provider describes it now."""

    instance_id: str
    node: str
    generation: int
    state: str  # pending, running, stopped, ending, terminated; a word we do not know is "unknown"
    address: HostAddress | None = None
    reason: str = ""  # why it ended, such as "preempted", or "capacity" where it never could begin
    price: float | None = None  # dollars per hour
    launched_at: float | None = None  # since when it is paid for; None: it is not rented
    ended_at: float | None = None
    least_seconds: float = 0.0  # that are paid for at least
    expires: float | None = None  # when it ends itself at the latest, if its switch is armed
    taken: bool = False  # it was launched for another run, or none, and waited for this one


@dataclass(frozen=True, slots=True)
class Rented:
    """A machine that costs money, as its provider describes it now, whatever run it belongs to."""

    provider: str
    instance_id: str
    region: str
    state: str  # as in InstanceStatus, and stopping
    run: str  # "" where its tag is missing; places.KEPT: of none, until it ends itself
    node: str
    project: str
    type: str
    market: str  # on-demand or spot
    price: float | None = None  # dollars per hour
    launched_at: float | None = None
    ended_at: float | None = None
    address: HostAddress | None = None
    expires: float | None = None  # when it ends itself at the latest
    reason: str = ""
    idle: float | None = None  # seconds without use after which it ends itself
    least_seconds: float = 0.0  # that are paid for at least, each time that it is started


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something other than a machine that carries our tags and may cost money."""

    provider: str
    kind: str  # volume, address, interface, key, group, snapshot, spot-request, role
    id: str
    region: str
    why: str  # why it is left over, or why it cannot be removed now
    removable: bool = True
    price: float | None = None  # dollars per hour


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question of `check`. `code` is that of an error's class where it is not good."""

    name: str
    ok: bool
    text: str
    hint: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """What a host says of one attempt. Times are the host's wall clock in seconds.

    queued, running; exited (an exit record exists); lost (claimed, proved not running, no record); cancelled (ended by
    a tombstone before it started); stale (accepted under an earlier boot and never started); refused (never accepted).
    """

    state: str
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    cause: str = ""
    missing: tuple[str, ...] = ()
    maxrss: int | None = None
    cpu_seconds: float | None = None
    logs: int = 0  # bytes of its log that are still to be brought home
    disk_full: bool = False  # it ended badly, and its machine had no room left: what it wrote last may be missing
    metrics: Metrics = ()  # what it reported; nothing while `logs` are to come


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a machine last said of itself, for display."""

    load: float | None = None  # its 1-minute load average
    disk_free: int | None = None  # bytes
    others: int = 0  # attempts that it executes for other state directories
    warning: str = ""
    free: Resources | None = None  # what its agent could give to another attempt, whoever holds the rest
    held: str = ""  # why its agent starts nothing of its queue now, although there may be places


@dataclass(frozen=True, slots=True)
class HostView:
    """What is known of the link to one node's machine. A blind view keeps the last facts and says since when."""

    connected: bool
    boot: str = ""
    since: float = 0.0  # when `connected` last changed
    resources: Resources | None = None
    environments: frozenset[str] = frozenset()
    reported: frozenset[str] | None = None  # attempts in a full report that is new in this observation
    error: str = ""
    error_code: str = ""  # of the error's class, where it is one of ours
    vitals: Vitals = Vitals()
    full: bool = False  # its agent had no room on its disk for an attempt: nothing is handed to it for a while
    leaving: bool = False  # its end was announced: nothing is handed to it
    outlives: str = ""  # ... not by its provider, but by itself: the setting that says how long it lives
    armed: bool = False  # it ends itself when nobody uses it any more
    leased: bool = False  # ... and at a time that somebody told it


@dataclass(frozen=True, slots=True)
class Request:
    """Something a user asked for, in the order asked. `id` makes a repeated request one request."""

    id: str
    kind: str  # "cancel", or "gone": the user says that the machine of `node` will never answer again
    jobs: tuple[int, ...] | None = None  # None: the whole run
    at: float = 0.0
    node: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """All that is known of the world at `now`. What is absent here is unknown, not gone."""

    now: float
    instances: Mapping[str, tuple[InstanceStatus, ...]] = field(default_factory=dict)  # by provider, complete lists
    call_errors: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # call -> (error code, message)
    calls_pending: frozenset[str] = frozenset()  # provider calls under way, by naming.create_call or terminate_call
    calls_done: frozenset[str] = frozenset()  # those that this session saw succeed
    hosts: Mapping[str, HostView] = field(default_factory=dict)  # by node
    attempts: Mapping[str, Mapping[str, AttemptStatus]] = field(default_factory=dict)  # news only: node -> attempt id
    requests: tuple[Request, ...] = ()
    fetched: Mapping[str, str] = field(default_factory=dict)  # attempt id -> "" (home) or what went wrong
    fetching: frozenset[str] = frozenset()  # attempts whose outputs are on their way
    persisted: Mapping[str, tuple[Upload, ...]] = field(
        default_factory=dict
    )  # attempt id -> what it left to go on from
    metrics: Mapping[str, Metrics] = field(default_factory=dict)  # attempt id -> what a log reported that came late


@dataclass(frozen=True, slots=True)
class Policy:
    """Every number that `decide` uses."""

    ahead: int = 4  # attempts handed to a host beyond its places, at the least
    ahead_seconds: float = 0.5  # ... and as much work as it is expected to finish in this time
    ahead_most: int = 1024
    take_back_after: float = 1.0  # what a host has not started by then waits in its queue
    take_back_again: float = 5.0
    hand_out_most: int = 512  # in one tick
    retry_delay: float = 1.0
    retry_delay_most: float = 60.0
    boot_limit: float = 900.0
    create_retry: float = 10.0  # also between requests to give a machine back
    look_soon: float = 2.0  # at machines that are coming
    look_again: float = 5.0  # at machines that are going or silent
    look_idle: float = 15.0  # at machines that answer, for what only their provider knows
    shortage: float = 600.0  # how long a pool that had no machine, or a quota that was used up, is not asked again
    taken_back: float = 120.0  # ... and one that has taken a machine back
    resume_limit: float = 150.0  # for bringing home what an attempt left whose machine is taken back
    lease_step: float = 30.0  # by which a machine's time must change before it is told
    leaving_limit: float = 180.0  # a machine that is taken back, has nothing and is still there, is given back
    unanswered_most: int = 3  # machines in a row that never answered; then their node is left out
    silence_limit: float = 120.0  # a machine that has been silent for so long is not counted on for what waits
    absent_limit: float = 900.0  # a silent machine that complete lists omit for so long is gone: longer than any lag
    fetch_tries: int = 3

"""The seeds' state words as flags, so that masks such as DONE | ABORTED can be written. Values are those of PHASES."""

from __future__ import annotations

from enum import IntFlag

from cloudsend_cli.core.explain import PHASES
from cloudsend_cli.core.machine_views import InstanceView
from cloudsend_cli.core.views import JobView


class CloudSendJobState(IntFlag):
    """Of a process, which is one attempt of a job. UNKNOWN is 0: no mask waits for it."""

    UNKNOWN = PHASES["UNKNOWN"][0]
    WAIT = PHASES["WAIT"][0]
    QUEUE = PHASES["QUEUE"][0]
    IDLE = PHASES["IDLE"][0]
    RUNNING = PHASES["RUNNING"][0]
    DONE = PHASES["DONE"][0]
    ABORTED = PHASES["ABORTED"][0]
    ANY = WAIT | QUEUE | IDLE | RUNNING | DONE | ABORTED


class CloudSendInstanceState(IntFlag):
    """Of a machine."""

    UNKNOWN = 0
    STARTING = 1
    RUNNING = 2
    STOPPING = 4
    STOPPED = 8
    TERMINATING = 16
    TERMINATED = 32
    ANY = STARTING | RUNNING | STOPPING | STOPPED | TERMINATING | TERMINATED


class CloudSendProviderState(IntFlag):
    """How far a client has come. The maestro watches from the first run on, so RUNNING comes with WATCHING."""

    NEW = 0
    STARTED = 1
    ASSIGNED = 2
    DEPLOYED = 4
    RUNNING = 8
    WATCHING = 16
    IDLE = 32
    ANY = STARTED | ASSIGNED | DEPLOYED | RUNNING | WATCHING | IDLE


ENDED = CloudSendJobState.DONE | CloudSendJobState.ABORTED

# Words of nodes and of providers; one that is not here is UNKNOWN, as is a machine that is only planned.
_MACHINES = {
    "creating": CloudSendInstanceState.STARTING,
    "pending": CloudSendInstanceState.STARTING,
    "running": CloudSendInstanceState.RUNNING,
    "keeping": CloudSendInstanceState.RUNNING,
    "kept": CloudSendInstanceState.RUNNING,
    "claimed": CloudSendInstanceState.RUNNING,
    "stopping": CloudSendInstanceState.STOPPING,
    "stopped": CloudSendInstanceState.STOPPED,
    "releasing": CloudSendInstanceState.TERMINATING,
    "ending": CloudSendInstanceState.TERMINATING,
    "released": CloudSendInstanceState.TERMINATED,
    "terminated": CloudSendInstanceState.TERMINATED,
}


def job_state(view: JobView) -> CloudSendJobState:
    return CloudSendJobState[view.phase]


def instance_state(view: InstanceView | None) -> CloudSendInstanceState:
    return (
        CloudSendInstanceState.UNKNOWN if view is None else _MACHINES.get(view.state, CloudSendInstanceState.UNKNOWN)
    )


def name_mask(mask: CloudSendJobState) -> str:
    """Such as `DONE|ABORTED`. WHY NOT its own name: before Python 3.11 a mask has none."""
    return "|".join(word for word, (value, _) in PHASES.items() if value & mask)

"""The client of the seeds' documents: start, assign, deploy, run, wait, in this order, over a Client of ours.

A call has done its work when it returns. What it returns can also be awaited, for scripts of the age in which calls
were coroutines; awaiting waits for nothing more. A step that was left out is done by the one that needs it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from cloudsend_cli.core.naming import job_id, parse_attempt_id
from cloudsend_cli.core.submission import SubmitOptions
from cloudsend_cli.errors import CloudsendError, NotFoundError, UnreachableError, UsageError, WaitTimeout

from ..client import Client
from .adding import OBJECTS, Config, extend, read_added, without_objects
from .asking import fetch_plan, find_earlier
from .collecting import collect_all, refuse_replaced, remove_copies
from .objects import (
    CloudSendEnvironment,
    CloudSendInstance,
    CloudSendJob,
    CloudSendProcess,
    CloudSendRunSession,
    ConfigObjects,
    Directory,
    Finished,
    Keys,
    Number,
)
from .opening import Source, Submission, forget_source, keep_source, open_source
from .planned import Objects, assign_jobs, gather_jobs, make_objects, see_jobs, see_machines
from .printed import make_safe, render_log, render_objects, render_summary
from .states import ENDED, CloudSendJobState, CloudSendProviderState, name_mask

Processes = CloudSendProcess | Iterable[CloudSendProcess] | None
FINISHED = Finished()
VARIABLE = "CLOUDSEND_PROVIDER"
NOT_THERE = CloudSendJobState.WAIT | CloudSendJobState.QUEUE | ENDED


def get_client(
    config: Keys | str | os.PathLike[str] | None = None,
    *,
    provider: str | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> CloudSendProvider:
    """A client for a config: a dict, a path of a .py, .json or YAML file, or JSON text.

    Without one: that which was run last from the working directory, with the processes of that run. `provider`, or
    the environment variable CLOUDSEND_PROVIDER, overrides the config's: so a script for a cloud is tried on this
    machine as it stands. Several clients may be used at once; each belongs to one thread at a time.
    """
    variables = os.environ if environ is None else environ
    client = Client(None if state_dir is None else os.fspath(state_dir), environ=environ)
    folder = os.getcwd()
    source = open_source(config, client.state_dir, folder)
    return CloudSendProvider(client, source, folder, provider or variables.get(VARIABLE))


class CloudSendProvider:
    """`get_client` makes it."""

    def __init__(self, client: Client, source: Source, folder: str, provider: str | None = None) -> None:
        self._client = client
        self._source = source
        self._folder = folder
        self._provider = provider
        self._reset = False
        self._known: Objects | None = None
        self._batches: dict[str, int] = {}
        self._run = ""
        self._taken: dict[str, Mapping[str, CloudSendJob]] = {}
        self._state = CloudSendProviderState.NEW
        self._earlier = source.earlier  # until it is taken up

    def __enter__(self) -> CloudSendProvider:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what the calling thread has open. The jobs go on."""
        self._client.close()

    # ---- before a run ----------------------------------------------------------------------------------------------

    def start(self, reset: bool = False) -> Finished:
        """Check the config, the accounts and the machines that could be had, and plan.

        Nothing is rented: machines are asked for when jobs are run, so that none waits for a script that ended before.
        With `reset`, the next run begins anew instead of going on with an earlier one.
        """
        self._reset = self._reset or reset
        plan = fetch_plan(self._client, self._source, self._options)
        if self._known is None or not self._known.are_of(plan):
            self._known = make_objects(plan, self._source, self._find_host, self._client.find_pid, self._known)
        self._state = CloudSendProviderState.STARTED
        self._take_up()
        return FINISHED

    def assign_jobs_to_instances(self) -> Finished:
        """Place the jobs on the machines of the plan: `get_instance` of a job and `get_jobs` of a machine tell where.

        That is what `run --dry-run` foresees: while jobs run, each goes to the machine that has room first.
        """
        assign_jobs(self._objects())
        self._state = max(self._state, CloudSendProviderState.ASSIGNED)
        return FINISHED

    assign = assign_jobs_to_instances

    def deploy(self) -> Finished:
        """Nothing beyond the steps before it, which have found all files that are to be sent.

        They are sent, and environments built, on each machine as soon as it is there: that is after `run_jobs`.
        """
        if self._state < CloudSendProviderState.ASSIGNED:
            self.assign_jobs_to_instances()
        self._state = max(self._state, CloudSendProviderState.DEPLOYED)
        return FINISHED

    def cfg_add_instances(self, config: Config, *, run_session: CloudSendRunSession | None = None) -> Finished:
        """Add machines to the config: an entry, a list of them, JSON text, or a file or a dict that has `instances`.

        Only those are taken of it. A client that was started plans anew, and tells all mistakes; while its jobs run,
        its run goes on with what was added. UsageError: they run from a file, which is to be edited then.
        """
        return self._add(config, ("instances",), run_session)

    def cfg_add_environments(self, config: Config, *, run_session: CloudSendRunSession | None = None) -> Finished:
        """Add environments, as `cfg_add_instances` adds machines."""
        return self._add(config, ("environments",), run_session)

    def cfg_add_jobs(self, config: Config, *, run_session: CloudSendRunSession | None = None) -> Finished:
        """Add jobs, as `cfg_add_instances` adds machines. While jobs run they are started as well."""
        return self._add(config, ("jobs",), run_session)

    def cfg_add_config(self, config: Config, *, run_session: CloudSendRunSession | None = None) -> Finished:
        """Add the instances, environments and jobs of a whole config; its other keys must be as in this client's."""
        return self._add(config, OBJECTS, run_session)

    def cfg_reset(self) -> Finished:
        """Forget the config's instances, environments and jobs, also for a later client, and what has run.

        What runs goes on: `kill` ends it before.
        """
        forget_source(self._client.state_dir, self._folder)
        self._source = without_objects(self._source)
        self._known, self._run, self._earlier = None, "", None
        self._runs.clear()
        self._batches.clear()
        self._state = CloudSendProviderState.NEW
        return FINISHED

    # ---- running ---------------------------------------------------------------------------------------------------

    def run_jobs(self, wait: bool = False, *, continue_session: bool = False) -> CloudSendRunSession:
        """Submit all jobs as one run, which goes on whatever becomes of this program. Returns its processes.

        Where the config says `recover`, or with `continue_session`, jobs that succeeded before with the same content
        are kept, what is under way is attached to, and the rest is tried again; else all jobs are run anew.
        """
        if self._state < CloudSendProviderState.DEPLOYED:
            self.deploy()
        anew = self._reset or not (self._source.recovers or continue_session)
        options = replace(self._options, fresh=anew)
        if continue_session and not anew:  # also where the config says that it is not continued by itself
            options = replace(options, overrides=("recover=true",))
        submitted = self._client.submit(self._source.config, options=options)
        self._reset = False
        keep_source(self._source, Submission(submitted.run, submitted.ids), self._client.state_dir, self._folder)
        self._run = submitted.run
        if set(submitted.ids) != set(self._objects().jobs):
            self.start()  # the config has been edited since it was planned
        self._runs.pop(self._run, None)
        jobs = self._objects().jobs
        self._runs[self._run] = {id: jobs[name] for name, id in submitted.ids.items() if name in jobs}
        found = self._read(self._run)
        for process in found:
            process.get_job().put_last(process)
        session = self._session(found)
        return self.wait_for_jobs_state(ENDED, session) if wait else session

    def run(self, continue_session: bool = False, *, wait: bool = False) -> CloudSendRunSession:
        """`run_jobs` by its later name."""
        return self.run_jobs(wait, continue_session=continue_session)

    def run_job(self, job: CloudSendJob, wait: bool = False) -> CloudSendProcess:
        """Submit one job as a run of its own, anew. Where a rented machine of an earlier run waits, it is taken."""
        if not isinstance(job, CloudSendJob):
            raise UsageError(f"run_job takes a job, not {job!r:.80}", hint="get_jobs() has them")
        index = self._objects().entry_of.get(job.get_name())
        if index is None:
            hint = "run_jobs runs all; jobs of a matrix or of sections cannot be picked"
            raise UsageError(f"it is not known which entry of `jobs` has made {job.get_name()!r}", hint=hint)
        options = SubmitOptions(fresh=True, provider=self._provider, folder=self._source.folder)
        submitted = self._client.submit(self._source.pick(index, job.get_name()), options=options)
        self._runs[submitted.run] = dict.fromkeys(submitted.ids.values(), job)
        (process,) = self._read(submitted.run)
        if wait:
            self.wait_for_jobs_state(ENDED, process)
        return process

    def wakeup(self) -> CloudSendRunSession:
        """All steps up to `run_jobs`."""
        return self.run_jobs()

    def watch(self, processes: Processes = None, daemon: bool = True) -> CloudSendRunSession:
        """The maestro of the state directory watches, and replaces machines, without being asked.

        So this returns at once; without `daemon`, when all have ended.
        """
        return self.get_jobs_states(processes) if daemon else self.wait_for_jobs_state(ENDED, processes)

    # ---- states ----------------------------------------------------------------------------------------------------

    def wait_for_jobs_state(
        self,
        job_state: int | Processes,
        processes: int | Processes = None,
        *,
        timeout: float | None = None,
    ) -> CloudSendRunSession:
        """Wait until each process, or the one that took its place, is in a state of the mask; returns these.

        Without processes: all. The arguments may come in either order. It also returns when no job can change any
        more although the mask does not fit, such as DONE for a job that failed: look at the states. WaitTimeout:
        `timeout` seconds went by, and the jobs go on.
        """
        if not isinstance(job_state, int):
            job_state, processes = processes, job_state
        if not isinstance(job_state, int) or isinstance(processes, int):
            raise UsageError("no state is given to wait for", hint="such as CloudSendJobState.DONE")
        jobs = self._jobs_of(processes)
        until = None if timeout is None else time.monotonic() + timeout
        by_run: dict[str, list[CloudSendJob]] = {}
        for job in jobs:
            if process := job.get_last_process():
                by_run.setdefault(process.run, []).append(job)
        for run, wanted in by_run.items():
            self._wait_for(run, wanted, CloudSendJobState(job_state), until)
        return self.get_jobs_states([process for job in jobs if (process := job.get_last_process())])

    def wait(
        self,
        job_state: int | Processes,
        run_session: int | Processes = None,
        *,
        timeout: float | None = None,
    ) -> CloudSendRunSession:
        """`wait_for_jobs_state` by its later name."""
        return self.wait_for_jobs_state(job_state, run_session, timeout=timeout)

    def finalize(self) -> CloudSendRunSession:
        """Wait until all jobs have ended, their results are at home, and the runs have let go of their machines."""
        for run in self._runs:
            for _ in self._client.follow(run):
                pass
        return self.get_jobs_states()

    def get_jobs_states(self, processes: Processes = None, last_running_processes: bool = True) -> CloudSendRunSession:
        """The processes, or those that took their places, as they are now; without processes, of all jobs.

        With `last_running_processes=False`, all that this client has seen of these jobs, oldest first.
        """
        jobs = self._jobs_of(processes)
        for run in dict.fromkeys(process.run for job in jobs if (process := job.get_last_process())):
            self._read(run)
        if not last_running_processes:
            return self._session(process for job in jobs for process in job.get_processes())
        return self._session(process for job in jobs if (process := job.get_last_process()))

    def get_num_active_processes(self, run_session: Processes = None) -> Number:
        """How many processes have not ended now."""
        return Number(len(self.get_jobs_states(run_session).get_active_processes()))

    def get_state(self) -> CloudSendProviderState:
        """RUNNING until all jobs that this client has run were seen to have ended, then IDLE."""
        if not self._runs:
            return self._state
        active = any(job.get_active_processes() for jobs in self._runs.values() for job in jobs.values())
        return CloudSendProviderState.RUNNING if active else CloudSendProviderState.IDLE

    # ---- objects ---------------------------------------------------------------------------------------------------

    def get_instances(self) -> list[CloudSendInstance]:
        """The machines of the plan, as they are now."""
        objects = self._objects()
        for run in self._runs:
            self._read(run)
        return list(objects.instances.values())

    def get_environments(self) -> list[CloudSendEnvironment]:
        """Those that jobs use."""
        return list(self._objects().environments.values())

    def get_jobs(self) -> list[CloudSendJob]:
        """All jobs of the config, in its order."""
        return list(self._objects().jobs.values())

    def get_objects(self) -> ConfigObjects:
        """All of them, by the keys of the config."""
        found = (self.get_instances(), self.get_environments(), self.get_jobs())
        return ConfigObjects(zip(OBJECTS, found, strict=True))

    def get_num_instances(self) -> Number:
        """How many machines are planned, with those that stand in for others."""
        return Number(len(self._objects().instances))

    def get_instance(self, name: str) -> CloudSendInstance | None:
        """The machine of that name."""
        return self._objects().instances.get(name)

    def get_environment(self, env_hash: str) -> CloudSendEnvironment | None:
        """The environment of that hash."""
        return self._objects().environments.get(env_hash)

    def get_job(self, identifier: str) -> CloudSendJob | None:
        """The job of that id, once it is part of a run."""
        return next((job for job in self._objects().jobs.values() if job.get_id() == identifier), None)

    def get_run_session(self, identifier: str) -> CloudSendRunSession | None:
        """The newest processes of a run of this client, by the run's id, as they are now."""
        return self._session(self._read(identifier)) if identifier in self._runs else None

    def get_region(self) -> str | None:
        """Of the first machine."""
        return next((instance.get_region() for instance in self._objects().instances.values()), None)

    def version(self) -> str:
        """Of cloudsend."""
        from cloudsend_cli import __version__

        return __version__

    def update_instance_info(self, instance: CloudSendInstance) -> Finished:
        """Bring a machine to what is known of it now."""
        for run in self._runs:
            self._read(run)
        return FINISHED

    def reset_instance(self, instance: CloudSendInstance) -> Finished:
        """End what jobs of this client execute there. Nothing is wiped: each attempt has a directory of its own."""
        self.update_instance_info(instance)
        there = [process for process in instance.get_active_processes() if not process.get_state() & NOT_THERE]
        if there:
            self._client.cancel([str(process.get_job().get_id()) for process in there])
            self.wait_for_jobs_state(ENDED, there)
        return FINISHED

    def hard_reset_instance(self, instance: CloudSendInstance) -> Finished:
        """End a rented machine at once. A run that needs it replaces it, and does again what was lost with it.

        UsageError: it is not rented. NotFoundError: it is there no more.
        """
        self.update_instance_info(instance)
        if not instance.is_rented():
            told = f"{instance.get_name()} is no rented machine that is there, and is not ended"
            raise UsageError(told, hint="reset_instance ends what jobs execute on it")
        self._client.terminate_instance(self._ref(instance), force=True)
        return FINISHED

    def start_instance(self, instance: CloudSendInstance) -> Finished:
        """Start a rented machine that was stopped."""
        self._client.start_instance(self._ref(instance))
        return FINISHED

    def stop_instance(self, instance: CloudSendInstance) -> Finished:
        """Stop a rented machine and keep its disk. UsageError: jobs of a run that is not over are there."""
        self._client.stop_instance(self._ref(instance))
        return FINISHED

    def terminate_instance(self, instance: CloudSendInstance) -> Finished:
        """End a rented machine now, instead of letting it wait for the next run."""
        self._client.terminate_instance(self._ref(instance))
        return FINISHED

    # ---- what is printed, since it is asked for --------------------------------------------------------------------

    def print_jobs_summary(
        self, run_session: CloudSendInstance | Processes = None, instance: CloudSendInstance | None = None
    ) -> Finished:
        """Print each job with its processes; with a machine, those of its jobs alone."""
        if isinstance(run_session, CloudSendInstance):
            run_session, instance = None, run_session
        processes = self.get_jobs_states(run_session)
        _print(render_summary(self._chosen(processes, run_session, instance), instance))
        return FINISHED

    def print_aborted_logs(
        self, run_session: CloudSendInstance | Processes = None, instance: CloudSendInstance | None = None
    ) -> Finished:
        """Print the end of what each aborted job wrote."""
        if isinstance(run_session, CloudSendInstance):
            run_session, instance = None, run_session
        processes = self.get_jobs_states(run_session)
        for job in self._chosen(processes, run_session, instance):
            process = job.get_last_process()
            if process is not None and process.get_state() == CloudSendJobState.ABORTED:
                tail = b""
                with suppress(NotFoundError):  # it has ended without being started
                    tail = self._client.log_tail(str(job.get_id()))
                _print(render_log(job, process, tail))
        return FINISHED

    def print_objects(self) -> Finished:
        """Print how far the client is, and its objects."""
        _print(render_objects(self.get_state().name or "", self.get_objects()))
        return FINISHED

    def debug(self, level: int, *args: object) -> None:
        """Print these, if the config's `debug` (1 where it says nothing) is at least `level`."""
        wanted = self._source.document.get("debug")
        if level <= (wanted if isinstance(wanted, int) else 1):
            _print([make_safe(" ".join(map(str, args)))])

    # ---- ends ------------------------------------------------------------------------------------------------------

    def fetch_results(
        self,
        directory: str | os.PathLike[str] | None = None,
        processes: Processes = None,
        use_cached: bool = True,
        use_normal_output: bool = False,
    ) -> Directory:
        """Copy what jobs have left into `directory` as `job_000_output.dat`: the job's rank and the file's name.

        With `use_normal_output` by its own name; of two that are the same the second one has `~1` behind it. Results
        come home by themselves, below the config's `results_dir`, with their own names; without `directory` that place
        is returned. Nothing else in `directory` is touched. Copies are made each time, whatever `use_cached` says.
        ResultError: of some jobs nothing is there, such as those that another client has replaced.
        """
        session = self.get_jobs_states(processes)
        if directory is not None:
            collect_all(self._client, session, Path(directory), plain=use_normal_output)
            return Directory(os.fspath(directory))
        refuse_replaced([process.get_job() for process in session])
        run = self._client.find_run(session.get_id())
        self._client.fetch(run.id)
        return Directory(run.results_dir)

    def clear_results_dir(self, directory: str | os.PathLike[str]) -> Finished:
        """Remove what `fetch_results` has copied into `directory` and nobody has edited; nothing else."""
        remove_copies(self._client.state_dir, Path(directory))
        return FINISHED

    clear_result_dir = clear_results_dir

    def kill(self, identifier: str | CloudSendProcess | CloudSendJob) -> Finished:
        """Ask for the end of a run, its newest batch, a job or a process, by its id, or of a job by its hash."""
        if isinstance(identifier, CloudSendProcess):
            identifier = identifier.get_uid()
        ref = str(identifier.get_id() if isinstance(identifier, CloudSendJob) else identifier)
        batches = {f"{run}-{number}": run for run, number in self._batches.items()}
        if (run := batches.get(ref, ref)) in self._runs:
            self._client.cancel_run(run)
            return FINISHED
        attempt = parse_attempt_id(ref)
        self._client.cancel([ref if attempt is None else job_id(attempt[0], attempt[1])])
        return FINISHED

    # ---- inside ----------------------------------------------------------------------------------------------------

    @property
    def _options(self) -> SubmitOptions:
        if self._source.path:
            return SubmitOptions(provider=self._provider)
        return SubmitOptions(provider=self._provider, continue_as=self._source.name, folder=self._source.folder)

    def _add(self, config: Config, keys: tuple[str, ...], run_session: CloudSendRunSession | None) -> Finished:
        if run_session is not None and run_session.get_id() != self._run:
            raise UsageError(
                f"run {run_session.get_id()} is not the newest of this client", hint="leave run_session out"
            )
        if self._source.path and self._runs:
            hint = "add it there, and call run_jobs again: what is new is added to the run"
            raise UsageError(f"the jobs run from {self._source.path}, to which nothing is added here", hint=hint)
        added = read_added(config, keys, self._source)
        before = self._source
        self._source = extend(before, added)
        if self._state == CloudSendProviderState.NEW:
            return FINISHED
        active = bool(self._runs) and bool(self.get_jobs_states().get_active_processes())
        try:
            self.start()
        except CloudsendError:
            self._source = before  # what cannot be run is not added
            raise
        if active and added.get("jobs"):
            self.run_jobs(continue_session=True)
        return FINISHED

    def _objects(self) -> Objects:
        if self._known is None:
            self.start()
        assert self._known is not None  # noqa: S101 - `start` has made it, or raised
        return self._known

    @property
    def _runs(self) -> dict[str, Mapping[str, CloudSendJob]]:
        """Of each run its jobs by id, oldest run first."""
        if self._earlier is not None:
            self.start()
        return self._taken

    def _take_up(self) -> None:
        """The run that an earlier client has left."""
        earlier, self._earlier = self._earlier, None
        if earlier is not None and (jobs := find_earlier(self._client, earlier, self._objects().jobs)):
            self._run, self._taken[earlier.run] = earlier.run, jobs
            self._read(earlier.run)

    def _jobs_of(self, processes: Processes) -> list[CloudSendJob]:
        given = [processes] if isinstance(processes, CloudSendProcess) else list(processes or ())
        if given:
            return list(dict.fromkeys(process.get_job() for process in given))
        return [job for job in self._objects().jobs.values() if job.has_processes()] if self._runs else []

    def _session(self, processes: Iterable[CloudSendProcess]) -> CloudSendRunSession:
        found = list(processes)
        run = found[0].run if found else self._run
        return CloudSendRunSession(found, run, self._batches.get(run, 0))

    def _read(self, run: str) -> list[CloudSendProcess]:
        """Bring jobs and machines of a run to what is known of them now; its newest processes."""
        objects = self._objects()
        number = self._batches[run] = self._client.find_run(run).batch
        see_machines(objects, self._client.list_instances(run))
        jobs = self._runs[run]
        views = self._client.list_jobs(run)
        if jobs.keys() - {view.id for view in views}:  # another client has continued the run without them
            views = self._client.list_jobs(run, history=True)
        found = list(see_jobs(objects, jobs, views, f"{run}-{number}"))
        gather_jobs(objects)
        return found

    def _wait_for(self, run: str, wanted: list[CloudSendJob], mask: CloudSendJobState, until: float | None) -> None:
        left = None if until is None else max(0.0, until - time.monotonic())
        if mask == ENDED:
            whole = len(wanted) == len(self._runs[run])
            if whole and not any(job.is_replaced() for job in wanted):
                self._client.wait([run], left)
                self._read(run)
                wanted = [job for job in wanted if not is_in(job, ENDED)]  # they have been replaced meanwhile
                left = None if until is None else max(0.0, until - time.monotonic())
            if wanted:
                self._client.wait([str(job.get_id()) for job in wanted], left)
            return
        settled = False
        for progress in self._client.follow(run, timeout=left):
            settled = progress.settled
            self._read(run)
            if settled or all(is_in(job, mask) for job in wanted):
                return
        if not settled:
            message = f"not all of {len(wanted)} jobs of run {run} are {name_mask(mask)} after {left:g} s"
            raise WaitTimeout(message, hint="they go on")

    def _chosen(
        self, processes: CloudSendRunSession, given: Processes, instance: CloudSendInstance | None
    ) -> list[CloudSendJob]:
        jobs = [process.get_job() for process in processes] if given is not None else self.get_jobs()
        return [job for job in jobs if instance is None or job.get_instance() is instance]

    def _ref(self, instance: CloudSendInstance) -> str:
        """A machine whose jobs have all ended is let go by its run before anything is done to it."""
        for run, jobs in self._runs.items():
            if not any(process.run == run for job in jobs.values() for process in job.get_active_processes()):
                for _ in self._client.follow(run):
                    pass
        return instance.get_id() or f"{self._run}/{instance.get_name()}"

    def _find_host(self, instance: str) -> str | None:
        try:
            address = self._client.find_address(f"{self._run}/{instance}")
        except (NotFoundError, UnreachableError):
            return None
        return address.host if address.kind == "ssh" else "127.0.0.1"


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def is_in(job: CloudSendJob, mask: CloudSendJobState) -> bool:
    process = job.get_last_process()
    return process is not None and bool(process.get_state() & mask)

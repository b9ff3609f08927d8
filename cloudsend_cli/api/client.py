"""`Client`: everything that can be done with one state directory, a line each. The work is in the modules beside.

Those that listing jobs does not need are imported when they are used.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from cloudsend_cli.core.submission import SubmitOptions
from cloudsend_cli.core.views import EnvironmentView, JobView, Json, MaestroView, Progress, RunView

from . import reading
from .directory import Directory, default_state_dir

if TYPE_CHECKING:
    from cloudsend_cli.config.context import FunctionTasks
    from cloudsend_cli.config.load import Loaded
    from cloudsend_cli.core.cost_views import ExcessView, JobCost, MachineCost, RunCost
    from cloudsend_cli.core.explain import Explanation
    from cloudsend_cli.core.machine_views import CheckView, InstanceView, ProviderView
    from cloudsend_cli.core.model import HostAddress, Rented
    from cloudsend_cli.core.submission import PlanView, Submitted
    from cloudsend_cli.engine.claiming import Released
    from cloudsend_cli.engine.inventory import HostFound
    from cloudsend_cli.engine.rebuild import Rebuilt
    from cloudsend_cli.engine.submit import Announce, Keep

    from .cleaning import Found
    from .events import RunEvent
    from .functions.runs import FunctionRun, Work
    from .money import Kept
    from .results import JobResult

    Config = str | Mapping[str, object]
    Points = Iterable[Mapping[str, object]]
    Places = Mapping[str, Sequence[object]]

DEFAULTS = SubmitOptions()
NOTHING: Mapping[str, object] = {}
Note = Callable[[str], None]


def _unheard(text: str) -> None:
    """Of what goes on while one waits."""


class Client:
    """One state directory. A Client may be used from several threads; each gets a database connection of its own."""

    def __init__(self, state_dir: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> None:
        chosen_environ = dict(os.environ if environ is None else environ)
        chosen = Path(state_dir).expanduser() if state_dir is not None else default_state_dir(chosen_environ)
        self.state_dir = chosen.absolute()
        self._home = Directory(self.state_dir, chosen_environ)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what the calling thread has open. The maestro and the jobs go on."""
        self._home.close()

    # ---- submitting ------------------------------------------------------------------------------------------------

    def validate(self, config: Config, options: SubmitOptions = DEFAULTS) -> Loaded:
        """The config, a file or a dict, as it would be run. ConfigError carries all problems at once."""
        from . import acting

        return acting.validate(self._home, config, options)

    def plan(self, config: Config | None, argv: Sequence[str] = (), options: SubmitOptions = DEFAULTS) -> PlanView:
        """What `submit` would do; nothing is written and nothing is started."""
        from . import acting

        return acting.plan(self._home, config, argv, options)

    def submit(
        self,
        config: Config | None,
        argv: Sequence[str] = (),
        options: SubmitOptions = DEFAULTS,
        announce: Announce = lambda spec, nodes, continued: None,
    ) -> Submitted:
        """Commit the run and wake the maestro. When this returns, the run is durable and will be carried on.

        `config`: a file's path, or a dict; None: `argv` is the command. Paths in a dict are below the working
        directory, `Call` in its sections may be a function, and it is a new run unless `options.continue_as` names it.
        `announce` is told the plan before it is committed, with what it means for an earlier run's jobs.
        """
        from . import acting

        return acting.submit(self._home, config, argv, options, announce)

    def submit_function(
        self,
        function: Callable[..., object],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] = NOTHING,
        *,
        name: str = "",
        config: Mapping[str, object] = NOTHING,
        options: SubmitOptions = DEFAULTS,
        **keys: object,
    ) -> FunctionRun:
        """Have one call executed. `keys` and `config` are those of `map`.

        UsageError: the function, or what it is called with, cannot be pickled.
        """
        from .functions.runs import Work
        from .functions.tasks import Call

        return self._work(Work(function, (Call(tuple(args), dict(kwargs)),), None, name, keys, config), options)

    def map(
        self,
        function: Callable[..., object],
        points: Points,
        *,
        slots: Places | None = None,
        name: str = "",
        config: Mapping[str, object] = NOTHING,
        options: SubmitOptions = DEFAULTS,
        **keys: object,
    ) -> FunctionRun:
        """Call the function once with each of the points, dicts of named arguments, each call a job of its own.

        `slots`: lists whose product are the places where calls run at the same time; each place's values are further
        named arguments. Without, a call takes one CPU. `keys`: those of a group of a config's sections (cpus, memory,
        gpu, timeout, retries, env, upload, output ...), and `python`. `config`: other keys of a config (provider,
        instances, environments ...). `name` begins the names of the jobs.
        """
        from .functions.runs import Work, list_calls

        return self._work(Work(function, list_calls(points), slots, name, keys, config), options)

    def _work(self, work: Work, options: SubmitOptions) -> FunctionRun:
        from .functions.runs import FunctionRun, plan_work

        names: list[str] = []

        def take(config: Mapping[str, object], keep: Keep) -> tuple[Mapping[str, object], Mapping[str, FunctionTasks]]:
            planned, functions, jobs = plan_work(work, keep)
            names.extend(jobs)
            return planned, functions

        from . import acting

        submitted = acting.submit(self._home, {}, (), options, lambda spec, nodes, continued: None, take)
        return FunctionRun(self, submitted, [submitted.ids.get(name, "") for name in names])

    # ---- reading ---------------------------------------------------------------------------------------------------

    def list_runs(self, limit: int | None = None, *, open_too: bool = False) -> list[RunView]:
        """The newest first. `open_too`: beside the `limit` newest, all older ones that something is left to do for."""
        return reading.list_runs(self._home, limit, open_too)

    def list_jobs(
        self,
        run: str | None = None,
        *,
        states: Sequence[str] = (),
        provider: str | None = None,
        limit: int | None = None,
        history: bool = False,
    ) -> list[JobView]:
        """Jobs of one run by number; without a run, of all runs, newest run first. `limit`: the newest so many."""
        return reading.list_jobs(self._home, run, states, provider, limit, history)

    def find_jobs(self, refs: Sequence[str]) -> list[JobView]:
        """Each job that the words name, once. NotFoundError and AmbiguousError name candidates."""
        return reading.find_jobs(self._home, refs)

    def find_job(self, ref: str) -> JobView:
        """The one job that the word names."""
        return reading.find_job(self._home, ref)

    def find_run(self, ref: str) -> RunView:
        """By its id, a unique beginning of it, a project's name, or `@last`: the one begun, or continued, last."""
        return reading.find_run(self._home, ref)

    def attempts(self, ref: str) -> list[Json]:
        """Earlier attempts, oldest first, and the newest at the end."""
        return reading.attempts(self._home, ref)

    def list_instances(
        self, run: str | None = None, provider: str | None = None, *, note: Note | None = None
    ) -> list[InstanceView]:
        """Machines in use; with a run, all that it ever planned.

        With `note`, also what providers of rented machines have of ours; it is told of those that do not answer.
        """
        from . import machines

        return machines.list_instances(self._home, run, provider, note)

    def find_instance(self, ref: str, *, ask: bool = False) -> InstanceView:
        """By `RUN/NAME`, a name, or the provider's id. `ask`: a claimed or rented machine is asked how it is."""
        from . import machines

        return machines.find_instance(self._home, ref, ask=ask)

    def find_address(self, ref: str) -> HostAddress:
        """Where a machine is reached now. UnreachableError: it has no address. Its provider may be asked."""
        from . import machines

        return machines.find_address(self._home, ref)

    def fetch_console(self, machine: InstanceView) -> str:
        """What a rented machine wrote while it started; "" where there is nothing."""
        from . import machines

        return machines.fetch_console(self._home, machine)

    def list_environments(self, run: str | None = None) -> list[EnvironmentView]:
        """Environments of one run, or of the newest runs, each with the machines where it was built."""
        return reading.list_environments(self._home, run)

    def find_pid(self, ref: str) -> int | None:
        """Of the job's process on its machine, which is asked. None: it does not run, or nobody answers."""
        from . import watching

        return watching.find_pid(self._home, ref)

    def explain(self, ref: str) -> Explanation:
        """Why the job is where it is, from the same facts that decide."""
        return reading.explain_job(self._home, ref)

    def complete(self, kind: str, prefix: str) -> list[tuple[str, str]]:
        """Words that begin with `prefix`, each with a short explanation; never starts anything."""
        from . import completion

        return completion.complete(self._home, kind, prefix)

    def results(self, run: str) -> list[JobResult]:
        """All jobs of the run as they are now, with their files at home. Nothing that came home is executed."""
        from .results import list_results

        return list(list_results(self._home, run))

    # ---- watching --------------------------------------------------------------------------------------------------

    def follow(self, run: str, *, timeout: float | None = None) -> Iterator[Progress]:
        """Moments of a run until it is settled. A maestro that dies meanwhile is replaced."""
        from . import watching

        return watching.follow(self._home, run, timeout)

    def wait(self, refs: Sequence[str], timeout: float | None = None, *, note: Note = _unheard) -> list[JobView]:
        """The jobs (and the jobs of the runs) that the words name, once all are final and their results at home.

        `note` is told when the jobs have ended and results are awaited still. WaitTimeout: they go on.
        UnreachableError: all have ended, and the machines with results have not answered for ten minutes.
        """
        from . import watching

        return watching.wait(self._home, refs, timeout, note)

    def events(self, run: str, *, since: int | None = None, timeout: float | None = None) -> Iterator[RunEvent]:
        """What happens in a run, until it is settled: jobs that start, end and are tried again, machines, the end.

        From its beginning, or from `since`, as `Submitted` has it. A maestro that dies meanwhile is replaced.
        Ends without `RunSettled` when `timeout` seconds are over.
        """
        from .events import list_events

        return list_events(self._home, run, since, timeout)

    def read_log(
        self,
        ref: str,
        stream: str = "stdout",
        *,
        follow: bool = False,
        lines: int | None = None,
        stop: threading.Event | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> Iterator[bytes]:
        """The job's own bytes, exactly; of a job whose environment failed, those of the build.

        While its machine does not answer, following waits and tells `note` so; it goes on at the byte where it was.
        NotFoundError: it has not started and `follow` is not asked for, or it ended without being started.
        UnreachableError: its log is on a machine that does not answer, and `follow` is not asked for.
        """
        from cloudsend_cli.engine.logs import Reading

        from . import watching

        want = Reading(stream, follow, lines, stop or threading.Event(), note)
        return watching.read_log(self._home, ref, want)

    def follow_logs(self, run: str, *, since: int | None = None) -> Iterator[tuple[str, str, bytes] | Progress]:
        """Whole new lines of all jobs of the run as (name, stream, bytes), and its progress, until it is settled."""
        from . import watching

        return watching.follow_logs(self._home, run, since)

    def log_tail(self, ref: str, lines: int = 10) -> bytes:
        """The last lines of a job's stderr, else of its stdout; for a failed environment, of its build."""
        from . import watching

        return watching.log_tail(self._home, ref, lines)

    # ---- acting ----------------------------------------------------------------------------------------------------

    def cancel(self, refs: Sequence[str]) -> list[JobView]:
        """Ask for the end of these jobs; repeated asking changes nothing. Ends are seen by `wait`."""
        from . import acting

        return acting.cancel(self._home, refs)

    def cancel_run(self, run: str) -> RunView:
        """Ask for the end of all jobs of a run that are not final."""
        from . import acting

        return acting.cancel_run(self._home, run)

    def give_up(self, node: str) -> list[str]:
        """Your word that the machine of this node will never answer again, in every run that uses it.

        Its jobs count as lost, and are tried elsewhere as `retries_lost` allows. Returns the runs that were told.
        Should the machine come back, what it still runs of theirs is ended when a run uses it again.
        """
        from . import acting

        return acting.give_up(self._home, node)

    def fetch(self, ref: str, directory: str | None = None) -> list[Path]:
        """Bring the results of a job, or of all jobs of a run, to where they belong (or into `directory`), now."""
        from . import acting

        return acting.fetch(self._home, ref, directory)

    # ---- machines --------------------------------------------------------------------------------------------------

    def list_providers(self) -> list[ProviderView]:
        """Where machines come from: this machine, and what the nearest providers.yml names."""
        from . import providers

        return providers.list_providers(self._home)

    def find_provider(self, name: str) -> ProviderView:
        """The provider of that name. NotFoundError names those that there are."""
        from . import providers

        return providers.find_provider(self._home, name)

    def check(
        self, provider: str | None = None, hosts: Sequence[str] = (), *, fix: bool = False
    ) -> Iterator[CheckView]:
        """Whether this machine, the state directory, each host and each account can do the work; answers as they come.

        With `provider` or `hosts`, those alone. An agent is put on each host, and no job is left behind. `fix` mends
        in accounts what is ours.
        """
        from . import providers

        return providers.check(self._home, provider, hosts, fix=fix)

    def accept_host_key(self, host: str, fingerprint: str, provider: str | None = None) -> tuple[str, str]:
        """Keep exactly this key, which the caller has compared, for the host: (type, fingerprint).

        HostKeyError: it presents another one; then nothing was accepted.
        """
        from . import providers

        return providers.accept_host_key(self._home, host, fingerprint, provider)

    def create_instance(self, provider: str, settings: Sequence[str] = (), *, note: Note = _unheard) -> InstanceView:
        """Claim one free machine for this state directory, or rent one, and wait until it can be logged in to.

        `settings`: KEY=VALUE of a config's instance, or host=NAME. A rented machine belongs to no run, and ends itself
        when it is idle. CapacityError, QuotaError: none can be had. UnreachableError: the same call goes on with it.
        """
        from . import machines

        return machines.create_instance(self._home, provider, settings, note)

    def terminate_instance(self, ref: str, *, forget: bool = False, force: bool = False) -> Released:
        """Give up the claim on a machine, where nothing is ended, or end a rented one. Asking again is fine.

        UsageError: a run that is not over has the rented machine; `force` ends it all the same. UnreachableError: a
        claimed one does not answer, and is still claimed; with `forget` only this side gives it up.
        """
        from . import machines

        return machines.terminate_instance(self._home, ref, forget=forget, force=force)

    def list_terminable(self, *, force: bool = False, note: Note = _unheard) -> list[Rented]:
        """Rented machines that no run which is not over has; with `force` all."""
        from . import renting

        return renting.list_terminable(self._home, note, force=force)

    def terminate_rented(self, machine: Rented) -> Released:
        """End a machine of `list_terminable`."""
        from . import renting

        return renting.terminate(self._home, machine)

    def start_instance(self, ref: str) -> InstanceView:
        """Start a rented machine that was stopped. UsageError: it is not rented."""
        from . import machines

        return machines.switch_power(self._home, ref, on=True, force=False)

    def stop_instance(self, ref: str, *, force: bool = False) -> InstanceView:
        """Stop a rented machine and keep its disk. UsageError: it is not rented, or a run that is not over has it."""
        from . import machines

        return machines.switch_power(self._home, ref, on=False, force=force)

    def open_shell(self, ref: str, command: Sequence[str] = ()) -> int:
        """Give the terminal to a shell, or a command, on a machine; its exit status."""
        from . import machines

        return machines.open_shell(self._home, ref, command)

    # ---- money -----------------------------------------------------------------------------------------------------

    def list_run_costs(self, limit: int | None = None) -> list[RunCost]:
        """Of runs that rented anything, the newest first."""
        from . import money

        return money.list_run_costs(self._home, limit)

    def list_lone_costs(self) -> list[MachineCost]:
        """Of machines that were rented for no run, as of when their providers were asked last."""
        from . import money

        return money.list_lone_costs(self._home)

    def find_run_cost(self, run: str, *, jobs: bool = False) -> RunCost:
        """By machine and, with `jobs`, by job. Of a run that is not over: so far."""
        from . import money

        return money.find_run_cost(self._home, run, jobs=jobs)

    def count_kept(self, run: str) -> Kept:
        """How many of the run's rented machines wait for the next run of its project."""
        from . import money

        return money.count_kept(self._home, run)

    def find_job_cost(self, ref: str) -> JobCost | None:
        """Its share of its machines while it ran; None: its run has rented nothing."""
        from . import money

        return money.find_job_cost(self._home, ref)

    def find_excess(self, provider: str | None = None, *, note: Note = _unheard) -> Found:
        """What carries our tags and nothing wants any more, in all regions used."""
        from . import cleaning

        return cleaning.find_excess_of(self._home, provider, note)

    def remove_excess(self, found: Found) -> Iterator[ExcessView]:
        """Remove it, each outcome as it comes."""
        from . import cleaning

        return cleaning.remove(self._home, found)

    def render_policy(self, provider_type: str) -> str:
        """The least that an account has to allow cloudsend, as its provider takes it."""
        from cloudsend_cli.maestro.wiring import render_policy

        return render_policy(provider_type)

    # ---- a lost state directory ------------------------------------------------------------------------------------

    def survey_hosts(self, provider: str | None = None) -> Iterator[HostFound]:
        """What each host of providers.yml remembers, as it answers. Nothing is changed there or here."""
        from . import recovery

        return recovery.survey_hosts(self._home, provider)

    def count_foreign(self, found: HostFound) -> int:
        """How many attempts of a host another state directory has started."""
        from . import recovery

        return recovery.count_foreign(self._home, found)

    def rebuild(self, found: Sequence[HostFound], *, adopt: bool = False) -> list[Rebuilt]:
        """Make again the runs that the hosts remember and this state directory lacks. Nothing is started or stopped.

        `adopt`: also those of other state directories, which lose them. Repeating it changes nothing.
        """
        from . import recovery

        return recovery.rebuild(self._home, found, adopt=adopt)

    # ---- set-up ----------------------------------------------------------------------------------------------------

    def config_show(self, config: str, options: SubmitOptions = DEFAULTS) -> list[tuple[str, str, str]]:
        """(key, value, where it comes from) of every key of the config."""
        return [(key, value, origin) for key, (value, origin) in self.validate(config, options).origins.items()]

    def config_schema(self) -> Json:
        """The JSON Schema of configs, for editors."""
        from . import setup

        return setup.config_schema()

    def starter_config(self, directory: Path) -> str:
        """A commented config to begin with, fitted to what lies in `directory`."""
        from . import setup

        return setup.starter_config(directory)

    # ---- the maestro -----------------------------------------------------------------------------------------------

    def maestro_status(self) -> MaestroView:
        """Whether one runs, since when, and for which runs."""
        from . import setup

        return setup.maestro_status(self._home)

    def maestro_stop(self) -> bool:
        """Have the maestro leave; jobs go on and their ends are read by the next one. False: none was running."""
        from . import setup

        return setup.maestro_stop(self._home)

    def maestro_adopt(self) -> None:
        """Work on with this copy of a state directory. Nobody may use the first one any more: jobs would run twice."""
        from . import setup

        setup.maestro_adopt(self._home)

    def maestro_log(self, lines: int = 50) -> str:
        """The end of its log."""
        from . import setup

        return setup.maestro_log(self._home, lines)

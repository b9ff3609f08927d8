"""Sweeps of functions: what is kept, who may ask, and what is told while they run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from function_scripts import run_program, write
from real_stack import Stack, wait_for

from cloudsend_cli import JobEnded, JobReopened, JobStarted, MachineChanged, RunSettled, SubmitOptions
from cloudsend_cli.errors import FunctionError, UsageError, WaitTimeout

KEPT = """
    import sys
    from cloudsend_cli import Client, SubmitOptions

    KINDS = {"b", "a", "c"}

    class Base:
        kind = frozenset({"one", "two", "three"})

    class Model(Base):
        def __init__(self, x):
            self.x = x

    def helper(word):
        return word in {"alpha", "beta", "gamma", "delta"}

    def train(model, seed):  # EDIT
        with open(LEDGER, "a") as file:
            file.write(f"{model.x}-{seed}\\n")
        return helper("beta"), sorted(Base.kind), [s for s in range(seed)]

    LEDGER, *SEEDS = sys.argv[1:]
    if __name__ == "__main__":
        points = [{"model": Model(1), "seed": int(seed)} for seed in SEEDS]
        run = Client().map(train, points, options=SubmitOptions(continue_as="sweep"))
        assert len(run.values(timeout=60)) == len(points) and run.values()[0][0] is True
        print(run.run)
"""


def test_a_sweep_that_is_run_again_by_its_name_keeps_what_is_unchanged(stack: Stack) -> None:
    ledger = stack.files / "ledger"

    def again(*seeds: str, source: str = KEPT, order: str = "0") -> str:
        return run_program(stack, source, str(ledger), *seeds, PYTHONHASHSEED=order)

    run = again("1", "2", "3", order="1")
    assert sorted(ledger.read_text().split()) == ["1-1", "1-2", "1-3"]
    # Another process, in which sets have another order.
    assert [again("1", "2", "3", order=str(order)) for order in range(2, 5)] == [run] * 3
    assert again("1", "5", "3") == run
    assert sorted(ledger.read_text().split()) == ["1-1", "1-2", "1-3", "1-5"]
    edited = KEPT.replace("return helper", "seed += 1\n        return helper")
    assert edited != KEPT and again("1", "5", "3", source=edited) == run
    assert sorted(ledger.read_text().split()) == ["1-1", "1-1", "1-2", "1-3", "1-3", "1-5", "1-5"]


def test_a_dict_is_a_new_run_each_time_unless_it_has_a_name(stack: Stack) -> None:
    config = {"jobs": [{"name": "j", "run": "true"}]}

    def submit(continue_as: str) -> str:
        options = SubmitOptions(continue_as=continue_as, folder=str(stack.files))
        run = stack.client.submit(config, options=options).run
        stack.settle(run)
        return run

    first, second, named, other = submit(""), submit(""), submit("mine"), submit("yours")
    assert len({first, second, named, other}) == 4
    assert submit("mine") == named
    assert stack.client.find_run(named).config == "<mine>"
    assert stack.client.plan(config, options=SubmitOptions(continue_as="mine", folder=str(stack.files))).run == named
    with pytest.raises(UsageError, match="for dicts"):
        stack.client.submit(stack.config(jobs=["true"]), options=SubmitOptions(continue_as="mine"))


def test_results_of_commands_are_typed_and_their_files_are_paths(stack: Stack) -> None:
    jobs = [
        {"name": "good", "run": "echo $x > out.txt; mkdir d; echo 1 > d/in", "output": ["out.txt", "d"],
         "matrix": {"x": [1, 2]}},
        {"name": "bad", "run": "exit 4"},
    ]  # fmt: skip
    run = stack.submit(jobs=jobs)
    stack.settle(run)
    one, two, bad = stack.client.results(run)
    assert [path.relative_to(two.directory) for path in two.files] == [Path("d/in"), Path("out.txt")]
    assert two.files[1].read_text() == "2\n" and two.params == {"x": "2"}
    assert (bad.state, bad.reason, bad.exit_code, bad.files) == ("failed", "exit 4", 4, ())
    assert one.duration is not None and one.duration >= 0
    with pytest.raises(UsageError, match="only jobs of functions"):
        one.value()
    with pytest.raises(UsageError, match="not home yet"):
        replace(bad, outputs="wanted").value()
    with pytest.raises(FunctionError, match=r"could not be brought home: the disk is full"):
        replace(bad, outputs="failed: the disk is full").value()


def test_events_are_told_in_order_and_to_the_end_although_the_maestro_is_killed(stack: Stack) -> None:
    gate = stack.files / "gate"
    jobs = [
        {"name": "a", "run": "true", "cpus": 0.1},
        {"name": "b", "run": f"while ! [ -e {gate} ]; do sleep 0.01; done; exit 3", "cpus": 0.1},
        {"name": "c", "run": f"[ -e {gate} ]", "after": "a", "cpus": 0.1, "retries": 1},
    ]
    submitted = stack.client.submit(stack.config(jobs=jobs))
    events = []
    for event in stack.client.events(submitted.run, since=submitted.since, timeout=60):
        events.append(event)
        if isinstance(event, JobReopened):
            stack.kill_maestro()
            gate.touch()
    assert isinstance(events[-1], RunSettled) and events[-1].state == "failed"
    names = {type(e).__name__ for e in events}
    assert {"JobStarted", "JobEnded", "JobReopened", "MachineChanged", "RunSettled"} == names
    for job, state, reason, code in (
        ("a", "succeeded", "", 0),
        ("b", "failed", "exit 3", 3),
        ("c", "succeeded", "", 0),
    ):
        mine = [e for e in events if not isinstance(e, (MachineChanged, RunSettled)) and e.name == job]
        ended = mine[-1]
        assert isinstance(mine[0], JobStarted) and isinstance(ended, JobEnded)
        assert (ended.state, ended.reason, ended.exit_code) == (state, reason, code)
        assert sum(isinstance(e, JobEnded) for e in mine) == 1
    # Told again from the beginning, it is the same but for starts of attempts that others have followed.
    ends = [e for e in events if isinstance(e, JobEnded)]
    assert [e for e in stack.client.events(submitted.run, timeout=10) if isinstance(e, JobEnded)] == ends


def test_events_end_when_their_time_is_over(stack: Stack) -> None:
    run = stack.submit(jobs=["sleep 600"])
    told = list(stack.client.events(run, timeout=1.0))
    assert not any(isinstance(e, RunSettled) for e in told)
    stack.client.cancel_run(run)
    stack.settle(run)


def test_several_threads_share_one_client(stack: Stack) -> None:
    write(stack.files / "squares.py", "def square(x):\n    return x * x\n")
    source = """
        import threading
        from cloudsend_cli import Client
        from squares import square

        if __name__ == "__main__":
            client, found, problems = Client(), {}, []

            def work(n):
                try:
                    run = client.map(square, [{"x": n}, {"x": n + 1}], cpus=0.1)
                    ended = [e.name for e in run.events(timeout=60) if type(e).__name__ == "JobEnded"]
                    assert len(ended) == 2, ended
                    found[n] = run.values(timeout=60)
                except BaseException as problem:
                    problems.append(problem)
                finally:
                    client.close()

            threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert not problems, problems
            assert found == {n: [n * n, (n + 1) ** 2] for n in range(6)}, found
            print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_no_points_are_no_calls(stack: Stack) -> None:
    run = stack.client.map(len, [], options=SubmitOptions(folder=str(stack.files)))
    assert (len(run), run.values(timeout=60)) == (0, [])


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_functions_are_sent_from_processes_of_any_start_method(stack: Stack, method: str) -> None:
    source = """
        import multiprocessing, sys
        from cloudsend_cli import Client, TaskRunner

        def square(x):
            return x * x

        def work(queue):
            values = Client().map(square, [{"x": 3}]).values(timeout=60)
            sections = {"s": {"g": {"Call": square, "Param": {"x": [4, 5]}, "Async": {"": []}}}}
            queue.put(values + [job.value() for job in TaskRunner(sections).run().jobs])

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            queue = context.SimpleQueue()
            process = context.Process(target=work, args=(queue,))
            process.start()
            print(queue.get())
            process.join()
    """
    assert run_program(stack, source, method) == "[9, 16, 25]\n"


def test_a_client_is_used_before_and_after_a_fork(stack: Stack) -> None:
    source = """
        import multiprocessing
        from cloudsend_cli import Client

        client = Client()

        def square(x):
            return x * x

        def work(x):
            run = client.map(square, [{"x": x}], cpus=0.1)
            return run.values(timeout=60) + [len(client.list_runs()) > 0]

        if __name__ == "__main__":
            assert work(2) == [4, True]
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(work, [3, 4]) == [[9, True], [16, True]]
            assert work(5) == [25, True] and len(client.list_runs()) == 4
            print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_functions_that_were_typed_in_are_sent_as_well(stack: Stack) -> None:
    source = """
        from cloudsend_cli import Client
        SHIFT = 10
        def shift(x):
            return x + SHIFT

        print(Client().map(shift, [{"x": 1}, {"x": 2}]).values(timeout=60))
    """
    for words in (["-c", textwrap.dedent(source)], ["-"], ["-i", "-q"]):
        done = subprocess.run(
            [sys.executable, *words],
            input=textwrap.dedent(source),
            cwd=stack.files,
            env={**os.environ, "CLOUDSEND_HOME": str(stack.state), "PYTHON_BASIC_REPL": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout == "[11, 12]\n", (words, done.stdout, done.stderr)


def test_a_python_config_has_functions_too(stack: Stack) -> None:
    write(stack.files / "beside.py", "def double(x):\n    return 2 * x\n")
    config = write(stack.files / "sweep.py", """
        def work(x):
            import beside
            return beside.double(x)

        config = {"sections": {"s": {"g": {"Call": work, "Param": {"x": [1, 2]}, "Async": {"": []}},
                                     "h": {"Call": "echo"}}}}
    """)  # fmt: skip
    command = [sys.executable, "-m", "cloudsend_cli", "--state-dir", str(stack.state), "run", str(config)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    (run,) = stack.client.list_runs()
    one, two, three = stack.client.results(run.id)
    assert (one.value(), two.value(), three.attempt, one.attempt) == (2, 4, 1, 1)
    write(config, config.read_text().replace('"x": [1, 2]', '"x": 3'))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "sections.s.g: Param.x: expected a list of values" in done.stderr


def test_a_program_without_a_guard_is_not_executed_again(stack: Stack) -> None:
    source = """
        from cloudsend_cli import Client

        print("once")
        print(Client().map(lambda x: -x, [{"x": 1}, {"x": 2}]).values(timeout=60))
    """
    assert run_program(stack, source) == "once\n[-1, -2]\n"


def test_the_handle_waits_no_longer_than_it_is_told_and_cancels(stack: Stack) -> None:
    source = """
        import time
        from cloudsend_cli import Client
        from cloudsend_cli.errors import FunctionError, UsageError, WaitTimeout

        def sleep(s):
            time.sleep(s)

        if __name__ == "__main__":
            run = Client().map(sleep, [{"s": 600}, {"s": 601}])
            assert len(run) == 2 and run.run in repr(run)
            try:
                run.wait(timeout=0.3)
            except WaitTimeout as problem:
                assert str(problem) == f"run {run.run} is not finished after 0.3 s", problem
            try:
                run.results()[0].value()
            except UsageError as problem:
                assert "has not ended" in str(problem)
            run.cancel()
            assert [r.state for r in run.wait(timeout=60)] == ["cancelled", "cancelled"]
            try:
                run.values()
            except FunctionError as problem:
                assert "cancelled" in str(problem)
                print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_waiting_is_possible_from_another_thread_than_submitting(stack: Stack) -> None:
    run = stack.submit(jobs=["sleep 0.2"])
    told: list[str] = []

    def wait() -> None:
        with pytest.raises(WaitTimeout):
            stack.client.wait([run], timeout=0.01)
        told.extend(job.state for job in stack.client.wait([run], timeout=60))
        stack.client.close()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: not thread.is_alive())
    assert told == ["succeeded"]


def test_a_handle_whose_run_went_on_without_its_calls_says_so(stack: Stack) -> None:
    """Seen: of two programs with one `continue_as` the first was given the values of the second as its own."""
    source = """
        from cloudsend_cli import Client, SubmitOptions
        from cloudsend_cli.errors import ConflictError

        def same(x):
            return x

        if __name__ == "__main__":
            options = SubmitOptions(continue_as="sweep")
            first = Client().map(same, [{"x": 1}, {"x": 2}, {"x": 3}], options=options)
            assert first.values(60) == [1, 2, 3]
            second = Client().map(same, [{"x": 3}], options=options)
            assert (second.run, second.values(60)) == (first.run, [3])
            try:
                first.values(60)
            except ConflictError as problem:
                print(problem)
    """
    told = run_program(stack, source)
    assert told.endswith(" was continued without 2 of these 3 calls, which it has ended\n"), told


def test_threads_that_continue_one_run_at_once_never_get_the_values_of_another(stack: Stack) -> None:
    """Seen: the ids of the calls were looked up by name after the submission, when another had come in between."""
    source = """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from cloudsend_cli import Client, SubmitOptions
        from cloudsend_cli.errors import ConflictError

        def same(x):
            return x

        def call(client, x, together):
            together.wait()
            run = client.map(same, [{"x": x}], options=SubmitOptions(continue_as="one"))
            try:
                return run.values(60)
            except ConflictError:
                return None

        if __name__ == "__main__":
            client, told, points = Client(), [], range(4)
            with ThreadPoolExecutor(len(points)) as pool:
                for turn in range(3):
                    together = threading.Barrier(len(points))
                    values = [10 * turn + x for x in points]
                    found = list(pool.map(lambda x: call(client, x, together), values))
                    assert all(value in (None, [x]) for x, value in zip(values, found)), (values, found)
                    told.append(sum(value is not None for value in found))
            assert all(told), told  # who was last has the run
            print("good")
    """
    assert run_program(stack, source) == "good\n"

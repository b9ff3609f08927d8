"""The TaskRunner: functions and commands in sections and groups, and what is wrong with a dict."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from function_scripts import run_program
from real_stack import Stack, wait_for
from timed_tasks import read_tasks, timed_call

from cloudsend_cli import TaskRunner
from cloudsend_cli.errors import ConfigError, ConflictError, JobsFailed, UsageError

SWEEP = """
    import json, os, sys, time
    from cloudsend_cli import TaskRunner

    LEDGER = sys.argv[1]

    def note(group, began, **values):
        with open(LEDGER, "a") as file:
            file.write(json.dumps([group, began, time.time(), values]) + "\\n")

    def search(decay, epoch, size, machine, gpu):
        began = time.time()
        time.sleep(0.02)
        assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CLOUDSEND_SLOT_MACHINE"]) == (str(gpu), str(machine))
        note("search", began, point=[decay, epoch, size], place=[machine, gpu])
        return decay, epoch, size

    def check(level):
        note("check", time.time(), level=level)

    def last():
        note("last", time.time())

    config = {
        "Section: search": {
            "GTX 2080": {
                "Call": search,
                "Param": {"decay": ["exp", "static"], "epoch": [100, 1000], "size": [1e-3, None]},
                "Async": {"machine": [0, 1], "gpu": ["0", "0,1"]},
            },
            "CPU": {"Call": check, "Param": {"level": [1, 2, 3]}, "Async": {"": []}},
        },
        "Another": {"group": {"Call": last}},
    }
    if __name__ == "__main__":
        results = TaskRunner(config).run()
        found = results.group("Section: search", "GTX 2080")
        print(json.dumps([results.state, len(results.jobs), [job.value() for job in found], found[0].params]))
"""


def test_functions_get_their_points_and_the_place_that_they_hold(stack: Stack) -> None:
    import itertools
    import json

    ledger = stack.files / "ledger"
    state, count, values, params = json.loads(run_program(stack, SWEEP, str(ledger)))
    product = [list(row) for row in itertools.product(["exp", "static"], [100, 1000], [1e-3, None])]
    assert (state, count, values) == ("succeeded", 12, product)
    assert params == {"decay": "exp", "epoch": "100", "size": "0.001"}
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    searches = [line for line in lines if line[0] == "search"]
    assert sorted(line[3]["point"] for line in searches if line[3]["point"][2]) == [p for p in product if p[2]]
    places = [[machine, gpu] for machine in (0, 1) for gpu in ("0", "0,1")]
    assert all(line[3]["place"] in places for line in searches)
    for place in places:
        mine = sorted(line[1:3] for line in searches if line[3]["place"] == place)
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(mine)), (place, mine)
    checks = [line for line in lines if line[0] == "check"]
    assert [line[3]["level"] for line in checks] == [1, 2, 3], "without places, one after another"
    (last,) = (line for line in lines if line[0] == "last")
    assert last[1] >= max(line[2] for line in (*searches, *checks)), "a section waits for the one before"


def test_failures_count_and_all_others_are_tried(stack: Stack) -> None:
    source = """
        import os, signal
        from cloudsend_cli import TaskRunner
        from cloudsend_cli.errors import JobsFailed

        def work(x):
            if x == 1:
                raise ValueError("not one")
            if x == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

        config = {"s": {"f": {"Call": work, "Param": {"x": [0, 1, 2, 3]}, "Async": {"": []}},
                        "c": {"Call": "sh -c 'exit $1' word", "Param": {"": [0, 4, "00"]}}},
                  "t": {"after all": {"Call": work, "Param": {"x": [5]}}}}
        if __name__ == "__main__":
            runner = TaskRunner(config)
            try:
                runner.run()
            except JobsFailed as problem:
                assert "3 of 8 tasks failed" in str(problem) and "ValueError: not one" in str(problem), problem
            results = TaskRunner(config).run(check=False)
            assert results.state == "failed" and [job.name for job in results.failed] == ["s/f/1", "s/f/2", "s/c/1"]
            assert [job.reason for job in results.failed] == ["exit 1", "killed by SIGKILL", "exit 4"]
            assert results.group("t", "after all")[0].value() == 5
            print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_an_empty_list_runs_nothing_and_says_so(stack: Stack) -> None:
    marks = stack.files / "marks"
    empty: dict[str, Any] = {"Call": f"touch {marks}", "Param": {"--x": []}}
    with pytest.warns(UserWarning, match="no task is to be run"):
        results = TaskRunner({"s": {"g": empty}}, state_dir=stack.state, folder=stack.files).run()
    assert (results.run, results.jobs, results.state) == ("", (), "succeeded")
    with pytest.warns(UserWarning, match="makes no tasks"):
        sections = {"s": {"g": empty, "h": {"Call": "true"}, "f": {"Call": print, "Param": {"end": []}}}}
        results = TaskRunner(sections, state_dir=stack.state, folder=stack.files).run()
    assert [job.name for job in results.jobs] == ["s/h/0"]
    assert not marks.exists()


def test_lists_of_functions_are_looked_at_as_those_of_commands(stack: Stack) -> None:
    values: list[Any] = [1, 1, 1.0, True, "a", "a", "a", [2], [2]]
    sections = {
        "s": {
            "g": {"Call": function, "Param": {"x": values}, "Async": {"gpu": []}},
            "none": {"Call": function, "Param": {"x": []}, "Async": {"": []}},
        }
    }
    loaded = stack.client.validate({"sections": sections})
    assert [warning.message for warning in loaded.warnings] == [
        "sections.s.g.Async.gpu: an empty list makes no places",
        "sections.s.g.Param.x: '1' is given twice, and so are its tasks",
        "sections.s.g.Param.x: 'a' is given 3 times, and so are its tasks",
        "sections.s.none.Param.x: an empty list makes no tasks",
    ]
    assert len(loaded.spec.jobs) == len(values)
    with pytest.warns(UserWarning, match=r"s\.none\.Param\.x: an empty list makes no tasks"):
        sections = {"s": {"none": sections["s"]["none"], "h": {"Call": "true"}}}
        TaskRunner(sections, state_dir=stack.state, folder=stack.files).run()


def test_nothing_is_printed_unasked_and_a_log_is_written_where_it_is_asked_for(
    stack: Stack, capfd: pytest.CaptureFixture[str]
) -> None:
    log = stack.files / "log"
    sections = {"s": {"g": {"Call": "echo a; exit $CODE", "vars": {"CODE": "3"}}, "h": {"Call": "true"}}}
    quiet = TaskRunner(sections, state_dir=stack.state, folder=stack.files)
    quiet.output_log(log, level=logging.WARNING, filemode="w", format="%(levelname)s %(message)s")
    with pytest.raises(JobsFailed, match=r"1 of 2 tasks failed: s/g/0 \(exit 3\)"):
        quiet.run()
    quiet.close()
    assert capfd.readouterr() == ("", "")
    assert log.read_text() == "ERROR failed: s | g | 0 (exit 3)\n"
    quiet.set_verbose(1)
    quiet.run(check=False)
    out, err = capfd.readouterr()
    assert not out and "started: s | h | 0 on local-0" in err and "machine local-0" not in err
    quiet.set_verbose(0)
    quiet.run(check=False)
    quiet.close()
    assert capfd.readouterr() == ("", "")


def test_options_reach_the_run(stack: Stack, tmp_path: Path) -> None:
    sections = {"s": {"g": {"Call": "echo $WHO > out", "output": "out", "vars": {"WHO": "me"}}}}
    results = TaskRunner(
        sections,
        delay=0,
        provider="local",
        state_dir=str(stack.state),
        results_dir=tmp_path / "here",
        folder=stack.files,
        overrides=["project=mine"],
        continue_as="again",
        settings={"max_parallel": 1},
    ).run()
    assert [path.read_text() for path in results.jobs[0].files] == ["me\n"]
    assert results.jobs[0].files[0].is_relative_to(tmp_path / "here" / results.run)
    assert stack.client.find_run(results.run).project == "mine"
    again = TaskRunner(
        sections, state_dir=stack.state, folder=stack.files, continue_as="again", settings={"project": "mine"}
    )
    assert again.run().run == results.run


def function(x: int) -> int:
    return x


G: dict[str, Any] = {"Call": "true"}
BAD = {
    "no dict": ([], "expected a dict of sections, not a list"),
    "section's name": ({1: {"g": G}}, "the section 1: its name is an int, not a text"),
    "groups": ({"s": [G]}, "the section 's': expected a dict of groups, not a list"),
    "group's name": ({"s": {2: G}}, "the group 2 of the section 's': its name is an int"),
    "group": ({"s": {"g": "true"}}, "the group 'g' of the section 's': expected a dict with 'Call', not a str"),
    "no call": ({"s": {"g": {}}}, "the group 'g' of the section 's': it needs 'Call'"),
    "call": ({"s": {"g": {"Call": 3}}}, "'Call' is a command or a function, not an int"),
    "params": ({"s": {"g": {"Call": "true", "Param": [1]}}}, "'Param' is a dict of names and lists, not a list"),
    "places": ({"s": {"g": {"Call": "true", "Async": 2}}}, "'Async' is a dict of names and lists, not an int"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_dict_of_another_form_is_told_with_its_section_and_group(case: str) -> None:
    config, text = BAD[case]
    with pytest.raises(ConfigError) as told:
        TaskRunner(config)  # type: ignore[arg-type]
    assert text in str(told.value)


def test_all_mistakes_of_a_dict_come_at_once() -> None:
    with pytest.raises(ConfigError) as told:
        TaskRunner({"s": {"g": {"Call": 3}, "h": {"Call": "true", "Param": 1}}, "t": 4})  # type: ignore[dict-item]
    assert len(told.value.problems) == 3


LISTS = {
    "no list": ({"Param": {"x": 3}}, "sections.s.g: Param.x: expected a list of values, not a int"),
    "a flag": ({"Param": {"": [1]}}, "sections.s.g: Param: a function takes arguments by name"),
    "an option": ({"Param": {"--x": [1]}}, "'--x', which is no name"),
    "a place without a name": ({"Async": {"": [0]}}, "sections.s.g: Async: a function takes arguments by name"),
    "twice": ({"Param": {"x": [1]}, "Async": {"x": [0]}}, "sections.s.g: 'x' is in Param and in Async"),
    "a directory": ({"workdir": "d"}, "sections.s.g: 'workdir' cannot be used with a function"),
    "an interpreter": ({"python": 3}, "sections.s.g: 'python' is the command of an interpreter, not a int"),
    "an unknown key": ({"memry": "1GB"}, "memry"),
}


@pytest.mark.parametrize("case", LISTS)
def test_what_a_function_cannot_be_given_is_told_with_its_section_and_group(stack: Stack, case: str) -> None:
    keys, text = LISTS[case]
    runner = TaskRunner({"s": {"g": {"Call": function, **keys}}}, state_dir=stack.state, folder=stack.files)
    with pytest.raises(ConfigError) as told:
        runner.run()
    assert text in str(told.value)
    assert stack.client.list_runs() == []


@pytest.mark.parametrize("delay", [-1, 1e9, float("nan"), "1", True])
def test_a_delay_that_is_no_number_of_seconds_is_refused(delay: Any) -> None:
    with pytest.raises(ConfigError, match="number of seconds"):
        TaskRunner({}, delay=delay)


def test_a_delay_spaces_the_first_tasks_of_places_and_no_others(stack: Stack) -> None:
    ledger = stack.files / "ledger"
    call = timed_call("g", str(ledger), 0.01)
    group = {"Call": call, "Param": {"-n": list(range(12))}, "Async": {"--place": [0, 1, 2]}}
    TaskRunner({"s": {"g": group, "h": {"Call": call}}}, 0.3, state_dir=stack.state).run()
    begun: dict[tuple[str, ...], float] = {}
    tasks = read_tasks(ledger.read_text().splitlines())
    for task in tasks:
        begun.setdefault(task.arguments[2:], task.begun)
    first = sorted(begun.values())
    assert len(tasks) == 13 and set(begun) <= {(), ("--place", "0"), ("--place", "1"), ("--place", "2")}
    assert len(first) >= 2 and all(later - earlier > 0.2 for earlier, later in itertools.pairwise(first))
    between = sorted(task.begun for task in tasks if task.arguments[2:] == ("--place", "0"))
    assert min(later - earlier for earlier, later in itertools.pairwise(between)) < 0.3


def test_no_delay_may_be_written_in_any_way() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for delay in (0, 0.0):
            TaskRunner({"s": {"g": G}}, delay=delay)


def test_a_log_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    runner = TaskRunner({"s": {"g": G}})
    with pytest.raises(UsageError, match="no/log cannot be written"):
        runner.output_log(tmp_path / "no" / "log")


def test_tasks_that_another_runner_has_replaced_are_not_told_as_its_results(stack: Stack) -> None:
    """Seen: the results of whoever continued the run were returned, as those of tasks that were ended."""
    gate, begun = stack.files / "gate", stack.files / "begun"
    os.mkfifo(gate)
    told: list[BaseException] = []

    def make(command: str) -> TaskRunner:
        groups = {"g": {"Call": command}}
        return TaskRunner({"S": groups}, state_dir=stack.state, folder=stack.files, continue_as="one")

    def wait() -> None:
        runner = make(f"sh -c 'touch {begun}; read x <{gate}'")
        try:
            runner.run()
        except BaseException as problem:  # noqa: BLE001
            told.append(problem)
        runner.close()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(begun.exists)
    assert [job.name for job in make("true").run()] == ["S/g/0"]
    wait_for(lambda: not thread.is_alive())
    assert [type(problem) for problem in told] == [ConflictError] and "without 1 of these 1 tasks" in str(told[0])

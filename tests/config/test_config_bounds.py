"""What no host could execute is refused when a config is read, with the place of what is too long."""

from __future__ import annotations

import errno
import os

import pytest

from cloudsend_cli.config.bounds import MOST
from cloudsend_cli.config.load import load_command
from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.limits import REQUEST_MOST, WORD_MOST
from cloudsend_cli.core.model import JobSpec
from cloudsend_cli.engine.wire import render_spec, wire_size
from cloudsend_cli.errors import ConfigError

LONG = "x" * (WORD_MOST + 1)
AS_ONE = "takes {} bytes; Linux passes at most 131,071 as one {}"
ARGUMENT = AS_ONE.format("131,072", "argument")
FILE = "write it to a file, name that in 'upload', and give its path"
SCRIPT = "put it into a script, send that with 'upload', and run it"


def execute(argv: list[str], env: dict[str, str]) -> int:
    """What the agent's start of a job does."""
    return os.waitpid(os.posix_spawn("/bin/true", argv, env), 0)[1]


@pytest.mark.parametrize("name", ["", "A"])
def test_linux_passes_so_much_and_no_more(name: str) -> None:
    def give(size: int) -> int:
        text = "x" * (size - len(name) - bool(name))
        return execute(["true", text] if not name else ["true"], {name: text} if name else {})

    assert give(WORD_MOST) == 0
    if os.sysconf("SC_PAGE_SIZE") == 4096:
        with pytest.raises(OSError, match=os.strerror(errno.E2BIG)):
            give(WORD_MOST + 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("jobs:\n- run: LONG\n", f"2:8: jobs[0].run: the command {ARGUMENT} | {SCRIPT}"),
        ("jobs: LONG\n", f"1:7: jobs.run: the command {ARGUMENT} | {SCRIPT}"),
        ("jobs: {run: a, on_preempt: LONG}\n", f"1:28: jobs.on_preempt: the command {ARGUMENT} | {SCRIPT}"),
        (
            "jobs:\n  run: a\n  vars:\n    B: y\n    A: LONG\n",
            f"5:8: jobs.vars: the variable A {AS_ONE.format('131,074', 'variable, with its name')} | {FILE}",
        ),
        (
            "environments: {vars: {A: LONG}}\njobs: a\n",
            "1:26: environments[0].vars: the variable A "
            f"{AS_ONE.format('131,074', 'variable, with its name')} | {FILE}",
        ),
        (
            "jobs:\n  run: a\n  matrix:\n    p: [y, LONG]\n",
            f"4:12: jobs.matrix.p: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' {ARGUMENT} | {FILE}",
        ),
        (
            "sections: {S: {G: {Call: a, Param: {-p: LONG}}}}\n",
            "1:41: sections.S.G.Param.-p: "
            f"'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' {ARGUMENT} | {FILE}",
        ),
        (
            "sections: {S: {G: {Call: a, Async: {-p: LONG}}}}\n",
            "1:41: sections.S.G.Async.-p: "
            f"'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' {ARGUMENT} | {FILE}",
        ),
        (
            "sections: {S: {G: {Call: a LONG, Param: {-p: 1}}}}\n",
            f"1:26: sections.S.G.Call: the command {AS_ONE.format('131,079', 'argument')} | {SCRIPT}",
        ),
    ],
)
def test_a_word_that_is_too_long_is_told_with_its_place(desk, text: str, problem: str) -> None:
    assert desk.problems(text.replace("LONG", LONG)) == f"config.yml:{problem}"


def test_keys_of_json_may_be_too_long_as_well(desk) -> None:
    found = desk.problems(
        f'{{"sections": {{"S": {{"G": {{"Call": "a", "Param": {{"{LONG}": 1}}}}}}}}}}', "config.json"
    )
    assert found == (
        "config.json:1:50: sections.S.G.Param: the argument "
        f"'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' {ARGUMENT} | {FILE}"
    )


def test_bytes_count_and_not_letters(desk) -> None:
    fits, more = "é" * (WORD_MOST // 2), "é" * (WORD_MOST // 2 + 1)
    assert desk.job(f"jobs: {fits}\n").argv[2] == fits
    assert f"the command {ARGUMENT}" in desk.problems(f"jobs: {more}\n")


def test_what_parameters_fill_in_counts(desk) -> None:
    half = "x" * (WORD_MOST // 2 + 1)
    text = f"jobs:\n- run: echo {{p}} {{p}}\n  matrix: {{p: [y, {half}]}}\n"
    assert desk.problems(text) == (
        f"config.yml:2:8: jobs[0].run: the command {AS_ONE.format('131,078', 'argument')} | {SCRIPT}"
    )
    desk.write("a.py")
    text = f"jobs:\n- script: a.py --x={{p}}{{p}}\n  matrix: {{p: [y, {half}]}}\n"
    assert desk.problems(text) == (
        f"config.yml:2:11: jobs[0].script: an argument {AS_ONE.format('131,076', 'argument')} | {FILE}"
    )
    text = f"jobs:\n  run: a\n  vars: {{A: '{{p}}{{p}}'}}\n  matrix: {{p: [{half}]}}\n"
    assert "config.yml:3:13: jobs.vars: the variable A takes 131,074 bytes" in desk.problems(text)


def test_a_parameter_is_a_variable_with_its_name(desk) -> None:
    value = "x" * (WORD_MOST - len("p="))
    assert desk.job(f"jobs: {{run: echo, matrix: {{p: {value}}}}}\n").env == (("p", value),)
    assert desk.problems(f"jobs: {{run: echo, matrix: {{pq: {value}}}}}\n") == (
        f"config.yml:1:27: jobs.matrix: the variable pq {AS_ONE.format('131,072', 'variable, with its name')} | {FILE}"
    )
    value = "x" * (WORD_MOST - len("CLOUDSEND_SLOT_GPU="))
    problems = desk.problems(f"sections: {{S: {{G: {{Call: a, Async: {{gpu: {value}x}}}}}}}}\n")
    assert problems.startswith("config.yml:1:42: sections.S.G.Async.gpu: a value takes 131,072 bytes")
    assert desk.jobs(f"sections: {{S: {{G: {{Call: a, Async: {{gpu: {value}}}}}}}}}\n")[0].slot_args


def test_a_variable_of_the_shell_is_never_shown(desk) -> None:
    found = desk.problems("jobs: {run: a, vars: {KEY: null}}\n", environ={"KEY": "s3cret" * 30_000})
    assert found.startswith("config.yml:1:23: jobs.vars: KEY of your shell takes 180,004 bytes; Linux passes at most")
    assert "s3cret" not in found


def test_a_command_of_words_that_are_too_long(desk) -> None:
    with pytest.raises(ConfigError) as caught:
        load_command(["echo", LONG], desk.options(), cwd=desk.folder)
    (problem,) = caught.value.problems
    assert (str(problem.place), problem.message) == ("command line", f"jobs[0].run: an argument {ARGUMENT}")


def request_size(job: JobSpec) -> int:
    return wire_size(render_spec(AttemptStart("abcdef.0.1", job), {}, {}, "abcdef"))


def test_all_words_together_have_a_limit_below_what_a_request_holds(desk) -> None:
    def config(count: int) -> str:
        words = "".join(f"    A{n}: {'x' * 100_000}\n" for n in range(count))
        return f"jobs:\n- run: a\n  vars:\n{words}"

    assert request_size(desk.job(config(8))) + 100_000 > MOST
    assert request_size(desk.job(config(8))) < REQUEST_MOST
    assert desk.problems(config(9)) == (
        "config.yml:4:5: jobs[0].vars: the command and the variables of one job take 900,118 bytes; "
        f"the limit is 870,000 | {FILE}"
    )


def test_a_list_of_files_has_the_same_limit(desk) -> None:
    for n in range(3500):
        desk.write(f"data/{n:04}-{'x' * 200}", "")
    job = desk.job("jobs:\n- run: a\n  upload: data/[0-1]*\n")
    assert len(job.uploads) == 2000
    assert 103 * 2000 < request_size(job) < REQUEST_MOST
    assert desk.problems("jobs:\n- run: a\n  upload: data\n") == (
        "config.yml:3:11: jobs[0].upload: the command, the variables and the list of 3,500 files of one job take "
        "1,102,530 bytes; the limit is 870,000 | pack the files into an archive, and unpack it in the job"
    )


def test_the_place_of_a_task_counts(desk) -> None:
    """Its values are arguments and variables of each task that has it, and one for GPUs is there three times."""

    def config(arguments: int, **places: int) -> str:
        own = "".join(f", -{n}: {'x' * 130_000}" for n in range(arguments))
        theirs = ", ".join(f"--{name}: [{size}, {'y' * size}]" for name, size in places.items())
        return f"sections:\n  S:\n    G:\n      Call: a\n      Param: {{n: 1{own}}}\n      Async: {{{theirs}}}\n"

    job = desk.jobs(config(3, gpu=120_000))[0]
    start = AttemptStart("abcdef.0.1", job, slot=1, pairs=(("--gpu", "y" * 120_000),))
    assert MOST - 130_000 < wire_size(render_spec(start, {}, {}, "abcdef")) < REQUEST_MOST
    told = "the command and the variables of one task in its place take {} bytes; the limit is 870,000"
    found = desk.problems(config(4, gpu=120_000))
    assert found == f"config.yml:4:13: sections.S.G.Call: {told.format('880,176')} | {FILE}"
    found = desk.problems(config(2, gpu=125_000, b=125_000))
    assert found == f"config.yml:6:14: sections.S.G.Async: {told.format('885,201')} | {FILE}"

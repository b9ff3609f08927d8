"""`sample` and `from_files` of a matrix."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
HUGE = "a: {range: [1, 600]}, b: {range: [1, 600]}, c: {range: [1, 600]}"


def rows(desk, matrix: str, top: str = "", **options: object) -> list[tuple[str, ...]]:
    jobs = desk.jobs(f"{top}jobs: {{run: echo, matrix: {{{matrix}}}}}\n", **options)
    return [tuple(value for _, value in job.params) for job in jobs]


# ---- sample --------------------------------------------------------------------------------------------------------


@QUICK
@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 6), st.integers(1, 6))
def test_a_sample_is_some_of_the_product_in_its_order(desk, number: int, seed: int, a: int, b: int) -> None:
    axes = f"a: {{range: [1, {a}]}}, b: {{range: [1, {b}]}}"
    every = rows(desk, axes)
    assert len(every) == a * b
    drawn = rows(desk, f"{axes}, sample: {number}", f"seed: {seed}\n")
    assert len(drawn) == min(number, a * b)
    assert drawn == [row for row in every if row in drawn]
    assert drawn == rows(desk, f"{axes}, sample: {number}", f"seed: {seed}\n")
    assert drawn == rows(desk, f"sample: {{number: {number}, seed: {seed}}}, {axes}", "seed: 77\n")
    assert set(drawn) <= set(rows(desk, f"{axes}, sample: {number + 1}", f"seed: {seed}\n"))


@pytest.mark.parametrize("axes", ["a: {range: [1, 30]}, b: {range: [1, 30]}", HUGE])
def test_seeds_differ(desk, axes: str) -> None:
    found = {tuple(rows(desk, f"{axes}, sample: 10", f"seed: {seed}\n")) for seed in range(5)}
    assert len(found) == 5
    assert tuple(rows(desk, f"{axes}, sample: 10")) in found  # the seed is 0 where none is given


def test_a_product_that_is_too_large_to_write_out_can_be_sampled(desk) -> None:
    drawn = rows(desk, f"{HUGE}, sample: 50")
    assert len(set(drawn)) == 50
    assert drawn == sorted(drawn, key=lambda row: [int(value) for value in row])
    assert set(drawn) < set(rows(desk, f"{HUGE}, sample: 100"))
    kept = rows(desk, f"{HUGE}, sample: 50, exclude: {{a: {[n for n in range(1, 601) if n % 2]}}}")
    assert len(kept) == 50 and not any(int(a) % 2 for a, _, _ in kept)
    none = f"{HUGE}, sample: 5, exclude: {{a: {list(range(1, 601))}}}"
    assert "found only 0 of 5 combinations that 'exclude' leaves" in desk.problems(
        f"jobs: {{run: echo, matrix: {{{none}}}}}\n"
    )
    assert "makes 216,000,000 jobs; the limit is 1,000,000" in desk.problems(
        f"jobs: {{run: echo, matrix: {{{HUGE}}}}}\n"
    )


def test_a_sample_is_of_what_exclude_leaves_and_include_is_added(desk) -> None:
    drawn = rows(desk, "a: [1, 2, 3, 4], exclude: [{a: 2}, {a: 3}], include: [{a: 9}], sample: 2")
    assert drawn == [("1",), ("4",), ("9",)]
    zipped = rows(desk, "zip: {a: [1, 2, 3], b: [x, y, z]}, sample: 2")
    assert len(zipped) == 2 and set(zipped) < {("1", "x"), ("2", "y"), ("3", "z")}


def test_more_than_there_are_is_told(desk) -> None:
    text = "jobs: {run: echo, matrix: {a: [1, 2], sample: 3}}\n"
    assert desk.warnings(text) == "config.yml:1:47: jobs.matrix.sample: 3 of only 2 combinations: all are taken"
    assert len(desk.jobs(text)) == 2


def test_a_parameter_may_be_called_sample(desk) -> None:
    assert rows(desk, "sample: [s1, s2]") == [("s1",), ("s2",)]
    assert rows(desk, "sample: s1") == [("s1",)]
    assert rows(desk, "sample: {range: [1, 2]}") == [("1",), ("2",)]
    assert rows(desk, "sample: ['3']") == [("3",)]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("0", "jobs.matrix.sample.number: '0' must be from 1 to 1000000"),
        ("1.5", "jobs.matrix.sample.number: '1.5' is not a whole number"),
        ("{}", "jobs.matrix.sample: needs 'number'"),
        ("{seed: 1}", "jobs.matrix.sample: needs 'number'"),
        ("{number: x}", "jobs.matrix.sample.number: 'x' is not a number"),
        ("{number: 1, seed: -1}", "jobs.matrix.sample.seed: '-1' must be from 0 to 1000000000000000000"),
        ("{number: 1, sed: 1}", "unknown key 'sed' in jobs.matrix.sample | did you mean 'seed'?"),
    ],
)
def test_samples_that_are_wrong(desk, sample: str, message: str) -> None:
    problems = desk.problems(f"jobs: {{run: echo, matrix: {{a: 1, sample: {sample}}}}}\n")
    assert message in problems and problems.count("\n") == 0


# ---- from_files ----------------------------------------------------------------------------------------------------


def test_files_are_values_and_are_sent(desk) -> None:
    for name in ("data/b.csv", "data/a.csv", "data/sub/c.csv", "data/.hidden.csv", "data/x.txt", "data/d.csv/in"):
        desk.write(name)
    text = "jobs: {run: 'python a.py {data}', matrix: {data: {from_files: data/*.csv}}}\n"
    jobs = desk.jobs(text)
    assert [job.params for job in jobs] == [(("data", "data/a.csv"),), (("data", "data/b.csv"),)]
    assert [[u.path for u in job.uploads] for job in jobs] == [["data/a.csv"], ["data/b.csv"]]
    assert jobs[0].argv[2] == "python a.py data/a.csv"
    assert rows(desk, "x: {from_files: 'data/**/*.csv'}") == [("data/a.csv",), ("data/b.csv",), ("data/sub/c.csv",)]
    assert rows(desk, "x: {from_files: [data/x.txt, data/*.txt, data/b.csv]}") == [("data/x.txt",), ("data/b.csv",)]
    assert rows(desk, "zip: {x: {from_files: data/*.csv}, y: [1, 2]}") == [("data/a.csv", "1"), ("data/b.csv", "2")]


def test_files_are_found_beside_the_config_wherever_it_is_run(desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.write("sub/d/a.csv")
    desk.write("sub/c.yml", "jobs: {run: 'cat {d}', matrix: {d: {from_files: d/*}}}\n")
    for place in (".", "sub", "/"):
        monkeypatch.chdir(desk.folder / place)
        (job,) = desk.load(name=str(desk.folder / "sub" / "c.yml")).spec.jobs
        assert job.params == (("d", "d/a.csv"),) and [u.path for u in job.uploads] == ["d/a.csv"]


def test_names_of_files_are_never_options_or_shell_text(desk) -> None:
    for name in ("-rf", "a;touch owned", "$(touch owned)", "b c"):
        desk.write(name)
    jobs = desk.jobs("jobs: {run: 'cat {d}', matrix: {d: {from_files: '*[!l]'}}}\n")
    assert [job.params[0][1] for job in jobs] == ["$(touch owned)", "./-rf", "a;touch owned", "b c"]
    assert [[u.path for u in job.uploads] for job in jobs] == [["$(touch owned)"], ["-rf"], ["a;touch owned"], ["b c"]]
    assert [job.argv[2] for job in jobs] == ["cat '$(touch owned)'", "cat ./-rf", "cat 'a;touch owned'", "cat 'b c'"]


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("'*.none'", "no file fits '*.none'"),
        ("none.csv", "no such file: 'none.csv'"),
        ("data", "no file fits 'data'"),
        ("../*", "'../*' leads out of the config's directory"),
        ("data/../../x", "'data/../../x' leads out of the config's directory"),
        ("/etc/*", "'/etc/*' leads out of the config's directory"),
        ("~/x", "'~/x' leads out of the config's directory"),
        ("out", "'out' is a symbolic link that leads outside, to /etc/hostname"),
        ("'ou*'", "'out' is a symbolic link that leads outside, to /etc/hostname"),
        ("[]", "'from_files' takes a path or a glob"),
        ("''", "'from_files' takes a path or a glob"),
        ("{a: b}", "a parameter's value is a text or a number, not a mapping"),
    ],
)
def test_files_that_cannot_be_values(desk, glob: str, message: str) -> None:
    desk.write("data/a.csv")
    Path("out").symlink_to("/etc/hostname")
    text = f"jobs: {{run: 'cat {{d}}', matrix: {{d: {{from_files: {glob}}}}}}}\n"
    assert desk.problems(text).split(" | ")[0].split(": ", 1)[1] == f"jobs.matrix.d: {message}"


def test_what_is_left_out_of_uploads_is_left_out_here(desk) -> None:
    desk.write(".cloudsendignore", "*.tmp\n")
    for name in ("a.csv", "b.tmp", "id_ed25519", "results/old.csv", "x.pem"):
        desk.write(name)
    assert rows(desk, "x: {from_files: '**/*'}") == [("a.csv",), ("config.yml",)]
    Path("link.csv").symlink_to("a.csv")
    assert rows(desk, "x: {from_files: '*.csv'}") == [("a.csv",), ("link.csv",)]
    os.mkfifo("pipe.csv")
    assert rows(desk, "x: {from_files: '*.csv'}") == [("a.csv",), ("link.csv",)]


def test_the_documented_operators_are_in_the_schema() -> None:
    from cloudsend_cli.config.json_schema import config_schema

    text = str(config_schema()["$defs"])
    assert all(re.search(rf"'{word}'", text) for word in ("sample", "from_files", "Param", "async", "group"))

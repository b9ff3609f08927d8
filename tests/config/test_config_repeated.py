"""What is given several times in a sweep is told, and whether it makes more jobs or not."""

from __future__ import annotations

import pytest

MATRIX = """
jobs:
  - run: a {lr}
    matrix:
      lr:
        - 1e-3
        - 0.1
        - 1e-3
        - 0.1
        - 1e-3
"""


def test_repeated_values_of_a_matrix_make_one_job_and_are_told(desk) -> None:
    loaded = desk.load(MATRIX)
    assert [job.params for job in loaded.spec.jobs] == [(("lr", "1e-3"),), (("lr", "0.1"),)]
    assert [(str(w.place), w.message, w.hint) for w in loaded.warnings] == [
        ("config.yml:8:11", "jobs[0].matrix.lr: '1e-3' is given 3 times, and counts once", "first given on line 6"),
        ("config.yml:9:11", "jobs[0].matrix.lr: '0.1' is given twice, and counts once", "first given on line 7"),
    ]
    assert loaded.spec.warnings[0] == (
        "config.yml:8:11: jobs[0].matrix.lr: '1e-3' is given 3 times, and counts once"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("matrix", "count", "told"),
    [
        ("{a: [1, 1.0, 01, x]}", 4, ""),  # other texts are other arguments
        ("{a: [1, '1']}", 1, "1:33: jobs[0].matrix.a: '1' is given twice, and counts once"),
        ("{zip: {a: [1, 1, 2], b: [x, y, x]}}", 3, ""),
        (
            "{zip: {a: [1, 2, 1], b: [x, y, x]}}",
            2,
            "1:42: jobs[0].matrix.zip: 'a: 1, b: x' is given twice, and counts once",
        ),
        (
            "{a: [1, 2], include: [{a: 3}, {a: 2}, {a: 3}]}",
            3,
            "1:55: jobs[0].matrix.include[1]: this combination is there already, and counts once\n"
            "1:63: jobs[0].matrix.include[2]: this combination is there already, and counts once",
        ),
        ("{a: [1, 2], sample: 1, include: [{a: 1}, {a: 2}]}", 2, ""),  # one of them was drawn as well
        ("{a: {log: [1, 2, 3]}}", 3, ""),
        ("{a: {log: [1, 1.000004, 9]}}", 2, "1:35: jobs[0].matrix.a: makes only 2 values that differ in six digits"),
    ],
)
def test_what_makes_no_further_job_is_told(desk, matrix: str, count: int, told: str) -> None:
    loaded = desk.load(f"jobs: [{{run: a, matrix: {matrix}}}]\n")
    assert len(loaded.spec.jobs) == count
    assert "\n".join(f"{w.line}:{w.column}: {w.message}" for w in loaded.warnings) == told


def test_repeated_values_of_param_make_tasks_again_and_are_told(desk) -> None:
    loaded = desk.load("sections: {S: {G: {Call: a, Param: {--lr: [0.1, 0.2, 0.1], '': [x, x]}}}}\n")
    assert [job.argv[4:] for job in loaded.spec.jobs] == [
        ("--lr", lr, "x") for lr in ("0.1",) * 2 + ("0.2",) * 2 + ("0.1",) * 2
    ]
    assert [(str(w.place), w.message) for w in loaded.warnings] == [
        ("config.yml:1:54", "sections.S.G.Param.--lr: '0.1' is given twice, and so are its tasks"),
        ("config.yml:1:68", "sections.S.G.Param.: 'x' is given twice, and so are its tasks"),
    ]


def test_repeated_places_are_wanted_and_not_told(desk) -> None:
    assert desk.warnings("sections: {S: {G: {Call: a, Async: {--gpu: [0, 0, 1]}}}}\n") == ""


def test_many_repeated_values_are_told_in_part(desk) -> None:
    values = ", ".join(str(n % 1000) for n in range(3000))
    loaded = desk.load(f"jobs: {{run: a, matrix: {{n: [{values}]}}}}\n")
    assert (len(loaded.spec.jobs), len(loaded.warnings)) == (1000, 200)

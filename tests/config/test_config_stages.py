"""Who waits for whom, what jobs share, what they get more of: `after`, `after_any`, stages, slots, limits, memory."""

from __future__ import annotations

import pytest

from cloudsend_cli.config.load import ProviderInfo
from cloudsend_cli.core.model import JobGroup, Resources

CHAIN = """
jobs:
  - {run: a, name: a, after: b}
  - {run: b, name: b, after_any: c}
  - {run: c, name: c, %s}
"""


def test_jobs_wait_for_others_and_for_the_end_of_others(desk) -> None:
    job = desk.jobs("jobs: [{run: a, repeat: 3}, {run: b, after: a-0, after_any: [a-*, a-*]}]\n")[-1]
    assert (job.after, job.after_any) == (("a-0",), ("a-*",))


@pytest.mark.parametrize("key", ["after", "after_any"])
def test_cycles_are_found_through_both_keys(desk, key: str) -> None:
    problems = desk.problems(CHAIN % f"{key}: a")
    assert problems.startswith("config.yml:5:") and problems.count("\n") == 0, problems
    assert "jobs wait for each other: a -> b -> c -> a | an arrow means 'runs after'" in problems
    assert desk.problems(f"jobs: {{run: a, name: a, {key}: a}}\n").endswith(
        f"jobs.{key}: the job 'a' waits for itself"
    )
    text = f"jobs: [{{run: a, name: x, {key}: y}}]\n"
    assert desk.problems(text) == f"config.yml:1:{33 + len(key) - 5}: jobs[0].{key}: no job is called 'y'"
    text = f"jobs: {{run: a, matrix: {{x: [1, 2]}}, {key}: 'a-{{x}}'}}\n"
    assert f"parameters are not replaced in '{key}'" in desk.problems(text)


def test_a_job_between_sections(desk) -> None:
    text = """
jobs: {run: m, name: middle, after: A/*}
sections:
  A: {G: {Call: a}, H: {Call: b}}
  B: {G: {Call: c, after_any: middle}}
"""
    assert [(job.name, job.stage) for job in desk.jobs(text)] == [
        ("middle", 0), ("A/G/0", 1), ("A/H/0", 1), ("B/G/0", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cycle"),
    [
        (
            "jobs: {run: m, name: m, after: C/G/0}\nsections:\n  A: {G: {Call: a, after_any: m}}\n"
            "  B: {G: {Call: b}}\n  C: {G: {Call: c}}\n",
            "m -> C/G/0 -> (the end of section 'B') -> B/G/0 -> (the end of section 'A') -> A/G/0 -> m",
        ),
        (
            "sections:\n  A: {G: {Call: a, after: B/*}}\n  B: {G: {Call: b}}\n",
            "A/G/0 -> B/G/0 -> (the end of section 'A') -> A/G/0",
        ),
        (
            "sections:\n  A: {G: {Call: a, after: A/H/*}, H: {Call: b, after: A/G/*}}\n",
            "A/G/0 -> A/H/0 -> A/G/0",
        ),
    ],
)
def test_stages_count_in_cycles(desk, text: str, cycle: str) -> None:
    problems = desk.problems(text)
    assert problems.count("\n") == 0
    assert f"jobs wait for each other: {cycle} |" in problems


def test_groups_of_a_section_may_wait_for_each_other(desk) -> None:
    jobs = desk.jobs("sections: {A: {G: {Call: a, Param: {-x: [1, 2]}}, H: {Call: b, after: A/G/*}}}\n")
    assert [job.after for job in jobs] == [(), (), ("A/G/*",)]
    assert "waits for itself" in desk.problems("sections: {A: {G: {Call: a, after: A/G/0}}}\n")
    assert "fits jobs of the same entry" in desk.problems(
        "sections: {A: {G: {Call: a, Param: {-x: [1, 2]}, after: A/*}}}\n"
    )


def test_many_sections_and_groups_are_checked_quickly(desk) -> None:
    groups = "".join(f"    g{n}: {{Call: a, after: first}}\n" for n in range(400))
    text = "jobs: {run: a, name: first}\nsections:\n" + "".join(f"  s{n}:\n{groups}" for n in range(20))
    jobs = desk.jobs(text)
    assert len(jobs) == 8001 and jobs[-1].stage == 20


# ---- limits and places ---------------------------------------------------------------------------------------------


def test_max_parallel_of_an_entry_is_a_group_of_its_jobs(desk) -> None:
    text = """
jobs:
  - {name: 'train-{lr}', run: a, matrix: {lr: [1, 2]}, max_parallel: 1}
  - {run: b, repeat: 3, max_parallel: 2}
  - {name: b, run: c, matrix: {x: [1, 2]}, max_parallel: 5}
  - {name: '{x}', run: d, matrix: {x: [1, 2]}, max_parallel: 6}
  - {run: e}
sections: {train: {b: {Call: f, max_parallel: 9}}}
"""
    spec = desk.load(text).spec
    assert spec.groups == (
        JobGroup("train", (), 1), JobGroup("b", (), 2), JobGroup("b-2", (), 5), JobGroup("jobs[3]", (), 6),
        JobGroup("train/b", ((),), 9, "train"),
    )  # fmt: skip
    assert [job.group for job in spec.jobs] == ["train"] * 2 + ["b"] * 3 + ["b-2"] * 2 + ["jobs[3]"] * 2 + [
        "", "train/b",
    ]  # fmt: skip
    assert {job.resources.cpus for job in spec.jobs[:-1]} == {1} and not any(job.slot_args for job in spec.jobs)


def test_max_parallel_of_one_job_is_told(desk) -> None:
    text = "jobs: {run: a, max_parallel: 2}\n"
    assert desk.warnings(text) == "config.yml:1:16: jobs.max_parallel has no effect: this is one job"
    assert desk.load(text).spec.groups == () and desk.job(text).group == ""


def test_places_of_a_machine(desk) -> None:
    assert desk.job("jobs: {run: a, slots: port-80}\n").slots == ("port-80",)
    assert desk.job("jobs: {run: a, slots: [a, b, a]}\n").slots == ("a", "b")
    for word in ("env-x", "tool-apt"):
        assert desk.problems(f"jobs: {{run: a, slots: {word}}}\n") == (
            f"config.yml:1:23: jobs.slots: '{word}' may not begin with 'env-' or 'tool-'"
        )
    assert "is not one word" in desk.problems("jobs: {run: a, slots: 'a b'}\n")


# ---- memory, seed, sizes -------------------------------------------------------------------------------------------


def test_memory_that_grows(desk) -> None:
    def factor(keys: str) -> tuple[float, str]:
        text = f"jobs: {{run: a, {keys}}}\n"
        return desk.job(text).memory_factor, desk.warnings(text)

    assert factor("memory: 1GB, retries: 1, retry_memory_factor: 1.5") == (1.5, "")
    assert factor("retry_memory_factor: 1") == (1.0, "")
    place = "config.yml:1:16: jobs.retry_memory_factor has no effect without"
    assert factor("retry_memory_factor: 2") == (2.0, f"{place} 'memory' and 'retries'")
    assert factor("retry_memory_factor: 2, memory: 1GB, retries: 0") == (2.0, f"{place} 'retries'")
    for value in ("0.9", "101", "x", "[1]"):
        assert "jobs.retry_memory_factor" in desk.problems(f"jobs: {{run: a, retry_memory_factor: {value}}}\n")


def test_the_seed_of_a_run(desk) -> None:
    assert desk.load("seed: 1e3\nassign: random\njobs: a\n").spec.settings == (("assign", "random"), ("seed", "1000"))
    assert desk.load("jobs: a\n").spec.settings == ()
    assert desk.load("jobs: a\n").origins["seed"] == ("0", "default")
    assert desk.warnings("job_assign: multi_knapsack\njobs: a\n") == ""
    for value in ("-1", "1.5", "x"):
        assert "config.yml:1:7: seed: " in desk.problems(f"seed: {value}\njobs: a\n")


MACHINES = {
    "small": Resources(2, 4_000_000_000, 0),
    "gpu": Resources(4, 8_000_000_000, 2),
    "big": Resources(64, 256_000_000_000, 0),
}
THREE = "provider: small\ninstances: [{provider: small}, {provider: gpu}, {provider: big}]\n"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("cpus: 64", ""),
        ("memory: 256GB", ""),
        ("gpu: 2, cpus: 4", ""),
        ("cpus: 65", "wants 65 CPUs; the largest machine has 64 CPUs, 256 GB of memory and 0 GPUs"),
        ("memory: 300GB", "wants 300 GB of memory; the largest machine has 64 CPUs, 256 GB of memory and 0 GPUs"),
        ("gpu: 3", "wants 3 GPUs; the largest machine has 4 CPUs, 8 GB of memory and 2 GPUs"),
        (
            "gpu: 1, cpus: 8",
            "wants 8 CPUs and 1 GPU on one machine; the largest machine has 4 CPUs, 8 GB of memory and 2 GPUs",
        ),
    ],
)
@pytest.mark.parametrize("form", ["jobs: {{run: a, {}}}\n", "sections: {{S: {{G: {{Call: a, {}}}}}}}\n"])
def test_a_job_that_fits_nowhere(desk, form: str, keys: str, problem: str) -> None:
    known = {name: ProviderInfo(name, "ssh", {}, size) for name, size in MACHINES.items()}
    context = desk.context(providers=known)
    text = THREE + form.format(keys)
    if not problem:
        assert len(desk.load(text, context=context).spec.jobs) == 1
        return
    path = "jobs" if form.startswith("jobs") else "sections.S.G"
    assert desk.problems(text, context=context).endswith(f"{path} {problem}")


def test_memory_that_was_found_is_told_as_lists_have_it_as_well(desk) -> None:
    here = {"here": ProviderInfo("here", "ssh", {}, Resources(4.0, 47 * (1 << 29), 0))}
    found = desk.problems("provider: here\njobs: {run: a, memory: 64GB}\n", context=desk.context(providers=here))
    has = "4 CPUs, 25.23 GB (23.5 GiB) of memory and 0 GPUs"
    assert found.endswith(f"jobs wants 64 GB of memory; the largest machine has {has}")


def test_a_group_without_tasks_is_not_waited_for(desk) -> None:
    text = "sections: {A: {g/x: {Call: a, Param: {-x: []}}}, B: {h: {Call: b, after: [A/g/x/*, 'A/*']}}}\n"
    loaded = desk.load(text)
    assert [job.name for job in loaded.spec.jobs] == ["B/h/0"]
    told = [w.message for w in loaded.warnings]
    assert [f"sections.B.h.after: 'A/{glob}*' has no tasks, and is not waited for" for glob in ("g/x/", "")] == told[
        1:
    ]
    assert "no job fits 'C/*'" in desk.problems(text.replace("'A/*'", "'C/*'"))


def test_a_section_is_known_apart_from_a_group_with_a_slash(desk) -> None:
    (group,) = desk.load("sections: {S 1: {g/x: {Call: a}}}\n").spec.groups
    assert (group.name, group.section) == ("S 1/g/x", "S 1")

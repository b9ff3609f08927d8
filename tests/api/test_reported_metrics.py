"""What jobs report, from their own words to lists and tables, with a real maestro and a real agent."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_stack import Stack, wait_for

from cloudsend_cli.engine import reports
from cloudsend_cli.engine.result_tables import CSV, JSON, MARKER

TRAIN = """
echo "epoch 1"; echo "CLOUDSEND_METRIC loss=0.9"; echo "CLOUDSEND_METRIC loss=0.$1 acc=1e-3"
echo "CLOUDSEND_METRIC from=stderr acc=2" >&2
echo "file=yes" >> "$CLOUDSEND_METRICS"; echo out > out.txt
"""


def read_tables(
    stack: Stack, run: str, folder: Path | None = None
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    place = folder or Path(stack.client.find_run(run).results_dir)
    with (place / CSV).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), json.loads((place / JSON).read_text())


def sweep(stack: Stack, values: list[int]) -> dict[str, object]:
    (stack.files / "train.sh").write_text(TRAIN)
    job = {
        "name": "train",
        "run": "sh train.sh {lr}",
        "upload": "train.sh",
        "output": "out.txt",
        "matrix": {"lr": values},
        "cpus": 0.1,
    }
    return {"jobs": [job]}


def test_metrics_of_a_sweep_are_in_lists_and_tables_when_it_has_settled(shared: Stack) -> None:
    run = shared.submit(**sweep(shared, [1, 2]))
    shared.settle(run)
    views = sorted(shared.client.list_jobs(run), key=lambda job: job.params["lr"])
    assert [dict(job.metrics) for job in views] == [
        {"from": "stderr", "acc": "1e-3", "loss": f"0.{lr}", "file": "yes"} for lr in (1, 2)
    ]
    rows, objects = read_tables(shared, run)
    assert [(row["param.lr"], row["metric.loss"], row["state"]) for row in rows] == [
        ("1", "0.1", "succeeded"),
        ("2", "0.2", "succeeded"),
    ]
    assert [row["metrics"] for row in objects] == [dict(job.metrics) for job in shared.client.list_jobs(run)]
    assert all(float(row["duration"]) >= 0 for row in rows)


def test_a_run_that_is_continued_has_its_tables_written_again(shared: Stack) -> None:
    run = shared.submit(**sweep(shared, [1]))
    shared.settle(run)
    assert len(read_tables(shared, run)[0]) == 1
    assert shared.submit(**sweep(shared, [1, 2, 3])) == run
    shared.settle(run)
    assert [row["param.lr"] for row in read_tables(shared, run)[0]] == ["1", "2", "3"]
    assert not list(Path(shared.client.find_run(run).results_dir).glob("results~*"))


def test_a_run_that_has_nothing_to_tell_makes_no_directory_until_it_is_fetched(shared: Stack) -> None:
    run = shared.submit(jobs=["true"])
    shared.settle(run)
    wait_for(lambda: run not in shared.client.maestro_status().runs)
    folder = Path(shared.client.find_run(run).results_dir)
    assert not folder.exists()
    assert shared.client.fetch(run) == []
    assert [row["name"] for row in read_tables(shared, run)[0]] == [shared.client.list_jobs(run)[0].name]


def test_fetch_puts_the_tables_where_it_is_asked_to(shared: Stack) -> None:
    run = shared.submit(**sweep(shared, [1, 2]))
    shared.settle(run)
    elsewhere = shared.files / "elsewhere"
    assert len(shared.client.fetch(run, str(elsewhere))) == 2
    assert read_tables(shared, run, elsewhere / run) == read_tables(shared, run)
    shared.client.fetch(shared.client.list_jobs(run)[0].id, str(shared.files / "one"))
    assert not (shared.files / "one" / run / CSV).exists(), "one job was asked for"


def test_tables_that_cannot_be_written_are_a_note_and_the_run_succeeds(shared: Stack) -> None:
    config = {**sweep(shared, [1]), "results_dir": "mine"}
    del config["jobs"][0]["output"]  # type: ignore[index]
    (shared.files / "mine").write_text("a file is in the way")
    run = shared.submit(**config)
    assert shared.settle(run).counts["succeeded"] == 1
    wait_for(lambda: "the table of results was not written" in shared.client.maestro_log(200))
    assert (shared.files / "mine").read_text() == "a file is in the way"


def test_a_new_attempt_has_metrics_of_its_own(shared: Stack) -> None:
    flag = shared.files / "flag"
    script = f"""
if test -e {flag}; then echo CLOUDSEND_METRIC second=2; exit 0; fi
echo CLOUDSEND_METRIC first=1; touch {flag}; exit 1
"""
    run = shared.submit(jobs=[{"name": "j", "run": script, "retries": 1}])
    shared.settle(run)
    job = shared.jobs(run)["j"]
    assert (job.attempt, dict(job.metrics)) == (2, {"second": "2"})


@pytest.mark.parametrize("victim", ["agent", "maestro"])
def test_after_kill_9_nothing_of_it_is_lost_or_doubled(stack: Stack, victim: str) -> None:
    gate = stack.files / "gate"
    os.mkfifo(gate)
    script = (
        f"echo CLOUDSEND_METRIC a=1; echo b=1 >> $CLOUDSEND_METRICS; read x < {gate}; echo b=2 >> $CLOUDSEND_METRICS"
    )
    run = stack.submit(jobs=[{"name": "j", "run": script}])
    wait_for(lambda: any(p.stat().st_size for p in stack.home.glob("attempts/*/metrics")))
    kill: dict[str, Callable[[], None]] = {"agent": stack.kill_agent, "maestro": stack.kill_maestro}
    kill[victim]()
    gate.write_text("\n")
    assert stack.settle(run).counts["succeeded"] == 1
    assert dict(stack.jobs(run)["j"].metrics) == {"a": "1", "b": "2"}
    stack.kill_maestro()
    assert dict(stack.jobs(run)["j"].metrics) == {"a": "1", "b": "2"}
    assert len(read_tables(stack, run)[0]) == 1


HOSTILE = rb"""
import os, sys
out = sys.stdout.buffer
out.write(b"CLOUDSEND_METRIC ok=first\n")
out.write(b"x" * (3 << 20) + b"CLOUDSEND_METRIC in-a-line=1\n" + bytes(1 << 20) + b"\xff\xfe\n")
out.write(b"CLOUDSEND_METRIC esc=\x1b[2J\x1b]0;evil\x07 bad\x1b=1 nul=\0 lone=\xed\xb2\x80 rtl=\xe2\x80\xae\n")
out.write(b"CLOUDSEND_METRIC long=" + b"9" * 10000 + b" nan=NaN inf=-inf formula==1+1\n")
for n in range(300000):
    out.write(b"CLOUDSEND_METRIC step=%d n%d=1\n" % (n, n % 1000))
out.write(b"CLOUDSEND_METRIC ok=last\n")
with open(os.environ["CLOUDSEND_METRICS"], "wb") as file:
    for n in range(1000000):
        file.write(b"step=file-%d\n" % n)
    file.write(b"\x1b[2J=\x1b[2J\n\0\n" + b"y" * 1000000)
"""


def test_hostile_metrics_are_bounded_and_harm_nobody(shared: Stack) -> None:
    (shared.files / "hostile.py").write_bytes(HOSTILE)
    run = shared.submit(
        jobs=[
            {"name": "hostile", "run": "python3 hostile.py", "upload": "hostile.py", "cpus": 0.1},
            {"name": "trap", "run": "mkfifo $CLOUDSEND_METRICS", "cpus": 0.1},
            {"name": "link", "run": "ln -s /dev/zero $CLOUDSEND_METRICS; echo CLOUDSEND_METRIC a=1", "cpus": 0.1},
        ]
    )
    assert shared.settle(run).counts["succeeded"] == 3
    jobs = shared.jobs(run)
    found = jobs["hostile"].metrics
    assert len(found) == 200
    assert {key: found[key] for key in ("ok", "nan", "inf", "formula", "step")} == {
        "ok": "last",
        "nan": "NaN",
        "inf": "-inf",
        "formula": "=1+1",
        "step": "file-999999",
    }
    assert not [name for name in found if not name.isprintable() or not found[name].isprintable()]
    assert not {"esc", "long", "in-a-line", "nul"} & found.keys()
    assert jobs["hostile"].metrics_ignored > 200_000
    assert (dict(jobs["trap"].metrics), dict(jobs["link"].metrics)) == ({}, {"a": "1"})
    rows = read_tables(shared, run)[0]
    assert rows[0]["metric.formula"] == "'=1+1"
    assert MARKER in os.listdir(shared.client.find_run(run).results_dir)


def test_large_logs_are_read_whole(shared: Stack) -> None:
    size = reports.LARGE + (1 << 20)
    script = f"yes | head -c {size}; echo; echo CLOUDSEND_METRIC last=1; echo CLOUDSEND_METRIC err=1 >&2"
    run = shared.submit(jobs=[{"name": "large", "run": script}, {"name": "small", "run": "echo CLOUDSEND_METRIC a=1"}])
    shared.settle(run)
    jobs = shared.jobs(run)
    assert (dict(jobs["large"].metrics), dict(jobs["small"].metrics)) == ({"err": "1", "last": "1"}, {"a": "1"})


def test_the_table_is_written_also_where_results_cannot_be_brought_home(shared: Stack) -> None:
    run = shared.submit(**sweep(shared, [1]))
    shared.settle(run)
    elsewhere = shared.files / "elsewhere" / run
    elsewhere.mkdir(parents=True)
    (elsewhere / shared.client.list_jobs(run)[0].name).write_text("a file of the user's is in the way")
    with pytest.raises(OSError, match="File exists"):
        shared.client.fetch(run, str(elsewhere.parent))
    assert len(read_tables(shared, run, elsewhere)[0]) == 1

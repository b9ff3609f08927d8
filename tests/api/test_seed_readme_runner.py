"""The program of the README of scalable-runner. Only its imports are changed: to ours, and from jax to `math`."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

from real_stack import Stack

SNIPPET = """
from cloudsend_cli import TaskRunner
from time import sleep

def test_run(epoch :int, decay: str, machine: int, gpu: int, dataset_size: int):
    import os
    import math as np
    os.environ["CUDA_VISIBLE_DEVICES"] = f'{gpu}'
    print(f"Epoch: {epoch}, Decay: {decay}, Dataset Size: {dataset_size}, Machine: {machine}, GPU: {gpu}")
    sleep(5)

if __name__ == '__main__':
    config = {
        'Section: Search for Decay, Epoch, and Dataset Size': {
            'GTX 2080': {
                'Call': test_run,
                'Param': {
                    'decay': ['exp', 'anneal', 'static'],
                    'epoch': [100, 1000, 10000],
                    'dataset_size': [1000, 2000, 3000]
                },
                'Async': {
                    'machine': [0, 1],
                    'gpu': [0, 1]
                }
            },
            'CPU':{
                'Call': 'ls',
                'Param': {
                    '': ['-l', '-a', '-la']
                },
                'Async': {
                    '': []
                },
                'Remote': 'localhost',
                'Port': 18812
            }
        },
        'Another Section': {
            'A dummy group': {
                'Call': 'ls',
                'Param': {
                    '': ['-a']
                }
            }
        }
    }

    tr = TaskRunner(config=config)
    tr.run()
"""
FIRST = "Section: Search for Decay, Epoch, and Dataset Size"


def test_the_program_of_the_readme_calls_its_function_with_every_point_at_four_places(stack: Stack) -> None:
    (stack.files / "program.py").write_text(SNIPPET)
    done = subprocess.run(
        [sys.executable, "program.py"],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "CLOUDSEND_HOME": str(stack.state)},
        cwd=stack.files,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (run,) = stack.client.list_runs()
    jobs = stack.jobs(run.id)
    assert run.counts["succeeded"] == len(jobs) == 31
    calls = [jobs[f"{FIRST}/GTX 2080/{n}"] for n in range(27)]
    points = product(("exp", "anneal", "static"), (100, 1000, 10000), (1000, 2000, 3000))
    places = set()
    for call, (decay, epoch, size) in zip(calls, points, strict=True):
        said = b"".join(stack.client.read_log(call.id)).decode()
        start = f"Epoch: {epoch}, Decay: {decay}, Dataset Size: {size}, Machine: "
        assert said.startswith(start)
        places.add(said.removeprefix(start).strip())
    assert places == {f"{machine}, GPU: {gpu}" for machine in (0, 1) for gpu in (0, 1)}
    times = [(call.started_at, call.ended_at) for call in calls]
    assert max(sum(start <= moment < end for start, end in times) for moment, _ in times) <= 4
    last = jobs["Another Section/A dummy group/0"]
    assert last.started_at >= max(job.ended_at for name, job in jobs.items() if name.startswith(FIRST))
    said = {n: b"".join(stack.client.read_log(jobs[f"{FIRST}/CPU/{n}"].id)) for n in range(3)}
    assert said[1].startswith(b".\n..\n") and b"total" in said[0] and b"total" in said[2]

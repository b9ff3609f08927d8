"""The commented config that `cloudsend init` writes: it runs as it stands, on any Linux machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from .aws_entry import find_credentials
from .commands import plain_name

TEMPLATE = """\
# A config of cloudsend. Run it with:  cloudsend run {file}
# Every key is optional but jobs. 'cloudsend validate {file}' checks it, 'cloudsend config schema' describes it.

project: {project}

# Where jobs run. 'local' is this machine.
provider: local
{clouds}
# How many jobs run at one time; without it, as many as fit.
# max_parallel: 4

# Software that jobs need. It is installed once per machine, apart from your own.
# environments:
#   - name: ml
#     pip: [numpy]              # packages, or requirements.txt, or the directory of a venv
#     # conda: environment.yml  # packages, a file, or the directory of an environment
#     # setup: ./install.sh     # a script of your own
#     # vars: {{HF_TOKEN: null}}  # null: taken from your shell; kept in a private file only while the run lasts

jobs:
{jobs}
"""

AWS = """\

# Credentials of AWS were found ({found}). With the next two lines instead of the one above, machines are
# rented there and given back; 'cloudsend check -p aws' tries the account, '--dry-run' shows the price.
# provider: aws
# instances: {{type: t3.medium, spot: prefer, number: 1}}
"""

EXAMPLE = """\
  # A text is a shell command. Each job runs in a directory of its own.
  - echo "hello from $(hostname)"

  # A sweep: one job for each combination. {lr} and {seed} are replaced; $lr and $seed are variables too.
  - name: train-{lr}-{seed}
    run: sleep 1; echo "lr={lr} seed={seed}" > result.txt
    matrix:
      lr: [1e-3, 1e-4]
      seed: [1, 2]
    output: result.txt          # comes home to results/
    cpus: 1                     # what one job needs: cpus, memory: 4GB, gpu: 1
    timeout: 10m
    retries: 1                  # a failed job is tried once more

  # Runs when all of them have succeeded.
  - name: report
    run: echo done
    after: [train-*]

  # Files that a command names are sent by themselves when they lie beside this config; others by name:
  # - run: python train.py --data data
  #   env: ml
  #   upload: [data/, 'src/**/*.py']
"""

SCRIPTS = """\
  # Each script is sent by itself; its arguments stand behind it.
{jobs}

# More that a job takes:
#   env: ml                     # an environment of the list above
#   upload: [data/]             # further files, directories and globs
#   output: result.txt          # comes home to results/
#   cpus: 2                     # also memory: 4GB, gpu: 1
#   timeout: 2h
#   retries: 1
#   matrix: {{lr: [1e-3, 1e-4]}}  # one job for each value; write {{lr}} in the script's arguments
#   after: [other-job]
"""


def starter_config(
    directory: str,
    scripts: Sequence[str] = (),
    file: str = "config.yml",
    environ: Mapping[str, str] | None = None,
) -> str:
    """The text that `cloudsend init` writes.

    The project is named after `directory`. It loads without problems when `scripts` lie beside it; without
    scripts it runs anywhere. `environ`, os.environ without it, says whether a cloud can be offered.
    """
    found = find_credentials(os.environ if environ is None else environ)
    jobs = EXAMPLE
    if scripts:
        lines = "\n".join(f"  - script: {_quote_script(name)}" for name in scripts)
        jobs = SCRIPTS.format(jobs=lines)
    return TEMPLATE.format(
        file=file,
        project=json.dumps(plain_name(os.path.basename(os.path.abspath(directory)), "project")),
        clouds=AWS.format(found=_one_line(found)) if found else "",
        jobs=jobs.rstrip("\n"),
    )


def _one_line(text: str) -> str:
    return json.dumps(text)[1:-1][:100]


def _quote_script(name: str) -> str:
    import shlex

    return json.dumps(shlex.quote(name))

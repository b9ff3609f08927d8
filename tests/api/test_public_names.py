"""What `import cloudsend_cli` has, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import cloudsend_cli

ALL = """
import sys
import cloudsend_cli
loaded = {name for name in sys.modules if name.startswith("cloudsend_cli.")}
assert not loaded, loaded
from cloudsend_cli import Client, SubmitOptions, TaskRunner, get_client
heavy = {"boto3", "botocore", "cloudpickle", "fabric", "paramiko", "typer", "prompt_toolkit", "yaml"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
for name in cloudsend_cli.__all__:
    assert getattr(cloudsend_cli, name) is not None
try:
    cloudsend_cli.no_such_name
except AttributeError as problem:
    assert "no_such_name" in str(problem)
"""


def test_names_are_there_and_loaded_when_they_are_used() -> None:
    words = [sys.executable, "-c", ALL, "--not-ours", "-x"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_name_says_what_it_is() -> None:
    for name in cloudsend_cli.__all__:
        if not name.startswith("_"):
            assert (getattr(cloudsend_cli, name).__doc__ or "").strip(), name

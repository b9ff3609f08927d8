"""`cloudsend` as its user has it beside a providers.yml of lab hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect
import warm_commands
from json_schema import check as check_schema
from ssh_cluster import Cluster

SCHEMAS = {
    "check": "checks",
    "rebuild": "rebuilt",
    "list instances": "instances",
    "list jobs": "jobs",
    "info instance": "instance",
    "info provider": "provider",
    "create instance": "instance",
    "terminate instance": "released",
}


class Command:
    """`cloudsend` beside the cluster's providers.yml."""

    def __init__(self, cluster: Cluster, state: Path | None = None) -> None:
        self.folder = cluster.files
        self.environ = {**os.environ, "CLOUDSEND_HOME": str(state or cluster.state), "TERM": "xterm", "NO_COLOR": "1"}

    def __call__(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = warm_commands.run(words, environ=self.environ, folder=self.folder, timeout=120)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def json(self, *words: str, status: int = 0) -> Any:
        value = json.loads(self(*words, "-o", "json", status=status).stdout)
        if " ".join(words[:2]) in SCHEMAS or words[0] in SCHEMAS:
            check_schema(value, SCHEMAS.get(" ".join(words[:2])) or SCHEMAS[words[0]])
        return value

    def on_terminal(self, *words: str) -> Any:
        argv = ["-m", "cloudsend_cli", *words]
        return pexpect.spawn(
            sys.executable, argv, cwd=self.folder, env=self.environ, encoding="utf-8", timeout=60, dimensions=(40, 300)
        )

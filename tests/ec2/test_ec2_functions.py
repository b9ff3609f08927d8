"""Functions on rented machines: they go there with a module beside them, and their values and exceptions come home."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from cloud_command import desk_of
from ec2lab import Cloud

PROGRAM = """
    import os, sys
    import beside
    from cloudsend_cli import Client

    class Seen:
        def __init__(self, x, host):
            self.x, self.host = x, host

    def look(x):
        if x == 2:
            raise LookupError(beside.NAME)
        return Seen(x, os.uname().nodename)

    if __name__ == "__main__":
        config = {"provider": "aws", "instances": [{"type": "c7i.large"}]}
        run = Client(sys.argv[1]).map(look, [{"x": 1}, {"x": 2}, {"x": 3}], config=config)
        one, two, three = run.wait(150)
        try:
            two.value()
        except LookupError as problem:
            print(problem, "in look" in str(problem.__cause__))
        seen = [one.value(), three.value()]
        assert all(type(s) is Seen for s in seen), seen
        print([s.x for s in seen], {s.host for s in seen} & {os.uname().nodename})
"""


def test_functions_on_rented_machines(ec2: Cloud, state_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = 'sent along'\n")
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    with desk_of(ec2, state_dir, tmp_path) as desk:
        done = subprocess.run(
            [sys.executable, str(script), str(state_dir)],
            cwd=tmp_path,
            env=desk.environ,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("sent along True\n[1, 3] set()\n", ""), done.stdout + done.stderr
        assert len(ec2.ledger()) == 1
    assert ec2.failures == []

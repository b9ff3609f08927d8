"""`cloudsend_cli.SSH` with login shells of each kind: variables and input arrive as they are."""

from __future__ import annotations

import io
import json
import os
import shutil

import pytest
from lab_probes import MakeHosts
from sshlab import Lab, NotHere

from cloudsend_cli import SSH

VALUES = {
    "LC_ALL": "C.UTF-8",  # without one, fish encodes a second time what it inherits
    "QUOTES": """it's "so" `id` $(id) $HOME \\ !! ! %s %d ~ *""",
    "LINES": "one\ntwo\n\n",
    "GREEN": "grün",
    "EMPTY": "",
    "LONG": "x" * 100_000,
}
SHOW = "import json,os,sys; print(json.dumps([{k: os.environ.get(k) for k in sys.argv[1:]}, sys.stdin.read()]))"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish", "dash"])
def test_variables_and_input_pass_through_each_shell(
    namespaces: None, shared_lab: Lab, lab_hosts: MakeHosts, shell: str
) -> None:
    path = shutil.which(shell)
    if path is None:
        raise NotHere(f"no {shell} here: apt-get install {shell}")
    (host,) = lab_hosts(1, shell=path)
    host.write("show.py", SHOW.encode())
    with SSH(
        host.address,
        host.user,
        port=host.port,
        key=host.key_path,
        known_hosts=shared_lab.known_hosts,
        stream=io.StringIO(),
    ) as ssh:
        ssh.set_default_is_raise_err(True)
        command = f"python3 show.py {' '.join(VALUES)}"
        stdout = ssh.exec_command(command, environment=VALUES, input="one\ntwo")[1]
        assert json.loads(stdout.read()) == [VALUES, "one\ntwo"]
        short = {name: value for name, value in VALUES.items() if name != "LONG"}
        command = f"python3 show.py {' '.join(short)}"
        stdout = ssh.exec_command(command, environment=short, get_pty=True)[1]
        assert json.loads(stdout.read()) == [short, ""]
        host.write("parent.py", b"import os; print(os.path.realpath('/proc/%d/exe' % os.getppid()))")
        stdout = ssh.exec_command("python3 parent.py; true", environment={"A": 1})[1]
        assert stdout.read().decode().strip() == os.path.realpath(path)

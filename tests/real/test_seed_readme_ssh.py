"""The program of the README of scalable-runner for one host. Only its import is changed, and what its user fills in.

The host's key is accepted before, as `cloudsend check --accept-host-key` does; theirs took any.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab_probes import MakeHosts
from sshlab import Lab

PASSWORD = "correct horse"

SNIPPET = """
from cloudsend_cli import SSH

if __name__ == '__main__':
    IP = "your_host_ip"
    USERNAME = "your_username"
    PASSWORD = "your_password"
    PORT = 22
    dummy_file = 'hi.txt'
    download_dest = './'

    client = SSH(hostname=IP, username=USERNAME, password=PASSWORD, port=PORT)

    client.set_default_is_raise_err(default_is_raise_err=True)
    client.set_default_retry_count(default_retry_count=3)

    client.connect(timeout=20, retry_count=3, is_raise_err=False)

    client.put(files=dummy_file, remote_path=download_dest, recursive=False, preserve_times=False, retry_count=3)
    client.put(files=dummy_file, remote_path=download_dest, recursive=True, preserve_times=False, retry_count=3)

    client.get(remote_path=dummy_file, local_path=download_dest, recursive=False, preserve_times=False, retry_count=3)
    client.get(remote_path=dummy_file, local_path=download_dest, recursive=True, preserve_times=False, retry_count=3)

    client.putfo(fl='HI \\n'*20, remote_path='./test.txt', retry_count=3)

    stdin, stdout, stderr, is_successed = client.exec_command(command='ls -la; mkdir new_dir_test;'
                                                              ' rm -rf new_dir_test',
                                                              retry_count=3, cmd_retry_count=2)

    stdin, stdout, stderr, is_successed = client.exec_command(command='python',
                                                              timeout=None, get_pty=True, environment=None,
                                                              retry_count=3, cmd_retry_count=2)
"""

pytestmark = pytest.mark.usefixtures("namespaces")


def test_the_program_of_the_readme_sends_fetches_and_executes(
    shared_lab: Lab, lab_hosts: MakeHosts, tmp_path: Path
) -> None:
    (host,) = lab_hosts(1, sshd={"PasswordAuthentication": "yes"})
    host.sh('h=$(openssl passwd -6 "$1") && sed -i "s|^$2:[^:]*:|$2:$h:|" /etc/shadow', PASSWORD, host.user, root=True)
    host.sh('ln -sf "$(command -v python3)" /usr/local/bin/python', root=True)
    text = SNIPPET.replace("your_host_ip", host.address).replace("your_username", host.user)
    text = text.replace("your_password", PASSWORD).replace("PORT = 22", f"PORT = {host.port}")
    (tmp_path / "program.py").write_text(text)
    (tmp_path / "hi.txt").write_text("hi\n")
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "known_hosts").write_bytes(shared_lab.known_hosts.read_bytes())
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
    done = subprocess.run(
        [sys.executable, "program.py"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**environ, "HOME": str(tmp_path), "CLOUDSEND_HOME": str(tmp_path / "state")},
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "hi.txt" in done.stdout and "new_dir_test" not in done.stdout
    assert host.sh("cat hi.txt test.txt") == "hi\n" + ("HI \n" * 20).removesuffix("\n")
    assert (tmp_path / "hi.txt").read_text() == "hi\n"

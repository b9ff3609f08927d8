"""The guide to SSH from Python: its examples, as they stand there, with a host of the lab."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lab_probes import MakeHosts
from sshlab import Lab

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "python-ssh.md"


def test_the_examples_of_the_guide(
    shared_lab: Lab,
    lab_hosts: MakeHosts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (host,) = lab_hosts(1)
    known = shared_lab.known_hosts
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host gpu1\n HostName {host.address}\n Port {host.port}\n User {host.user}\n"
        f" IdentityFile {host.key_path}\n UserKnownHostsFile {known}\n"
    )
    config.chmod(0o600)
    monkeypatch.setenv("CLOUDSEND_SSH_CONFIG", str(config))
    monkeypatch.setenv("CLOUDSEND_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("import os; print(float(os.environ['LEARNING_RATE']) * 2)\n")
    Path("data").mkdir()
    Path("fetched").mkdir()
    Path("data/a.csv").write_text("1,2\n")

    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)

    assert Path("result.txt").read_text() == "0.2\n"
    assert Path("fetched/config.yml").read_text() == "lr: 0.1\n"
    assert Path("copy/a.csv").read_text() == Path("fetched/renamed.csv").read_text() == "1,2\n"
    assert host.sh("cat large.csv data/a.csv").split() == ["1,2", "1,2"]
    assert capsys.readouterr().out.endswith("no missing.txt on the host\n")

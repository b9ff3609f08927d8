"""What the pages and examples about providers say is what the loader does with it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cloudsend_cli.config
from cloudsend_cli.cli.execute import command_tree
from cloudsend_cli.config.document import render_inline
from cloudsend_cli.config.load import Loaded
from cloudsend_cli.config.providers import load_providers
from cloudsend_cli.config.rented import IDLE, IDLE_DEV, LIFE
from cloudsend_cli.config.schema import INSTANCE
from cloudsend_cli.maestro.wiring import open_provider

ROOT = Path(cloudsend_cli.config.__file__).parent.parent.parent
PAGES = ("PROVIDERS.md", "docs/guides/ssh.md", "docs/guides/aws.md", "docs/guides/sweeps.md", "README.md")
LAB = "providers: [{name: lab, type: ssh, hosts: [gpu1, gpu2]}]\n"


def blocks(page: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def load(desk, state_dir: Path, providers: str, config: str, **options: object) -> Loaded:
    desk.write("providers.yml", providers)
    found = load_providers(["providers.yml"], desk.environ)
    context = desk.context(providers=found, open_provider=lambda d: open_provider(d, state_dir))
    return desk.load(config, context=context, **options)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_good(desk, state_dir: Path, page: str) -> None:
    providers, configs = LAB, 0
    desk.write("data/input.csv")
    desk.write("data/input.txt")
    for block in blocks(page):
        if block.startswith(("providers:", "defaults:")):
            providers = block
            desk.write("providers.yml", block)
            named = [i for i in load_providers(["providers.yml"], desk.environ).values() if i.name in block]
            for info in named:
                (spec,) = load(desk, state_dir, providers, "jobs: a\n", provider=info.name).spec.instances
                assert spec.provider == info.name
            assert named
        else:
            configs += 1
            loaded = load(desk, state_dir, providers, block)
            assert loaded.spec.jobs
            assert not [w.message for w in loaded.warnings if "no effect" in w.message]
    assert configs


def test_the_guide_to_aws_knows_each_key_and_the_defaults() -> None:
    guide = (ROOT / "docs" / "guides" / "aws.md").read_text(encoding="utf-8")
    keys = {field.name for field in INSTANCE.fields} - {"labels", "provider"}
    assert {key for key in keys if f"`{key}`" not in guide and f"`{key}:" not in guide} == set()
    assert f"`idle` ({IDLE // 60} minutes)" in guide and f"`life` ({LIFE // 3600} hours)" in guide
    assert IDLE_DEV == 3600 and "`dev: true` makes them wait an hour" in guide


def test_the_guide_to_aws_takes_machines_in_two_regions(desk, state_dir: Path) -> None:
    guide = blocks("docs/guides/aws.md")
    at = next(i for i, block in enumerate(guide) if block.startswith("providers:"))
    spec = load(desk, state_dir, guide[at], guide[at + 1]).spec
    assert [json.loads(d.settings)["region"] for d in spec.providers] == ["eu-west-3", "us-east-1"]
    assert [(i.provider, i.number, dict(i.settings).get("life")) for i in spec.instances] == [
        ("paris", 4, "86400"), ("virginia", 1, "21600"),
    ]  # fmt: skip


def test_the_example_of_aws_is_thirteen_jobs_on_three_machines(desk, state_dir: Path) -> None:
    context = desk.context(
        providers=load_providers([], desk.environ), open_provider=lambda d: open_provider(d, state_dir)
    )
    loaded = desk.load(name=str(ROOT / "examples" / "aws.yml"), context=context)
    assert loaded.warnings == ()
    spec = loaded.spec
    assert [(i.number, dict(i.settings).get("spot", "false")) for i in spec.instances] == [(2, "true"), (1, "false")]
    assert {dict(i.settings)["budget"] for i in spec.instances} == {"1"}
    assert len(spec.jobs) == 13 and len(spec.environments) == 1
    assert all(job.uploads and job.outputs and job.environment and job.persist for job in spec.jobs[:12])


def test_a_config_of_aws_is_checked_without_its_sdk(tmp_path: Path) -> None:
    code = "import sys; from cloudsend_cli import cli; from cloudsend_cli.__main__ import main\n"
    code += "try: main()\nfinally: print([m for m in sys.modules if m.startswith(('boto', 'fabric', 'paramiko'))])"
    words = [sys.executable, "-c", code, "--state-dir", str(tmp_path), "validate", str(ROOT / "examples" / "aws.yml")]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("[]\n"), done.stdout


def test_the_worked_example_of_layers(desk, state_dir: Path) -> None:
    page = (ROOT / "PROVIDERS.md").read_text(encoding="utf-8")
    _, providers, config, *_ = blocks("PROVIDERS.md")
    loaded = load(desk, state_dir, providers, config)
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    for line in shown.splitlines():
        key, value, origin = line.split()
        assert loaded.origins[key] == (value, origin)
    (spec,) = loaded.spec.instances
    (machine,) = open_provider(loaded.spec.providers[0], state_dir).plan_machines([spec])
    assert machine.capacity is not None
    assert (machine.label, machine.capacity.cpus) == ("gpu1", 8)
    two = load(desk, state_dir, providers, config, overrides=["instances[0].number=2"]).spec.instances[0]
    assert two.number == 2


def test_the_guides_selection_takes_what_it_says(desk, state_dir: Path) -> None:
    guide = blocks("docs/guides/ssh.md")
    at = next(i for i, block in enumerate(guide) if block.startswith("provider: lab"))
    loaded = load(desk, state_dir, guide[at - 1], guide[at])
    (definition,) = loaded.spec.providers
    plans = open_provider(definition, state_dir).plan_machines(loaded.spec.instances)
    assert [plan.label for plan in plans] == ["gpu1", "gpu2", "desk"]


def test_the_example_loads_as_it_stands_and_with_its_comments_opened(tmp_path: Path) -> None:
    path = ROOT / "providers.yml.example"
    assert list(load_providers([str(path)])) == ["local", "aws"]
    opened = re.sub(r"^  # ( *)(# )?(?=[-a-z])", r"  \1", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / "providers.yml").write_text(opened)
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / ".ssh" / "lab_ed25519").touch()
    found = load_providers([str(tmp_path / "providers.yml")], {"HOME": str(tmp_path / "home")})
    assert {name: info.type for name, info in found.items()} == {
        "local": "local", "lab": "ssh", "cloud": "aws", "cluster": "slurm", "google": "gcp",
    }  # fmt: skip
    hosts = json.loads(found["lab"].definition.settings)["hosts"]
    assert [host["name"] for host in hosts] == ["gpu1", "gpu2.lab-2222", "gpu3.lab", "attic"]
    assert all(host["key"].endswith("/.ssh/lab_ed25519") and host["shared"] for host in hosts)
    assert found["lab"].warnings == ()
    assert json.loads(found["cloud"].definition.settings) == {"profile": "default", "region": "eu-west-3"}
    assert {key: render_inline(node) for key, node in found["cloud"].defaults.items()} == {
        "disk": "20GB", "type": "[t3.medium, t3a.medium]", "spot": "prefer", "max_price": "0.05", "life": "6h",
    }  # fmt: skip
    assert {key: node.text for key, node in found["lab"].defaults.items()} == {
        "disk": "30GB", "cpus": "4", "number": "2",
    }  # fmt: skip


def test_the_example_of_hosts_is_sixty_jobs_on_three_machines(desk, state_dir: Path) -> None:
    found = load_providers([str(ROOT / "examples" / "hosts" / "providers.yml")])
    context = desk.context(providers=found, open_provider=lambda d: open_provider(d, state_dir))
    spec = desk.load(name=str(ROOT / "examples" / "hosts.yml"), context=context).spec
    assert len(spec.jobs) == 60
    assert {len(job.outputs) for job in spec.jobs} == {1} and {bool(job.environment) for job in spec.jobs} == {True}
    assert {tuple(u.path for u in job.uploads) for job in spec.jobs} == {("data/tides.csv", "scripts/forecast.py")}
    plans = open_provider(spec.providers[0], state_dir).plan_machines(spec.instances)
    assert [(plan.label, plan.capacity.cpus if plan.capacity else None) for plan in plans] == [
        ("gpu1", 2), ("gpu2.lab.example.org", 2), ("attic", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_exist_with_their_options(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = [
        line for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    written = [" ".join(words.split()) for words in re.findall(r"`(cloudsend [^`]*)`", text)]
    commands = [line.removeprefix("$ ") for line in shown + written]
    for line in (line for line in commands if line.startswith("cloudsend ")):
        words = shlex.split(line, comments=True)[1:]
        command: Any = command_tree()
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not words or not getattr(command, "commands", {}), line
        known = {option for parameter in command.params for option in parameter.opts}
        before = words[: words.index("--")] if "--" in words else words
        used = {word for word in before if word.startswith("-")}
        assert used <= known | {"-o", "--state-dir", "--no-color"}, line

"""Which machines a run uses: providers chosen, hosts selected, defaults in layers, and what remote jobs are told."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from cloudsend_cli.config.load import LoadContext
from cloudsend_cli.config.providers import load_providers
from cloudsend_cli.core.model import InstanceSpec, ProviderDefinition, RunSpec
from cloudsend_cli.maestro.wiring import open_provider

PROVIDERS = """\
defaults:
  all: {disk: 30GB}
  ssh: {memory: 8GB+}
  lab: {cpus: 4+}
providers:
- name: lab
  type: ssh
  user: me
  hosts:
  - gpu1
  - {host: gpu2.lab, cpus: 32, memory: 64GB, gpus: 2, labels: [a100, big]}
  - {host: small, cpus: 8, memory: 16GB, gpus: 0, labels: cpu}
- name: other
  type: ssh
  hosts: [o1, o2]
- {name: cloud, type: gcp}
"""


@pytest.fixture
def lab(desk, state_dir: Path):
    """The loader with real providers behind it."""
    desk.write("providers.yml", PROVIDERS)

    def context() -> LoadContext:
        found = load_providers(["providers.yml"], desk.environ)
        return desk.context(providers=found, open_provider=lambda d: open_provider(d, state_dir))

    desk.lab = context
    return desk


def load(lab, text: str, **options: object) -> RunSpec:
    return lab.load(text, context=lab.lab(), **options).spec


def machines(lab, text: str, state_dir: Path, **options: object) -> list[str]:
    """The nodes that the run would have."""
    spec = load(lab, text, **options)
    names = []
    for definition in spec.providers:
        mine = [i for i in spec.instances if i.provider == definition.name]
        plans = open_provider(definition, state_dir).plan_machines(mine)
        names += [f"{definition.name}/{plan.label or number}" for number, plan in enumerate(plans)]
    return names


# ---- which ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provider: lab", "lab/gpu1 lab/gpu2.lab lab/small"),
        ("provider: lab\ninstances: {number: 2}", "lab/gpu1 lab/gpu2.lab"),
        ("provider: lab\ninstances: {cpus: 16+}", "lab/gpu1 lab/gpu2.lab"),
        ("provider: lab\ninstances: {labels: cpu}", "lab/small"),
        ("provider: lab\ninstances: {labels: [a100, big], gpu: 1+}", "lab/gpu2.lab"),
        ("provider: lab\ninstances: [{labels: cpu}, {number: 1}]", "lab/small lab/gpu1"),
        ("provider: lab\ninstances: [{labels: cpu}, {provider: other, number: 1}]", "lab/small other/o1"),
        ("provider: [other, lab]", "other/o1 other/o2"),
        ("instances: [{provider: lab, labels: gpu1}, {provider: other}]", "lab/gpu1 other/o1 other/o2"),
        ("provider: ssh:gpu9", "ssh:gpu9/gpu9"),
        ("provider: 'ssh:me@10.0.0.7:2222'", "ssh:me@10.0.0.7:2222/10.0.0.7-2222"),
        ("instances: [{provider: ssh:a}, {provider: ssh:b}, {provider: local}]", "ssh:a/a ssh:b/b local/0"),
        ("provider: local", "local/0"),
        ("jobs: x", "local/0"),
    ],
)
def test_machines_of_a_run(lab, state_dir: Path, text: str, expected: str) -> None:
    text = text if text.startswith("jobs") else f"{text}\njobs: echo\n"
    assert machines(lab, text, state_dir) == expected.split()


def test_the_command_line_chooses(lab, state_dir: Path) -> None:
    assert machines(lab, "provider: local\njobs: a\n", state_dir, provider="ssh:me@gpu1") == ["ssh:me@gpu1/gpu1"]
    assert machines(lab, "jobs: a\n", state_dir, provider="other") == ["other/o1", "other/o2"]
    assert machines(lab, "jobs: a\n", state_dir, provider="other", overrides=["instances[0].number=1"]) == ["other/o1"]


def test_the_only_provider_is_the_default(lab, state_dir: Path) -> None:
    lab.write("providers.yml", "providers: [{name: lab, type: ssh, hosts: [a]}]\n")
    loaded = lab.load("jobs: a\n", context=lab.lab())
    assert [d.name for d in loaded.spec.providers] == ["lab"]
    assert loaded.origins["provider"] == ("lab", "the only one configured")


def test_an_entry_that_names_its_provider_keeps_it_and_says_so(lab, state_dir: Path) -> None:
    text = "instances: [{provider: lab, number: 1}, {}]\njobs: a\n"
    assert machines(lab, text, state_dir, provider="local") == ["lab/gpu1", "local/0"]
    (warning,) = lab.load(text, context=lab.lab(), provider="local").warnings
    assert (warning.place, warning.message, warning.hint) == (
        "config.yml:1:24",
        "instances[0].provider: 'lab' is used here, not 'local' of --provider",
        "--set instances[0].provider=local changes it",
    )


def test_definitions_are_kept_with_the_run(lab) -> None:
    spec = load(lab, "instances: [{provider: ssh:me@a:23}, {provider: lab}, {provider: local}]\njobs: a\n")
    assert spec.providers[0] == ProviderDefinition(
        "ssh:me@a:23", "ssh", '{"hosts":[{"host":"a","name":"a-23","port":23,"user":"me"}]}'
    )
    assert [(d.name, d.type) for d in spec.providers[1:]] == [("lab", "ssh"), ("local", "local")]
    assert [i.provider for i in spec.instances] == [d.name for d in spec.providers]
    assert load(lab, "jobs: a\n").providers == (ProviderDefinition("local", "local", "{}"),)


def test_what_is_asked_for_has_one_form(lab) -> None:
    text = "provider: lab\ninstances: {cpus: 2e0, memory: 1.5GB, gpu: 1+, labels: [a100, big], count: 1}\njobs: a\n"
    assert load(lab, text).instances == (
        InstanceSpec(
            "lab",
            1,
            None,
            (("disk", "30GB"), ("cpus", "2"), ("memory", "1500000000"), ("gpu", "1+"), ("labels", "a100,big")),
        ),
    )
    assert load(lab, "provider: lab\njobs: a\n").instances == (
        InstanceSpec("lab", 0, None, (("disk", "30GB"), ("memory", "8000000000+"), ("cpus", "4+"))),
    )


# ---- what cannot be ------------------------------------------------------------------------------------------------

BAD = [
    ("provider: lab\ninstances: {number: 4}\njobs: a\n",
     "config.yml:2:21: instances[0].number: 4 is more than provider 'lab' has: 3 hosts fit: gpu1, gpu2.lab, small"),
    ("provider: lab\ninstances: {number: 2, labels: cpu}\njobs: a\n",
     "config.yml:2:21: instances[0].number: 2 is more than provider 'lab' has: 1 host fits: small"),
    ("provider: lab\ninstances: [{number: 2}, {labels: [a100, bgi]}]\njobs: a\n",
     "config.yml:2:35: instances[1].labels: no host of provider 'lab' carries 'bgi'; did you mean 'big'?"),
    ("provider: lab\ninstances: {labels: [a100, cpu]}\njobs: a\n",
     "config.yml:2:12: instances[0]: no host of provider 'lab' fits: gpu1, gpu2.lab (32 CPUs, 64 GB of memory, "
     "2 GPUs, a100, big), small (8 CPUs, 16 GB of memory, 0 GPUs, cpu)"),
    ("provider: lab\ninstances:\n- labels: big\n- {}\n- labels: cpu\njobs: a\n",
     "config.yml:5:3: instances[2]: one is asked for, and earlier instances have taken the others of provider 'lab'; "
     "left: none"),
    ("provider: lab\ninstances: {labels: [big, big]}\njobs: a\n",
     "config.yml:2:27: instances[0].labels: the label 'big' is given twice"),
    ("provider: lab\ninstances: {label: a}\njobs: a\n",
     "config.yml:2:13: unknown key 'label' in instances[0] | did you mean 'labels'?"),
    ("provider: lba\njobs: a\n", "config.yml:1:11: unknown provider 'lba' | did you mean 'lab'?"),
    ("provider: 'ssh:-oProxyCommand=x'\njobs: a\n",
     "config.yml:1:11: provider: '-oProxyCommand=x' begins with '-', which programs read as an option"),
    ("provider: 'ssh:'\njobs: a\n", "config.yml:1:11: provider: '' has no host name"),
    ("instances: {provider: 'ssh:a b'}\njobs: a\n", "config.yml:1:23: provider: 'a b' contains a space"),
    ("provider: ssh:me:secret@a\njobs: a\n",
     "config.yml:1:11: provider: there is a ':' before the '@': logging in with a password is not supported, and none "
     "is kept in a file | make a key with ssh-keygen, put it there with ssh-copy-id, and name it with 'key' or let "
     "ssh-agent hold it"),
    ("provider: lab\ninstances: {labels: [big]}\njobs: {run: a, cpus: 33}\n",
     "config.yml:3:22: jobs wants 33 CPUs; the largest machine has 32 CPUs, 64 GB of memory and 2 GPUs"),
    ("provider: lab\ninstances: {labels: [big], cpus: 8, gpu: 1}\njobs: {run: a, cpus: 16, gpu: 2}\n",
     "config.yml:3:22: jobs wants 16 CPUs and 2 GPUs; the largest machine has 8 CPUs, 64 GB of memory and 1 GPUs"),
    ("provider: lab\ninstances: {labels: gpu1, cpus: 8, memory: 8GB+}\njobs: {run: a, cpus: 16}\n",
     "config.yml:3:22: jobs wants 16 CPUs; the largest machine has 8 CPUs"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD)
def test_what_cannot_be_had_is_said_where_it_is_asked(lab, text: str, expected: str) -> None:
    assert lab.problems(text, context=lab.lab()) == expected


def test_sizes_that_nobody_declared_are_not_judged(lab) -> None:
    for text in ("provider: lab\n", "provider: other\n", "provider: lab\ninstances: {labels: gpu1}\n"):
        assert load(lab, f"{text}jobs: {{run: a, cpus: 500, gpu: 8}}\n").jobs[0].resources.cpus == 500


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provider: [lab, other]\njobs: a\n",
         "config.yml:1:17: provider 'other' is not used: 'lab' is; the next one is not tried yet"),
        ("provider: [cloud, lab]\njobs: a\n",
         "config.yml:1:12: provider 'cloud' is left out: provider type 'gcp' arrives in a later version"),
        ("provider: lab\ninstances: {gpu: A100:1}\njobs: a\n",
         "config.yml:2:18: instances[0].gpu: the kind 'A100' does not choose hosts"),
        ("instances: {provider: local, labels: a}\njobs: a\n",
         "config.yml:1:30: instances[0].labels has no effect: machines of type 'local' have no labels"),
        ("provider: [lab, other]\ninstances: [{provider: other}, {provider: lab}]\njobs: a\n", ""),
    ],
)  # fmt: skip
def test_warnings(lab, text: str, expected: str) -> None:
    lab.write("providers.yml", PROVIDERS.replace("  all: {disk: 30GB}\n", ""))
    assert lab.warnings(text, context=lab.lab()) == expected


def test_a_missing_key_is_a_warning_of_the_runs_that_use_it(lab) -> None:
    lab.write("providers.yml", PROVIDERS.replace("  user: me\n", "  key: no/such/key\n"))
    assert lab.load("provider: other\njobs: a\n", context=lab.lab()).warnings == ()
    (warning,) = lab.load("provider: lab\njobs: a\n", context=lab.lab()).warnings
    assert (warning.place, warning.message) == (
        "providers.yml:8:8",
        f"providers[0].key: {lab.folder}/no/such/key does not exist",
    )


# ---- where values come from ----------------------------------------------------------------------------------------


def test_layers_show_where_each_value_comes_from(lab) -> None:
    text = "provider: lab\ninstances: {memory: 12GB+}\njobs: a\n"
    origins = lab.load(text, context=lab.lab(), overrides=["instances[0].number=1"]).origins
    assert {key: origins[key] for key in origins if key.startswith(("provider", "instances[0]")) and
            not key.startswith("providers.lab.hosts[1]")} == {
        "provider": ("lab", "config.yml:1"),
        "instances[0].number": ("1", "--set"),
        "instances[0].memory": ("12GB+", "config.yml:2"),
        "instances[0].cpus": ("4+", "providers.yml:4"),
        "instances[0].disk": ("30GB", "providers.yml:2"),
        "instances[0].explode": ("false", "default"),
        "instances[0].spot": ("false", "default"),
        "providers.lab.hosts[0].host": ("gpu1", "providers.yml:10"),
        "providers.lab.hosts[0].user": ("me", "providers.yml:8"),
        "providers.lab.hosts[2].host": ("small", "providers.yml:12"),
        "providers.lab.hosts[2].user": ("me", "providers.yml:8"),
        "providers.lab.hosts[2].labels": ("cpu", "providers.yml:12"),
        "providers.lab.hosts[2].cpus": ("8", "providers.yml:12"),
        "providers.lab.hosts[2].memory": ("16GB", "providers.yml:12"),
        "providers.lab.hosts[2].gpus": ("0", "providers.yml:12"),
    }  # fmt: skip


def test_hosts_named_on_the_spot_come_from_where_they_are_named(lab) -> None:
    loaded = lab.load("jobs: a\n", context=lab.lab(), provider="ssh:me@gpu1:22")
    assert {key: value for key, value in loaded.origins.items() if "provider" in key} == {
        "provider": ("ssh:me@gpu1:22", "--provider"),
        "providers.ssh:me@gpu1:22.hosts[0].host": ("gpu1", "--provider"),
        "providers.ssh:me@gpu1:22.hosts[0].user": ("me", "--provider"),
        "providers.ssh:me@gpu1:22.hosts[0].port": ("22", "--provider"),
    }


def test_layers_lie_in_the_order_that_the_guide_gives(lab, state_dir: Path) -> None:
    """all, the type, the provider's name, its own defaults, the config, the command line."""
    layers = ["all: {cpus: 1}", "ssh: {cpus: 2}", "lab: {cpus: 3}"]
    for depth in range(1, 7):
        text = "defaults:\n" + "".join(f"  {line}\n" for line in layers[: min(depth, 3)])
        text += "providers:\n- {name: lab, type: ssh, hosts: a"
        lab.write("providers.yml", text + (", defaults: {cpus: 4}}\n" if depth > 3 else "}\n"))
        config = "provider: lab\njobs: a\n" + ("instances: {cpus: 5}\n" if depth > 4 else "")
        overrides = ["instances[0].cpus=6"] if depth > 5 else []
        (spec,) = load(lab, config, overrides=overrides).instances
        assert dict(spec.settings)["cpus"] == str(depth)


# ---- what jobs elsewhere are told ----------------------------------------------------------------------------------


def test_nothing_of_the_submitting_shell_is_in_specs_of_jobs_elsewhere(lab) -> None:
    marked = "/canary"
    names = (
        "PATH",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "LD_LIBRARY_PATH",
        "HOME",
        "TMPDIR",
        "USER",
        "SHELL",
        "LC_X",
        "TOKEN",
    )
    lab.environ = {name: f"{marked}/{name}" for name in names}
    lab.write("train.py", "print()\n")
    lab.write("requirements.txt", "six\n")
    lab.write("setup.sh", "echo\n")
    text = """\
provider: lab
environments: [{name: e, pip: requirements.txt, setup: setup.sh, vars: {TOKEN: null, A: $HOME}}]
jobs:
- {script: train.py --x 1, env: e, vars: {B: ~}}
- {run: python train.py, env: none, workdir: ~/work, vars: {PATH: null}}
- {run: ls, env: none, workdir: /scratch}
"""
    lab.environ["B"] = f"{marked}/B"
    spec = load(lab, text)
    for job in spec.jobs:
        told = asdict(job)
        told.pop("uploads")  # `source` is where the submitter has the file
        assert marked not in repr(told)
    assert [job.workdir for job in spec.jobs] == ["", "~/work", "/scratch"]
    assert spec.jobs[0].argv == ("python3", "train.py", "--x", "1")
    assert [job.secrets for job in spec.jobs] == [("B", "TOKEN"), ("PATH",), ()]
    assert marked not in repr(spec.environments) + repr(spec.providers) + repr(spec.instances)
    assert dict(spec.base_env)["PATH"] == f"{marked}/PATH"  # for machines of type local, which the engine knows


def test_the_renderer_is_told_when_others_than_this_machine_build(lab) -> None:
    told: list[bool] = []
    context = lab.lab()

    def render(spec, folder, elsewhere):
        told.append(elsewhere)
        return context.render_environment(spec, folder, elsewhere)

    for provider in ("local", "lab", "ssh:a"):
        lab.load(
            f"provider: {provider}\nenvironments: {{pip: six}}\njobs: a\n",
            context=LoadContext(context.providers, render, open_provider=context.open_provider),
        )
    assert told == [False, True, True]


def test_a_shell_that_is_not_utf8_matters_to_this_machine_only(lab) -> None:
    lab.environ = {"LC_ALL": "\udcff"}
    assert "is not valid UTF-8" in lab.warnings("provider: local\njobs: a\n", context=lab.lab())
    assert "is not valid UTF-8" not in lab.warnings("provider: lab\njobs: a\n", context=lab.lab())

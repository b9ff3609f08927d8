"""Machines that cost money: what `instances` and the run say of them, in the one form that their provider reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cloudsend_cli.config.aws_entry import find_credentials
from cloudsend_cli.config.load import LoadContext, Loaded
from cloudsend_cli.config.providers import load_providers
from cloudsend_cli.config.schema import INSTANCE
from cloudsend_cli.config.starter import starter_config
from cloudsend_cli.core.model import InstanceSpec, InstanceStatus, MachinePlan, Resources
from cloudsend_cli.errors import ConfigError

LIMITS = (("idle", "600"), ("life", "86400"))
AWS = '{"profile":null,"region":null}'


SIZES = {
    "": Resources(2, 4_000_000_000, 0),
    "t3.micro": Resources(2, 1_000_000_000, 0),
    "t3.medium": Resources(2, 4_000_000_000, 0),
    "t3.large": Resources(2, 8_000_000_000, 0),
}


class Shop:
    """A provider that knows a few types of machines, and whose plans would ask a network."""

    name = "aws"
    slow = True

    def check(self, spec: InstanceSpec) -> list[str]:
        types = dict(spec.settings).get("type", "").split(",")
        return ["type: 'x9.huge' is not sold here"] if "x9.huge" in types else []

    def largest(self, spec: InstanceSpec) -> Resources | None:
        return SIZES.get(dict(spec.settings).get("type", ""))

    def plan_machines(self, specs: Sequence[InstanceSpec]) -> Sequence[MachinePlan]:
        raise AssertionError("loading a config asked the network")

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        raise AssertionError("loading a config rented a machine")

    def list_instances(self, run: str) -> Sequence[InstanceStatus]:
        raise AssertionError("loading a config asked the network")

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        raise AssertionError("loading a config ended a machine")


@pytest.fixture
def shop(desk):
    """The loader with providers.yml as it is written, and a cloud behind it."""

    def context(**changes: object) -> LoadContext:
        found = load_providers(["providers.yml"], desk.environ)
        return desk.context(**{"providers": found, "open_provider": lambda _: Shop(), **changes})

    desk.shop = context
    return desk


def load(shop, text: str, **options: object) -> Loaded:
    return shop.load(text if "jobs:" in text else f"{text}\njobs: echo\n", context=shop.shop(), **options)


def asked(shop, text: str, **options: object) -> dict[str, str]:
    """The settings of the only entry, but for the run's name and the limits where they are the usual ones."""
    (spec,) = load(shop, text, **options).spec.instances
    assert len(dict(spec.settings)) == len(spec.settings)
    usual = {*LIMITS, ("project", shop.folder.name)}
    return {name: value for name, value in spec.settings if (name, value) not in usual}


# ---- which provider ------------------------------------------------------------------------------------------------


def test_aws_needs_no_file_but_is_never_chosen_unasked(shop) -> None:
    loaded = load(shop, "provider: aws\nproject: p")
    assert loaded.spec.instances == (InstanceSpec("aws", 1, None, (*LIMITS, ("project", "p"))),)
    assert [(d.name, d.type, d.settings) for d in loaded.spec.providers] == [("aws", "aws", AWS)]
    assert loaded.warnings == ()
    assert load(shop, "instances: {provider: aws}").spec.instances[0].provider == "aws"
    assert load(shop, "jobs: a\n", provider="aws").spec.instances[0].provider == "aws"
    assert shop.load("jobs: a\n").spec.instances[0].provider == "local"


def test_one_that_is_configured_is_chosen(shop) -> None:
    shop.write("providers.yml", "providers: [{name: cloud, type: aws, region: eu-west-3, profile: work}]\n")
    loaded = load(shop, "jobs: a\n")
    (definition,) = loaded.spec.providers
    assert (definition.name, definition.settings) == ("cloud", '{"profile":"work","region":"eu-west-3"}')
    assert loaded.origins["providers.cloud.region"] == ("eu-west-3", "providers.yml:1")
    assert loaded.origins["providers.cloud.profile"] == ("work", "providers.yml:1")
    # Two accounts are easily confused: the ordinary credentials are not offered beside a profile that was named.
    found = shop.problems("provider: aws\njobs: a\n", context=shop.shop())
    assert found == "config.yml:1:11: unknown provider 'aws' | known: cloud, local"


def test_the_configs_profile_wins(shop) -> None:
    shop.write("providers.yml", "providers: [{type: aws, profile: work, region: eu-west-3}]\n")
    loaded = load(shop, "profile: private")
    assert json.loads(loaded.spec.providers[0].settings) == {"profile": "private", "region": "eu-west-3"}
    assert loaded.origins["profile"] == ("private", "config.yml:1")
    assert "providers.aws.profile" not in loaded.origins
    mixed = load(shop, "profile: private\ninstances: [{provider: local}, {provider: aws}]")
    assert [d.settings for d in mixed.spec.providers] == ["{}", '{"profile":"private","region":"eu-west-3"}']


# ---- what is asked for ---------------------------------------------------------------------------------------------


def test_every_key_has_one_form(shop) -> None:
    text = """\
provider: aws
project: "lr search"
dev: true
budget: $20.50
instances:
  type: [m7i.large, m7a.large]
  cpus: 8e0+
  memory: 16GB+
  gpu: A10G:1
  region: eu-west-3
  zone: [eu-west-3a, eu-west-3b]
  vpc: vpc-1
  subnet: subnet-2
  image: ami-3
  user: admin
  disk: 30GB
  disk_type: gp3
  spot: prefer
  eco_life: 6h
  max_price: 2e-2
  explode: true
  number: 3
  idle: 90s
  life: 1d12h
"""
    (spec,) = load(shop, text).spec.instances
    assert (spec.number, spec.capacity) == (3, None)
    assert dict(spec.settings) == {
        "type": "m7i.large,m7a.large",
        "cpus": "8+",
        "memory": "16000000000+",
        "gpu": "A10G:1",
        "region": "eu-west-3",
        "zone": "eu-west-3a,eu-west-3b",
        "vpc": "vpc-1",
        "subnet": "subnet-2",
        "image": "ami-3",
        "user": "admin",
        "disk": "30000000000",
        "disk_type": "gp3",
        "spot": "prefer",
        "eco_life": "21600",
        "max_price": "0.02",
        "explode": "true",
        "idle": "90",
        "life": "129600",
        "project": "lr search",
        "dev": "true",
        "budget": "20.5",
    }
    left = {field.name for field in INSTANCE.fields} - dict(spec.settings).keys()
    assert left == {"provider", "labels", "number"}


def test_the_order_of_the_keys_does_not_matter(shop) -> None:
    one = load(shop, "provider: aws\ninstances: {type: t3.large, spot: true, disk: 8}").spec.instances
    shop.write("providers.yml", "defaults: {aws: {disk: 8GB}}\n")
    assert load(shop, "provider: aws\ninstances: {eco: true, type: [t3.large]}").spec.instances == one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", {}),
        ("{spot: true}", {"spot": "true"}),
        ("{spot: false}", {"spot": "false"}),
        ("{spot: Prefer}", {"spot": "prefer"}),
        ("{cpus: 2.5}", {"cpus": "2.5"}),
        ("{gpu: 1}", {"gpu": "1"}),
        ("{gpu: T4}", {"gpu": "T4:1"}),
        ("{disk: 30}", {"disk": "30000000000"}),
        ("{disk: 8GiB}", {"disk": "8589934592"}),
        ("{max_price: '0.00001'}", {"max_price": "0.00001"}),
        ("{max_price: $1}", {"max_price": "1"}),
        ("{idle: 2h}", {"idle": "7200"}),
        ("{idle: 300}", {"idle": "300"}),
        ("{idle: 0}", {"idle": "0"}),
        ("{idle_minutes: 15}", {"idle": "900"}),
        ("{idle_minutes: 0.5}", {"idle": "30"}),
        ("{idle_minutes: 2h}", {"idle": "7200"}),
        ("{max_life: 2h}", {"life": "7200"}),
        ("{life: '1:30:00'}", {"life": "5400"}),
        ("{machine_type: t3.nano, base_image: ami-1, spot_price: 0.1}",
         {"type": "t3.nano", "image": "ami-1", "max_price": "0.1"}),
    ],
)  # fmt: skip
def test_spellings(shop, text: str, expected: dict[str, str]) -> None:
    assert asked(shop, f"provider: aws\ninstances: {text}") == expected


def test_the_keys_of_the_seeds_mean_what_they_meant(shop) -> None:
    shop.write(
        "seed.py",
        """\
from datetime import timedelta
config = {
    'project': 'test', 'profile': 'mine', 'dev': False, 'auto_stop': True, 'provider': 'aws',
    'instances': [{
        'region': 'eu-west-3', 'cloud_id': 'vpc-1', 'img_id': 'ami-077fd75cd229c811b', 'img_username': 'ubuntu',
        'type': 't3.micro', 'cpus': 2, 'gpu': None, 'disk_size': 16, 'disk_type': 'gp2', 'eco': True,
        'eco_life': timedelta(hours=6), 'max_bid': '0.018', 'number': 3, 'explode': True}],
    'jobs': [{'run_command': 'true', 'output_files': None}],
}
""",
    )
    loaded = shop.load(name="seed.py", context=shop.shop())
    assert loaded.warnings == ()
    assert json.loads(loaded.spec.providers[0].settings)["profile"] == "mine"
    (spec,) = loaded.spec.instances
    assert spec.number == 3
    assert dict(spec.settings) == {
        "region": "eu-west-3", "vpc": "vpc-1", "image": "ami-077fd75cd229c811b", "user": "ubuntu", "type": "t3.micro",
        "cpus": "2", "disk": "16000000000", "disk_type": "gp2", "spot": "true", "eco_life": "21600",
        "max_price": "0.018", "explode": "true", "idle": "600", "life": "86400", "project": "test",
    }  # fmt: skip


def test_dev_keeps_machines_longer_unless_the_entry_says_how_long(shop) -> None:
    assert asked(shop, "provider: aws\ndev: true") == {"dev": "true", "idle": "3600"}
    assert asked(shop, "provider: aws\ndev: true\ninstances: {idle: 5m}") == {"dev": "true", "idle": "300"}
    assert asked(shop, "provider: aws\ndev: false") == {}


def test_without_auto_stop_machines_stay_until_their_life_is_over(shop) -> None:
    assert asked(shop, "provider: aws\nauto_stop: false") == {"idle": "86400"}
    assert asked(shop, "provider: aws\nauto_stop: false\ninstances: {life: 90m}") == {"idle": "5400", "life": "5400"}
    assert asked(shop, "provider: aws\nauto_stop: false\ndev: true") == {"dev": "true", "idle": "86400"}
    shown = load(shop, "provider: aws\nauto_stop: false\ninstances: {life: 90m}").origins
    assert shown["instances[0].idle"] == ("90m", "auto_stop")


def test_idle_contradicts_that_machines_do_not_end_when_they_are_idle(shop) -> None:
    """Seen: `idle` won, and nothing was said."""
    text = "provider: aws\nauto_stop: false\ninstances: {idle: 20s}"
    assert shop.problems(f"{text}\njobs: echo\n", context=shop.shop()) == (
        "config.yml:3:13: instances[0].idle: 20s contradicts auto_stop: false | leave one out: idle ends machines so "
        "long after their work, auto_stop: false when their life is over"
    )
    assert asked(shop, "provider: aws\nauto_stop: false\ninstances: {idle: null}") == {"idle": "86400"}
    assert asked(shop, "provider: aws\nauto_stop: true\ninstances: {idle: 70s}") == {"idle": "70"}
    shop.write("providers.yml", "defaults: {aws: {idle: 5m}}\n")  # what a run says comes before defaults
    assert asked(shop, "provider: aws\nauto_stop: false") == {"idle": "86400"}
    assert asked(shop, "provider: aws") == {"idle": "300"}


def test_what_the_run_says_is_kept_with_it(shop) -> None:
    spec = load(shop, "provider: aws\nmax_cost: $5.00\ndev: true\nprofile: p").spec
    assert dict(spec.settings) == {"profile": "p", "dev": "true", "budget": "5"}
    assert spec.budget == 5.0
    assert asked(shop, "provider: aws\nbudget: 0.5", project="q") == {"budget": "0.5", "project": "q"}


# ---- defaults ------------------------------------------------------------------------------------------------------


def test_defaults_stand_flat_or_nested_and_are_shown_nested(shop) -> None:
    flat = (
        "providers:\n- type: aws\n  region: us-gov-east-1\n  machine_type: t3.large\n  eco: true\n  idle_minutes: 5\n"
    )
    nested = "providers:\n- type: aws\n  region: us-gov-east-1\n  defaults: {type: t3.large, spot: true, idle: 5m}\n"
    shop.write("providers.yml", flat)
    found = load_providers(["providers.yml"], shop.environ)["aws"]
    one = load(shop, "provider: aws").spec
    shop.write("providers.yml", nested)
    assert load(shop, "provider: aws").spec.instances == one.instances
    assert list(found.defaults) == list(load_providers(["providers.yml"], shop.environ)["aws"].defaults)
    assert dict(one.instances[0].settings)["idle"] == "300"
    assert json.loads(one.providers[0].settings) == {"profile": None, "region": "us-gov-east-1"}


def test_layers_and_where_each_value_comes_from(shop) -> None:
    shop.write(
        "providers.yml",
        """\
defaults:
  all: {disk: 30GB, memory: 4GB+}
  aws: {memory: 8GB+, idle_minutes: 20}
  cloud: {type: t3.large}
providers:
- name: cloud
  type: aws
  region: eu-west-3
  defaults: {spot: true}
""",
    )
    loaded = load(shop, "instances: {max_bid: 0.1, region: eu-west-1}", overrides=["instances[0].number=2"])
    origins = loaded.origins
    assert {key: origins[key] for key in sorted(origins) if key.startswith(("instances", "provider"))} == {
        "provider": ("cloud", "the only one configured"),
        "providers.cloud.region": ("eu-west-3", "providers.yml:8"),
        "instances[0].disk": ("30GB", "providers.yml:2"),
        "instances[0].memory": ("8GB+", "providers.yml:3"),
        "instances[0].idle": ("1200s", "providers.yml:3"),
        "instances[0].type": ("t3.large", "providers.yml:4"),
        "instances[0].spot": ("true", "providers.yml:9"),
        "instances[0].max_price": ("0.1", "config.yml:1"),
        "instances[0].region": ("eu-west-1", "config.yml:1"),
        "instances[0].number": ("2", "--set"),
        "instances[0].explode": ("false", "default"),
        "instances[0].life": ("24h", "default"),
    }
    shown = load(shop, "dev: true\ninstances: {idle_minutes: 3}").origins
    assert shown["instances[0].idle"] == ("180s", "config.yml:2")
    shop.write("providers.yml", "{}\n")
    assert load(shop, "dev: true\nprovider: aws").origins["instances[0].idle"] == ("1h", "dev")
    assert load(shop, "provider: aws").origins["instances[0].idle"] == ("10m", "default")


BAD_ENTRIES = [
    ("regoin: x", "3:3: unknown key 'regoin' in providers[0] | did you mean 'region'?"),
    ("region: 'eu west'", "3:11: providers[0].region: 'eu west' is not a region; write eu-west-3"),
    ("aws_region: eu-west-3a",
     "3:15: providers[0].aws_region: 'eu-west-3a' is a zone; write eu-west-3, and zone: eu-west-3a for its machines"),
    ("spot: 3", "3:9: providers[0].spot: '3' is not true, false or prefer"),
    ("aws_secret_access_key: hunter2",
     "3:3: providers[0].aws_secret_access_key: keys never live in this file | "
     "put them into ~/.aws with `aws configure`, and name their profile with 'profile'"),
    ("Access-Key: AKIAIOSFODNN7EXAMPLE",
     "3:3: providers[0].Access-Key: keys never live in this file | "
     "put them into ~/.aws with `aws configure`, and name their profile with 'profile'"),
    ("profile: AKIAIOSFODNN7EXAMPLE",
     "3:12: providers[0].profile: contains a key itself, not the name of a profile | "
     "put them into ~/.aws with `aws configure`, and name their profile with 'profile'"),
    ("profile: ' '", "3:12: providers[0].profile: ' ' is not the name of a profile | see ~/.aws/config"),
    ("disk: 30GB\n  defaults: {disk_size: 20}",
     "3:3: providers[0].disk: 'disk' stands here and in 'defaults'; give it once | move it to providers[0].defaults"),
    ("hosts: [a]", None),
    ("labels: [a]", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), BAD_ENTRIES)
def test_bad_entries(shop, line: str, expected: str | None) -> None:
    shop.write("providers.yml", f"providers:\n- type: aws\n  {line}\n")
    with pytest.raises(ConfigError) as caught:
        load_providers(["providers.yml"], shop.environ)
    (problem,) = caught.value.problems
    shown = f"{problem.line}:{problem.column}: {problem.message}" + (f" | {problem.hint}" if problem.hint else "")
    assert shown == expected or (expected is None and shown.startswith("3:3: unknown key"))
    assert "hunter2" not in shown and "AKIA" not in shown


@pytest.mark.parametrize("word", ["secret", "token", "aws_session_token", "secret_key", "access_key_id", "key",
                                  "credentials", "SecurityToken", "aws_cred_file", "aws_access_key"])  # fmt: skip
def test_no_secret_is_taken(shop, word: str) -> None:
    shop.write("providers.yml", f"providers: [{{type: aws, {word}: hunter2}}]\n")
    with pytest.raises(ConfigError) as caught:
        load_providers(["providers.yml"], shop.environ)
    (problem,) = caught.value.problems
    assert "keys never live in this file" in problem.message and "hunter2" not in str(problem)


# ---- what is told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provider: local\ninstances: {spot: true, disk: 3, idle: 5m, number: 1}",
         "config.yml:2:13: instances[0].spot has no effect: machines of type 'local' are not rented\n"
         "config.yml:2:25: instances[0].disk has no effect: machines of type 'local' are not rented\n"
         "config.yml:2:34: instances[0].idle has no effect: machines of type 'local' are not rented"),
        ("provider: ssh:gpu1\ninstances: {zone: a}",
         "config.yml:2:13: instances[0].zone has no effect: machines of type 'ssh' are not rented"),
        ("provider: local\ninstances: {spot: false, explode: false}", ""),
        ("provider: local\nauto_stop: true", ""),
        ("provider: local\nauto_stop: false",
         "config.yml:2:1: auto_stop has no effect: this run rents no machines"),
        ("provider: local\nprofile: p\nbudget: 3\ndev: false",
         "config.yml:2:1: profile has no effect: this run rents no machines\n"
         "config.yml:3:1: budget has no effect: this run rents no machines"),
        ("instances: [{provider: local}, {provider: aws}]\nbudget: 3\nprofile: p\ndev: true", ""),
        ("provider: aws\ninstances: {labels: [a]}",
         "config.yml:2:13: instances[0].labels has no effect: machines of type 'aws' have no labels"),
        ("provider: aws\ninstances: {eco_life: 6h}",
         "config.yml:2:13: instances[0].eco_life has no effect: the machine is not a spot machine"),
        ("provider: aws\ninstances: {eco_life: 6h, eco: prefer}", ""),
        ("provider: aws\ninstances: {idle: 10}",
         "config.yml:2:19: instances[0].idle: a machine ends itself after 10 seconds without work"),
        ("provider: aws\ninstances: {idle: 10s}", ""),
        ("provider: [aws, local]",
         "config.yml:1:17: provider 'local' is not used: 'aws' is; the next one is not tried yet"),
    ],
)  # fmt: skip
def test_warnings(shop, text: str, expected: str) -> None:
    context = shop.shop(open_provider=None)
    assert shop.warnings(f"{text}\njobs: echo\n", context=context) == expected


def test_defaults_of_all_types_are_no_warning(shop) -> None:
    shop.write("providers.yml", "defaults: {all: {disk: 30GB, idle: 5m}}\n")
    for provider in ("local", "ssh:gpu1"):
        text = f"provider: {provider}\njobs: a\n"
        assert shop.warnings(text, context=shop.shop(open_provider=None)) == ""


BAD = [
    ("spot: 3", "instances[0].spot: '3' is not true, false or prefer"),
    ("spot: [true]", "instances[0].spot: a list is not true, false or prefer"),
    ("spot: 'no'", "instances[0].spot: 'no' is not true, false or prefer | write false"),
    ("type: [t3.large, 'a,b']", "instances[0].type[1]: 'a,b' is not one word of letters, digits and - . _ :"),
    ("type: [t3.large, ~]", "instances[0].type[1]: expected a value, not nothing"),
    ("zone: ''", "instances[0].zone: '' is not one word of letters, digits and - . _ :"),
    ("disk: 0", "instances[0].disk: '0' must be more than nothing"),
    ("idle_minutes: -5", "instances[0].idle_minutes: '-300s' is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
    ("idle_minutes: ten", "instances[0].idle_minutes: 'ten' is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
    ("max_life: soon", "instances[0].max_life: 'soon' is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
    ("max_price: -1", "instances[0].max_price: '-1' must be more than 0"),
    ("spot_price: 0", "instances[0].spot_price: '0' must be more than 0"),
    ("idle: 5m, idle_minutes: 5",
     "'idle' and 'idle_minutes' mean the same; give only one | first given on line 2"),
    ("type: x9.huge", "instances[0].type: 'x9.huge' is not sold here"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), BAD)
def test_what_cannot_be_is_said_where_it_stands(shop, line: str, expected: str) -> None:
    found = shop.problems(f"provider: aws\ninstances: {{{line}}}\njobs: a\n", context=shop.shop())
    assert found.startswith("config.yml:2:")
    assert found.split(": ", 1)[1] == expected


def test_jobs_are_held_against_the_largest_machine_without_any_network(shop) -> None:
    text = "provider: aws\ninstances: {type: t3.large}\njobs: {run: a, cpus: 4, memory: 32GB}\n"
    assert shop.problems(text, context=shop.shop()) == (
        "config.yml:3:22: jobs wants 4 CPUs and 32 GB of memory; "
        "the largest machine has 2 CPUs, 8 GB of memory and 0 GPUs"
    )
    loaded = load(shop, text.replace("t3.large", "[t3.large, t99.large]"))
    assert loaded.spec.jobs[0].resources.cpus == 4
    assert [(w.place, w.message) for w in loaded.warnings] == [
        ("config.yml:2:19", "instances[0].type: [t3.large, t99.large] is not wholly in the table of this version")
    ]
    assert load(shop, "provider: aws").warnings == ()


# ---- what jobs leave behind ----------------------------------------------------------------------------------------


def test_what_is_brought_along_when_a_machine_is_taken_back(desk) -> None:
    text = """\
jobs:
  run: ./train --lr {lr}
  persist: [./checkpoints/, 'state-*.pt', 'runs/{lr}', checkpoints]
  on_preempt: ./save {lr} > "$CLOUDSEND_RESUME_DIR/x"
  matrix: {lr: [1, a b]}
"""
    one, two = desk.jobs(text)
    assert one.persist == ("checkpoints", "state-*.pt", "runs/1")
    assert two.persist == ("checkpoints", "state-*.pt", "runs/a b")
    assert one.on_preempt == './save 1 > "$CLOUDSEND_RESUME_DIR/x"'
    assert two.on_preempt.startswith("./save 'a b' >")
    assert desk.job("jobs: {run: a, persist: out}\n").persist == ("out",)
    assert (desk.job("jobs: a\n").persist, desk.job("jobs: a\n").on_preempt) == ((), "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("persist: /data", "jobs.persist: '/data' is an absolute path"),
        ("persist: ../x", "jobs.persist: '../x' leaves the run directory"),
        ("persist: [a, ./]", "jobs.persist: './' is the whole run directory"),
        ("on_preempt: [a]", "jobs.on_preempt: expected a shell command, not a list"),
        ("on_preempt: ''", "jobs.on_preempt: must not be empty"),
        ("on_preempt: 'x `{p}`', matrix: {p: [a b]}",
         "jobs.on_preempt: the value 'a b' cannot be inserted safely where its parameter stands"),
    ],
)  # fmt: skip
def test_bad_things_to_bring_along(desk, line: str, expected: str) -> None:
    assert expected in desk.problems(f"jobs: {{run: a, {line}}}\n")


# ---- what is found -------------------------------------------------------------------------------------------------


def test_credentials_are_seen_but_not_read(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert find_credentials(home) == find_credentials({}) == ""
    assert find_credentials({**home, "AWS_PROFILE": "p"}) == "AWS_PROFILE"
    assert find_credentials({**home, "AWS_ACCESS_KEY_ID": "AKIA"}) == "AWS_ACCESS_KEY_ID"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").touch()
    assert find_credentials(home) == ""
    (tmp_path / ".aws" / "config").write_text("[default]\n")
    assert find_credentials(home) == "~/.aws/config"
    (tmp_path / "mine").write_text("x")
    named = {**home, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "mine")}
    assert find_credentials(named) == str(tmp_path / "mine")


def test_the_starter_offers_aws_where_credentials_are(desk, shop) -> None:
    without = starter_config("p", environ={"HOME": "/nowhere"})
    text = starter_config("p", environ={"AWS_PROFILE": "p"})
    assert "aws" not in without
    assert desk.load(text).warnings == ()
    offered = text.replace("\nprovider: local\n", "\n").replace("# provider: aws", "provider: aws")
    offered = offered.replace("# instances: {type: t3.medium", "instances: {type: t3.medium")
    loaded = shop.load(offered, context=shop.shop())
    assert loaded.warnings == ()
    assert dict(loaded.spec.instances[0].settings)["spot"] == "prefer"
    odd = starter_config("p", environ={"AWS_CONFIG_FILE": __file__, "HOME": "/\n"})
    assert desk.load(odd).warnings == ()

"""SSH hosts as a provider: selection and sizes, claims that outlive their definition, and damage among the claims."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudsend_cli.core.model import UNBOUNDED, HostAddress, InstanceSpec, ProviderDefinition, Resources
from cloudsend_cli.errors import ConfigError, ProviderError, UnreachableError
from cloudsend_cli.providers.claims import Claims
from cloudsend_cli.providers.local import LocalProvider
from cloudsend_cli.providers.ssh import SshProvider, parse_hosts, read_address
from cloudsend_cli.testing.contract import ProviderContract

RUN = "r00000"
GB = 10**9
HOSTS = [
    {"name": "gpu1", "host": "gpu1"},
    {"name": "gpu2", "host": "gpu2.lab", "cpus": 32, "memory": 64 * GB, "gpus": 2, "labels": ["a100", "big"]},
    {"name": "small", "host": "small.lab", "cpus": 4, "labels": ["cpu"]},
    {"name": "box", "host": "10.0.0.7", "cpus": 8, "memory": 16 * GB, "gpus": 0, "labels": ["cpu", "big"]},
]


def open_lab(state_dir: Path, *hosts: dict[str, object], name: str = "lab") -> SshProvider:
    return SshProvider(ProviderDefinition(name, "ssh", json.dumps({"hosts": hosts or HOSTS})), state_dir)


def spec(number: int = 0, provider: str = "lab", **settings: str) -> InstanceSpec:
    return InstanceSpec(provider, number, settings=tuple(settings.items()))


class TestSshContract(ProviderContract):
    @pytest.fixture
    def provider(self, state_dir: Path) -> SshProvider:
        return open_lab(state_dir)


class TestAdHocContract(ProviderContract):
    """Names that no file name could hold as they are."""

    @pytest.fixture
    def provider(self, state_dir: Path) -> SshProvider:
        host = {"name": "fe80-1-2222", "host": "fe80::1%eth0", "port": 2222, "user": "me"}
        return open_lab(state_dir, host, name="ssh:me@[fe80::1%eth0]:2222")


# ---- which hosts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "settings", "names"),
    [
        (0, {}, "gpu1 gpu2 small box"),
        (1, {}, "gpu1"),
        (3, {}, "gpu1 gpu2 small"),
        (0, {"cpus": "8+"}, "gpu1 gpu2 box"),
        (0, {"cpus": "8"}, "gpu1 gpu2 box"),
        (0, {"memory": "16000000001"}, "gpu1 gpu2 small"),
        (0, {"gpu": "1"}, "gpu1 gpu2 small"),
        (0, {"gpu": "A10G:2+"}, "gpu1 gpu2 small"),
        (0, {"labels": "cpu"}, "small box"),
        (0, {"labels": "big,cpu"}, "box"),
        (0, {"labels": "gpu1"}, "gpu1"),
        (1, {"labels": "big", "cpus": "9+"}, "gpu2"),
    ],
)
def test_hosts_are_chosen_in_the_order_of_the_list(
    state_dir: Path, number: int, settings: dict[str, str], names: str
) -> None:
    lab = open_lab(state_dir)
    asked = spec(number, **settings)
    assert lab.check(asked) == []
    assert [plan.label for plan in lab.plan_machines([asked])] == names.split()


def test_each_host_is_planned_once(state_dir: Path) -> None:
    lab = open_lab(state_dir)
    plans = lab.plan_machines([spec(labels="big", number=1), spec(labels="cpu"), spec()])
    assert [plan.label for plan in plans] == ["gpu2", "small", "box", "gpu1"]
    assert len({plan.request for plan in plans}) == 4


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (spec(5), "number: 5 is more than provider 'lab' has: 4 hosts fit: gpu1, gpu2, small, box"),
        (spec(2, labels="small"), "number: 2 is more than provider 'lab' has: 1 host fits: small"),
        (spec(labels="bgi"), "labels: no host of provider 'lab' carries 'bgi'; did you mean 'big'?"),
        (
            spec(labels="zebra"),
            "labels: no host of provider 'lab' carries 'zebra'; labels there: a100, big, box, cpu, gpu1, gpu2, small",
        ),
        (
            spec(labels="a100,cpu"),
            "no host of provider 'lab' fits: gpu1, gpu2 (32 CPUs, 64 GB of memory, 2 GPUs, a100, big), "
            "small (4 CPUs, cpu), box (8 CPUs, 16 GB of memory, 0 GPUs, cpu, big)",
        ),
    ],
)
def test_what_cannot_be_had_is_said_with_what_there_is(state_dir: Path, asked: InstanceSpec, text: str) -> None:
    assert open_lab(state_dir).check(asked) == [text]
    with pytest.raises(ConfigError) as caught:
        open_lab(state_dir).plan_machines([asked])
    assert [problem.message for problem in caught.value.problems] == [text]


def test_many_hosts_are_named_in_part(state_dir: Path) -> None:
    hosts = [{"name": f"n{i}", "host": f"n{i}"} for i in range(40)]
    (text,) = open_lab(state_dir, *hosts).check(spec(41))
    assert text.endswith("40 hosts fit: n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11 and 28 more")


def test_hosts_that_earlier_entries_took_are_not_left_for_later_ones(state_dir: Path) -> None:
    lab = open_lab(state_dir)
    for asked, text in (
        ([spec(3), spec(2)], "2 of them are asked for, and earlier instances have taken the others of provider 'lab'; "
                             "left: box"),
        ([spec(), spec()], "one is asked for, and earlier instances have taken the others of provider 'lab'; "
                           "left: none"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            lab.plan_machines(asked)
        assert [problem.message for problem in caught.value.problems] == [text]


# ---- how large ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "settings", "capacity"),
    [
        ("gpu1", {}, None),
        ("gpu1", {"cpus": "2+", "gpu": "1+"}, None),
        ("gpu1", {"cpus": "2"}, Resources(2, UNBOUNDED.memory, UNBOUNDED.gpus)),
        ("gpu2", {}, Resources(32, 64 * GB, 2)),
        ("gpu2", {"cpus": "8+"}, Resources(32, 64 * GB, 2)),
        ("gpu2", {"cpus": "8", "memory": "1000000000", "gpu": "1"}, Resources(8, GB, 1)),
        ("small", {}, Resources(4, UNBOUNDED.memory, UNBOUNDED.gpus)),
        ("small", {"memory": "2000000000"}, Resources(4, 2 * GB, UNBOUNDED.gpus)),
    ],
)
def test_jobs_get_what_is_asked_for_exactly_or_declared(
    state_dir: Path, label: str, settings: dict[str, str], capacity: Resources | None
) -> None:
    (plan,) = open_lab(state_dir).plan_machines([spec(labels=label, **settings)])
    assert plan.capacity == capacity


def test_the_largest_is_known_when_all_sizes_are(state_dir: Path) -> None:
    lab = open_lab(state_dir)
    assert lab.largest(spec()) is None
    assert lab.largest(spec(labels="box")) == Resources(8, 16 * GB, 0)
    assert lab.largest(spec(labels="big")) == Resources(32, 64 * GB, 2)
    assert lab.largest(spec(labels="small")) is None
    assert lab.largest(spec(labels="nothing")) is None


# ---- addresses ---------------------------------------------------------------------------------------------


def test_an_address_says_all_that_the_entry_does() -> None:
    entry = {
        "name": "g", "host": "gpu1", "user": "me", "port": 2222, "key": "/home/me/.ssh/lab", "jump": "b@bastion:22",
        "python": "/opt/python3", "home": "~/cs", "shared": True, "max_load": 3.5, "labels": ["a"], "cpus": 4,
    }  # fmt: skip
    assert read_address(json.dumps(entry)) == HostAddress(
        kind="ssh",
        key="ssh:me@gpu1:2222 by way of b@bastion:22 in ~/cs",
        home="~/cs",
        host="gpu1",
        port=2222,
        user="me",
        settings=(
            ("key", "/home/me/.ssh/lab"),
            ("jump", "b@bastion:22"),
            ("python", "/opt/python3"),
            ("shared", "true"),
            ("max_load", "3.5"),
        ),
    )
    assert read_address('{"host": "gpu1", "name": "gpu1", "shared": false}') == HostAddress(
        "ssh", "ssh:gpu1", host="gpu1"
    )


def test_one_private_address_behind_two_bastions_is_two_machines() -> None:
    keys = set()
    for more in ({}, {"jump": "b1"}, {"jump": "b2"}, {"home": "/scratch/me"}, {"port": 23}, {"user": "you"}):
        address = read_address(json.dumps({"name": "n", "host": "10.0.0.5", **more}))
        assert address is not None
        keys.add(address.key)
    assert len(keys) == 6


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "null", '{"host": ""}', '{"host": 3}', "{", '{"host": null}'])
def test_what_names_no_host_has_no_address(text: str) -> None:
    assert read_address(text) is None


@pytest.mark.parametrize("settings", ["", "{}", "[]", '{"hosts": 3}', '{"hosts": [3, null, {}, {"host": "a"}]}'])
def test_settings_of_another_version_are_no_hosts(state_dir: Path, settings: str) -> None:
    assert parse_hosts(settings) == []
    lab = SshProvider(ProviderDefinition("lab", "ssh", settings), state_dir)
    assert lab.check(spec()) == ["provider 'lab' has no hosts"]
    with pytest.raises(ConfigError):
        lab.plan_machines([spec()])


# ---- claims ------------------------------------------------------------------------------------------------


def claim(lab: SshProvider, node: str = "lab-gpu1", generation: int = 1, token: str = "t") -> str:
    request = lab.plan_machines([spec(1)])[0].request
    return lab.create_instance(RUN, node, generation, token, request)


def test_a_claim_keeps_the_address_it_was_made_with(state_dir: Path) -> None:
    claim(open_lab(state_dir, {"name": "gpu1", "host": "old.lab", "port": 2200}))
    edited = open_lab(state_dir, {"name": "gpu1", "host": "new.lab"})
    (status,) = edited.list_instances(RUN)
    assert status.address is not None and (status.address.host, status.address.port) == ("old.lab", 2200)


def test_a_claim_made_by_twenty_at_once_is_one(state_dir: Path) -> None:
    lab = open_lab(state_dir)
    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(lambda _: claim(lab), range(20)))
    assert len(ids) == len(lab.list_instances(RUN)) == 1
    assert len(list((state_dir / "claims").iterdir())) == 1


def test_providers_do_not_see_or_release_each_others_claims(state_dir: Path) -> None:
    lab, other, local = open_lab(state_dir), open_lab(state_dir, name="other"), LocalProvider(state_dir)
    mine = claim(lab)
    theirs = claim(other, "other-gpu1")
    here = local.create_instance(RUN, "local-0", 1, "t", "{}")
    for provider, own in ((lab, mine), (other, theirs), (local, here)):
        assert [status.instance_id for status in provider.list_instances(RUN)] == [own]
    for name in (theirs, here):
        lab.terminate_instance(RUN, "lab-gpu1", name)
    assert len(other.list_instances(RUN)) == len(local.list_instances(RUN)) == 1


def test_another_token_does_not_get_a_claim_that_is_taken(state_dir: Path) -> None:
    lab = open_lab(state_dir)
    claim(lab)
    with pytest.raises(ProviderError, match="is the claim of another request"):
        claim(lab, token="another")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"token": 3, "request": "{}"}', b"[" * 100_000, b"null"]
)
def test_a_damaged_claim_is_named_and_mended_by_the_next_request(state_dir: Path, content: bytes) -> None:
    lab = open_lab(state_dir)
    instance_id = claim(lab)
    path = state_dir / "claims" / f"{instance_id}.json"
    path.write_bytes(content)
    (status,) = lab.list_instances(RUN)
    assert (status.node, status.generation, status.state, status.address) == ("lab-gpu1", 1, "unknown", None)
    assert str(path) in status.reason
    assert open_lab(state_dir, name="other").list_instances(RUN) == []
    assert claim(lab) == instance_id
    (status,) = lab.list_instances(RUN)
    assert (status.state, status.reason) == ("running", "")


def test_a_damaged_claim_of_a_host_that_was_named_on_the_spot_is_its_own(state_dir: Path) -> None:
    one = open_lab(state_dir, {"name": "a", "host": "a"}, name="ssh:a")
    path = state_dir / "claims" / f"{claim(one, 'ssh:a')}.json"
    path.write_text("{")
    assert [status.state for status in one.list_instances(RUN)] == ["unknown"]
    assert open_lab(state_dir).list_instances(RUN) == []


def test_a_damaged_claim_can_be_given_back(state_dir: Path) -> None:
    lab = open_lab(state_dir)
    instance_id = claim(lab)
    (state_dir / "claims" / f"{instance_id}.json").write_text("{")
    lab.terminate_instance(RUN, "lab-gpu1", instance_id)
    assert lab.list_instances(RUN) == []


def test_claims_that_cannot_be_read_are_unknown_and_not_gone(state_dir: Path) -> None:
    (state_dir / "claims").write_text("no directory")
    with pytest.raises(UnreachableError):
        open_lab(state_dir).list_instances(RUN)
    with pytest.raises(ProviderError):
        claim(open_lab(state_dir))


@pytest.mark.parametrize(
    "node",
    ["lab-a b", "lab-../../x", "lab-a/b", "lab-é", "lab-a\nb", "lab-a--b--3", "lab-%2e", "-lab", ".", "", "l" * 900],
)
def test_any_name_of_a_node_makes_a_safe_claim(state_dir: Path, node: str) -> None:
    lab = open_lab(state_dir)
    instance_id = claim(lab, node)
    assert [path.name for path in state_dir.rglob("*") if path.is_file()] == [f"{instance_id}.json"]
    assert "/" not in instance_id and instance_id.isascii() and instance_id.isprintable()
    (status,) = lab.list_instances(RUN)
    assert (status.node, status.generation) == (node, 1)
    lab.terminate_instance(RUN, node, instance_id)
    assert lab.list_instances(RUN) == []


def test_claims_of_all_runs_can_be_listed(state_dir: Path) -> None:
    lab = open_lab(state_dir)
    claim(lab)
    lab.create_instance("rother", "lab-gpu1", 2, "t", '{"host": "gpu1", "name": "gpu1"}')
    assert [(c.run, c.node, c.generation) for c in Claims(state_dir, "lab").list()] == [
        (RUN, "lab-gpu1", 1),
        ("rother", "lab-gpu1", 2),
    ]


def test_claims_of_this_machine_that_an_earlier_version_made_are_kept(state_dir: Path) -> None:
    (state_dir / "claims").mkdir()
    (state_dir / "claims" / f"{RUN}--local-0--1.json").write_text('{"token": "t", "request": "{}"}')
    local = LocalProvider(state_dir)
    assert [status.node for status in local.list_instances(RUN)] == ["local-0"]
    assert local.create_instance(RUN, "local-0", 1, "t", "{}") == f"{RUN}--local-0--1"
    assert open_lab(state_dir).list_instances(RUN) == []

"""What is printed of machines: the json forms are stable, and what is not known is null."""

from __future__ import annotations

from cloudsend_cli.core.machine_views import CheckView, InstanceView, ProviderHost, ProviderView
from cloudsend_cli.core.model import UNBOUNDED, Resources


def test_what_is_not_known_is_null() -> None:
    things = [
        InstanceView("n", "lab", "", "running"),
        ProviderView("local", "local", "ready", ""),
        ProviderHost("gpu1", "gpu1.lab"),
        CheckView("clock", None, "unknown"),
    ]
    for thing in things:
        assert "" not in thing.as_json().values()


def test_a_machine_in_json() -> None:
    whole, free = Resources(8.0, 64 << 30, 2), Resources(5.0, 32 << 30, 1)
    machine = InstanceView("lab-gpu1", "lab", "i", "running", ("ab12cd", "x"), capacity=whole, free=free, load=0.5)
    value = machine.as_json()
    assert (value["run"], value["runs"]) == ("ab12cd", ["ab12cd", "x"])
    assert (value["cpus"], value["cpus_free"], value["gpus_free"], value["load"]) == (8.0, 5.0, 1, 0.5)
    assert value["capacity"] == "8 CPUs, 64.0 GiB, 2 GPUs"
    assert machine.in_use == "3/8 CPUs, 1/2 GPUs"


def test_places_are_shown_only_where_they_are_known() -> None:
    assert InstanceView("n", "local", "", "running", capacity=Resources(4.0)).in_use == ""
    assert InstanceView("n", "local", "", "running", capacity=Resources(4.0), free=Resources(4.0)).in_use == "0/4 CPUs"
    unknown = InstanceView("n", "lab", "", "running", capacity=UNBOUNDED, free=Resources(4.0))
    assert (unknown.in_use, unknown.as_json()["cpus"]) == ("", None)
    assert InstanceView("n", "lab", "", "claimed").as_json()["capacity"] is None


def test_a_provider_in_json_names_its_hosts_and_where_its_defaults_come_from() -> None:
    host = ProviderHost("gpu2", "gpu2.lab", Resources(32.0, UNBOUNDED.memory, 2), (("jump", "bastion"),))
    provider = ProviderView("lab", "ssh", "ready", "", "p.yml", (host,), (("disk", "30GB", "p.yml:3"),))
    value = provider.as_json()
    hosts = value["hosts"]
    assert isinstance(hosts, list)
    assert hosts[0] == {
        "name": "gpu2", "host": "gpu2.lab", "cpus": 32.0, "memory_bytes": None, "gpus": 2,
        "settings": {"jump": "bastion"},
    }  # fmt: skip
    assert value["defaults"] == {"disk": {"value": "30GB", "origin": "p.yml:3"}}

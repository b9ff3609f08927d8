"""Providers of type ssh: good and bad definitions with exact texts and places, hostile words, and their origins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudsend_cli.config.addresses import parse_host_word, parse_jump, parse_user
from cloudsend_cli.config.context import ProviderInfo
from cloudsend_cli.config.providers import load_providers
from cloudsend_cli.core.model import ProviderDefinition
from cloudsend_cli.errors import ConfigError

HEAD = "providers:\n- name: lab\n  type: ssh\n"


def read(desk, text: str) -> dict[str, ProviderInfo]:
    desk.write("providers.yml", text)
    return load_providers(["providers.yml"], desk.environ)


def hosts_of(info: ProviderInfo) -> list[dict[str, object]]:
    return json.loads(info.definition.settings)["hosts"]


def read_hosts(desk, text: str) -> list[dict[str, object]]:
    return hosts_of(read(desk, HEAD + text)["lab"])


def problems_of(desk, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(desk, text)
    shown = [f"{p.place}: {p.message}" + (f" | {p.hint}" if p.hint else "") for p in caught.value.problems]
    return "\n".join(line.removeprefix("providers.yml:") for line in shown)


# ---- good ones ---------------------------------------------------------------------------------------------


def test_a_definition_is_complete_and_canonical(desk) -> None:
    text = """\
  user: me
  port: 2200
  key: keys/lab
  jump: bastion.lab
  python: /opt/python3.9/bin/python3
  home: ~/scratch/cloudsend
  shared: true
  max_load: 6.5
  labels: [lab]
  hosts:
  - gpu1
  - you@gpu2.lab:22
  - host: gpu3
    name: three
    user: root
    port: 23
    key: /etc/keys/three
    jump: none
    python: python3.11
    home: /scratch/me
    shared: false
    max_load: 4
    labels: [gpu, big]
    cpus: 32
    memory: 64GiB
    gpu: 2
"""
    desk.write("keys/lab")
    (info,) = (i for i in read(desk, HEAD + text).values() if i.name == "lab")
    common = {
        "home": "~/scratch/cloudsend", "jump": "bastion.lab", "key": str(desk.folder / "keys/lab"),
        "labels": ["lab"], "max_load": 6.5, "python": "/opt/python3.9/bin/python3", "shared": True,
    }  # fmt: skip
    assert hosts_of(info) == [
        {"host": "gpu1", "name": "gpu1", "user": "me", "port": 2200, **common},
        {"host": "gpu2.lab", "name": "gpu2.lab-22", "user": "you", "port": 22, **common},
        {
            "host": "gpu3", "name": "three", "user": "root", "port": 23, "key": "/etc/keys/three",
            "python": "python3.11", "home": "/scratch/me", "shared": False, "max_load": 4,
            "labels": ["gpu", "big"], "cpus": 32, "memory": 64 << 30, "gpus": 2,
        },
    ]  # fmt: skip
    assert info.definition == ProviderDefinition("lab", "ssh", info.definition.settings)
    assert info.definition.settings == json.dumps(
        json.loads(info.definition.settings), sort_keys=True, separators=(",", ":")
    )
    (warning,) = info.warnings
    assert (warning.place, warning.message) == (
        "providers.yml:20:10",
        "providers[0].hosts[2].key: /etc/keys/three does not exist",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hosts: gpu1", [{"host": "gpu1", "name": "gpu1"}]),
        ("hosts: {host: gpu1}", [{"host": "gpu1", "name": "gpu1"}]),
        ("hosts: [a, b]", [{"host": "a", "name": "a"}, {"host": "b", "name": "b"}]),
        ("hosts: [10.0.0.7]", [{"host": "10.0.0.7", "name": "10.0.0.7"}]),
        ("hosts: ['fe80::1%eth0']", [{"host": "fe80::1%eth0", "name": "fe80-1-eth0"}]),
        ("hosts: ['me@[::1]:2222']", [{"host": "::1", "name": "1-2222", "user": "me", "port": 2222}]),
        (
            "hosts: [127.0.0.1:2201, 127.0.0.1:2202]",
            [
                {"host": "127.0.0.1", "name": "127.0.0.1-2201", "port": 2201},
                {"host": "127.0.0.1", "name": "127.0.0.1-2202", "port": 2202},
            ],
        ),
        ("hosts: [_x]", [{"host": "_x", "name": "x"}]),
        ("hosts: ['7']", None),
        ("hosts: [me@example.org@gpu1]", [{"host": "gpu1", "name": "gpu1", "user": "me@example.org"}]),
        ("hosts: [a, {host: a, user: you, name: b}]", [{"host": "a", "name": "a"},
                                                      {"host": "a", "name": "b", "user": "you"}]),
        ("hosts: [{host: a, jump: b1, name: x}, {host: a, jump: b2, name: y}]",
         [{"host": "a", "name": "x", "jump": "b1"}, {"host": "a", "name": "y", "jump": "b2"}]),
        ("hosts: [{host: 'me@a:23', user: me, port: 23}]", [{"host": "a", "name": "a-23", "user": "me", "port": 23}]),
        ("hosts: [{host: a, user: null, cpus: ~, gpus: 0, memory: 1GB, labels: x}]",
         [{"host": "a", "name": "a", "gpus": 0, "memory": 10**9, "labels": ["x"]}]),
        ("jump: 'me@b1:22, b2'\n  hosts: a", [{"host": "a", "name": "a", "jump": "me@b1:22,b2"}]),
        ("hosts: [{host: a, cpus: 0.5}]", [{"host": "a", "name": "a", "cpus": 0.5}]),
    ],
)  # fmt: skip
def test_good_hosts(desk, text: str, expected: list[dict[str, object]] | None) -> None:
    if expected is None:
        assert "is a number, not a host" in problems_of(desk, f"{HEAD}  {text}\n")
    else:
        assert read_hosts(desk, f"  {text}\n") == expected


def test_keys_are_found_beside_the_file_and_at_home(desk) -> None:
    desk.environ = {"HOME": str(desk.folder / "home")}
    desk.write("home/.ssh/id_lab")
    desk.write("sub/key")
    for text, path in (("~/.ssh/id_lab", "home/.ssh/id_lab"), ("sub/../sub/key", "sub/key"), ("./sub/key", "sub/key")):
        info = read(desk, f"{HEAD}  key: {text}\n  hosts: [a, b]\n")["lab"]
        assert [host["key"] for host in hosts_of(info)] == [str(desk.folder / path)] * 2
        assert info.warnings == ()
    info = read(desk, f"{HEAD}  key: sub\n  hosts: [a, b]\n")["lab"]
    assert [w.message for w in info.warnings] == [f"providers[0].key: {desk.folder}/sub is a directory, not a key"]


def test_local_and_later_types_have_a_definition_too(desk) -> None:
    found = read(desk, "providers:\n- {name: here, type: local}\n- {type: gcp, zone: z}\n")
    assert [info.definition for info in found.values()] == [
        ProviderDefinition("local", "local", "{}"),
        ProviderDefinition("here", "local", "{}"),
        ProviderDefinition("gcp", "gcp", "{}"),
        ProviderDefinition("aws", "aws", '{"profile":null,"region":null}'),
    ]


# ---- bad ones ----------------------------------------------------------------------------------------------

BAD = [
    ("", "2:3: providers[0]: a provider of type ssh needs 'hosts' | write hosts: [gpu1, me@gpu2.lab]"),
    ("hosts: []", "4:10: providers[0]: a provider of type ssh needs 'hosts' | write hosts: [gpu1, me@gpu2.lab]"),
    ("host: a", "4:3: unknown key 'host' in providers[0] | 'host' belongs under 'hosts'\n"
                "2:3: providers[0]: a provider of type ssh needs 'hosts' | write hosts: [gpu1, me@gpu2.lab]"),
    ("hsots: [a]", "4:3: unknown key 'hsots' in providers[0] | did you mean 'hosts'?\n"
                   "2:3: providers[0]: a provider of type ssh needs 'hosts' | write hosts: [gpu1, me@gpu2.lab]"),
    ("hosts: a\n  cpus: 4", "5:3: unknown key 'cpus' in providers[0] | 'cpus' belongs under 'hosts'"),
    ("hosts: a\n  spot: true", "5:3: unknown key 'spot' in providers[0] | 'spot' belongs under 'defaults'"),
    ("hosts: a\n  region: x", "5:3: unknown key 'region' in providers[0] | 'region' belongs under 'defaults'"),
    ("hosts: 4", "4:10: providers[0].hosts: expected a host, not '4' | "
                 "a name, an address or user@host:port; quote a name that looks like a number"),
    ("hosts: [[a]]", "4:11: providers[0].hosts[0]: expected a host, not a list | "
                     "a name, an address or user@host:port; quote a name that looks like a number"),
    ("hosts: [~]", "4:11: providers[0].hosts[0]: expected a host, not nothing | "
                   "a name, an address or user@host:port; quote a name that looks like a number"),
    ("hosts: [{cpus: 4}]", "4:11: providers[0].hosts[0]: a host needs 'host' | write {host: gpu1, cpus: 8}"),
    ("hosts: {gpu1: {cpus: 4}, gpu2: ~}", "4:10: providers[0].hosts: a host needs 'host' | "
                                          "write {host: gpu1, cpus: 8}"),
    ("hosts: [{}]", "4:11: providers[0].hosts[0]: a host needs 'host' | write {host: gpu1, cpus: 8}"),
    ("hosts: [{host: a, prot: 22}]", "4:21: unknown key 'prot' in providers[0].hosts[0] | did you mean 'port'?"),
    ("hosts: [{host: a, hosts: b}]", "4:21: unknown key 'hosts' in providers[0].hosts[0] | "
                                     "'hosts' belongs under 'providers'"),
    ("hosts: [{host: a, gpu: 1, gpus: 2}]",
     "4:29: 'gpu' and 'gpus' mean the same; give only one | first given on line 4"),
    ("hosts: [a, a]", "4:14: providers[0].hosts[1]: 'a' is given twice | first given on line 4"),
    ("hosts:\n  - me@a:22\n  - {host: A, user: me, port: 22}",
     "6:12: providers[0].hosts[1]: 'me@A:22' is given twice | first given on line 5"),
    ("user: me\n  hosts: [a, me@a]", "5:14: providers[0].hosts[1]: 'me@a' is given twice | first given on line 5"),
    ("hosts: [{host: a, name: x}, {host: b, name: x}]",
     "4:47: providers[0].hosts[1]: a second host is called 'x' | the first is on line 4; give one of them a 'name'"),
    ("hosts: [{host: a.lab, name: b}, b]",
     "4:35: providers[0].hosts[1]: a second host is called 'b' | the first is on line 4; give one of them a 'name'"),
    ("hosts: [me@a:22, you@a:22]",
     "4:20: providers[0].hosts[1]: a second host is called 'a-22' | "
     "the first is on line 4; give one of them a 'name'"),
    ("hosts: [{host: 'me@a', user: you}]", "4:32: providers[0].hosts[0].user: 'you' here, but 'me' in 'host' | "
                                           "give it once"),
    ("hosts: [{host: 'a:22', port: 23}]", "4:32: providers[0].hosts[0].port: '23' here, but '22' in 'host' | "
                                          "give it once"),
    ("hosts: [{host: a, port: 0}]", "4:27: providers[0].hosts[0].port: '0' must be from 1 to 65535"),
    ("port: 65536\n  hosts: a", "4:9: providers[0].port: '65536' must be from 1 to 65535"),
    ("hosts: ['a:x']", "4:11: providers[0].hosts[0]: 'a:x' has a port that is not a number from 1 to 65535"),
    ("hosts: ['a:']", "4:11: providers[0].hosts[0]: 'a:' has a port that is not a number from 1 to 65535"),
    ("hosts: ['a:99999']", "4:11: providers[0].hosts[0]: 'a:99999' has a port that is not a number from 1 to 65535"),
    ("hosts: ['[::1']", "4:11: providers[0].hosts[0]: '[::1' has brackets that do not match; write [fe80::1]:22"),
    ("hosts: ['::zz::']", "4:11: providers[0].hosts[0]: '::zz::' is not a host name or an address"),
    ("hosts: ['@a']", "4:11: providers[0].hosts[0]: '@a' has no user before '@'"),
    ("hosts: ['me@']", "4:11: providers[0].hosts[0]: 'me@' has no host name"),
    ("hosts: ['']", "4:11: providers[0].hosts[0]: '' has no host name"),
    ("hosts: ['7']", "4:11: providers[0].hosts[0]: '7' is a number, not a host"),
    ("hosts: [{host: a, cpus: 8+}]", "4:27: providers[0].hosts[0].cpus: '8+' is not how much there is; write 8"),
    ("hosts: [{host: a, cpus: 0}]", "4:27: providers[0].hosts[0].cpus: '0' must be more than 0"),
    ("hosts: [{host: a, memory: 16}]", "4:29: providers[0].hosts[0].memory: '16' has no unit; write 16GB or 16MB"),
    ("hosts: [{host: a, gpus: A10G:2}]",
     "4:27: providers[0].hosts[0].gpus: 'A10G:2' has a kind; write 2, and labels: [A10G]"),
    ("hosts: [{host: a, name: 'a b'}]",
     "4:27: providers[0].hosts[0].name: 'a b' is not a short name; use letters, digits, '.', '-' and '_', at most 63"),
    ("hosts: [{host: a, labels: [x, y, x]}]", "4:36: providers[0].hosts[0].labels: the label 'x' is given twice"),
    ("hosts: [{host: a, labels: ['x y']}]", "4:30: providers[0].hosts[0].labels[0]: 'x y' is not a label; "
                                            "use letters, digits and . _ + : = -, at most 63"),
    ("hosts: a\n  shared: yes", "5:11: providers[0].shared: 'yes' is not true or false | write true"),
    ("hosts: a\n  max_load: 0", "5:13: providers[0].max_load: '0' must be more than 0"),
    ("hosts: a\n  max_load: much", "5:13: providers[0].max_load: 'much' is not a number"),
    ("hosts: a\n  python: ../python", "5:11: providers[0].python: '../python' is not an absolute path on the host; "
                                      "begin it with / or ~/"),
    ("hosts: a\n  home: scratch", "5:9: providers[0].home: 'scratch' is not an absolute path on the host; "
                                  "begin it with / or ~/"),
    ("hosts: a\n  home: /a/../b", "5:9: providers[0].home: '/a/../b' contains '..'"),
    ("hosts: a\n  user: a b", "5:9: providers[0].user: 'a b' contains a space"),
    ("hosts: a\n  jump: ''", "5:9: providers[0].jump: '' has no host name"),
    ("hosts: a\n  jump: b,-c", "5:9: providers[0].jump: 'b,-c' begins with '-', which programs read as an option"),
    ("hosts: a\n  jump: a,a,a,a,a,a,a,a,a",
     "5:9: providers[0].jump: 'a,a,a,a,a,a,a,a,a' names more than 8 machines in between"),
    ("hosts: a\n  defaults: {cpu: 4}", "5:14: unknown key 'cpu' in providers[0].defaults | did you mean 'cpus'?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD)
def test_bad_definitions(desk, text: str, expected: str) -> None:
    assert problems_of(desk, f"{HEAD}  {text}\n") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("providers: [{type: local, cpus: 4}]\n",
         "1:27: unknown key 'cpus' in providers[0] | 'cpus' belongs under 'defaults'"),
        ("providers: [{type: local, deafults: {}}]\n",
         "1:27: unknown key 'deafults' in providers[0] | did you mean 'defaults'?"),
        ("providers: [{name: local, type: ssh, hosts: a}]\n",
         "1:20: providers[0].name: 'local' means this machine; a provider of type 'ssh' needs another name"),
        ("providers: [{name: all, type: ssh, hosts: a}]\n",
         "1:20: providers[0].name: 'all' means every provider; a provider of type 'ssh' needs another name"),
        ("providers: [{name: aws, type: ssh, hosts: a}]\n",
         "1:20: providers[0].name: 'aws' means the type 'aws'; a provider of type 'ssh' needs another name"),
        ("providers: [{name: 'ssh:a', type: ssh, hosts: a}]\n",
         "1:20: providers[0].name: 'ssh:a' is not a short name; use letters, digits, '.', '-' and '_', at most 63"),
        ("defaults: {lba: {cpus: 1}}\nproviders: [{name: lab, type: ssh, hosts: a}]\n",
         "1:12: defaults: 'lba' is neither 'all', a type nor a provider | did you mean 'lab'?"),
    ],
)  # fmt: skip
def test_bad_providers(desk, text: str, expected: str) -> None:
    assert problems_of(desk, text) == expected


def test_all_problems_of_a_file_come_at_once(desk) -> None:
    text = HEAD + "  user: -x\n  hosts:\n  - a b\n  - {host: c, prot: 3}\n  - {host: d, password: p}\n"
    assert problems_of(desk, text).count("\n") == 3


def test_a_host_that_is_repeated_by_an_alias_is_repeated(desk) -> None:
    text = "x-h: &h {host: a}\nproviders: [{name: lab, type: ssh, hosts: [*h, *h]}]\n"
    assert "'a' is given twice" in problems_of(desk, text)


# ---- secrets -----------------------------------------------------------------------------------------------

WHY = "logging in with a password is not supported, and none is kept in a file"
DO = "make a key with ssh-keygen, put it there with ssh-copy-id, and name it with 'key' or let ssh-agent hold it"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hosts: a\n  password: hunter2", f"5:3: providers[0].password: {WHY} | {DO}"),
        ("hosts: [{host: a, Passphrase: hunter2}]", f"4:21: providers[0].hosts[0].Passphrase: {WHY} | {DO}"),
        ("hosts: ['me:hunter2@a']", f"4:11: providers[0].hosts[0]: there is a ':' before the '@': {WHY} | {DO}"),
        ("hosts: [{host: 'me:hunter2@a:22'}]", f"4:18: providers[0].hosts[0].host: there is a ':' before the '@': "
                                               f"{WHY} | {DO}"),
        ("hosts: a\n  jump: b,me:hunter2@c", f"5:9: providers[0].jump: there is a ':' before the '@': {WHY} | {DO}"),
        ('hosts: a\n  key: "-----BEGIN OPENSSH PRIVATE KEY-----\\nhunter2"',
         "5:8: providers[0].key: contains a key itself, not the path of a file with it | "
         "keys never live in this file: write key: ~/.ssh/id_ed25519"),
        ("hosts: a\n  key: ssh-ed25519 hunter2",
         "5:8: providers[0].key: contains a key itself, not the path of a file with it | "
         "keys never live in this file: write key: ~/.ssh/id_ed25519"),
    ],
)  # fmt: skip
def test_secrets_are_refused_and_not_repeated(desk, text: str, expected: str) -> None:
    found = problems_of(desk, f"{HEAD}  {text}\n")
    assert found == expected
    assert "hunter2" not in found


# ---- hostile words -----------------------------------------------------------------------------------------

HOSTILE = [
    "-oProxyCommand=touch /tmp/x", "-oProxyCommand=x", "--", "-", "a;b", "a&b", "a|b", "$(x)", "`x`", "a$b", "a b",
    "a\tb", "a'b", 'a"b', "a\\b", "a/b", "../a", "a*", "a?b", "a<b", "a>b", "a{b", "a#b", "a!b", "a%b", "a,b", "a=b",
    "é", "a\u202eb", "a\u00a0b", "\u0430", "a\x7fb", "a\x1b[2J", "a\nb", "a\rb", "~a", "a" * 300, "::ffff:1.2.3.4.5",
    "fe80::1%eth0;x", "[a", "[-x]:1",
]  # fmt: skip


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_hosts_are_refused(desk, word: str) -> None:
    quoted = json.dumps(word)
    found = problems_of(desk, f"{HEAD}  hosts: [{{host: {quoted}}}]\n")
    assert found.startswith("4:18: providers[0].hosts[0].host: ") and found.count("\n") == 0
    assert found.isprintable()


@pytest.mark.parametrize("word", [w for w in HOSTILE if w not in {"a*"}] + ["", "-x", "a:b", "me@-x"])
def test_hostile_users_and_hops_are_refused(desk, word: str) -> None:
    if word != "me@-x":
        assert "providers[0].user: " in problems_of(desk, f"{HEAD}  hosts: a\n  user: {json.dumps(word)}\n")
    if word not in {"a,b"}:
        assert "providers[0].jump: " in problems_of(desk, f"{HEAD}  hosts: a\n  jump: {json.dumps(word)}\n")


@pytest.mark.parametrize("key", ["python", "home", "name", "labels"])
@pytest.mark.parametrize("word", ["/a;b", "-x", "/a b", "/$x", "/a\nb", "/`a`", "/a'b", "/a\\b", "/é", ""])
def test_hostile_paths_and_names_are_refused(desk, key: str, word: str) -> None:
    text = f"{HEAD}  hosts: [{{host: a, {key}: {json.dumps(word)}}}]\n"
    assert f"providers[0].hosts[0].{key}" in problems_of(desk, text)


@given(st.text(max_size=40))
def test_no_word_becomes_an_option_or_shell_text(text: str) -> None:
    for parse in (parse_host_word, parse_jump, parse_user):
        try:
            found = str(parse(text))
        except ValueError:
            continue
        assert re.fullmatch(r"[A-Za-z0-9_.\[][A-Za-z0-9_.@+:%,\[\]$-]*", found)
        for hop in found.split(","):
            assert not hop.rpartition("@")[2].strip("[]").startswith("-")
            assert parse(hop) == parse(found) if "," not in found else True


@given(st.from_regex(r"(([a-z_.][a-z0-9_.+-]{0,5})@)?([A-Za-z0-9][a-z0-9.-]{0,9}x|\[[0-9a-f]{1,4}::1\])(:[1-9][0-9]{0,3})?",
                     fullmatch=True))  # fmt: skip
def test_what_a_word_says_is_kept(text: str) -> None:
    word = parse_host_word(text)
    assert str(word) == text
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", word.name)


KEYS = ["name", "type", "hosts", "host", "user", "port", "key", "jump", "python", "home", "shared", "max_load",
        "labels", "cpus", "memory", "gpus", "gpu", "defaults", "password", "providers", "all", "lab", "x", "profile",
        "region", "spot", "machine_type", "idle_minutes", "zone", "aws", "secret"]  # fmt: skip
WORDS = st.sampled_from(["ssh", "local", "aws", "prefer", "5m",
                         "lab", "gpu1", "me@a:22", "4", "8+", "16GB", "true", "none", "~/.ssh/id",
                         "-x", "a b", "[::1]:22", "", "\n", "\udcff", "é"])  # fmt: skip
VALUES = st.recursive(
    WORDS | st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4), VALUES, VALUES)
def test_whatever_a_file_says_it_is_read_or_explained(desk, top: object, entry: object, hosts: object) -> None:
    whole = {"providers": [{"name": "lab", "type": "ssh", "hosts": hosts}, entry], "defaults": top}
    for text in (
        whole,
        top,
        {"providers": entry},
        {"providers": [{"type": "ssh", "hosts": [hosts, "b"]}]},
        {"providers": {"type": "aws", "idle_minutes": entry, "profile": hosts, "defaults": top}},
    ):
        desk.write("providers.json", json.dumps(text).encode("utf-8", "surrogatepass"))
        try:
            found = load_providers(["providers.json"], desk.environ)
        except ConfigError as error:
            assert error.problems and all(p.message and p.message.isprintable() for p in error.problems)
        else:
            for info in found.values():
                assert isinstance(json.loads(info.definition.settings), dict)


def test_too_many_hosts(desk) -> None:
    text = f"{HEAD}  hosts: [{', '.join(f'h{i}' for i in range(10_001))}]\n"
    assert problems_of(desk, text) == "4:11: providers[0].hosts: more than 10,000 hosts"


def test_ten_thousand_hosts_are_read(desk) -> None:
    assert len(read_hosts(desk, f"  user: me\n  hosts: [{', '.join(f'h{i}' for i in range(10_000))}]\n")) == 10_000


# ---- origins -----------------------------------------------------------------------------------------------


def test_each_value_of_a_host_says_where_it_comes_from(desk) -> None:
    text = HEAD + "  user: me\n  labels: [a, b]\n  hosts:\n  - gpu1\n  - {host: 'you@gpu2:23', cpus: 4, labels: c}\n"
    assert read(desk, text)["lab"].origins == (
        ("hosts[0].host", "gpu1", "providers.yml:7"),
        ("hosts[0].user", "me", "providers.yml:4"),
        ("hosts[0].labels", "a, b", "providers.yml:5"),
        ("hosts[1].host", "gpu2", "providers.yml:8"),
        ("hosts[1].user", "you", "providers.yml:8"),
        ("hosts[1].port", "23", "providers.yml:8"),
        ("hosts[1].labels", "c", "providers.yml:8"),
        ("hosts[1].cpus", "4", "providers.yml:8"),
    )


def test_the_same_words_from_another_directory_are_the_same(desk, tmp_path: Path) -> None:
    text = HEAD + "  key: k\n  hosts: [a]\n"
    desk.write("deep/providers.yml", text)
    found = load_providers([str(tmp_path / "deep" / "providers.yml")], desk.environ)["lab"]
    assert [host["key"] for host in hosts_of(found)] == [str(tmp_path / "deep" / "k")]

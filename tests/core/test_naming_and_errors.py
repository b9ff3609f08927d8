"""Ids, hashes, names and errors."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudsend_cli import errors
from cloudsend_cli.core import naming
from cloudsend_cli.core.model import JobSpec, Output, Resources, Upload

SPEC = JobSpec("a", ("run", "x"), "run x")
PART_OF_THE_HASH = {
    "argv": ("run", "y"),
    "env": (("A", "1"),),
    "secrets": ("TOKEN",),
    "environment": "e1",
    "uploads": (Upload("a", "0" * 64, 1, 0o644, "/a"),),
    "outputs": (Output("out"),),
    "workdir": "sub",
    "params": (("p", "1"),),
    "repeat_index": 1,
}


@pytest.mark.parametrize("name", sorted(PART_OF_THE_HASH))
def test_content_changes_the_hash(name: str) -> None:
    assert naming.job_hash(replace(SPEC, **{name: PART_OF_THE_HASH[name]})) != naming.job_hash(SPEC)  # type: ignore[arg-type]


def test_how_it_is_run_does_not_change_the_hash() -> None:
    other = replace(
        SPEC,
        name="b",
        display="other",
        resources=Resources(9),
        slots=("s",),
        private_uploads=True,
        timeout=1.0,
        grace=1.0,
        retries=9,
        retries_lost=9,
        after=("x",),
        persist=("x",),
        on_preempt="x",
        after_any=("x",),
        stage=2,
        group="g",
        slot_args=True,
        memory_factor=2.0,
    )
    assert naming.job_hash(other) == naming.job_hash(SPEC)
    named = {"name", "display", "resources", "slots", "private_uploads", "timeout", "grace", "retries"}
    named |= {"retries_lost", "after", "persist", "on_preempt", "after_any", "stage", "group", "slot_args"}
    assert named | {"memory_factor"} | PART_OF_THE_HASH.keys() == {f.name for f in fields(JobSpec)}


def test_a_source_path_or_a_write_bit_does_not_make_a_result_stale() -> None:
    one, two = (Upload("a", "0" * 64, 1, mode, path) for mode, path in ((0o644, "/a"), (0o600, "/b")))
    assert naming.job_hash(replace(SPEC, uploads=(one,))) == naming.job_hash(replace(SPEC, uploads=(two,)))


@given(st.binary(min_size=6, max_size=20))
def test_run_id_is_six_letters_and_digits(random: bytes) -> None:
    run = naming.run_id(random)
    assert re.fullmatch("[a-z][a-z0-9]{5}", run)
    assert naming.parse_attempt_id(naming.attempt_id(run, 12, 3)) == (run, 12, 3)
    assert naming.run_of_attempt(naming.attempt_id(run, 1, 1)) == run
    assert naming.job_id(run, 4) == f"{run}.4"


def test_builds_and_attempts_do_not_collide() -> None:
    build = naming.build_id("rtest1", "abc", 2)
    assert naming.parse_attempt_id(build) is None
    assert naming.parse_build_id(build) == ("rtest1", "abc", 2)
    for foreign in ("", "a.b", "a.1.2", "a.env-x.y", "a.x-1.2", "a.env-x.1.2"):
        assert naming.parse_build_id(foreign) is None
    for foreign in ("", "r.1", "r.x.1", "r.1.x", "r.1.2.3"):
        assert naming.parse_attempt_id(foreign) is None


def test_token_changes_with_each_part_of_the_intent_and_fits_ec2() -> None:
    tokens = {naming.token(*parts) for parts in [("r", "n", 1, "d"), ("s", "n", 1, "d"), ("r", "m", 1, "d")]}
    tokens |= {naming.token("r", "n", 2, "d"), naming.token("r", "n", 1, "e")}
    assert len(tokens) == 5
    assert all(len(t) <= 64 and t.isascii() for t in tokens)
    assert naming.token("r", "n", 1, "d") == naming.token("r", "n", 1, "d")
    assert naming.create_call("n", 1) != naming.create_call("n", 2) != naming.terminate_call("n 2")


@given(st.text(max_size=120), st.text(max_size=120))
def test_file_names_are_safe_and_distinct(one: str, two: str) -> None:
    name = naming.safe_component(one)
    assert re.fullmatch(r"[A-Za-z0-9_+=,@%-][A-Za-z0-9._+=,@%-]*", name) and len(name) <= 100
    assert (name == naming.safe_component(two)) == (one == two)


@pytest.mark.parametrize(
    ("name", "shown"), [("a-b.c", "a-b.c"), ("..", r"job-\w{8}"), (".x", r"x-\w{8}"), ("a/b", r"a_b-\w{8}")]
)
def test_plain_names_stay_as_they_are(name: str, shown: str) -> None:
    assert re.fullmatch(shown, naming.safe_component(name))


NAMES = ["a", "ab", "a/b", "b[1]", "c*", "a-1", "x]y", "a^b"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a", ["a"]),
        ("z", []),
        ("a*", ["a", "ab", "a/b", "a-1", "a^b"]),
        ("a?", ["ab"]),
        ("[ac]?", ["ab", "c*"]),
        ("[!a]*", ["b[1]", "c*", "x]y"]),
        ("*[0-9]", ["a-1"]),
        ("[]x]*", ["x]y"]),
        ("b[*", ["b[1]"]),
        ("*.", []),
        ("[z-a]", []),
        ("a[^-]b", ["a^b"]),
    ],
)
def test_globs(pattern: str, found: list[str]) -> None:
    assert naming.match_names(pattern, NAMES) == found


@given(st.text(alphabet="ab*?[]!^-\\&|~", max_size=8), st.lists(st.text(alphabet="ab[]", max_size=4)))
def test_no_pattern_breaks(pattern: str, names: list[str]) -> None:
    assert set(naming.match_names(pattern, names)) <= set(names)


def test_digest_is_of_json_values_only_and_stable() -> None:
    assert naming.digest("a", 1, [None]) == naming.digest("a", 1, [None]) != naming.digest("a", 1, [0])
    with pytest.raises(TypeError):
        naming.digest(object())
    assert json.dumps("é", ensure_ascii=True) == '"\\u00e9"'


# ---- errors --------------------------------------------------------------------------------------------------------


def all_errors() -> list[type[errors.CloudsendError]]:
    return [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.CloudsendError)]


def test_codes_are_unique_and_say_what_to_do() -> None:
    kinds = all_errors()
    assert len({e.code for e in kinds}) == len(kinds)
    assert all(e.__doc__ and e.exit_status in {1, 2, 3, 4, 5, 6, 7, 124} for e in kinds)
    assert {e.code for e in kinds if e.transient} == {"capacity", "unreachable", "expired", "conflict"}


def test_error_keeps_hint_and_foreign_words() -> None:
    error = errors.ProviderError("it said no", hint="ask again", context="InvalidThing: no")
    assert (str(error), error.hint, error.context) == ("it said no", "ask again", "InvalidThing: no")


def test_config_error_carries_all_problems_with_their_places() -> None:
    problems = [errors.Problem("one", "c.yml", 12, 5), errors.Problem("two", "c.yml"), errors.Problem("three")]
    error = errors.ConfigError(problems, hint="h")
    assert str(error) == "one; c.yml: two; three"
    assert error.message == "one; two; three"
    assert [p.place for p in error.problems] == ["c.yml:12:5", "c.yml", ""]
    assert str(errors.ConfigError([])) == "invalid configuration"


def test_machines_are_named_after_their_provider_and_themselves() -> None:
    assert naming.node_name("lab", "gpu1", 3) == "lab-gpu1"
    assert naming.node_name("local", "", 0) == "local-0"
    assert naming.node_name("ssh:me@gpu1:22", "gpu1-22", 0) == "ssh:me@gpu1:22"

"""What an attempt is told of its place: arguments after its own, and variables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.model import JobSpec, Resources, Slot
from cloudsend_cli.engine.wire import render_about, render_spec

SPEC = JobSpec("s/g/0", ("train", "--lr", "1e-3"), "train", slot_args=True, resources=Resources(cpus=0.0))


def wire(slot: int, pairs: Slot, base: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    start = AttemptStart("rtest1.1.2", replace(SPEC, **spec), slot=slot, pairs=pairs)
    return render_spec(start, base or {}, {}, "rtest1")


def told(wire: dict[str, Any]) -> dict[str, str]:
    return {k: v for k, v in wire["env"].items() if "SLOT" in k or "CUDA" in k}


@pytest.mark.parametrize(
    ("pairs", "argv", "env"),
    [
        ((), [], {}),
        ((("", "x"),), ["x"], {}),
        (
            (("--machine", "1"), ("--gpu", "0,1")),
            ["--machine", "1", "--gpu", "0,1"],
            {"CLOUDSEND_SLOT_MACHINE": "1", "CLOUDSEND_SLOT_GPU": "0,1", "CUDA_VISIBLE_DEVICES": "0,1"},
        ),
        ((("gpu", "3"),), ["gpu", "3"], {"CLOUDSEND_SLOT_GPU": "3", "CUDA_VISIBLE_DEVICES": "3"}),
        ((("-g", ""), ("--", "y")), ["-g", "", "--", "y"], {"CLOUDSEND_SLOT_G": ""}),
        (
            (("--data-dir", "/a b; rm $x"), ("é.é", "")),
            ["--data-dir", "/a b; rm $x", "é.é", ""],
            {"CLOUDSEND_SLOT_DATA_DIR": "/a b; rm $x", "CLOUDSEND_SLOT____": ""},
        ),
    ],
)
def test_place_in_arguments_and_variables(pairs: Slot, argv: list[str], env: dict[str, str]) -> None:
    found = wire(4, pairs)
    assert found["argv"] == ["train", "--lr", "1e-3", *argv]
    assert told(found) == {"CLOUDSEND_SLOT": "4", **env}
    assert wire(4, pairs, slot_args=False)["argv"] == ["train", "--lr", "1e-3"]
    assert told(wire(4, pairs, slot_args=False)) == told(found)


def test_job_without_a_place_is_told_of_none() -> None:
    found = wire(-1, (), base={"CLOUDSEND_SLOT": "7", "CLOUDSEND_SLOT_GPU": "1", "CUDA_VISIBLE_DEVICES": "5"})
    assert found["argv"] == ["train", "--lr", "1e-3"]
    assert told(found) == {"CUDA_VISIBLE_DEVICES": "5"}, "those of a job that submitted it are not its own"


def test_place_comes_before_the_shell_and_after_it_what_the_user_wrote() -> None:
    pairs = (("--gpu", "0"),)
    assert told(wire(0, pairs, base={"CUDA_VISIBLE_DEVICES": "5"}))["CUDA_VISIBLE_DEVICES"] == "0"
    own = (("CUDA_VISIBLE_DEVICES", "9"), ("CLOUDSEND_SLOT", "mine"), ("CLOUDSEND_RUN", "mine"))
    found = wire(0, pairs, env=own)
    assert told(found) == {"CLOUDSEND_SLOT": "0", "CLOUDSEND_SLOT_GPU": "0", "CUDA_VISIBLE_DEVICES": "9"}
    assert found["env"]["CLOUDSEND_RUN"] == "rtest1"


def test_gpus_that_the_host_gives_are_named_by_the_host() -> None:
    found = wire(1, (("--gpu", "1"),), resources=Resources(0.0, 0, 1))
    assert told(found) == {"CLOUDSEND_SLOT": "1", "CLOUDSEND_SLOT_GPU": "1"}


def test_arguments_of_its_place_go_through_its_environment() -> None:
    found = wire(0, (("--gpu", "1"),), environment="e1")
    assert found["argv"][-6:] == ["sh", "train", "--lr", "1e-3", "--gpu", "1"]


def test_account_of_a_job_tells_its_group() -> None:
    told = render_about(replace(SPEC, stage=2, group="s/g", after_any=("a",), memory_factor=1.5), {})["spec"]
    assert isinstance(told, dict)
    assert [told[k] for k in ("stage", "group", "slot_args", "memory_factor")] == [2, "s/g", True, 1.5]

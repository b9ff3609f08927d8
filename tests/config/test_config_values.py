"""Scalars, sizes, durations and counts as tables."""

from __future__ import annotations

import pytest

from cloudsend_cli.config.document import scalar_kind
from cloudsend_cli.config.points import expand_log, expand_range, same_value
from cloudsend_cli.config.values import (
    parse_cpus,
    parse_duration,
    parse_gpu,
    parse_memory,
    parse_size,
    parse_whole,
    show_size,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1e-3", "float"),
        ("1", "int"),
        ("0o17", "int"),
        ("0x1F", "int"),
        ("-.5", "float"),
        ("3.10", "float"),
        (".inf", "float"),
        (".NaN", "float"),
        ("", "null"),
        ("~", "null"),
        ("Null", "null"),
        ("true", "bool"),
        ("FALSE", "bool"),
        ("no", "str"),
        ("on", "str"),
        ("yes", "str"),
        ("y", "str"),
        ("1:30:00", "str"),
        ("2024-01-01", "str"),
        ("1_000", "str"),
        ("nan", "str"),
        ("+", "str"),
        ("e3", "str"),
        ("1e", "str"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, kind: str) -> None:
    assert scalar_kind(text) == kind


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("2h", 7200),
        ("1d12h", 129600),
        ("1d 12h", 129600),
        ("1:30:00", 5400),
        ("1-12:00:00", 129600),
        ("0:00:01", 1),
        ("30", 30),
        ("1.5", 1.5),
        ("1e3", 1000),
        ("2H", 7200),
        ("1h30m15s", 5415),
        ("0.5s", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (parse_duration, "two hours", "is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
        (parse_duration, "1:30", "is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
        (parse_duration, "", "is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
        (parse_duration, "h", "is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
        (parse_duration, "30m2h", "is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
        (parse_duration, "-5", "is less than nothing"),
        (parse_duration, "9999999d", "is longer than ten years"),
        (parse_duration, "nan", "is not a duration; write 90m, 2h, 1d12h or 1:30:00"),
        (parse_size, "16", "has no unit; write 16GB or 16MB"),
        (parse_size, "16 apples", "is not a size; write 16GB or 512MiB"),
        (parse_size, "16iB", "is not a size; write 16GB or 512MiB"),
        (parse_size, "-1GB", "is not a size; write 16GB or 512MiB"),
        (parse_size, "9999999PB", "is more than any machine has"),
        (parse_cpus, "0", "must be more than 0"),
        (parse_cpus, "-1", "must be more than 0"),
        (parse_cpus, "many", "is not a number of CPUs; write 8 or 8+"),
        (parse_cpus, "1e9", "is more than any machine has"),
        (parse_cpus, "1e9999", "is not a number of CPUs; write 8 or 8+"),
        (parse_cpus, ".nan", "is not a number of CPUs; write 8 or 8+"),
        (parse_gpu, "A10G:", "is not a number of GPUs; write 1 or A10G:1"),
        (parse_gpu, "-1", "is not a number of GPUs; write 1 or A10G:1"),
        (parse_gpu, "1.5", "is not a number of GPUs; write 1 or A10G:1"),
        (parse_whole, "1.5", "is not a whole number"),
        (parse_whole, "9" * 5000, "is too large"),
        (parse_whole, "1e300", "is too large"),
        (parse_whole, "x", "is not a number"),
    ],
)
def test_what_is_no_value_says_what_to_write(read: object, text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(text)  # type: ignore[operator]
    assert str(caught.value) == words


def test_sizes() -> None:
    assert parse_size("16GB") == 16_000_000_000
    assert parse_size("512MiB") == 512 * 1024**2
    assert parse_size("1.5 gb") == 1_500_000_000
    assert parse_size("2k") == 2000
    assert parse_size("100B") == 100
    assert parse_size("30", bare=10**9) == 30 * 10**9
    assert parse_memory("16GB+") == 16_000_000_000
    assert [show_size(n) for n in (12, 1500, 16 * 10**9, 2 * 10**12)] == ["12 bytes", "1.5 KB", "16 GB", "2 TB"]


def test_counts() -> None:
    assert [parse_cpus(t) for t in ("8", "8+", "0.5", "1e1")] == [8, 8, 0.5, 10]
    assert [parse_gpu(t) for t in ("1", "0", "A10G", "A10G:2", "RTX 4090:1")] == [
        ("", 1),
        ("", 0),
        ("A10G", 1),
        ("A10G", 2),
        ("RTX 4090", 1),
    ]
    assert [parse_whole(t) for t in ("3", "-3", "3.0", "1e3")] == [3, -3, 3, 1000]


def test_ranges_keep_decimals_exact_and_include_both_ends() -> None:
    assert expand_range(["1", "4"]) == ["1", "2", "3", "4"]
    assert expand_range(["0.1", "0.5", "0.1"]) == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert expand_range(["3", "1"]) == ["3", "2", "1"]
    assert expand_range(["0", "10", "4"]) == ["0", "4", "8"]
    assert expand_log(["1e-5", "1e-1", "5"]) == ["1e-5", "0.0001", "0.001", "0.01", "1e-1"]
    assert expand_log(["1", "8", "2"]) == ["1", "8"]


@pytest.mark.parametrize(
    ("expand", "texts", "words"),
    [
        (expand_range, ["1", "5", "0"], "the step must not be 0"),
        (expand_range, ["1", "5", "-1"], "the step leads away from the last value"),
        (expand_range, ["1", "1e9"], "makes 1,000,000,000 values; the limit is 1,000,000"),
        (expand_range, ["1", ".inf"], "'.inf' is not a number"),
        (expand_range, ["1", "1e99999"], "'1e99999' is not a number that can be counted with"),
        (expand_log, ["0", "1", "3"], "'log' needs numbers above 0"),
        (expand_log, ["1", "2", "1"], "'log' makes from 2 to 1,000,000 values"),
        (expand_log, ["1", "2", "2.5"], "is not a whole number"),
    ],
)
def test_impossible_ranges(expand: object, texts: list[str], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        expand(texts)  # type: ignore[operator]
    assert str(caught.value) == words


def test_equal_numbers_are_equal_values_and_texts_are_not_numbers() -> None:
    assert same_value("1e-3", "0.001")
    assert same_value("a", "a")
    assert not same_value("1", "a")
    assert not same_value("nan", "1")

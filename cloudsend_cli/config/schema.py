"""Every key of a config, in tables: names, what a value may be, and what editors are told."""

from __future__ import annotations

import re

from .addresses import parse_label
from .check import (
    Field,
    Parse,
    Report,
    Schema,
    Table,
    check_mapping,
    choice_value,
    clip,
    describe_node,
    flag_value,
    list_value,
    read_value,
    text_value,
    whole_value,
    word_value,
)
from .document import Mapping, Node, Scalar, is_null
from .values import parse_cpus, parse_duration, parse_gpu, parse_memory, parse_number, parse_size

MAX_JOBS = 1_000_000
MAX_SEED = 10**18
MAX_FACTOR = 100
FREE = "x-"  # begins keys of the top level that are the user's own
PREFER = "prefer"
_OFFER_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")

TEXT: Schema = {"type": ["string", "number", "boolean", "null"]}
TEXTS: Schema = {"anyOf": [TEXT, {"type": "array", "items": {"type": ["string", "number", "boolean"]}}]}
FLAG: Schema = {"type": ["boolean", "null"]}
AMOUNT: Schema = {"type": ["number", "string", "null"]}
ANY: Schema = {}


def whole_schema(least: int, most: int) -> Schema:
    return {"type": ["integer", "null"], "minimum": least, "maximum": most}


def choice_schema(*choices: str) -> Schema:
    return {"enum": [*choices, None]}


def node_value(report: Report, node: Node, path: str) -> Node:
    """Kept as it is for a reader of its own."""
    return node


def duration_above_zero(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("must be more than nothing")
    return seconds


def parse_disk(text: str) -> int:
    size = parse_size(text, bare=1_000_000_000)
    if size <= 0:
        raise ValueError("must be more than nothing")
    return size


def parse_offer_word(text: str) -> str:
    """A word of a provider: a region, a type, an id."""
    if not _OFFER_WORD.fullmatch(text.strip()):
        raise ValueError("is not one word of letters, digits and - . _ :")
    return text.strip()


def _parse_price(text: str) -> float:
    value = parse_number(text.strip().removeprefix("$"))
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


price_value = read_value(_parse_price)


def _parse_factor(text: str) -> float:
    value = parse_number(text.strip())
    if not 1 <= value <= MAX_FACTOR:
        raise ValueError(f"must be from 1 to {MAX_FACTOR}")
    return value


def _parse_slot(text: str) -> str:
    """A name that jobs of one machine share; those of our own begin with what is refused."""
    word = parse_offer_word(text)
    if word.startswith(("env-", "tool-")):
        raise ValueError("may not begin with 'env-' or 'tool-'")
    return word


def spot_value(report: Report, node: Node, path: str) -> bool | str | None:
    if isinstance(node, Scalar) and node.text.strip().lower() == PREFER:
        return PREFER
    flags = Report()
    value = flag_value(flags, node, path)
    for problem in flags.problems:
        message = f"{path}: {describe_node(node)} is not true, false or {PREFER}"
        report.error(message, node.place, problem.hint, path)
    return value


def vars_value(report: Report, node: Node, path: str) -> list[tuple[str, str | None, Node]] | None:
    """(name, text or None for "from my shell", node) of each variable."""
    if not isinstance(node, Mapping):
        message = f"{path}: expected a mapping of names and values, not {describe_node(node)}"
        report.error(message, node.place, "write vars: {NAME: value}", path)
        return None
    found: list[tuple[str, str | None, Node]] = []
    for key, value in node.entries:
        name = key.text
        if not is_variable(name):
            message = f"{path}: {describe_node(key)} is not a variable's name"
            report.error(message, key.place, "letters, digits and '_', not a digit first", path)
        elif name.startswith("CLOUDSEND_"):
            report.error(f"{path}: {name!r} is set by cloudsend itself", key.place, path=path)
        elif is_null(value):
            found.append((name, None, key))
        else:
            text = text_value(report, value, f"{path}.{name}")
            if text is not None:
                found.append((name, text, value))
    return found


def is_variable(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def labels_value(report: Report, node: Node, path: str) -> list[str]:
    """Labels of hosts, each once."""
    pairs = list_value(read_value(parse_label))(report, node, path)
    labels: list[str] = []
    for label, item in pairs if isinstance(pairs, list) else []:
        if label in labels:
            report.error(f"{path}: the label {clip(label)} is given twice", item.place, path=path)
        else:
            labels.append(label)
    return labels


def outputs_value(report: Report, node: Node, path: str) -> tuple[str, bool, Node] | None:
    """(pattern, optional, node) of one output."""
    if not isinstance(node, Mapping):
        text = word_value(report, node, path)
        return None if text is None else (text, False, node)
    values = check_mapping(report, node, OUTPUT, path)
    if "path" not in values:
        report.error(f"{path}: an output needs 'path'", node.place, path=path)
        return None
    given = values["path"]
    optional = values["optional"].value if "optional" in values else False
    return (str(given.value), optional is True, given.node) if given.value is not None else None


def run_value(report: Report, node: Node, path: str) -> str | None:
    if not isinstance(node, Scalar):
        hint = "one job runs one command; give several jobs, or join commands with && in one text"
        message = f"{path}: expected a shell command, not {describe_node(node)}"
        report.error(message, node.place, hint, path)
        return None
    text = text_value(report, node, path)
    if text is not None and not text.strip():
        report.error(f"{path}: must not be empty", node.place, path=path)
        return None
    return text


def _field(
    names: str, parse: Parse, schema: Schema, doc: str, default: str = "", counts: tuple[tuple[str, float], ...] = ()
) -> Field:
    name, *aliases = names.split()
    return Field(name, tuple(aliases), parse, schema, doc, default, counts)


_WORDS = list_value(word_value)
_OFFERED = list_value(read_value(parse_offer_word))

OUTPUT = Table(
    "output",
    (
        _field("path", word_value, TEXT, "A file, directory or glob in the run directory."),
        _field("optional", flag_value, FLAG, "Its absence is not a failure.", "false"),
    ),
)

TOP = Table(
    "",
    (
        _field("project", word_value, TEXT, "Name of the project; default: the config's directory."),
        _field("provider", _WORDS, TEXTS, "A provider's name, or several tried in order.", "local"),
        _field("instances", node_value, ANY, "The machines to use."),
        _field("environments", node_value, ANY, "Software set-ups."),
        _field("jobs", node_value, ANY, "What to run."),
        _field("sections", node_value, {"type": ["object", "null"]}, "The TaskRunner's form."),
        _field("max_parallel", whole_value(1, 1_000_000), whole_schema(1, 1_000_000), "Most jobs at one time."),
        _field("results_dir", word_value, TEXT, "Where results come home.", "results"),
        _field("recover", flag_value, FLAG, "Continue the config's earlier run.", "true"),
        _field(
            "auto_stop",
            flag_value,
            FLAG,
            "Machines without work end themselves after `idle`; false: after `life`, and `idle` may not be given.",
            "true",
        ),
        _field("allow_system_packages", flag_value, FLAG, "Let apt install on the machines.", "false"),
        _field("mutualize_uploads", flag_value, FLAG, "Jobs share one copy of each uploaded file.", "true"),
        _field("profile", word_value, TEXT, "Profile of the cloud's credentials; default: the provider's."),
        _field("dev", flag_value, FLAG, "Rented machines are kept for an hour for the next run.", "false"),
        _field("debug", whole_value(0, 3), whole_schema(0, 3), "How much is told, 0 to 3.", "1"),
        _field(
            "maestro",
            choice_value("local", "remote", "lambda"),
            choice_schema("local", "remote", "lambda"),
            "Who watches the run.",
            "local",
        ),
        _field(
            "assign job_assign",
            choice_value("cheapest", "fastest", "knapsack", "multi_knapsack", "random"),
            choice_schema("cheapest", "fastest", "knapsack", "multi_knapsack", "random"),
            "How jobs are given to machines: `multi_knapsack` (as do `knapsack` and `cheapest`) fills few machines "
            "before it takes more, `fastest` spreads jobs over all, `random` draws by `seed`.",
            "multi_knapsack",
        ),
        _field(
            "seed",
            whole_value(0, MAX_SEED),
            whole_schema(0, MAX_SEED),
            "What `assign: random` and `sample` draw by: the same seed, the same choice.",
            "0",
        ),
        _field(
            "delay",
            read_value(parse_duration),
            AMOUNT,
            "Time between the first tasks of two places of sections: `10s`, so that not all of them begin at once.",
            "0s",
        ),
        _field("print_deploy", flag_value, FLAG, "Show the building of environments.", "false"),
        _field(
            "budget max_cost",
            price_value,
            AMOUNT,
            "Most dollars of a run: before they are spent nothing more starts, then what runs is ended.",
        ),
        _field("notify", node_value, ANY, "Whom to tell at the end."),
    ),
)

INSTANCE = Table(
    "instances",
    (
        _field("provider", word_value, TEXT, "The provider of this machine."),
        _field(
            "cpus",
            read_value(parse_cpus),
            AMOUNT,
            "CPUs: 8, or 8+ for at least 8. A burstable type of AWS (t3, t4g) is taken only where `type` names it.",
        ),
        _field("memory", read_value(parse_memory), AMOUNT, "Memory: 16GB, or 16GB+ for at least that."),
        _field("gpu", read_value(parse_gpu), AMOUNT, "GPUs: 1, or 1+ for at least 1, or A10G:1."),
        _field("labels", labels_value, TEXTS, "Hosts of an ssh provider: those that carry all of these labels."),
        _field(
            "number count",
            whole_value(1, 10_000),
            whole_schema(1, 10_000),
            "How many; default: 1, of an ssh provider all hosts that fit.",
        ),
        _field(
            "type machine_type",
            _OFFERED,
            TEXTS,
            "The provider's name of the machine type, or several, tried in order.",
        ),
        _field("region", read_value(parse_offer_word), TEXT, "Region; default: the provider's."),
        _field("zone", _OFFERED, TEXTS, "Zone of the region, or several; default: any."),
        _field("vpc cloud_id", read_value(parse_offer_word), TEXT, "Network; default: the region's default one."),
        _field("subnet", read_value(parse_offer_word), TEXT, "Subnet of the network; default: any that fits."),
        _field(
            "image img_id base_image",
            word_value,
            TEXT,
            "Machine image: `ami-…`, or `ssm:/…`; default: the current Ubuntu LTS.",
        ),
        _field("user img_username", word_value, TEXT, "Who logs in; default: the image's own user."),
        _field("disk disk_size", read_value(parse_disk), AMOUNT, "Disk: 200GB; a number counts GB; default: 30GB."),
        _field("disk_type", read_value(parse_offer_word), TEXT, "The provider's name of the disk type."),
        _field(
            "spot eco",
            spot_value,
            {"enum": [True, False, PREFER, None]},
            "Rent what may be taken back; `prefer`: and what may not where there is none.",
            "false",
        ),
        _field("eco_life", read_value(duration_above_zero), AMOUNT, "How long a spot machine is wanted."),
        _field("max_price max_bid spot_price", price_value, AMOUNT, "Most dollars an hour."),
        _field(
            "explode",
            flag_value,
            FLAG,
            "Split `cpus`, as cores, into several machines of the type; `number` times as many.",
            "false",
        ),
        _field(
            "idle idle_minutes",
            read_value(parse_duration),
            AMOUNT,
            "A machine without work ends itself after so long; default: 10m, with `dev` 1h. "
            "`idle_minutes: 10` counts minutes. 0: it is given back as soon as its run has ended.",
            counts=(("idle_minutes", 60.0),),
        ),
        _field(
            "life max_life",
            read_value(duration_above_zero),
            AMOUNT,
            "A machine ends itself after so long, whatever it does; default: 24h.",
        ),
    ),
)

ENVIRONMENT = Table(
    "environments",
    (
        _field("name", word_value, TEXT, "What jobs call it."),
        _field("apt env_aptget", _WORDS, TEXTS, "System packages."),
        _field("conda env_conda", node_value, TEXTS, "Packages, a file, or an environment's directory."),
        _field("conda_channels env_conda_channels", _WORDS, TEXTS, "Channels of conda."),
        _field("pip env_pypi", node_value, TEXTS, "Packages, a requirements file, or a venv's directory."),
        _field("julia env_julia", _WORDS, TEXTS, "Julia packages."),
        _field("setup command", text_value, TEXT, "A script's path, or shell text."),
        _field("vars", vars_value, {"type": ["object", "null"]}, "Variables; null: taken from your shell."),
        _field("allow_system_packages", flag_value, FLAG, "Let apt install on the machines.", "false"),
    ),
)

JOB = Table(
    "jobs",
    (
        _field("name", word_value, TEXT, "Name; default: that of the program."),
        _field("run run_command", run_value, TEXT, "A shell command line; Linux passes at most 131,071 bytes."),
        _field("script run_script", word_value, TEXT, "A script with its arguments."),
        _field("env env_name", word_value, TEXT, "Its environment; 'none' for none."),
        _field("cpus cpus_req", read_value(parse_cpus), AMOUNT, "CPUs.", "1"),
        _field("memory", read_value(parse_memory), AMOUNT, "Memory: 4GB."),
        _field("gpu", read_value(parse_gpu), AMOUNT, "GPUs.", "0"),
        _field("upload upload_files upload_file", _WORDS, TEXTS, "Files, directories and globs to send."),
        _field(
            "input input_files input_file",
            _WORDS,
            TEXTS,
            "Like upload; what input_file or input_files names may be missing.",
        ),
        _field(
            "output output_files output_file",
            list_value(outputs_value),
            ANY,
            "Files, directories, globs to bring home.",
        ),
        _field("workdir", word_value, TEXT, "Where it runs: below the run directory, or an absolute path there."),
        _field("repeat", whole_value(1, MAX_JOBS), whole_schema(1, MAX_JOBS), "How many times.", "1"),
        _field(
            "matrix",
            node_value,
            {"type": ["object", "null"]},
            "Parameters and their values: one job for each combination; what is given twice counts once.",
        ),
        _field(
            "after", _WORDS, TEXTS, "Names or globs of jobs that come first; where one fails, this one does not run."
        ),
        _field("after_any", _WORDS, TEXTS, "Names or globs of jobs that come first, however they end."),
        _field(
            "max_parallel",
            whole_value(1, MAX_JOBS),
            whole_schema(1, MAX_JOBS),
            "Most of these jobs at one time, over all machines.",
        ),
        _field(
            "slots",
            list_value(read_value(_parse_slot)),
            TEXTS,
            "Names of what one machine has once, such as a port or a licence: jobs that name the same never run there "
            "at the same time.",
        ),
        _field("retries retry", whole_value(0, 1000), whole_schema(0, 1000), "New attempts after a failure.", "0"),
        _field("retries_lost", whole_value(0, 1000), whole_schema(0, 1000), "New attempts after a loss.", "1"),
        _field(
            "retry_memory_factor",
            read_value(_parse_factor),
            AMOUNT,
            "A new attempt after one that had too little memory gets so many times as much; needs `memory` and "
            "`retries`.",
            "1",
        ),
        _field("timeout", read_value(duration_above_zero), AMOUNT, "Longest time of one attempt."),
        _field("grace", read_value(parse_duration), AMOUNT, "Time between TERM and KILL.", "10s"),
        _field("vars", vars_value, {"type": ["object", "null"]}, "Variables; null: taken from your shell."),
        _field(
            "persist",
            _WORDS,
            TEXTS,
            "Directories, files and globs in the run directory that a new attempt finds in CLOUDSEND_RESUME_DIR when "
            "the machine of the one before was taken back.",
        ),
        _field(
            "on_preempt", run_value, TEXT, "A shell line for when the machine is about to be taken back; 30 s at most."
        ),
    ),
)

_NOT_IN_GROUPS = frozenset({"name", "run", "script", "repeat", "cpus", "matrix"})
LISTS: Schema = {"type": ["object", "null"]}

GROUP = Table(
    "sections",
    (
        _field("Call call", node_value, TEXT, "A shell command line; in Python also a function."),
        _field(
            "Param param",
            node_value,
            LISTS,
            "Arguments and their values: one task for each combination, also of what is given twice.",
        ),
        _field(
            "Async async",
            node_value,
            LISTS,
            "The places where tasks run at the same time, and what they add to the arguments; what is given twice is "
            "two places. Default: one place.",
        ),
        _field("matrix", node_value, LISTS, "Parameters as in `jobs`, for `{name}` in `Call`; instead of `Param`."),
        _field("cpus cpus_req", read_value(parse_cpus), AMOUNT, "CPUs of a task; default: none, the places count."),
        *(entry for entry in JOB.fields if entry.name not in _NOT_IN_GROUPS),
    ),
)

TABLES = (TOP, INSTANCE, ENVIRONMENT, JOB)
SYNONYMS = {name: entry.name for table in (*TABLES, GROUP) for name, entry in table.by_name.items()}

"""Ids, tokens, hashes and paths, each built in one place. Pure: randomness comes in as an argument."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

from .model import JobSpec

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base32, lower case: no i, l, o, u
RUN_ID_LENGTH = 6
# Only the one spelling that `attempt_id` and `build_id` make: these ids come back from hosts, and name files.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")


def run_id(random_bytes: bytes) -> str:
    """Six letters and digits from at least six random bytes; the first is always a letter."""
    first = _ALPHABET[10 + random_bytes[0] % 22]
    return first + "".join(_ALPHABET[b % 32] for b in random_bytes[1:RUN_ID_LENGTH])


def node_name(provider: str, label: str, number: int) -> str:
    """What a run calls a machine. A host that was named on the spot, as `ssh:gpu1`, is its provider's only one."""
    return provider if ":" in provider else f"{provider}-{label or number}"


def stand_in_name(node: str) -> str:
    """No plan numbers a machine so, and no provider that rents gives labels."""
    return f"{node}b"


def job_id(run: str, number: int) -> str:
    return f"{run}.{number}"


def attempt_id(run: str, number: int, attempt: int) -> str:
    """The identity under which a host executes at most once, for ever."""
    return f"{run}.{number}.{attempt}"


def build_id(run: str, key: str, attempt: int) -> str:
    """The attempt id of one build of an environment; it never collides with a job's."""
    return f"{run}.env-{key}.{attempt}"


def parse_attempt_id(text: str) -> tuple[str, int, int] | None:
    """(run, job number, attempt) of a job's attempt, None for a build or anything foreign."""
    parts = text.split(".")
    if len(parts) != 3 or not (_NUMBER.fullmatch(parts[1]) and _NUMBER.fullmatch(parts[2])):
        return None
    return parts[0], int(parts[1]), int(parts[2])


def parse_build_id(text: str) -> tuple[str, str, int] | None:
    """(run, environment key, attempt) of a build, None for anything else."""
    parts = text.split(".")
    if len(parts) != 3 or not parts[1].startswith("env-") or not _NUMBER.fullmatch(parts[2]):
        return None
    key = parts[1].removeprefix("env-")
    return (parts[0], key, int(parts[2])) if _KEY.fullmatch(key) else None


def run_of_attempt(text: str) -> str:
    return text.split(".", 1)[0]


def digest(*parts: object) -> str:
    """32 hex digits over a canonical rendering of `parts` (JSON values only)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def job_hash(spec: JobSpec) -> str:
    """The content identity of a job: command, arguments, environment, and the contents of all that it is given.

    Names, resources, retries and time limits are not part of it: changing those does not make a result stale.
    """
    return digest(
        list(spec.argv),
        [list(pair) for pair in spec.env],
        list(spec.secrets),
        spec.environment,
        [[u.path, u.sha256, u.mode & 0o111] for u in spec.uploads],
        [[o.pattern, o.optional] for o in spec.outputs],
        spec.workdir,
        [list(pair) for pair in spec.params],
        spec.repeat_index,
    )


def token(run: str, node: str, generation: int, request_digest: str) -> str:
    """The idempotency token of one intended machine; at most 64 ASCII characters, as EC2 asks."""
    return f"cs-{digest(run, node, generation, request_digest)}"


LIST = "list "  # how the keys of calls begin that list a provider's machines


def list_call(provider: str) -> str:
    return LIST + provider


def create_call(node: str, generation: int) -> str:
    """The key of a provider call under way; its error is never taken for that of another generation."""
    return f"create {node} {generation}"


def terminate_call(instance_id: str) -> str:
    return f"terminate {instance_id}"


def keep_call(instance_id: str, generation: int) -> str:
    """One machine may be kept, taken again and kept again."""
    return f"keep {instance_id} {generation}"


def rental_id(instance_id: str, generation: int, since: float) -> str:
    """One machine may be kept and taken again, or be stopped and started."""
    return f"{instance_id}.{generation}@{since:.0f}"


def safe_component(name: str) -> str:
    """A file name that shows `name` and can be created anywhere; distinct names stay distinct."""
    plain = re.sub(r"[^A-Za-z0-9._+=,@%-]", "_", name)
    if plain == name and plain not in {"", ".", ".."} and not plain.startswith(".") and len(plain) <= 100:
        return plain
    return f"{plain[:80].lstrip('.') or 'job'}-{digest(name)[:8]}"


def match_names(pattern: str, names: Iterable[str]) -> list[str]:
    """Names equal to `pattern`, or those that fit it as a glob (`*` crosses slashes), in order."""
    if not any(c in pattern for c in "*?["):
        return [n for n in names if n == pattern]
    regex = re.compile(_glob(pattern), re.DOTALL)
    return [n for n in names if regex.fullmatch(n)]


def _glob(pattern: str) -> str:
    out, i = [], 0
    while i < len(pattern):
        c = pattern[i]
        if c == "*":
            out.append(".*")
        elif c == "?":
            out.append(".")
        elif c == "[" and "]" in pattern[i + 2 :]:
            end = pattern.index("]", i + 2)
            out.append(_glob_class(pattern[i + 1 : end]))
            i = end
        else:
            out.append(re.escape(c))
        i += 1
    return "".join(out)


def _glob_class(body: str) -> str:
    """What stands between brackets: characters, ranges, and `!` in front for all others."""
    chars = body[1:] if body.startswith("!") else body
    parts, i = [], 0
    while i < len(chars):
        if chars[i + 1 : i + 2] == "-" and i + 2 < len(chars):
            low, high = chars[i], chars[i + 2]
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
            i += 3
        else:
            parts.append(re.escape(chars[i]))
            i += 1
    if not parts:
        return "." if body.startswith("!") else "(?!)"
    return f"[{'^' if body.startswith('!') else ''}{''.join(parts)}]"

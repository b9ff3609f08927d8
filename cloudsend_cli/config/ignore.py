"""`.cloudsendignore`: which files of a directory are not sent.

One pattern a line, as in `.gitignore`: `#` starts a comment, a trailing `/` means directories only, a pattern with `/`
elsewhere is relative to the config's directory, one without fits a name at any depth, `**` crosses directories, and
`!` takes back what an earlier line ignored. Always ignored: `.git` and `__pycache__`. What looks like a secret by its
name, such as `.env`, `*.pem` or `.aws`, is left out as well; `!` takes that back too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FILE_NAME = ".cloudsendignore"
ALWAYS = frozenset({".git", "__pycache__"})
IGNORED, SECRET = "ignored", "secret"
SECRETS = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "id_rsa", "id_dsa",
    "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", ".netrc", "_netrc", ".pgpass", ".my.cnf",
    ".git-credentials", ".pypirc", ".npmrc", ".htpasswd", ".vault-token", "credentials.json", "service-account*.json",
    ".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".gcloud",
)  # fmt: skip
NO_SECRETS = frozenset({".env.example", ".env.sample", ".env.template", ".env.dist"})


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: re.Pattern[str]
    directory_only: bool
    take_back: bool
    whole_path: bool


def is_secret(name: str) -> bool:
    """Whether a file or directory of this name looks like one that is not for others."""
    return name not in NO_SECRETS and _SECRET_NAME.fullmatch(name.lower()) is not None


def parse_ignore(lines: Iterable[str]) -> Callable[[str, bool], str]:
    """A function of (path below the config's directory, is a directory): why it is left out; "" where it is not."""
    rules = [rule for line in lines if (rule := _parse_rule(line)) is not None]

    def left_out(path: str, directory: bool) -> str:
        name = path.rpartition("/")[2]
        if name in ALWAYS:
            return IGNORED
        result = SECRET if is_secret(name) else ""
        for rule in rules:
            if (directory or not rule.directory_only) and rule.regex.fullmatch(path if rule.whole_path else name):
                result = "" if rule.take_back else IGNORED
        return result

    return left_out


def _parse_rule(line: str) -> _Rule | None:
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    take_back = text.startswith("!")
    text = text.removeprefix("!")
    directory_only = text.endswith("/")
    text = text.rstrip("/")
    whole_path = "/" in text
    text = text.removeprefix("/")
    return _Rule(compile_glob(text), directory_only, take_back, whole_path) if text else None


def compile_glob(pattern: str) -> re.Pattern[str]:
    """A path's glob: `*` and `?` stay within one name, `**/` crosses any number of directories."""
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
            continue
        if pattern.startswith("**", at):
            out.append(".*")
            at += 2
            continue
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and "]" in pattern[at + 2 :]:
            end = pattern.index("]", at + 2)
            body = pattern[at + 1 : end]
            negate = body[0] in "!^"
            body = re.sub(r"([\\\[\]^&~|])", r"\\\1", body[1:] if negate else body)
            out.append(f"[{'^' if negate else ''}{body}]")
            at = end
        else:
            out.append(re.escape(char))
        at += 1
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error:  # such as a range that runs backwards: it fits itself alone
        return re.compile(re.escape(pattern))


_SECRET_NAME = re.compile("|".join(compile_glob(pattern).pattern for pattern in SECRETS), re.DOTALL)

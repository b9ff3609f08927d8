"""The script's parts, POSIX sh. What comes from a user goes through `quote`, always; the rest is constant."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from .requirements import Requirements

quote = shlex.quote
LACKS_SOMETHING = 3  # exit status: the machine needs something that only its user can give

# ORDER: the marker of ownership is the first file and `ready` the last. What has the first but not the last is a
# remnant of ours and may go; what has neither is not ours and stays (safety rule 7).
HEAD = f"""set -eu
exec </dev/null
case "${{CLOUDSEND_ENV-}}" in /?*) ;; *) echo 'CLOUDSEND_ENV is not an absolute path' >&2; exit 2 ;; esac
say() {{ printf '[environment] %s\\n' "$1"; }}
lacks() {{ printf '[environment] %s\\n' "$@" >&2; exit {LACKS_SOMETHING}; }}
attempt() {{
    what=$1
    shift
    say "$what"
    "$@" || {{ code=$?; printf '[environment] %s: failed with exit status %s\\n' "$what" "$code" >&2; exit "$code"; }}
}}
if [ -e "$CLOUDSEND_ENV/ready" ]; then
    say 'ready already'
    exit 0
fi
if [ -e "$CLOUDSEND_ENV/.cloudsend-environment" ]; then
    say 'removing what an interrupted build left'
    chmod -R u+rwX "$CLOUDSEND_ENV" 2>/dev/null || :
    rm -rf -- "$CLOUDSEND_ENV"
elif [ -d "$CLOUDSEND_ENV" ] && ! rmdir -- "$CLOUDSEND_ENV" 2>/dev/null; then
    echo "[environment] $CLOUDSEND_ENV holds something that is not ours; it was left alone" >&2
    exit 2
fi
mkdir -p -- "$CLOUDSEND_ENV"
: >"$CLOUDSEND_ENV/.cloudsend-environment"
cd -- "$CLOUDSEND_ENV"
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV
"""

TAIL = """mv -- "$CLOUDSEND_ENV/activate.new" "$CLOUDSEND_ENV/activate"
: >"$CLOUDSEND_ENV/ready.new"
mv -- "$CLOUDSEND_ENV/ready.new" "$CLOUDSEND_ENV/ready"
say 'ready'
"""


def write_lines(name: str, lines: Iterable[str]) -> str:
    """A file in the environment's directory; `name` is ours. printf is built in: no limit on its arguments."""
    words = "".join(f" \\\n    {quote(line)}" for line in lines)
    return f"printf '%s\\n'{words} >\"$CLOUDSEND_ENV/{name}\"\n" if words else f': >"$CLOUDSEND_ENV/{name}"\n'


def command(*words: str) -> str:
    return " ".join(quote(word) for word in words)


# ---- the user's own ------------------------------------------------------------------------------------------------


def setup_step(text: str) -> str:
    """A script runs as its first line says, else, as inline text does, by `sh -e`."""
    first = text.split("\n", 1)[0]
    interpreter = first[2:].strip().split(None, 1) if first.startswith("#!") else ["/bin/sh", "-e"]
    run = command(*(interpreter or ["/bin/sh", "-e"]))
    return write_lines("setup", text.rstrip("\n").split("\n")) + (
        f"attempt 'setup: running the command' {run} \"$CLOUDSEND_ENV/setup\"\n"
    )


# ---- apt -----------------------------------------------------------------------------------------------------------

_APT_MISSING = """apt_missing=
apt_has() {
    found=$(dpkg-query -W -f '${db:Status-Abbrev} ${Version}' -- "$1" 2>/dev/null) || return 1
    case $found in ?i*) ;; *) return 1 ;; esac
    [ -z "$2" ] || [ "${found##* }" = "$2" ]
}
command -v dpkg-query >/dev/null 2>&1 || lacks 'apt: this machine has no dpkg-query: it is no Debian or Ubuntu'
say 'apt: looking for what is installed'
"""

_APT_INSTALL = """if [ -n "$apt_missing" ]; then
    apt_get() { DEBIAN_FRONTEND=noninteractive apt-get "$@"; }
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || lacks "apt: installing$apt_missing needs root, and sudo asks for a password"
        apt_get() { sudo -n env DEBIAN_FRONTEND=noninteractive apt-get "$@"; }
    fi
    attempt 'apt: updating the lists' apt_get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 update
    # Names were checked before this script was made: none has a space or a character of the shell.
    # shellcheck disable=SC2086
    attempt "apt: installing$apt_missing" apt_get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \\
        install -y -- $apt_missing
fi
"""

_APT_REFUSE = """[ -z "$apt_missing" ] || lacks "apt: not installed on this machine:$apt_missing" \\
    "install it yourself: apt-get install$apt_missing" \\
    'or let cloudsend do it, by the key of this environment: allow_system_packages: true'
"""


def apt_step(packages: Sequence[str], allowed: bool) -> str:
    checks = ""
    for package in packages:
        name, _, version = package.partition("=")
        name = name.partition("/")[0]
        checks += f'apt_has {quote(name)} {quote(version)} || apt_missing="$apt_missing {package}"\n'
    return _APT_MISSING + checks + (_APT_INSTALL if allowed else _APT_REFUSE)


# ---- conda ---------------------------------------------------------------------------------------------------------

_CONDA = """conda_tool=
for tool in micromamba mamba conda; do
    if command -v "$tool" >/dev/null 2>&1; then conda_tool=$tool; break; fi
done
[ -n "$conda_tool" ] || lacks 'conda: neither micromamba nor mamba nor conda is on PATH' \\
    'install one of them, such as micromamba: https://mamba.readthedocs.io/en/latest/installation/micromamba-installation.html'
export CONDA_ALWAYS_YES=true MAMBA_ALWAYS_YES=true
export CONDA_REMOTE_MAX_RETRIES=5 MAMBA_REMOTE_MAX_RETRIES=5
case $conda_tool in
    micromamba) attempt 'conda: creating the environment with micromamba' \\
        micromamba create --yes --prefix "$CLOUDSEND_ENV/conda" --file "$CLOUDSEND_ENV/environment.yml" ;;
    *) attempt "conda: creating the environment with $conda_tool" \\
        "$conda_tool" env create --prefix "$CLOUDSEND_ENV/conda" --file "$CLOUDSEND_ENV/environment.yml" ;;
esac
"""


def conda_step(yml: str) -> str:
    return write_lines("environment.yml", yml.rstrip("\n").split("\n")) + _CONDA


# ---- pip -----------------------------------------------------------------------------------------------------------

_VENV = """if command -v uv >/dev/null 2>&1; then
    pip_tool=uv
    attempt 'pip: creating a virtual environment with uv' uv --no-progress venv "$CLOUDSEND_ENV/venv"
else
    pip_tool=pip
    command -v python3 >/dev/null 2>&1 || lacks 'pip: neither uv nor python3 is on PATH' 'install one of them'
    python3 -c 'import ensurepip, venv' 2>/dev/null || lacks \\
        'pip: this python3 cannot make virtual environments: it has no module venv or ensurepip' \\
        'install it (on Debian and Ubuntu: apt-get install python3-venv), or install uv'
    attempt 'pip: creating a virtual environment' python3 -m venv "$CLOUDSEND_ENV/venv"
fi
python=$CLOUDSEND_ENV/venv/bin/python
"""

_INSIDE_CONDA = """python=$CLOUDSEND_ENV/conda/bin/python
[ -x "$python" ] || lacks 'pip: the conda environment has no python' 'add python and pip to its packages'
pip_tool=pip
command -v uv >/dev/null 2>&1 && pip_tool=uv
"""


def pip_step(requirements: Requirements, inside_conda: bool) -> str:
    text = _INSIDE_CONDA if inside_conda else _VENV
    if not requirements.lines:
        return text
    constraint = ""
    if requirements.constraints:
        text += write_lines("constraints.txt", sorted(requirements.constraints))
        constraint = ' -c "$CLOUDSEND_ENV/constraints.txt"'
    flags = "".join(f" {quote(flag)}" for flag in requirements.uv_flags())
    count = len(requirements.packages)
    what = quote(f"pip: installing {count} requirement{'' if count == 1 else 's'}")
    return text + (
        "if [ $pip_tool = uv ]; then\n"
        f"{write_lines('requirements.txt', requirements.uv_lines())}"
        f'attempt {what} uv --no-progress pip install --python "$python"{flags}'
        f' -r "$CLOUDSEND_ENV/requirements.txt"{constraint}\n'
        "else\n"
        f"{write_lines('requirements.txt', requirements.lines)}"
        f'attempt {what} "$python" -m pip install --disable-pip-version-check --no-input --retries 5'
        f' -r "$CLOUDSEND_ENV/requirements.txt"{constraint}\n'
        "fi\n"
    )


# ---- julia ---------------------------------------------------------------------------------------------------------


def julia_step(packages: Sequence[str]) -> str:
    """Names were checked: letters, digits, dots; nothing that a string of Julia or the shell would read."""
    specs = []
    for package in packages:
        if "://" in package:
            specs.append(f'PackageSpec(url="{package}")')
        else:
            name, _, version = package.partition("@")
            specs.append(f'PackageSpec(name="{name}"{f", version={chr(34)}{version}{chr(34)}" if version else ""})')
    code = f"using Pkg; Pkg.add([{', '.join(specs)}]); Pkg.precompile()"
    count = f"{len(packages)} package{'' if len(packages) == 1 else 's'}"
    return (
        "command -v julia >/dev/null 2>&1 || lacks 'julia: it is not on PATH' 'install it: https://julialang.org'\n"
        'export JULIA_DEPOT_PATH="$CLOUDSEND_ENV/julia-depot:"\n'
        'mkdir -p -- "$CLOUDSEND_ENV/julia"\n'
        f"attempt {quote(f'julia: adding {count}')} "
        f'julia --startup-file=no --history-file=no --project="$CLOUDSEND_ENV/julia" -e {quote(code)}\n'
    )


# ---- what jobs source ----------------------------------------------------------------------------------------------

_CONDA_ACTIVATE = (
    'export CONDA_PREFIX="$CLOUDSEND_ENV/conda"',
    'export CONDA_DEFAULT_ENV="$CONDA_PREFIX"',
    'export PATH="$CONDA_PREFIX/bin${PATH:+:$PATH}"',
)
# A hook of a package that this shell cannot read would end the job's shell: only those that it can are taken.
_CONDA_HOOKS = """for hook in "$CLOUDSEND_ENV"/conda/etc/conda/activate.d/*.sh; do
    name=${hook##*/}
    case $name in *[!A-Za-z0-9._+-]*) continue ;; esac
    if /bin/sh -n "$hook" 2>/dev/null; then
        printf '. "$CLOUDSEND_ENV/conda/etc/conda/activate.d/%s"\\n' "$name" >>"$CLOUDSEND_ENV/activate.new"
    fi
done
"""
_VENV_ACTIVATE = (
    'export VIRTUAL_ENV="$CLOUDSEND_ENV/venv"',
    'export PATH="$VIRTUAL_ENV/bin${PATH:+:$PATH}"',
)
_JULIA_ACTIVATE = (
    'export JULIA_PROJECT="$CLOUDSEND_ENV/julia"',
    'export JULIA_DEPOT_PATH="$CLOUDSEND_ENV/julia-depot:"',
)


def activate_step(*, conda: bool, venv: bool, julia: bool, variables: Sequence[tuple[str, str]]) -> str:
    lines = ["unset PYTHONHOME"] if conda or venv else []
    lines += _CONDA_ACTIVATE if conda else ()
    lines += _VENV_ACTIVATE if venv else ()
    lines += _JULIA_ACTIVATE if julia else ()
    last = [*(f"export {name}={quote(value)}" for name, value in variables), ":"]
    text = write_lines("activate.new", lines)
    if conda:
        text += _CONDA_HOOKS
    return text + write_lines("activate.new", last).replace(' >"$CLOUDSEND_ENV', ' >>"$CLOUDSEND_ENV')

"""A PostgreSQL of one's own, measured by pgbench. Each method of DBRunner is a task of bench.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = "cloudsend-db-bench"  # a file that says whose directory it is
SOCKET_PATH_MOST = 107

Settings = dict[str, int]
Name = Callable[[Settings], str]
After = Callable[[Settings, Path], dict[str, object]]


def name_report(settings: Settings) -> str:
    """The directory of the report of one measurement."""
    return "-".join(f"{name}_{value}" for name, value in settings.items())


def read_report(settings: Settings, folder: Path) -> dict[str, object]:
    """After each measurement: the numbers of its report, beside it as summary.json."""
    text = (folder / "pgbench.txt").read_text()

    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        if found is None:
            raise ValueError(f"no line like {pattern!r} in the report {folder.name}")
        return float(found[1])

    summary: dict[str, object] = {
        **settings,
        "tps": number(r"tps = ([\d.]+)"),
        "latency_ms": number(r"latency average = ([\d.]+) ms"),
        "transactions": int(number(r"actually processed: (\d+)")),
        "report": folder.name,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


class DBRunner:
    """`workspace` is on the machine where the tasks run, and its disk is the one that is measured.

    `name` says where the report of some settings goes, `after` is called with the settings and that directory.
    """

    def __init__(self, workspace: str, seconds: int, name: Name = name_report, after: After = read_report) -> None:
        self.workspace = workspace
        self.seconds = seconds
        self.name = name
        self.after = after

    def prepare(self) -> str:
        """A cluster without a database. One that an earlier benchmark left in the workspace is replaced."""
        server = Postgres(Path(self.workspace))
        server.create()
        return server.version()

    def load(self, scale: int) -> None:
        """The test bed of one scale factor: 100,000 accounts for each 1, about 16 MB."""
        server = Postgres(Path(self.workspace))
        with server.running():
            server.call("createdb", f"bench_{scale}")
            server.call("pgbench", "--initialize", f"--scale={scale}", "--quiet", f"bench_{scale}")

    def bench(self, scale: int, clients: int) -> dict[str, object]:
        """One measurement, with a server that has just been started and serves nobody else."""
        settings = {"scale": scale, "clients": clients}
        folder = Path(self.workspace) / "reports" / self.name(settings)
        server = Postgres(Path(self.workspace))
        threads = min(clients, os.cpu_count() or 1)
        with server.running():
            server.call("psql", "--quiet", "--command=CHECKPOINT", f"bench_{scale}")
            options = (f"--client={clients}", f"--jobs={threads}", f"--time={self.seconds}")
            report = server.call("pgbench", *options, f"bench_{scale}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pgbench.txt").write_text(report)
        return self.after(settings, folder)

    def collect(self) -> list[dict[str, object]]:
        """The reports, into the task's own directory, from where they come home; the workspace is removed."""
        server = Postgres(Path(self.workspace))
        server.check_ours()
        reports = Path(self.workspace) / "reports"
        shutil.copytree(reports, "reports")
        found = [json.loads(path.read_text()) for path in sorted(Path("reports").glob("*/summary.json"))]
        server.remove()
        return found


class Postgres:
    """A cluster in a directory of its own: no TCP, a unix socket that only its user can reach.

    PostgreSQL does not run as root. There it runs as the user `postgres` of its package, else as `nobody`.
    """

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.data = workspace / "data"
        self.socket = workspace / "socket"
        self.programs = find_programs()
        self.user = "" if os.geteuid() else _first_user("postgres", "nobody")

    def create(self) -> None:
        if len(f"{self.socket}/.s.PGSQL.5432") > SOCKET_PATH_MOST:
            raise RuntimeError(f"{self.workspace}: too long for the path of a unix socket; choose another --workspace")
        if self.workspace.exists() or self.workspace.is_symlink():
            self.remove()
        self.workspace.mkdir(mode=0o700)
        (self.workspace / MARK).touch()
        (self.workspace / "reports").mkdir()
        self.socket.mkdir(mode=0o700)
        if self.user:
            for path in (self.workspace, self.socket):
                shutil.chown(path, self.user)
        self.call("initdb", f"--pgdata={self.data}", "--auth=peer", "--encoding=UTF8", "--no-locale", "--no-sync")
        with (self.data / "postgresql.conf").open("a") as config:
            config.write(f"listen_addresses = ''\nunix_socket_directories = '{_quoted(self.socket)}'\n")

    @contextmanager
    def running(self) -> Iterator[None]:
        self.check_ours()
        log = self.workspace / "server.log"
        try:
            self.call("pg_ctl", "start", "--wait", "--silent", f"--pgdata={self.data}", f"--log={log}")
        except RuntimeError as problem:
            words = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{problem}\n{words}") from None
        try:
            yield
        finally:
            self.call("pg_ctl", "stop", "--wait", "--silent", "--mode=fast", f"--pgdata={self.data}")

    def version(self) -> str:
        return self.call("postgres", "--version").strip()

    def check_ours(self) -> None:
        path = self.workspace
        if not (stat.S_ISDIR(path.lstat().st_mode) and (path / MARK).is_file()):
            raise RuntimeError(f"{path} is not of this benchmark: choose another --workspace")

    def remove(self) -> None:
        """The workspace, which has to be one of ours. A server that was killed there has left no process."""
        self.check_ours()
        if (self.data / "postmaster.pid").exists():
            self.call("pg_ctl", "stop", "--silent", "--mode=immediate", f"--pgdata={self.data}", check=False)
        shutil.rmtree(self.workspace)

    def call(self, program: str, *arguments: str, check: bool = True) -> str:
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.workspace),
            "LC_ALL": "C.UTF-8",
            "PGHOST": str(self.socket),
        }
        done = subprocess.run(
            [self.programs[program], *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.workspace if self.workspace.exists() else "/",
            env=environ,
            check=False,
            **({"user": self.user, "group": _group_of(self.user), "extra_groups": []} if self.user else {}),
        )
        if check and done.returncode:
            raise RuntimeError(f"{program} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout


def find_programs() -> dict[str, str]:
    """Debian has the server's programs outside of PATH, a directory for each version: the newest one counts."""
    names = ("initdb", "pg_ctl", "postgres", "pgbench", "createdb", "psql")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: _number(p.parent.name), reverse=True)
    for folder in folders:
        if all((folder / name).is_file() for name in names):
            return {name: str(folder / name) for name in names}
    found = {name: shutil.which(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise RuntimeError(f"no {', '.join(missing)} here: apt-get install postgresql")
    return {name: str(path) for name, path in found.items()}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _first_user(*names: str) -> str:
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in names if name in known)


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid

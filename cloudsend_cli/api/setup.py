"""What is wanted before the first run and around it: schema, starter config, the maestro's process."""

from __future__ import annotations

from pathlib import Path

from cloudsend_cli.core.views import Json, MaestroView
from cloudsend_cli.maestro.client import find_maestro, read_log, stop_maestro

from .directory import Directory


def config_schema() -> Json:
    from cloudsend_cli.config.json_schema import config_schema

    return config_schema()


def starter_config(directory: Path) -> str:
    from cloudsend_cli.config.starter import starter_config

    return starter_config(str(directory))


def maestro_status(home: Directory) -> MaestroView:
    maestro = find_maestro(home.path)
    if maestro is None:
        return MaestroView(running=False, runs=tuple(home.reader().list_active_runs()))
    try:
        status = maestro.ask("status")
    finally:
        maestro.close()
    return MaestroView(
        True,
        int(str(status["pid"])),
        float(str(status["since"])),
        int(str(status["epoch"])),
        tuple(str(r) for r in status["runs"]) if isinstance(status["runs"], list) else (),
    )


def maestro_stop(home: Directory) -> bool:
    return stop_maestro(home.path)


def maestro_adopt(home: Directory) -> None:
    from cloudsend_cli.store.sqlite import SqliteStore

    SqliteStore.open(home.path, adopt=True).close()


def maestro_log(home: Directory, lines: int) -> str:
    return read_log(home.path, lines)

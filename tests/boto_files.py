"""boto3 reads the description of EC2, a third of a second of JSON, once in a process and not once for each session."""

from __future__ import annotations

import functools
from typing import Any


def share_files() -> None:
    """Give all sessions of this process one reader, which remembers what it has read."""
    import botocore.loaders
    import botocore.session

    if hasattr(botocore.session.create_loader, "__wrapped__"):
        return
    create = functools.lru_cache(botocore.loaders.create_loader)

    @functools.wraps(create)
    def shared(search_path_string: str | None = None) -> Any:
        loader = create(search_path_string)
        # Each session of boto3 adds its own folder again.
        loader.search_paths[:] = dict.fromkeys(loader.search_paths)
        return loader

    botocore.session.create_loader = shared

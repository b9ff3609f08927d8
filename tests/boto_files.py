"""boto3 reads the description of EC2 and makes methods of it, half a second, once in a process, not in a session."""

from __future__ import annotations

import functools
from typing import Any


def share_files() -> None:
    """Give all sessions of this process one reader, which remembers what it has read, whatever AWS_DATA_PATH says."""
    import botocore.client
    import botocore.loaders
    import botocore.session

    reader = botocore.loaders.create_loader()

    def share(_path: str | None = None) -> Any:
        # Each session of boto3 adds its own folder again.
        reader.search_paths[:] = dict.fromkeys(reader.search_paths)
        return reader

    botocore.session.create_loader = share
    creator = botocore.client.ClientCreator
    if not hasattr(creator._create_methods, "made"):
        creator._create_methods = _share_methods(creator._create_methods)


def _share_methods(create: Any) -> Any:
    made: dict[str, dict[str, Any]] = {}

    @functools.wraps(create)
    def share(self: Any, service_model: Any) -> dict[str, Any]:
        name = service_model.service_name
        if name not in made:
            made[name] = create(self, service_model)
        return dict(made[name])

    share.made = made  # type: ignore[attr-defined]
    return share

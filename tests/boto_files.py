"""boto3 reads the description of EC2, a third of a second of JSON, once in a process and not once for each session."""

from __future__ import annotations

from typing import Any


def share_files() -> None:
    """Give all sessions of this process one reader, which remembers what it has read, whatever AWS_DATA_PATH says."""
    import botocore.loaders
    import botocore.session

    reader = botocore.loaders.create_loader()

    def share(_path: str | None = None) -> Any:
        # Each session of boto3 adds its own folder again.
        reader.search_paths[:] = dict.fromkeys(reader.search_paths)
        return reader

    botocore.session.create_loader = share

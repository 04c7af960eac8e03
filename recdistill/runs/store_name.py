"""What a tracking store is called where its address says too much: no folder of a machine, no password."""

from pathlib import PurePosixPath
from urllib.parse import urlparse

import mlflow


def store_name() -> str:
    """Such as ``sqlite mlflow.db`` or ``https tracking.example.org``."""
    return name_of(mlflow.get_tracking_uri())


def name_of(uri: str) -> str:
    """Scheme and host, or scheme and last part of the path, of a store's address.

    >>> name_of("sqlite:////home/me/mlflow.db"), name_of("http://me:secret@tracking:5000")
    ('sqlite mlflow.db', 'http tracking')
    """
    parsed = urlparse(uri)
    return f"{parsed.scheme or 'file'} {parsed.hostname or PurePosixPath(parsed.path).name}".strip()

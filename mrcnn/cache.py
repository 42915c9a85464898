"""Where files are kept that can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "MRCNN_CACHE"


def cache_folder() -> Path:
    """The environment variable MRCNN_CACHE, else the user's cache folder of the system.

    Raises:
        ImportError: the package platformdirs, which knows that folder, is not installed.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("mrcnn", appauthor=False)


def known_cache_folder() -> Path | None:
    """As `cache_folder`; None where it is not known, for what is quicker with a cache and does without."""
    try:
        return cache_folder()
    except ImportError:
        return None

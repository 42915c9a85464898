"""Where files are kept that can be made or fetched again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "MRCNN_CACHE"


def cache_folder() -> Path:
    """The environment variable MRCNN_CACHE, else the user's cache folder of the system.

    Raises:
        RuntimeError: the user has no home.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    try:
        import platformdirs
    except ImportError:
        return _user_cache() / "mrcnn"
    return platformdirs.user_cache_path("mrcnn", appauthor=False)


def known_cache_folder() -> Path | None:
    """As `cache_folder`; None where it is not known, for what is quicker with a cache and does without."""
    try:
        return cache_folder()
    except RuntimeError:
        return None


def _user_cache() -> Path:
    """For machines that only detect, on which platformdirs is not."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or Path.home() / ".cache")

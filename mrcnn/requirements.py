"""Optional packages: imported where they are needed, their absence told with what to install."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


def installed(package: str) -> bool:
    """Whether a package could be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def require(package: str, extra: str, purpose: str) -> ModuleType:
    """Import a package.

    Args:
        package: its name.
        extra: which extra of this package brings it.
        purpose: what needs it, for the message.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package.split(".")[0]:
            raise
        raise ImportError(
            f'{purpose} needs the package {package}, which is not installed: pip install "keras-mask-rcnn[{extra}]" '
            f"(or {package} alone)."
        ) from error

"""Mask R-CNN on Keras 3.

The public names are loaded when they are first used: `import mrcnn` imports no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mrcnn.backend import choose_backend

if TYPE_CHECKING:
    from mrcnn.config import Config, ConfigError
    from mrcnn.data.coco import CocoDataset
    from mrcnn.data.dataset import Dataset
    from mrcnn.data.formats import load_dataset
    from mrcnn.evaluation import evaluate
    from mrcnn.inference import Detector
    from mrcnn.model import MaskRCNN
    from mrcnn.results.saving import save_results
    from mrcnn.results.supervision import to_supervision
    from mrcnn.visualize import draw_instances, save_instances

__version__ = "0.1.0"

_HOMES = {
    "CocoDataset": "mrcnn.data.coco",
    "Config": "mrcnn.config",
    "ConfigError": "mrcnn.config",
    "Dataset": "mrcnn.data.dataset",
    "Detector": "mrcnn.inference",
    "MaskRCNN": "mrcnn.model",
    "draw_instances": "mrcnn.visualize",
    "evaluate": "mrcnn.evaluation",
    "load_dataset": "mrcnn.data.formats",
    "save_instances": "mrcnn.visualize",
    "save_results": "mrcnn.results.saving",
    "to_supervision": "mrcnn.results.supervision",
}

__all__ = [
    "CocoDataset",
    "Config",
    "ConfigError",
    "Dataset",
    "Detector",
    "MaskRCNN",
    "draw_instances",
    "evaluate",
    "load_dataset",
    "save_instances",
    "save_results",
    "to_supervision",
]

choose_backend()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mrcnn' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Engines: how a network is run at inference. See `mrcnn.engines.base.Engine` and `open_engine`."""

from __future__ import annotations

from mrcnn.engines.base import Engine, EngineError
from mrcnn.engines.opening import ENGINES, Opened, open_engine

__all__ = ["ENGINES", "Engine", "EngineError", "Opened", "open_engine"]

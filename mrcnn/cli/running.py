"""What runs a network for the commands: an engine for weights or for an exported model, and its stopwatch."""

from __future__ import annotations

import argparse
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.bundle import Bundle, read_bundle
from mrcnn.cli import CommandError, note
from mrcnn.cli.configuration import (
    class_names,
    class_numbers,
    find_weights,
    for_detection,
    load_network,
    make_config,
)
from mrcnn.cli.detection_options import OVERLAP
from mrcnn.config import Config
from mrcnn.data.tiles import check_tiling
from mrcnn.engines.base import Engine, Raw
from mrcnn.inference import Detector
from mrcnn.selection import asked_scores

# What of the configuration is about images on their way to the network; the rest is part of an exported model.
_OUTSIDE = (
    "IMAGE_RESIZE_MODE", "IMAGE_MIN_DIM", "IMAGE_MAX_DIM", "IMAGE_MIN_SCALE", "IMAGE_RECTANGLE", "MEAN_PIXEL",
    "STD_PIXEL", "IMAGE_CHANNEL_ORDER", "IMAGE_INTERPOLATION", "IMAGE_ROUND_DOWN", "IMAGE_PAD_CORNER", "MASK_PASTE",
    "IMAGES_PER_GPU",
)  # fmt: skip


class Stopwatch:
    """An engine that notes how long the runs of another take."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.precision, self.device = engine.name, engine.precision, engine.device
        self.threads = engine.threads
        self._engine = engine
        self._lock = threading.Lock()
        self._runs: list[int] = [0, 0]  # images of the first run, of all
        self._seconds = [0.0, 0.0]
        self._each: deque[float] = deque()

    def run(self, molded: np.ndarray, metas: np.ndarray, anchors: np.ndarray) -> list[Raw]:
        """See `Engine.run`."""
        start = time.perf_counter()
        found = self._engine.run(molded, metas, anchors)
        seconds = time.perf_counter() - start
        with self._lock:
            if self._runs[1] == 0:
                self._runs[0], self._seconds[0] = len(molded), seconds
            self._runs[1] += len(molded)
            self._seconds[1] += seconds
            self._each.extend([seconds / len(molded)] * len(molded))
        return found

    def next(self) -> float:
        """Seconds that the network took for an image, of those that were not asked for yet the first that ran."""
        return self._each.popleft()

    def rest(self) -> float:
        """Seconds that the network took for all images that were not asked for yet, together."""
        seconds = sum(self._each)
        self._each.clear()
        return seconds

    @property
    def rate(self) -> float:
        """Images a second of the network alone; without the first run, in which engines prepare themselves, where
        there are others. 0 where there was none."""
        with self._lock:
            first = self._runs[1] > self._runs[0]
            images = self._runs[1] - (self._runs[0] if first else 0)
            seconds = self._seconds[1] - (self._seconds[0] if first else 0)
        return images / seconds if seconds > 0 else 0.0


@dataclass(frozen=True)
class Running:
    """A network that can be run, with its classes.

    `class_names` [K] begin with the background's; `names_known` tells whether they are more than numbers.
    """

    detector: Detector
    clock: Stopwatch
    class_names: tuple[str, ...]
    names_known: bool


def open_detector(
    args: argparse.Namespace,
    min_confidence: float | None = None,
    engine: str = "auto",
    precision: str = "auto",
) -> Running:
    """What runs the network of --weights, as the command line asks for it; says which engine it is.

    Args:
        args: of a command with the options of a network and an engine.
        min_confidence: where the command line names none; None: as configured.
        engine, precision: likewise, for weights. An exported model has what it was made for.

    Raises:
        CommandError, ConfigError, WeightsError, BundleError, EngineError: what is asked for cannot be done.
    """
    path = find_weights(args.weights)
    opened = _open_bundle if path.is_dir() else _open_weights
    running = opened(args, path, min_confidence, engine, precision)
    own = running.detector.engine
    told = f"engine: {own.name}, {own.precision}"
    if args.verbose:
        threads = "" if own.threads is None else f", {own.threads} threads"
        told += f", on {own.device}{threads}. Why: {running.detector.reason}"
    print(told, flush=True)
    return running


def tiling(args: argparse.Namespace) -> dict[str, Any]:
    """What --tile and --overlap say, as arguments of `Detector.detect`.

    Raises:
        CommandError: an overlap of no tiles.
        ValueError: tiles that cannot be.
    """
    if args.tile is None:
        if args.overlap is not None:
            raise CommandError(f"--overlap is of tiles: it needs --tile. Received: --overlap {args.overlap:g}.")
        return {}
    overlap = OVERLAP if args.overlap is None else args.overlap
    check_tiling(args.tile, overlap)
    return {"tile": args.tile, "overlap": overlap}


def _running(detector: Detector, names: tuple[str, ...], known: bool) -> Running:
    detector.engine = clock = Stopwatch(detector.engine)
    return Running(detector, clock, names, known)


def _open_weights(
    args: argparse.Namespace, path: Path, min_confidence: float | None, engine: str, precision: str
) -> Running:
    engine, precision, threads = args.engine or engine, args.precision or precision, args.threads
    if precision == "int8":  # told before the network is built
        raise CommandError(
            f"{path} holds weights, and int8 needs a quantized model: `mrcnn export --precision int8` makes one."
        )
    confidence, settings = min_confidence if args.min_confidence is None else args.min_confidence, list(args.config)
    if isinstance(confidence, dict) and min_confidence is not None:
        # Of the other classes.
        settings[:0] = [("DETECTION_MIN_CONFIDENCE", min_confidence), ("DETECTION_CLASS_CONFIDENCE", None)]
    if args.class_agnostic_nms:
        settings.append(("DETECTION_NMS_CLASS_AGNOSTIC", True))

    def limit_threads() -> None:
        from mrcnn.engines.keras_engine import preset_threads

        preset_threads(threads, engine)

    network = load_network(str(path), settings, args.classes, confidence, args.verbose, limit_threads)
    detector = Detector(network.model, engine=engine, precision=precision, threads=threads, flips=args.flips)
    return _running(detector, network.class_names, network.names_known)


def _open_bundle(
    args: argparse.Namespace, path: Path, min_confidence: float | None, engine: str, precision: str
) -> Running:
    bundle = read_bundle(path)
    config = _bundle_config(bundle, args)
    names, known = class_names(path, bundle.class_names, args.classes, config.NUM_CLASSES)
    own = float(asked_scores(bundle.config)[1:].min())
    confidence = args.min_confidence
    if isinstance(confidence, dict):
        confidence = class_numbers(confidence, names)
    elif confidence is not None and np.float32(confidence) < np.float32(own):
        raise CommandError(
            f"{path} was exported to find what scores {own:g} or better, and finds no more. Received: "
            f"--min-confidence {confidence:g}. Export it again with that."
        )
    if confidence is None and min_confidence is not None:
        confidence = max(own, min_confidence)
        if own > min_confidence:
            note(f"{path} was exported to find what scores {own:g} or better: what scores less is missing.")
    chosen = args.precision or (bundle.precision if precision != "auto" else "auto")
    detector = Detector(
        path, config, engine=args.engine or "auto", precision=chosen, threads=args.threads, min_confidence=confidence,
        class_agnostic_nms=args.class_agnostic_nms, flips=args.flips,
    )  # fmt: skip
    return _running(detector, names, known)


def _bundle_config(bundle: Bundle, args: argparse.Namespace) -> Config:
    """An exported model's configuration with what the command line changes of it."""
    settings = dict(args.config)
    devices = [name for name in ("GPUS", "GPU_MEMORY") if name in settings]
    if devices:
        raise CommandError(
            f"{bundle.folder} is an exported model, which Keras does not run, and {' and '.join(devices)} (--gpus, "
            "--memory-growth, --memory-share) tell Keras what to use. Leave them out."
        )
    fixed = [name for name in settings if name in Config.fields() and name not in _OUTSIDE]
    if fixed:
        instead = " (--min-confidence raises it)" if "DETECTION_MIN_CONFIDENCE" in fixed else ""
        raise CommandError(
            f"{bundle.folder} is an exported model: {', '.join(fixed)} can no longer be changed{instead}. What can: "
            f"{', '.join(_OUTSIDE)}. For the rest change the weights' configuration and export them again."
        )
    return make_config(None, for_detection(bundle.config.to_dict()), settings)

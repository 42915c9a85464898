"""Detection: images in, results out, whatever runs the network.

Letters: B images, H, W original size; h, w molded size; C channels; A anchors, N detections, K classes (0 is
background). Boxes (y1, x1, y2, x2): *normalized* in the network, *pixels* in results. All is numpy.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data.image_lists import image_list
from mrcnn.data.image_meta import ImageMeta
from mrcnn.data.images import read_image
from mrcnn.data.molding import MASK_FORMS, mold_one, place_boxes, place_masks, whole_pixels
from mrcnn.data.tiles import Window
from mrcnn.engines.base import Engine, Raw
from mrcnn.flips import FlippingEngine, flip_names
from mrcnn.merging import Detections
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import normalize_boxes
from mrcnn.pipeline import Line, named_error
from mrcnn.selection import least_scores, select
from mrcnn.tiling import OnTile, TiledImage, Tiling, stream_tiles, tile_detections, tile_progress

Result = dict[str, Any]

# Image sizes whose anchors are kept; those of 1024 x 1024 pixels take 12 MB.
ANCHOR_SETS_KEPT = 8

# Threads that mold and paste beside the one that runs the network.
_WORKERS = 2


class Detector:
    """Runs a network on images of any number and size. Threads may share one.

    Args:
        model: the path of an exported model or of a weights file, a `MaskRCNN`, a Keras model of `build_network`; or
            an engine (see `mrcnn.engines.base.Engine`), with its `config`.
        config: the configuration that the network was built from; None: the one that `model` brings.
        engine: "keras", "openvino" or "onnxruntime"; "auto": the fastest of those that are installed.
        precision: "float32", "bfloat16" or "int8"; "auto": the engine's fastest that the model allows.
        threads: how many the engine uses; None: as many as it likes.
        device: the named engine's name for a device, such as OpenVINO's "GPU"; None: the CPU (keras: Keras's own).
        batch_size: images that go through the network at once. None: the configuration's BATCH_SIZE.
        min_confidence: what scores less is left out; or a dict of such by class (its name or number). It cannot bring
            back what the network itself leaves out, below the configuration's DETECTION_MIN_CONFIDENCE: a dict that
            would have to is refused. None: nothing is left out.
        class_agnostic_nms: whether a detection gives way to a better one of any class. Of a network that is not built
            so (DETECTION_NMS_CLASS_AGNOSTIC) this looks at what the network has kept class by class.
        flips: mirror images to look at too: True for "horizontal", or some of "horizontal", "vertical" and "both"; see
            `mrcnn.flips`. Each takes as long as the image itself.
        get_anchors: molded shape (h, w, ...) -> normalized anchors [A, 4] float32. None: the configuration's.

    Attributes:
        engine: the `Engine`.
        config: the `Config`.
        class_names: names of the classes, the background first; None where `model` does not tell them.
        reason: why it is this engine and precision, in words.

    Raises:
        ValueError: an argument that cannot be. What else `mrcnn.engines.opening.open_engine` raises.
    """

    def __init__(
        self,
        model: Any,
        config: Config | None = None,
        *,
        engine: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        min_confidence: float | Mapping[Any, float] | None = None,
        class_agnostic_nms: bool = False,
        flips: bool | str | Sequence[str] = False,
        get_anchors: Callable[[Sequence[int]], np.ndarray] | None = None,
    ) -> None:
        flip_names(flips)  # what cannot work is told before anything is opened
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None. Received: {batch_size}.")
        self.engine: Engine
        self.config: Config
        self.class_names: list[str] | None = None
        if callable(getattr(model, "run", None)):
            if config is None:
                raise ValueError("An engine needs the configuration of its network. Received: config None.")
            if (engine, precision, threads, device) != ("auto", "auto", None, None):
                raise ValueError(
                    f"model is an engine already, of {getattr(model, 'precision', 'some')} precision. Received beside "
                    f"it: engine {engine!r}, precision {precision!r}, threads {threads}, device {device!r}."
                )
            self.engine, self.config, self.reason = model, config, "given"
        else:
            # Here, for an engine that is given needs nothing of what opening one does.
            from mrcnn.engines.opening import open_engine

            opened = open_engine(model, config, engine, precision, threads, device)
            self.engine, self.config, self.reason = opened.engine, opened.config, opened.reason
            self.class_names = None if opened.class_names is None else list(opened.class_names)
        self.batch_size = batch_size
        self.min_confidence = min_confidence
        least_scores(min_confidence, self.config, self.class_names)
        self.class_agnostic_nms = class_agnostic_nms or self.config.DETECTION_NMS_CLASS_AGNOSTIC
        suppresses = self.class_agnostic_nms and not self.config.DETECTION_NMS_CLASS_AGNOSTIC
        self._agnostic_threshold = self.config.DETECTION_NMS_THRESHOLD if suppresses else None
        self.flips = flip_names(flips)
        if self.flips:
            self.engine = FlippingEngine(self.engine, self.flips, self.config)
        anchors_of = anchor_cache(self.config)
        self.get_anchors = get_anchors or (lambda shape: anchors_of((int(shape[0]), int(shape[1])))[1])

    def detect(
        self,
        images: Sequence[Any],
        verbose: int = 0,
        masks: str = "bool",
        *,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> list[Result]:
        """Find the objects in images.

        Args:
            images: any number of them, each [H, W] or [H, W, C] of its own size (see `mold_one`), or a path; or the
                path of a folder, for its image files by name.
            verbose: 1 prints what goes in.
            masks: what masks are given as: "bool", "rle", "polygons" or "none"; see below.
            tile: cut images into tiles of so many pixels squared, look at each as at an image of its own, and make one
                of what is found in them (see `mrcnn.merging`); DETECTION_MAX_INSTANCES is the most of a tile then.
                Images may be anything that has `shape` and windows, such as datasets of h5py, which is read tile by
                tile, as some TIFF files are (see `open_image`). `verbose` 1 shows how far it is. None: images go
                through the network whole.
            overlap: the share of a tile's side that its neighbors see too, from 0 to 0.9. What is larger than that in
                pixels is put together from its pieces.

        Returns:
            For each image a dict of rois [N, 4] int32 in pixels, class_ids [N] int32, scores [N] float32, best score
            first, boxes [N, 4] float32, the rois in fractions of pixels, where BOX_GRID is "image" (of tiles there are
            none), and masks: [H, W, N] bool; for "rle" N dicts of COCO's compressed run-length encoding; for "polygons"
            N lists of outlines [M, (x, y)] int32 (see `mrcnn.data.masks.polygons_of_crop`, which also tells about
            holes); for "none" not there. Only for "bool" anything of the image's size is made.

        Raises:
            TypeError, ValueError: an image that cannot be taken; the message says which. Masks "bool" of a large image
                that there would be no room for.
            OSError: a file that cannot be opened.
        """
        _check_form(masks)
        images = image_list(images)
        tiling = None if tile is None else Tiling(tile, overlap)
        if verbose:
            print(f"Processing {len(images)} images")
        if tiling is not None:
            with tile_progress("Detecting", bool(verbose)) as on_tile:
                return list(self._stream_tiles(images, masks, tiling, total=len(images), on_tile=on_tile))
        if len(images) == 1:  # nothing to do meanwhile: no threads
            prepared = self._prepare(0, images[0], 1)
            return [self._finish(prepared, self._run([prepared], verbose)[0], masks)]
        return list(self._stream(images, masks, verbose, total=len(images)))

    def stream(
        self,
        images: Iterable[Any],
        masks: str = "bool",
        *,
        on_error: Callable[[int, Any, Exception], Any] | None = None,
        with_images: bool = False,
        look_ahead: int | None = None,
        workers: int = _WORKERS,
        tile: int | None = None,
        overlap: float = 0.2,
        on_tile: OnTile | None = None,
    ) -> Iterator[Result | None]:
        """Find the objects in images that come one after the other, such as a folder's files or a video's frames.

        While the network runs on some, threads read and mold those that follow and paste the masks of those before.

        Args:
            images: as for `detect`. They are taken when a result is asked for, a few before their turn, and must
                stay as they are until their own result is out.
            masks: as for `detect`.
            on_error: (index, image, error) is told of an image that cannot be read or taken; in the place of its
                result comes None. None: the error is raised when its turn has come.
            with_images: whether results also hold `image`, the image as it was given or read.
            look_ahead: so many images at most are taken whose results are not out yet; None: four batches. Among
                these, images whose molded sizes are the same go through the network together.
            workers: threads beside the network's.
            tile, overlap: as for `detect`. Images are then taken one at a time, and `look_ahead` counts tiles.
            on_tile: (done, total) is told how many tiles of an image are done, and how many it has.

        Yields:
            For each image, in order, what `detect` returns for it.

        Raises:
            As `detect`. All threads have ended when the iterator is closed or has raised.
        """
        _check_form(masks)
        for name, value in (("look_ahead", look_ahead), ("workers", workers)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}.")
        if tile is not None:
            tiling = Tiling(tile, overlap)
            return self._stream_tiles(images, masks, tiling, None, on_error, with_images, look_ahead, workers, on_tile)
        return self._stream(images, masks, 0, None, on_error, with_images, look_ahead, workers)

    def detect_molded(
        self, molded_images: np.ndarray, image_metas: np.ndarray, verbose: int = 0, masks: str = "bool"
    ) -> list[Result]:
        """As `detect`, of molded images [B, h, w, C] and their metas [B, 12 + K] (see `mold_inputs`); but rois and
        masks are in pixels of the molded images, padding and all, as the ground truth of `load_image_gt` is."""
        _check_form(masks)
        prepared = [
            _Prepared(None, np.asarray(molded, np.float32), np.asarray(meta))
            for molded, meta in zip(molded_images, image_metas, strict=True)
        ]
        if verbose:
            print(f"Processing {len(prepared)} images")
            for one in prepared:
                log("image", one.molded)
        found = self._run(prepared, verbose) if prepared else []
        return [self._finish(one, raw, masks) for one, raw in zip(prepared, found, strict=True)]

    def _stream(
        self,
        images: Iterable[Any],
        masks: str,
        verbose: int,
        total: int | None = None,
        on_error: Callable[[int, Any, Exception], Any] | None = None,
        with_images: bool = False,
        look_ahead: int | None = None,
        workers: int = _WORKERS,
    ) -> Iterator[Result | None]:
        line = self._line(
            lambda index, image: self._prepare(index, image, total),
            lambda prepared: self._run(prepared, verbose),
            lambda prepared, raw: self._finish(prepared, raw, masks, with_images),
            look_ahead,
            workers,
        )
        return line.results(images, on_error)

    def _stream_tiles(
        self,
        images: Iterable[Any],
        masks: str,
        tiling: Tiling,
        total: int | None = None,
        on_error: Callable[[int, Any, Exception], Any] | None = None,
        with_images: bool = False,
        look_ahead: int | None = None,
        workers: int = _WORKERS,
        on_tile: OnTile | None = None,
    ) -> Iterator[Result | None]:
        def open_tiles(image: Any) -> TiledImage:
            return TiledImage(image, tiling, masks, self.config, self.class_agnostic_nms)

        def line_of(image: TiledImage, name: str) -> Line:
            prepare = functools.partial(self._prepare_tile, image, name)
            return self._line(prepare, self._run, self._finish_tile, look_ahead, workers)

        name_of = functools.partial(_name_of, total=total)
        return stream_tiles(images, open_tiles, line_of, name_of, on_error, with_images, on_tile)

    def _line(self, prepare: Any, run: Any, finish: Any, look_ahead: int | None, workers: int) -> Line:
        size = self.batch_size or self.config.BATCH_SIZE
        return Line(prepare, run, finish, _molded_shape, size, look_ahead or 4 * size, workers)

    def _prepare(self, index: int, image: Any, total: int | None) -> _Prepared:
        name = _name_of(index, image, total)
        try:
            if isinstance(image, str | os.PathLike):
                image = read_image(image)
            molded, meta, _ = mold_one(image, self.config)
        except Exception as error:
            raise named_error(error, name) from error
        return _Prepared(image, molded, meta)

    def _prepare_tile(self, image: TiledImage, name: str, index: int, window: Window) -> _Prepared:
        try:
            molded, meta, _ = mold_one(image.tile(window), self.config)
        except Exception as error:
            raise named_error(error, f"{name}, tile {index} of {len(image.windows)}") from error
        return _Prepared(image, molded, meta, window)

    def _run(self, prepared: Sequence[_Prepared], verbose: int = 0) -> list[Raw]:
        molded = _stacked([one.molded for one in prepared])
        metas = _stacked([one.meta for one in prepared]).astype(np.float32)
        anchors = self.get_anchors(molded.shape[1:])
        anchors = np.broadcast_to(anchors, (len(molded), *anchors.shape))
        if verbose:
            for one in prepared:
                if one.image is not None:
                    log("image", one.image)
            log("molded_images", molded)
            log("image_metas", metas)
            log("anchors", anchors)
        return self.engine.run(molded, metas, anchors)

    def _finish(self, prepared: _Prepared, raw: Raw, masks: str, with_image: bool = False) -> Result:
        boxes, class_ids, scores, class_masks = self._placed(prepared, raw)
        result: Result = {"rois": whole_pixels(boxes), "class_ids": class_ids, "scores": scores}
        if self.config.BOX_GRID == "image":
            result["boxes"] = boxes
        if masks != "none":
            result["masks"] = place_masks(class_masks, boxes, prepared.place[0], masks, self.config.MASK_PASTE)
        if with_image:
            result["image"] = prepared.image
        return result

    def _finish_tile(self, prepared: _Prepared, raw: Raw) -> Detections:
        prepared.image.count(prepared.window, len(raw[0]))
        return tile_detections(prepared.window, *self._placed(prepared, raw), self.config.MASK_PASTE)

    def _placed(self, prepared: _Prepared, raw: Raw) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Boxes [N, 4] in pixels (see `place_boxes`), class ids [N], scores [N], masks [N, mh, mw] of what is kept."""
        least = least_scores(self.min_confidence, self.config, self.class_names)
        detections, class_masks = select(raw, least, self._agnostic_threshold)
        shape, window = prepared.place
        *placed, kept = place_boxes(detections, shape, prepared.molded.shape, window, self.config.BOX_GRID)
        return (*placed, class_masks[kept])


@dataclass(frozen=True, eq=False)
class _Prepared:
    """An image (None: it came molded), or a tile of a `TiledImage`, molded [h, w, C] with its meta [12 + K]."""

    image: Any
    molded: np.ndarray
    meta: np.ndarray
    window: Window = (0, 0, 0, 0)

    @property
    def place(self) -> tuple[Sequence[int], Sequence[int]]:
        """Shape of the image that its result is for, and where in the molded image that one lies."""
        if self.image is None:
            return self.molded.shape, (0, 0, *self.molded.shape[:2])
        meta = ImageMeta.from_array(self.meta)
        return meta.original_image_shape, meta.window


def anchor_cache(config: Config) -> Callable[[tuple[int, int]], tuple[np.ndarray, np.ndarray]]:
    """A function (h, w) -> anchors [A, 4] in pixels and normalized, which keeps those of the last few sizes. Threads
    may share it: those of a size are made once, and the others wait for them."""
    lock = threading.Lock()
    kept: OrderedDict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def anchors_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        with lock:
            if shape not in kept:
                pixels = pyramid_anchors(config, shape)
                kept[shape] = pixels, normalize_boxes(pixels, shape, config.BOX_GRID)
                if len(kept) > ANCHOR_SETS_KEPT:
                    kept.popitem(last=False)
            kept.move_to_end(shape)
            return kept[shape]

    return anchors_of


def log(text: str, array: Any = None) -> None:
    """Print `text`, and of `array` the shape, range and type, in a line."""
    if array is not None:
        array = np.asarray(array)
        limits = f"min: {array.min():10.5f}  max: {array.max():10.5f}" if array.size else f"min: {'':10}  max: {'':10}"
        text = f"{text:25}shape: {array.shape!s:20}  {limits}  {array.dtype}"
    print(text)


def _check_form(masks: str) -> None:
    if masks not in MASK_FORMS:
        raise ValueError(f"masks must be one of {', '.join(MASK_FORMS)}. Received: {masks!r}.")


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """np.stack, which for a single array copies nothing: 12 MB for an image of 1024 x 1024 pixels."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def _molded_shape(prepared: _Prepared) -> tuple[int, ...]:
    return prepared.molded.shape


def _name_of(index: int, image: Any, total: int | None) -> str:
    """How messages name an image."""
    name = f"Image {index}" if total is None else f"Image {index} of {total}"
    return f"{name} ({os.fspath(image)})" if isinstance(image, str | os.PathLike) else name

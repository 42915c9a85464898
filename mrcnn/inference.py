"""Detection: images in, results out, whatever runs the network.

Letters: B images, H, W original size; h, w molded size; C channels; A anchors, D detections, N real ones, K classes
(0 is background). Boxes (y1, x1, y2, x2): *normalized* in the network, *pixels* in results. All is numpy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data.image_meta import ImageMeta
from mrcnn.data.molding import mold_one, unmold_detections
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import normalize_boxes

# What runs the network: (molded images [B, h, w, C], metas [B, 12 + K], anchors [B, A, 4]), all float32 ->
# (detections [B, D, 6], masks [B, D, mh, mw, K]).
Runner = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

# Image sizes whose anchors are kept; those of 1024 x 1024 pixels take 12 MB.
_ANCHOR_SETS_KEPT = 8


class Detector:
    """Runs a network on images of any number and size.

    Args:
        config: the configuration that the network was built from.
        run: the network, see `Runner`.
        batch_size: images that go through the network at once. None: the configuration's BATCH_SIZE.
        get_anchors: molded shape (h, w, ...) -> normalized anchors [A, 4] float32. None: the configuration's.
    """

    def __init__(
        self,
        config: Config,
        run: Runner,
        batch_size: int | None = None,
        get_anchors: Callable[[Sequence[int]], np.ndarray] | None = None,
    ) -> None:
        self.config = config
        self.run = run
        self.batch_size = batch_size
        anchors_of = anchor_cache(config)
        self.get_anchors = get_anchors or (lambda shape: anchors_of((int(shape[0]), int(shape[1])))[1])

    def detect(self, images: Sequence[Any], verbose: int = 0) -> list[dict[str, np.ndarray]]:
        """Find the objects in images.

        Args:
            images: any number of them, each [H, W] or [H, W, C] of its own size; see `mold_one`.
            verbose: 1 prints what goes in.

        Returns:
            For each image a dict of rois [N, 4] int32 in pixels, class_ids [N] int32, scores [N] float32 and masks
            [H, W, N] bool; best score first.

        Raises:
            TypeError, ValueError: an image that cannot be taken; the message says which.
        """
        if isinstance(images, np.ndarray) and images.ndim in (2, 3):
            raise ValueError(
                f"detect takes a list of images. Received: one array of shape {images.shape}. Write detect([image])."
            )
        if verbose:
            print(f"Processing {len(images)} images")
        results = []
        for batch in self._batches(images):
            molded, metas = np.stack([m for m, _ in batch]), np.stack([m for _, m in batch])
            results.extend(self.detect_molded(molded, metas, verbose, images[len(results) : len(results) + len(batch)]))
        return results

    def detect_molded(
        self, molded_images: np.ndarray, image_metas: np.ndarray, verbose: int = 0, images: Sequence[Any] = ()
    ) -> list[dict[str, np.ndarray]]:
        """As `detect`, of molded images [B, h, w, C] and their metas [B, 12 + K] (see `mold_inputs`)."""
        molded_images = np.asarray(molded_images, np.float32)
        image_metas = np.asarray(image_metas, np.float32)
        anchors = self.get_anchors(molded_images.shape[1:])
        anchors = np.broadcast_to(anchors, (len(molded_images), *anchors.shape))
        if verbose:
            for image in images:
                log("image", np.asarray(image))
            log("molded_images", molded_images)
            log("image_metas", image_metas)
            log("anchors", anchors)
        detections, masks = self.run(molded_images, image_metas, anchors)
        fields = ImageMeta.parse(image_metas)
        results = []
        for index in range(len(molded_images)):
            boxes, class_ids, scores, full_masks = unmold_detections(
                detections[index],
                masks[index],
                fields["original_image_shape"][index],
                molded_images.shape[1:],
                fields["window"][index],
            )
            results.append({"rois": boxes, "class_ids": class_ids, "scores": scores, "masks": full_masks})
        return results

    def _batches(self, images: Sequence[Any]) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        """Molded images and metas, in order, as many together as are of one size and fit in a batch."""
        size = self.batch_size or self.config.BATCH_SIZE
        batch: list[tuple[np.ndarray, np.ndarray]] = []
        for index, image in enumerate(images):
            try:
                molded, meta, _ = mold_one(image, self.config)
            except (TypeError, ValueError) as error:
                raise type(error)(f"Image {index} of {len(images)}: {error}") from error
            if batch and (len(batch) == size or batch[0][0].shape != molded.shape):
                yield batch
                batch = []
            batch.append((molded, meta))
        if batch:
            yield batch


def anchor_cache(config: Config) -> Callable[[tuple[int, int]], tuple[np.ndarray, np.ndarray]]:
    """A function (h, w) -> anchors [A, 4] in pixels and normalized, which keeps those of the last few sizes."""

    @functools.lru_cache(maxsize=_ANCHOR_SETS_KEPT)
    def anchors_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        pixels = pyramid_anchors(config, shape)
        return pixels, normalize_boxes(pixels, shape)

    return anchors_of


def keras_runner(model: Any) -> Runner:
    """Run an inference network (see `build_network`) with Keras, on whatever backend it is on."""
    import keras

    detections, _, _, masks, *_ = model.outputs
    # Only these two are asked for, so the others are neither kept nor copied.
    predictor = keras.Model(model.inputs, [detections, masks], name="mask_rcnn_detect")
    # On TensorFlow, XLA knows no non-max suppression of changing length; JAX is nothing without XLA.
    predictor.jit_compile = keras.backend.backend() == "jax"

    def run(molded: np.ndarray, metas: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = predictor.predict_on_batch([molded, metas, anchors])
        return np.asarray(found[0]), np.asarray(found[1])

    return run


def log(text: str, array: Any = None) -> None:
    """Print `text`, and of `array` the shape, range and type, in a line."""
    if array is not None:
        array = np.asarray(array)
        limits = f"min: {array.min():10.5f}  max: {array.max():10.5f}" if array.size else f"min: {'':10}  max: {'':10}"
        text = f"{text:25}  shape: {array.shape!s:20}  {limits}  {array.dtype}"
    print(text)

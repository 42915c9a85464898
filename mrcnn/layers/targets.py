"""Targets of the heads: proposals and ground truth -> sampled ROIs and what they should have said (training).

Letters: B images, R proposals, G ground truth objects, T sampled rois, P positive ones at most. Boxes
(y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.ops import replicas
from mrcnn.ops.boxes import compute_overlaps, encode_deltas
from mrcnn.ops.mask_targets import covered_shares
from mrcnn.ops.nms import gather
from mrcnn.ops.roi_align import crop_bilinear
from mrcnn.ops.sampling import compact, draw

POSITIVE_IOU = 0.5
# A proposal that touches a crowd this much is no negative: the crowd may hide an object there.
CROWD_IOU = 0.001


@keras.saving.register_keras_serializable("mrcnn")
class DetectionTargetLayer(keras.layers.Layer):
    """Sample proposals, positive ones first, and work out their classes, deltas and masks (Mask R-CNN, section 3.1).

    Args:
        rois_per_image: T.
        positive_ratio: share of T that positives may take: P = int(T x ratio).
        mask_shape: (height, width) of the mask targets.
        bbox_std_dev: what the deltas are divided by.
        use_mini_masks: whether the ground truth masks are crops of their boxes, or as large as the image.
        fill_negatives: True takes T minus positives as negatives; False (`legacy:`) takes them in proportion to the
            positives that were found, and so none for an image without positives.
        stop_gradient: False (`legacy:`) lets the gradient of the box loss reach the proposals through the deltas.
        add_gt_boxes: whether the ground truth boxes of objects are taken for proposals too, the last ones.
        mask_targets: "legacy": one bilinear sample for each cell of a mask, rounded. "soft": the share of the cell that
            the object covers. "aligned": whether it is a half, on the aligned grid. See Config.MASK_TARGETS.
        shuffle: False takes the first candidates in place of random ones.
        seed: of the random choice.
    """

    def __init__(
        self,
        rois_per_image: int = 200,
        positive_ratio: float = 0.33,
        mask_shape: Sequence[int] = (28, 28),
        bbox_std_dev: Any = (0.1, 0.1, 0.2, 0.2),
        use_mini_masks: bool = True,
        fill_negatives: bool = False,
        stop_gradient: bool = False,
        add_gt_boxes: bool = False,
        mask_targets: str = "legacy",
        shuffle: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.rois_per_image = rois_per_image
        self.positive_ratio = positive_ratio
        self.mask_shape = [int(side) for side in mask_shape]
        self.bbox_std_dev = [float(v) for v in bbox_std_dev]
        self.use_mini_masks = use_mini_masks
        self.fill_negatives = fill_negatives
        self.stop_gradient = stop_gradient
        self.add_gt_boxes = add_gt_boxes
        self.mask_targets = mask_targets
        self.shuffle = shuffle
        self.seed = seed
        self.max_positives = int(rois_per_image * positive_ratio)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, proposals: Any, gt_class_ids: Any, gt_boxes: Any, gt_masks: Any) -> tuple[Any, Any, Any, Any]:
        """Sample and assign.

        Args:
            proposals: [B, R, 4], zero boxes where there is none.
            gt_class_ids: [B, G] int32; 0 where there is no object, negative for a crowd.
            gt_boxes: [B, G, 4].
            gt_masks: [B, h, w, G] bool: crops of the boxes, or of the size of the image.

        Returns:
            rois [B, T, 4], class ids [B, T] int32 (0 for negatives and padding), deltas [B, T, 4], masks
            [B, T, mask height, mask width] of 0 and 1. Positives come first, then negatives, then zeros.
        """
        if self.stop_gradient:
            proposals = ops.stop_gradient(proposals)
        if self.add_gt_boxes:
            given = ops.where((gt_class_ids > 0)[..., None], gt_boxes, 0.0)
            proposals = ops.concatenate([proposals, given], axis=1)
        objects, crowds = (gt_class_ids > 0)[:, None], (gt_class_ids < 0)[:, None]
        overlaps = compute_overlaps(ops.stop_gradient(proposals), gt_boxes)
        best = ops.max(ops.where(objects, overlaps, -1.0), axis=-1)
        assigned = ops.cast(ops.argmax(ops.where(objects, overlaps, -1.0), axis=-1), "int32")
        real = ops.any(proposals != 0, axis=-1)
        clear = ops.max(ops.where(crowds, overlaps, 0.0), axis=-1) < CROWD_IOU
        positive = ops.logical_and(real, best >= POSITIVE_IOU)
        negative = ops.logical_and(ops.logical_and(real, best < POSITIVE_IOU), clear)
        indices, taken, is_positive = self._sample(positive, negative)

        rois = gather(proposals, indices)
        gt_index = gather(assigned, indices)
        matched = gather(gt_boxes, gt_index)
        class_ids = ops.where(is_positive, gather(gt_class_ids, gt_index), 0)
        whole = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])  # stands in where a division by an empty box would give NaN
        deltas = encode_deltas(
            ops.where(is_positive[..., None], rois, whole), ops.where(is_positive[..., None], matched, whole)
        )
        deltas = ops.where(is_positive[..., None], ops.divide(deltas, self.bbox_std_dev), 0.0)
        masks = self._crop_masks(rois, matched, gt_index, gt_masks, is_positive)
        return ops.where(taken[..., None], rois, 0.0), class_ids, deltas, masks

    def _sample(self, positive: Any, negative: Any) -> tuple[Any, Any, Any]:
        """Indices [B, T] of the chosen proposals, which of them are real, and which are positive."""
        total, most = self.rois_per_image, self.max_positives
        positives, positives_taken = draw(positive, most, self._keys(positive))
        count = ops.sum(ops.cast(positives_taken, "int32"), axis=-1, keepdims=True)
        if self.fill_negatives:
            wanted = total - count
        else:
            wanted = ops.cast(ops.cast(count, "float32") * (1.0 / self.positive_ratio), "int32") - count
        negatives, negatives_taken = draw(negative, total, self._keys(negative))
        in_quota = ops.arange(total, dtype="int32")[None] < wanted
        negatives_taken = ops.logical_and(negatives_taken, in_quota)

        indices = ops.concatenate([positives, negatives], axis=-1)
        slots, taken = compact(ops.concatenate([positives_taken, negatives_taken], axis=-1), total)
        is_positive = ops.arange(total, dtype="int32")[None] < count
        return gather(indices, slots), taken, is_positive

    def _keys(self, mask: Any) -> Any:
        shape = ops.shape(mask)
        if self.shuffle:
            return replicas.rows(lambda count: keras.random.uniform((count, shape[1]), seed=self.generator), shape[0])
        return ops.broadcast_to(ops.cast(ops.arange(shape[1], 0, -1), "float32")[None], shape)

    def _crop_masks(self, rois: Any, matched: Any, gt_index: Any, gt_masks: Any, is_positive: Any) -> Any:
        """The part of each positive's ground truth mask that lies in the ROI, resized and rounded."""
        most = self.max_positives  # positives come first, so the other rows need no crop
        rois, matched = ops.stop_gradient(rois[:, :most]), matched[:, :most]
        if self.use_mini_masks:
            corner = ops.concatenate([matched[..., :2], matched[..., :2]], axis=-1)
            size = matched[..., 2:] - matched[..., :2]
            rois = (rois - corner) / ops.concatenate([size, size], axis=-1)
        batch, height, width, count = ops.shape(gt_masks)
        if self.mask_targets != "legacy":
            masks = self._shares(rois, gt_index[:, :most], gt_masks)
            masks = ops.where(is_positive[:, :most, None, None], masks, 0.0)
            return ops.pad(masks, [[0, 0], [0, self.rois_per_image - most], [0, 0], [0, 0]])
        first = ops.arange(batch, dtype="int32")[:, None] * (height * width * count)
        offsets = first + gt_index[:, :most]
        masks = crop_bilinear(
            ops.reshape(gt_masks, (-1, 1)),
            offsets,
            ops.full_like(offsets, height),
            ops.full_like(offsets, width),
            rois,
            self.mask_shape,
            stride=count,
        )[..., 0]
        masks = ops.where(is_positive[:, :most, None, None], ops.round(masks), 0.0)
        return ops.pad(masks, [[0, 0], [0, self.rois_per_image - most], [0, 0], [0, 0]])

    def _shares(self, rois: Any, gt_index: Any, gt_masks: Any) -> Any:
        """Mask targets [B, P, mask height, mask width] of rois [B, P, 4], normalized to their masks."""
        batch, height, width, count = ops.shape(gt_masks)
        masks = ops.reshape(ops.transpose(gt_masks, (0, 3, 1, 2)), (-1, height, width))
        chosen = gt_index + ops.arange(batch, dtype="int32")[:, None] * count
        aligned = self.mask_targets == "aligned"
        shares = covered_shares(
            masks, ops.reshape(chosen, (-1,)), ops.reshape(rois, (-1, 4)), self.mask_shape, aligned,
            border=not self.use_mini_masks,
        )  # fmt: skip
        shares = ops.reshape(shares, (-1, self.max_positives, *self.mask_shape))
        return ops.cast(shares >= 0.5, "float32") if aligned else shares

    def compute_output_spec(self, proposals: Any, gt_class_ids: Any, gt_boxes: Any, gt_masks: Any) -> tuple[Any, ...]:
        rows = (proposals.shape[0], self.rois_per_image)
        return (
            keras.KerasTensor((*rows, 4), "float32"),
            keras.KerasTensor(rows, "int32"),
            keras.KerasTensor((*rows, 4), "float32"),
            keras.KerasTensor((*rows, *self.mask_shape), "float32"),
        )

    def get_config(self) -> dict[str, Any]:
        names = ("rois_per_image", "positive_ratio", "mask_shape", "bbox_std_dev", "use_mini_masks", "fill_negatives",
                 "stop_gradient", "add_gt_boxes", "mask_targets", "shuffle", "seed")  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

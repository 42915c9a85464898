"""Pictures of images, boxes, masks and figures with matplotlib, for notebooks and scripts.

Letters: N instances, R ROIs, G ground-truth instances, P predictions; H, W height and width. Boxes are
(y1, x1, y2, x2) in pixels, y2 and x2 one outside; masks are [H, W, N] bool. Colors are (red, green, blue)
from 0 to 1; where matplotlib draws, its other notations will do.

Functions that plot make a figure of their own unless they are given `ax`, and show it only where the
matplotlib backend can show anything; they return what they drew on, to be changed or saved. `draw_instances`
and `save_instances` draw onto arrays, without matplotlib; they are in `mrcnn.drawing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mrcnn.colors import as_rgb, instance_colors, random_colors
from mrcnn.drawing import apply_mask, draw_box, draw_instances, label, save_instances
from mrcnn.figures import add_box, add_mask, add_text, axes, finish, pyplot, show
from mrcnn.matching import compute_matches
from mrcnn.tables import display_table, display_weight_stats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "apply_mask",
    "display_differences",
    "display_images",
    "display_instances",
    "display_table",
    "display_top_masks",
    "display_weight_stats",
    "draw_box",
    "draw_boxes",
    "draw_instances",
    "draw_rois",
    "plot_overlaps",
    "plot_precision_recall",
    "random_colors",
    "save_instances",
]

_GRAY = (0.5, 0.5, 0.5)


def display_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: Any = None,
    norm: Any = None,
    interpolation: str | None = None,
) -> Figure:
    """Show images side by side, `cols` in a row.

    Args:
        images: uint8 pictures or single-channel arrays of any size.
        titles: one for each image, or more.
        cmap, norm, interpolation: as for matplotlib's `imshow`.

    Raises:
        ValueError: fewer titles than images.
    """
    if cols < 1:
        raise ValueError(f"cols must be at least 1. Received: {cols}.")
    _require_enough(len(images), titles=titles)
    rows = -(-max(len(images), 1) // cols)
    figure = pyplot().figure(figsize=(14, 14 * rows / cols))
    for i, image in enumerate(images):
        ax = figure.add_subplot(rows, cols, i + 1)
        ax.set_title("" if titles is None else titles[i], fontsize=9)
        ax.axis("off")
        image = np.asarray(image)
        ax.imshow(
            image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image,
            cmap,
            norm,
            interpolation=interpolation,
        )
    show()
    return figure


def display_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Axes | None = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence | None = None,
    captions: Sequence[str] | None = None,
) -> Axes:
    """Show an image with its instances: boxes, filled and outlined masks, class names and scores.

    Args:
        image: see `mrcnn.colors.as_rgb`; left as it is.
        boxes: [N, 4]; all-zero rows are padding and are passed over, with their masks.
        masks: [H, W, N]; may be None.
        class_ids: [N].
        class_names: names by class id.
        scores: [N], or more.
        title, figsize: of a figure made here; `ax` to draw on instead.
        show_mask, show_bbox: whether to show masks and boxes.
        colors: one for each instance, or more.
        captions: texts in place of names and scores, one for each instance, or more.

    Returns:
        The axes drawn on.

    Raises:
        ValueError: boxes, masks and class ids differ in number or size, there are fewer of the others, or a class has
            no name.
    """
    boxes = np.asarray(boxes).reshape(-1, 4)
    _require_lengths(
        boxes=boxes, class_ids=class_ids, masks=None if masks is None else np.moveaxis(np.asarray(masks), -1, 0)
    )
    _require_enough(len(boxes), scores=scores, captions=captions, colors=colors)
    if colors is None:
        colors = instance_colors(len(boxes))
    if len(boxes) == 0:
        print("No instances to display.")
    picture = as_rgb(image)
    ax, own = axes(ax, figsize)
    ax.set_title(title, pad=20)  # clear of captions at the upper rim
    ax.axis("off")
    for i in np.flatnonzero(boxes.any(axis=1)):
        if masks is not None and show_mask:
            add_mask(ax, picture, np.asarray(masks)[:, :, i], colors[i])
        if show_bbox:
            add_box(ax, boxes[i], colors[i], alpha=0.7, linestyle="dashed")
        text = (
            captions[i]
            if captions is not None
            else label(class_ids[i], None if scores is None else scores[i], class_names)
        )
        add_text(ax, boxes[i], text, colors[i])
    ax.imshow(picture)
    return finish(ax, own)


def display_differences(
    image: np.ndarray,
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
    ax: Axes | None = None,
    show_mask: bool = True,
    show_box: bool = True,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> Axes:
    """Show ground truth (green) and predictions (red) on one image, each prediction with "score / IoU".

    The IoU is that with its match, or else the best of all. Thresholds: see `mrcnn.matching.compute_matches`.
    The other arguments: see `display_instances`.
    """
    truth = [np.asarray(part) for part in (gt_box, gt_class_id, gt_mask)]
    best_first = np.argsort(-np.asarray(pred_score), kind="stable")
    found = [np.asarray(part)[best_first] for part in (pred_box, pred_class_id, pred_score)]
    pred_mask = np.asarray(pred_mask)[..., best_first]
    _, pred_match, overlaps = compute_matches(*truth, *found, pred_mask, iou_threshold, score_threshold)
    count = len(truth[0])
    captions = [""] * count
    for score, match, row in zip(found[2], pred_match, overlaps, strict=True):
        iou = row[int(match)] if match > -1 else row.max(initial=0)
        captions.append(f"{score:.2f} / {iou:.2f}")
    return display_instances(
        image,
        np.concatenate([truth[0].reshape(-1, 4), found[0].reshape(-1, 4)]),
        np.concatenate([truth[2], pred_mask], axis=-1),
        np.concatenate([truth[1], found[1]]),
        class_names,
        title=title or "Ground truth (green) and predictions (red), with score / IoU",
        ax=ax,
        show_mask=show_mask,
        show_bbox=show_box,
        colors=[(0, 0.8, 0)] * count + [(1, 0, 0)] * len(pred_match),
        captions=captions,
    )


def draw_rois(
    image: np.ndarray,
    rois: np.ndarray,
    refined_rois: np.ndarray,
    mask: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    limit: int = 10,
    seed: int | np.random.Generator | None = None,
) -> Axes:
    """Show some ROIs of a training step: where each lay (dashed) and where it was moved to (solid), with its
    target mask; ROIs of background are gray. Prints how many are positive.

    Args:
        rois, refined_rois: [R, 4] pixels.
        mask: [R, h, w], target masks of the ROIs, in any size.
        class_ids: [R], 0 for background.
        limit: how many to show, drawn at random.
        seed: for that draw.
    """
    _require_lengths(rois=rois, refined_rois=refined_rois, mask=mask, class_ids=class_ids)
    rois, refined_rois = np.asarray(rois), np.asarray(refined_rois)
    class_ids = np.asarray(class_ids)
    picture = as_rgb(image)
    ax, own = axes(None, (12, 12))
    chosen = np.random.default_rng(seed).permutation(len(rois))[:limit]
    ax.set_title(f"{len(chosen)} of {len(rois)} ROIs")
    ax.axis("off")
    for i, color in zip(chosen, instance_colors(len(chosen)), strict=True):
        positive = class_ids[i] > 0
        add_box(ax, rois[i], color if positive else _GRAY, alpha=0.6, linestyle="dashed")
        if positive:
            add_box(ax, refined_rois[i], color)
            ax.plot([rois[i][1], refined_rois[i][1]], [rois[i][0], refined_rois[i][0]], color=color)
            add_text(ax, refined_rois[i], class_names[class_ids[i]], color)
            add_mask(ax, picture, _paste(mask[i], rois[i], picture.shape[:2]), color, outline=False)
    ax.imshow(picture)
    positives = np.count_nonzero(class_ids > 0)
    print(f"Positive ROIs: {positives}")
    print(f"Negative ROIs: {len(class_ids) - positives}")
    print(f"Positive ratio: {positives / max(len(class_ids), 1):.2f}")
    return finish(ax, own)


def display_top_masks(
    image: np.ndarray, mask: np.ndarray, class_ids: np.ndarray, class_names: Sequence[str], limit: int = 4
) -> Figure:
    """Show an image, and beside it the masks [H, W, N] of the `limit` classes that cover most of it."""
    mask, class_ids = np.asarray(mask), np.asarray(class_ids)
    _require_lengths(class_ids=class_ids, mask=np.moveaxis(mask, -1, 0))
    areas = {c: np.count_nonzero(mask[:, :, class_ids == c]) for c in np.unique(class_ids[class_ids > 0]).tolist()}
    top = sorted((c for c in areas if areas[c]), key=lambda c: -areas[c])[:limit]
    height, width = image.shape[:2]
    images, titles = [as_rgb(image)], [f"H x W = {height} x {width}"]
    for i in range(limit):
        layer = np.zeros((height, width), np.int64)
        if i < len(top):
            members = np.flatnonzero(class_ids == top[i])
            for number, member in enumerate(members, start=1):  # instances told apart by shade
                layer[mask[:, :, member] > 0] = number
        images.append(layer)
        titles.append(class_names[top[i]] if i < len(top) else "-")
    return display_images(images, titles, cols=limit + 1, cmap="Blues_r")


def plot_precision_recall(AP: float, precisions: np.ndarray, recalls: np.ndarray) -> Axes:
    """Plot a precision-recall curve as of `mrcnn.matching.compute_ap`."""
    _require_lengths(precisions=precisions, recalls=recalls)
    ax, own = axes(None, None)
    ax.plot(recalls, precisions)
    ax.set(
        title=f"Precision-recall curve, AP@50 = {AP:.3f}",
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1.05),
        ylim=(0, 1.05),
    )
    return finish(ax, own)


def plot_overlaps(
    gt_class_ids: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    overlaps: np.ndarray,
    class_names: Sequence[str],
    threshold: float = 0.5,
) -> Axes:
    """Show the IoUs [P, G] of predictions and ground truth as a grid, marked "match" or "wrong" by class
    where they exceed `threshold`.

    Args:
        gt_class_ids: [G]; zeros are padding and are left out.
        pred_class_ids, pred_scores: [P], in the order of the rows.
    """
    gt_class_ids, overlaps = np.asarray(gt_class_ids), np.asarray(overlaps)
    gt_class_ids = gt_class_ids[gt_class_ids != 0]
    _require_lengths(rows_of_overlaps=overlaps, pred_class_ids=pred_class_ids, pred_scores=pred_scores)
    _require_lengths(columns_of_overlaps=overlaps.T, gt_class_ids=gt_class_ids)
    ax, own = axes(None, (12, 10))
    ax.imshow(overlaps, interpolation="nearest", cmap="Blues", vmin=0, vmax=1)
    ax.set_yticks(
        range(len(pred_class_ids)),
        [label(c, s, class_names) for c, s in zip(pred_class_ids, pred_scores, strict=True)],
    )
    ax.set_xticks(range(len(gt_class_ids)), [label(c, None, class_names) for c in gt_class_ids], rotation=90)
    for (row, column), iou in np.ndenumerate(overlaps):
        right = gt_class_ids[column] == pred_class_ids[row]
        verdict = ("match" if right else "wrong") if iou > threshold else ""
        ink = "white" if iou > 0.5 else "black"
        ax.text(column, row, f"{iou:.3f}\n{verdict}", ha="center", va="center", fontsize=9, color=ink)
    ax.set(xlabel="ground truth", ylabel="predictions")
    ax.figure.tight_layout()
    return finish(ax, own)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray | None = None,
    refined_boxes: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    captions: Sequence[str] | None = None,
    visibilities: Sequence[int] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Show boxes before (`boxes`, dashed) and after a move (`refined_boxes`, solid); one of the two may be
    missing.

    Args:
        boxes, refined_boxes: [N, 4].
        masks: [H, W, N].
        captions: one for each refined box, or each box where there are no refined ones.
        visibilities: for each box 0 (gray, dashed, and not the refined one), 1 (dashed) or 2 (solid).
        What there are more of than `boxes` (than `refined_boxes`, where these are all) is left out.

    Raises:
        ValueError: neither kind of box, or too few of the other arguments.
    """
    known = refined_boxes if boxes is None else boxes
    if known is None:
        raise ValueError("draw_boxes needs boxes, refined_boxes or both. Received neither.")
    count = len(known)
    masks = None if masks is None else np.moveaxis(np.asarray(masks), -1, 0)
    _require_enough(count, refined_boxes=refined_boxes, captions=captions, visibilities=visibilities, masks=masks)
    picture = as_rgb(image)
    ax, own = axes(ax, (12, 12))
    ax.set_title(title, pad=20)
    ax.axis("off")
    for i, color in zip(range(count), instance_colors(count), strict=True):
        seen = 1 if visibilities is None else visibilities[i]
        if seen not in (0, 1, 2):
            raise ValueError(f"A visibility is 0, 1 or 2. Received: {seen}.")
        color = color if seen else _GRAY
        if boxes is not None and np.any(boxes[i]):
            add_box(ax, boxes[i], color, alpha=1 if seen else 0.5, linestyle="solid" if seen == 2 else "dashed")
        if refined_boxes is not None and seen:
            add_box(ax, refined_boxes[i], color)
            if boxes is not None:
                ax.plot([boxes[i][1], refined_boxes[i][1]], [boxes[i][0], refined_boxes[i][0]], color=color)
        if captions is not None:
            add_text(ax, known[i] if refined_boxes is None else refined_boxes[i], captions[i], color)
        if masks is not None:
            add_mask(ax, picture, masks[i], color)
    ax.imshow(picture)
    return finish(ax, own)


def _paste(mask: np.ndarray, box: Sequence[float], shape: tuple[int, int]) -> np.ndarray:
    """A small mask stretched over its box in an image of `shape`; what falls outside is cut off."""
    pasted = np.zeros(shape, bool)
    y1, x1, y2, x2 = (round(float(v)) for v in box)
    if y2 > y1 and x2 > x1:
        whole = cv2.resize(np.asarray(mask, np.float32), (x2 - x1, y2 - y1)) >= 0.5
        top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2, shape[0]), min(x2, shape[1])
        if bottom > top and right > left:
            pasted[top:bottom, left:right] = whole[top - y1 : bottom - y1, left - x1 : right - x1]
    return pasted


def _require_lengths(**parts: Any) -> None:
    lengths = {name: len(part) for name, part in parts.items() if part is not None}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"These must be equal in number. Received: {told}.")


def _require_enough(count: int, **parts: Any) -> None:
    """Raise ValueError unless each part that is there has one for each of `count`. More are fine: scripts make some for
    all that they have, and show a few."""
    short = [f"{name} {len(part)}" for name, part in parts.items() if part is not None and len(part) < count]
    if short:
        raise ValueError(f"There must be one for each of {count}. Received: {', '.join(short)}.")

"""The demo: nuclei found by the network that ships with the package, on images that it was not trained on.

Letters: H, W sides of an image; N nuclei. Boxes (y1, x1, y2, x2) in *pixels*.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mrcnn.data.masks import extract_bboxes
from mrcnn.drawing import draw_instances
from mrcnn.evaluation import EvaluationResult, coco_ground_truth, evaluate, write_results
from mrcnn.files import atomic_path
from mrcnn.nuclei import CLASS_NAMES, FRAME_COUNT, HelaNuclei, NucleiInferenceConfig, fetch_hela, shipped_weights

# Frames shown: the first, one half-way, the last. From 124 annotated nuclei they grow to 195.
FRAMES = (0, 9, FRAME_COUNT - 1)

# A detection counts as a nucleus found, and is drawn, from this score on. Average precision is made of all.
MIN_SCORE = 0.5

_HEADING = 24  # pixels above a picture for its heading
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_ANNOTATED = (0.25, 0.95, 0.35)


@dataclass(frozen=True)
class DemoReport:
    """What `run_demo` found and wrote.

    Attributes:
        names: of the images.
        found, annotated: nuclei in each of them; found are those of score `MIN_SCORE` or better.
        seconds: that each took, with the network warm.
        first_seconds: that the first run of the network took, with all that Keras prepares in it.
        evaluation: average precision over all of them.
        pictures: paths of the overlay pictures, one for each image.
        images: paths of the images themselves.
        results, ground_truth, metrics: paths of JSON files: results and annotations as COCO writes them, and figures.
    """

    names: tuple[str, ...]
    found: tuple[int, ...]
    annotated: tuple[int, ...]
    seconds: tuple[float, ...]
    first_seconds: float
    evaluation: EvaluationResult
    pictures: tuple[Path, ...]
    images: tuple[Path, ...]
    results: Path
    ground_truth: Path
    metrics: Path

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [f"{'held-out image':{width}}  annotated  found  seconds"]
        for name, annotated, found, seconds in zip(self.names, self.annotated, self.found, self.seconds, strict=True):
            lines.append(f"{name:{width}}  {annotated:9}  {found:5}  {seconds:7.2f}")
        total = f"{'all':{width}}  {sum(self.annotated):9}  {sum(self.found):5}  {sum(self.seconds):7.2f}"
        lines += [
            f"{total}   (the network's first run: {self.first_seconds:.1f} s)",
            "",
            f"mask AP@0.5 {self.evaluation.mask_ap50:.3f}   mask AP@[.5:.95] {self.evaluation.mask_ap:.3f}   "
            f"box AP@0.5 {self.evaluation.box_ap50:.3f}   box AP@[.5:.95] {self.evaluation.box_ap:.3f}",
            "",
            "pictures:     " + f"\n{'':14}".join(str(path) for path in self.pictures),
            f"detections:   {self.results} (COCO results)",
            f"annotations:  {self.ground_truth} (COCO ground truth)",
            f"figures:      {self.metrics}",
        ]
        return "\n".join(lines)


def run_demo(
    output_dir: str | os.PathLike,
    weights: str | os.PathLike | None = None,
    progress: bool = True,
    *,
    frames: Iterable[int] = FRAMES,
    cache_dir: str | os.PathLike | None = None,
) -> DemoReport:
    """Detect the nuclei of held-out images, compare with their annotation, and write pictures and COCO files.

    Args:
        output_dir: where to write; made if it is not there.
        weights: of a network of `NucleiInferenceConfig`. None: those that ship with the package.
        progress: whether to print the report, and a progress bar on the standard error stream.
        frames: which frames' right sides.
        cache_dir: see `fetch_hela`.

    Raises:
        FileNotFoundError, WeightsError: the weights cannot be used.
        DownloadError: the images could not be fetched.
    """
    from mrcnn.model import MaskRCNN

    weights = shipped_weights() if weights is None else Path(weights)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = HelaNuclei(fetch_hela(cache_dir), "right", frames)
    model = MaskRCNN("inference", NucleiInferenceConfig(), model_dir=folder)
    model.load_weights(weights)
    recorder = Recorder(model)
    first_seconds = recorder.warm_up(dataset.load_image(0))

    results_path = folder / "detections.json"
    evaluation = evaluate(
        recorder,
        dataset,
        batch_size=1,
        progress=progress,
        max_detections=model.config.DETECTION_MAX_INSTANCES,
        results_path=results_path,
    )
    report = _write(folder, dataset, recorder, first_seconds, evaluation, results_path, weights)
    if progress:
        print(report)
    return report


class Recorder:
    """A model whose `detect` keeps what it found, and how long that took. For images given one at a time."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.results: list[dict[str, np.ndarray]] = []
        self.seconds: list[float] = []

    def warm_up(self, image: np.ndarray) -> float:
        """Run the network once, unrecorded: Keras prepares it at its first run. Returns the seconds."""
        start = time.perf_counter()
        self.model.detect([image])
        return time.perf_counter() - start

    def detect(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        start = time.perf_counter()
        found = self.model.detect(images)
        self.seconds.append((time.perf_counter() - start) / max(len(images), 1))
        self.results += found
        return found


def _write(
    folder: Path,
    dataset: HelaNuclei,
    recorder: Recorder,
    first_seconds: float,
    evaluation: EvaluationResult,
    results_path: Path,
    weights: Path,
) -> DemoReport:
    names, images, pictures, annotated, found = [], [], [], [], []
    for image_id, result in zip(dataset.image_ids.tolist(), recorder.results, strict=True):
        path = folder / dataset.image_info[image_id]["path"]
        image, (masks, class_ids) = dataset.load_image(image_id), dataset.load_mask(image_id)
        truth = {"rois": extract_bboxes(masks), "class_ids": class_ids, "masks": masks}
        names.append(path.stem)
        annotated.append(len(class_ids))
        result = _best(result, MIN_SCORE)
        found.append(len(result["class_ids"]))
        images.append(_save(path, image))
        pictures.append(_save(path.with_stem(path.stem + "_detected"), comparison(image, truth, result)))

    truth_path, metrics_path = folder / "annotations.json", folder / "metrics.json"
    write_results(truth_path, coco_ground_truth(dataset))
    figures = {
        "weights": str(weights),
        "min_score_of_found": MIN_SCORE,
        "images": [
            {"name": name, "annotated": there, "found": here, "seconds": round(seconds, 4)}
            for name, there, here, seconds in zip(names, annotated, found, recorder.seconds, strict=True)
        ],
        **evaluation.to_dict(),
    }
    with atomic_path(metrics_path) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return DemoReport(
        names=tuple(names),
        found=tuple(found),
        annotated=tuple(annotated),
        seconds=tuple(recorder.seconds),
        first_seconds=first_seconds,
        evaluation=evaluation,
        pictures=tuple(pictures),
        images=tuple(images),
        results=results_path,
        ground_truth=truth_path,
        metrics=metrics_path,
    )


def comparison(image: np.ndarray, truth: dict[str, np.ndarray], result: dict[str, np.ndarray]) -> np.ndarray:
    """Annotation (left) and detections (right) side by side, with headings.

    Args:
        image: [H, W, 3] uint8.
        truth, result: as `draw_instances` takes them.

    Returns:
        [H', W', 3] uint8.
    """
    panels = [
        draw_instances(image, truth, CLASS_NAMES, show_boxes=False, show_labels=False, alpha=0, colors=_ANNOTATED),
        draw_instances(image, result, CLASS_NAMES, show_boxes=False, show_labels=False, alpha=0.3),
    ]
    headings = [f"annotated: {len(truth['class_ids'])}", f"detected: {len(result['class_ids'])}"]
    height, width = image.shape[:2]
    gap = 8
    canvas = Image.new("RGB", (2 * width + gap, height + _HEADING), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for index, (panel, heading) in enumerate(zip(panels, headings, strict=True)):
        x = index * (width + gap)
        canvas.paste(Image.fromarray(panel), (x, _HEADING))
        draw.text((x + 4, _HEADING / 2), heading, fill=_INK, font=font, anchor="lm")
    return np.asarray(canvas)


def _best(result: dict[str, np.ndarray], min_score: float) -> dict[str, np.ndarray]:
    """The detections of `min_score` or better."""
    kept = result["scores"] >= min_score
    return {key: value[..., kept] if key == "masks" else value[kept] for key, value in result.items()}


def _save(path: Path, image: np.ndarray) -> Path:
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
    return path

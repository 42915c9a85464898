"""Files as other tools write them: by the tool itself where it is at hand, else key for key as it does."""

from __future__ import annotations

import numpy as np
import pytest
import supervision

from mrcnn.data.formats import load_dataset, read_content
from tests.formats import samples
from tests.formats.test_readers import overlap

NAMES = ["cat", "dog"]


@pytest.fixture
def theirs(tmp_path):
    """supervision's dataset: a square and an ellipse on the first photo, nothing on the second."""
    photos = [str(samples.image(tmp_path / "photos" / name)) for name in ("a.png", "b.png")]
    masks = np.stack([samples.SQUARE, samples.disk(20, 12, 9, 4, 0.5)])
    boxes = supervision.mask_to_xyxy(masks).astype(float)
    found = supervision.Detections(xyxy=boxes, mask=masks, class_id=np.array([0, 1]))
    annotations = {photos[0]: found, photos[1]: supervision.Detections.empty()}
    return supervision.DetectionDataset(classes=NAMES, images=photos, annotations=annotations)


def check(path, images=None):
    dataset = load_dataset(path, images)
    assert dataset.class_names == ["BG", *NAMES] and dataset.num_images == 2
    first = next(n for n, info in enumerate(dataset.image_info) if info["path"].endswith("a.png"))
    masks, class_ids = dataset.load_mask(first)
    assert class_ids.tolist() == [1, 2] and dataset.load_mask(1 - first)[0].shape[2] == 0
    # Its polygons run through the outermost pixels, so masks lack their last row and column.
    assert overlap(masks[..., 0], samples.SQUARE) > 0.75
    assert overlap(masks[..., 1], samples.disk(20, 12, 9, 4, 0.5)) > 0.75


def test_supervisions_coco(theirs, tmp_path):
    theirs.as_coco(images_directory_path=str(tmp_path / "set"), annotations_path=str(tmp_path / "set" / "coco.json"))
    assert read_content(tmp_path / "set").format == "coco"
    check(tmp_path / "set")
    check(tmp_path / "set" / "coco.json", tmp_path / "photos")


def test_supervisions_yolo(theirs, tmp_path):
    folder = tmp_path / "set"
    theirs.as_yolo(
        images_directory_path=str(folder / "images"), annotations_directory_path=str(folder / "labels"),
        data_yaml_path=str(folder / "data.yaml"),
    )  # fmt: skip
    assert read_content(folder).format == "yolo"
    check(folder)

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


def test_roboflows_coco(tmp_path):
    """A folder for each part, with its photos and `_annotations.coco.json`; category 0 is that of the project."""
    corners = [value for point in samples.CORNERS for value in point]
    for part, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        file = f"{name}_png.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg"
        samples.image(tmp_path / part / file)
        samples.write_json(
            tmp_path / part / "_annotations.coco.json",
            {
                "info": {"year": "2026", "version": "1", "description": "Exported from roboflow.com", "contributor": "",
                         "url": "https://public.roboflow.com/object-detection/undefined",
                         "date_created": "2026-01-01T10:00:00+00:00"},
                "licenses": [{"id": 1, "url": "https://creativecommons.org/licenses/by/4.0/", "name": "CC BY 4.0"}],
                "categories": [{"id": 0, "name": "pets", "supercategory": "none"},
                               {"id": 1, "name": "cat", "supercategory": "pets"},
                               {"id": 2, "name": "dog", "supercategory": "pets"}],
                "images": [{"id": 0, "license": 1, "file_name": file, "height": samples.HEIGHT, "width": samples.WIDTH,
                            "date_captured": "2026-01-01T10:00:00+00:00", "extra": {"name": f"{name}.png"}}],
                "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [4, 6, 8, 8], "area": 64,
                                 "segmentation": [corners], "iscrowd": 0}],
            },
        )  # fmt: skip
    for name in ("README.dataset.txt", "README.roboflow.txt"):
        samples.write_text(tmp_path / name, "pets - v1\n==============================\n")
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        dataset = load_dataset(tmp_path, split=split)
        assert dataset.class_names == ["BG", "pets", "cat", "dog"] and dataset.num_images == 1
        assert dataset.image_info[0]["path"].rpartition("/")[2].startswith(f"{name}_png.rf.")
        masks, class_ids = dataset.load_mask(0)
        np.testing.assert_array_equal(masks[..., 0], samples.SQUARE)
        assert class_ids.tolist() == [2]

"""A look at a dataset: against what training makes of it, in time, and with images that cannot be read."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from mrcnn.config import Config
from mrcnn.data import summary
from mrcnn.data.coco import CocoDataset
from mrcnn.data.dataset import Dataset
from mrcnn.data.samples import load_image_gt
from mrcnn.data.survey import sample_images, survey
from mrcnn.evaluation import coco_ground_truth, write_results
from tests.shapes import Shapes

SIZES = {
    "square": {"IMAGE_MAX_DIM": 256, "IMAGE_MIN_DIM": 100},
    "rectangle": {"IMAGE_RECTANGLE": (192, 320)},
    "pad64": {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 192},
    "none": {"IMAGE_RESIZE_MODE": "none"},
}


def config_of(**values):
    return type("SurveyConfig", (Config,), {"NUM_CLASSES": 4, **values})()


@pytest.mark.parametrize("mode", SIZES)
def test_boxes_lie_where_training_has_them(mode):
    config, dataset = config_of(**SIZES[mode]), Shapes(5)
    seen = survey(dataset, config)
    assert seen.complete and sorted(seen.image_ids.tolist()) == [0, 1, 2, 3, 4]
    for place, image_id in enumerate(seen.image_ids.tolist()):
        image, _, class_ids, boxes, _ = load_image_gt(dataset, config, image_id)
        mine = seen.owners == place
        assert seen.molded[place].tolist() == list(image.shape[:2])
        assert seen.shapes[place].tolist() == [128, 128]
        assert seen.class_ids[mine].tolist() == class_ids.tolist()
        np.testing.assert_allclose(seen.boxes[mine], boxes, atol=2.5)  # masks are resized to whole pixels


def test_crops_cut_what_is_larger():
    config = config_of(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=64)
    seen = survey(Shapes(6), config)
    sizes = seen.boxes[:, 2:] - seen.boxes[:, :2]
    assert (seen.boxes >= 0).all() and (seen.boxes <= 64).all() and (sizes > 20).all()
    assert (seen.molded == 64).all()


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    folder, source = tmp_path_factory.mktemp("coco"), Shapes(4, size=64)
    for image_id in source.image_ids:
        Image.fromarray(source.load_image(image_id)).save(folder / f"{image_id}.png")
    truth = coco_ground_truth(source)
    truth["annotations"][0]["iscrowd"] = 1
    x, y, width, height = truth["annotations"][1]["bbox"]
    truth["annotations"][1]["segmentation"] = [
        [x, y, x + width, y, x + width, y + height], [x - 99, y, x, y, x, y + height / 2]
    ]  # fmt: skip
    write_results(folder / "annotations.json", truth)
    dataset = CocoDataset()
    dataset.load_coco(folder / "annotations.json", folder)
    dataset.prepare()
    return dataset


def test_annotations_are_read_as_masks_are(coco, monkeypatch):
    config = config_of(**SIZES["none"])
    seen = survey(coco, config)

    class Slow(CocoDataset):
        def load_mask(self, image_id):
            return super().load_mask(image_id)

    slow = Slow()
    slow.__dict__.update(coco.__dict__)
    expected = survey(slow, config)
    assert seen.crowds == expected.crowds == 1
    np.testing.assert_allclose(seen.boxes, expected.boxes, atol=1.0)  # polygons end between pixels
    np.testing.assert_array_equal(seen.class_ids, expected.class_ids)
    np.testing.assert_array_equal(seen.owners, expected.owners)
    # And no mask of polygons is filled.
    monkeypatch.setattr(CocoDataset, "load_image", lambda *_: pytest.fail("an image was decoded"))
    assert survey(coco, config).complete


class Troubled(Dataset):
    """Images of one object, of which every third cannot be read; each takes its time."""

    def __init__(self, count, seconds=0.0):
        super().__init__()
        self.seconds = seconds
        self.add_class("troubled", 1, "thing")
        for number in range(count):
            self.add_image("troubled", number, path=f"{number}.png")
        self.prepare()

    def load_image(self, image_id):
        return np.zeros((64, 64, 3), np.uint8)

    def load_mask(self, image_id):
        time.sleep(self.seconds)
        if image_id % 3 == 2:
            raise OSError("no such file")
        masks = np.zeros((64, 64, image_id % 2), bool)
        masks[8:24, 16:48] = True
        return masks, np.ones(image_id % 2, np.int32)


def test_images_that_cannot_be_read_are_counted():
    seen = survey(Troubled(12), config_of(NUM_CLASSES=2, **SIZES["none"]))
    assert (seen.failed, len(seen.image_ids), seen.complete) == (4, 8, True)
    assert all(failure.endswith(".png: OSError: no such file") for failure in seen.failures)
    assert sorted(seen.per_image.tolist()) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert seen.boxes.tolist() == [[8, 16, 24, 48]] * 4
    assert seen.looked_at.startswith("all 12 images, in ")


def test_a_look_ends_in_time_and_is_a_sample():
    dataset = Troubled(100, seconds=0.02)
    seen = survey(dataset, config_of(NUM_CLASSES=2, **SIZES["none"]), seconds=0.1)
    count = len(seen.image_ids) + seen.failed
    assert 3 <= count <= 6 and not seen.complete
    assert seen.looked_at.startswith(f"{count} of 100 images, in ")
    assert seen.image_ids.max() > 10  # not the first ones
    assert len(survey(dataset, config_of(NUM_CLASSES=2, **SIZES["none"]), seconds=1e-9).image_ids) >= 1


def test_figures_of_a_dataset():
    config = config_of(**SIZES["square"])
    dataset = Shapes(6)
    seen = survey(dataset, config)
    told = summary.figures(seen, config)
    class_ids = np.concatenate([dataset.load_mask(image_id)[1] for image_id in dataset.image_ids])
    counts = np.bincount(class_ids, minlength=4)[1:].tolist()
    assert [entry["objects"] for entry in told["classes"].values()] == counts
    assert [entry["images"] for entry in told["classes"].values()] == [
        sum(kind in dataset.load_mask(image_id)[1] for image_id in dataset.image_ids) for kind in (1, 2, 3)
    ]
    assert told["objects"] == len(class_ids) and told["molded_to"] == [(256, 256)]
    text = "\n".join(summary.lines(told))
    assert "6; 128 x 128 pixels (height x width), molded to 256 x 256" in text
    for name, count in zip(("square", "disk", "triangle"), counts, strict=True):
        assert any(line.split()[:2] == [name, str(count)] for line in text.splitlines())


def test_what_is_proposed():
    assert summary.class_weights(np.array([0, 100, 50])) is None
    assert summary.class_weights(np.array([0, 400, 100, 0, 1])) == [1.0, 1.0, 2.0, 1.0, 10.0]
    dataset = Shapes(4)
    config = config_of(MAX_GT_INSTANCES=1, DETECTION_MAX_INSTANCES=2)
    seen = survey(dataset, config)
    means = summary.channel_means(sample_images(dataset, seen.image_ids, 5.0), config)
    np.testing.assert_allclose(
        means, np.mean([dataset.load_image(i).mean(axis=(0, 1)) for i in dataset.image_ids], axis=0)
    )
    found = summary.proposals(seen, config, means)
    assert found["MAX_GT_INSTANCES"] == found["DETECTION_MAX_INSTANCES"] == 10
    assert found["MEAN_PIXEL"] == [round(float(mean), 1) for mean in means]
    lines = summary.config_lines({"MAX_GT_INSTANCES": 10, "MEAN_PIXEL": [1.0, 2.5, 3.0]})
    assert lines == ["MAX_GT_INSTANCES = 10", "MEAN_PIXEL = np.array([1.0, 2.5, 3.0])"]

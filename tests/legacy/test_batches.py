"""The data functions of the original: golden numbers, draw by draw of the global generators; what is skipped."""

from __future__ import annotations

import itertools
import logging
import random

import numpy as np
import pytest

from mrcnn import model as modellib
from mrcnn import utils
from mrcnn.config import Config
from mrcnn.data.augmentation import AugmentationError, Compose, CopyPaste
from mrcnn.data.dataset import DatasetError
from mrcnn.data.samples import SampleMaker
from tests import golden


class SmallConfig(Config):
    NUM_CLASSES = 4
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    MAX_GT_INSTANCES = 8


def config_of(**fields):
    return type("C", (SmallConfig,), fields)()


class ArrayDataset(utils.Dataset):
    def __init__(self, images, masks, class_ids):
        super().__init__()
        for i in (1, 2, 3):
            self.add_class("arrays", i, f"class {i}")
        for i, parts in enumerate(zip(images, masks, class_ids, strict=True)):
            self.add_image("arrays", i, None, parts=parts)
        self.prepare()

    def load_image(self, image_id):
        return self.image_info[image_id]["parts"][0]

    def load_mask(self, image_id):
        _, masks, class_ids = self.image_info[image_id]["parts"]
        return masks, np.array(class_ids)


def boxes_as_masks(count, size=128):
    masks = np.zeros((size, size, count), bool)
    for i in range(count):
        masks[10 + i : 40 + i, 5 * i : 5 * i + 30, i] = True
    return masks


def dataset_of(*counts):
    """Images with so many objects each; the value of all pixels is the image's number."""
    images = [np.full((128, 128, 3), i, np.uint8) for i in range(len(counts))]
    return ArrayDataset(images, [boxes_as_masks(n) for n in counts], [np.arange(n) % 3 + 1 for n in counts])


# Golden numbers


@pytest.mark.parametrize("case", ["mini", "full"])
def test_load_image_gt_golden(case):
    given, wanted = (golden.part("golden_data", f"load_image_gt.{case}.{side}") for side in ("in", "out"))
    dataset = ArrayDataset([given["image"]] * 2, [given["mask"]] * 2, [np.array([1, 2, 3], np.int32)] * 2)
    found = modellib.load_image_gt(dataset, config_of(), 1, use_mini_mask=case == "mini")
    for name, array in zip(("image", "image_meta", "class_ids", "bbox", "mask"), found, strict=True):
        golden.check(f"load_image_gt {name}", array, wanted[name], atol=1e-12 if name == "image_meta" else 0)
        assert array.dtype == wanted[name].dtype


@pytest.mark.parametrize("case", ["plain", "sub", "crowd", "tiny"])
def test_rpn_targets_golden(case):
    data = golden.part("golden_data", f"build_rpn_targets.{case}")
    config = config_of(RPN_TRAIN_ANCHORS_PER_IMAGE=int(data["in.RPN_TRAIN_ANCHORS_PER_IMAGE"]))
    anchors = golden.load("golden_data")["anchors_sq128"]
    np.random.seed(int(data["in.np_random_seed"]))
    match, deltas = modellib.build_rpn_targets(
        (128, 128, 3), anchors, data["in.gt_class_ids"], data["in.gt_boxes"], config
    )
    golden.check(f"build_rpn_targets {case} match", match, data["out.rpn_match"])
    golden.check(f"build_rpn_targets {case} deltas", deltas, data["out.rpn_bbox"], atol=1e-12)
    assert match.dtype == np.int32 and deltas.dtype == np.float64


def test_data_generator_golden():
    given, wanted = (golden.part("golden_data", f"data_generator.a.{side}") for side in ("in", "out"))
    dataset = ArrayDataset(given["images"], given["masks"], [[1, 2, 3]] * 3)
    np.random.seed(int(given["np_random_seed"]))
    inputs, outputs = next(modellib.data_generator(dataset, config_of(), shuffle=True, batch_size=2))
    assert isinstance(inputs, list) and outputs == []
    names = ("images", "image_meta", "rpn_match", "rpn_bbox", "gt_class_ids", "gt_boxes", "gt_masks")
    for name, array in zip(names, inputs, strict=True):
        golden.check(
            f"data_generator {name}", array, wanted[name], atol={"images": 1e-5, "rpn_bbox": 1e-12}.get(name, 1e-12)
        )
        assert array.dtype == wanted[name].dtype


# One image


def test_augment_mirrors_as_pythons_generator_says(caplog):
    dataset = dataset_of(2)
    dataset.image_info[0]["parts"][0][:, :64] = 200
    plain = modellib.load_image_gt(dataset, config_of(), 0)
    mirrored = []
    for seed in range(6):
        random.seed(seed)
        expected = random.randint(0, 1)
        random.seed(seed)
        image, _, _, boxes, masks = modellib.load_image_gt(dataset, config_of(), 0, augment=True)
        np.testing.assert_array_equal(image, plain[0][:, ::-1] if expected else plain[0])
        np.testing.assert_array_equal(masks, plain[4][:, ::-1] if expected else plain[4])
        np.testing.assert_array_equal(boxes, utils.extract_bboxes(masks))
        mirrored.append(expected)
    assert set(mirrored) == {0, 1}
    assert "'augment' is deprecated" in caplog.text


def test_augmentation_follows_numpys_generator():
    def shift(image, masks, rng):
        step = int(rng.integers(1, 20))
        return np.roll(image, step, axis=1), np.roll(masks, step, axis=1)

    dataset, found = dataset_of(1), []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        found.append(modellib.load_image_gt(dataset, config_of(), 0, augmentation=shift)[3].tolist())
    assert found[0] == found[1] != found[2]


def test_augmentation_that_wants_another_image():
    dataset, found = dataset_of(1, 3), []
    for seed in range(6):
        np.random.seed(seed)
        loaded = modellib.load_image_gt(dataset, config_of(), 0, augmentation=Compose([CopyPaste(1, most=1)]))
        found.append((loaded[2].tolist(), loaded[0].max()))
    # On the object of image 0, one pasted lies on it in parts or hides it whole.
    assert {image for _, image in found} == {0, 1} and all(len(ids) <= 2 for ids, _ in found)
    assert {2, 3} & {ids[-1] for ids, _ in found}


class Imgaug:
    """As imgaug's augmenters look from outside: one that cuts off columns, or does nothing."""

    def __init__(self, columns=0):
        self.columns, self.seen = columns, []

    def to_deterministic(self):
        return self

    def augment_image(self, image, hooks=None):
        self.seen.append(image.shape)
        return image[:, self.columns :]


Imgaug.__name__ = "Fliplr"


def test_imgaug_gets_the_resized_image_and_must_keep_its_size():
    dataset = ArrayDataset([np.zeros((60, 80, 3), np.uint8)], [np.ones((60, 80, 1), bool)], [[1]])
    augmenter = Imgaug()
    modellib.load_image_gt(dataset, config_of(), 0, augmentation=augmenter)
    assert augmenter.seen[0] == (128, 128, 3)
    with pytest.raises(AugmentationError, match="128 x 120 for 128 x 128"):
        modellib.load_image_gt(dataset, config_of(), 0, augmentation=Imgaug(8))


def test_instances_left_without_a_pixel_are_dropped():
    masks = boxes_as_masks(3)
    masks[..., 1] = False
    dataset = ArrayDataset([np.zeros((128, 128, 3), np.uint8)], [masks], [[1, -2, 3]])
    _, _, class_ids, boxes, mini = modellib.load_image_gt(dataset, config_of(), 0, use_mini_mask=True)
    assert class_ids.tolist() == [1, 3]
    assert boxes.shape == (2, 4) and mini.shape == (56, 56, 2)


def test_a_dataset_without_masks_has_empty_ones():
    dataset = ArrayDataset([np.zeros((60, 80, 3), np.uint8)], [np.zeros((0, 0, 0), bool)], [[]])
    image, meta, class_ids, boxes, masks = modellib.load_image_gt(dataset, config_of(), 0)
    assert image.shape == (128, 128, 3) and masks.shape == (128, 128, 0)
    assert class_ids.shape == (0,) and boxes.shape == (0, 4)
    assert modellib.parse_image_meta(meta[None])["active_class_ids"].tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("grid", ["legacy", "image"])
def test_masks_are_resized_on_the_grid_of_the_configuration(grid):
    mask = np.zeros((60, 80, 1), bool)
    mask[::3] = mask[:, ::4] = True
    dataset = ArrayDataset([np.zeros((60, 80, 3), np.uint8)], [mask], [[1]])
    found = modellib.load_image_gt(dataset, config_of(MASK_GRID=grid), 0)[4]
    from mrcnn.data.resizing import resize_mask

    np.testing.assert_array_equal(found, resize_mask(mask, 1.6, [(16, 16), (0, 0), (0, 0)], None, grid))


def test_crops_are_placed_by_pythons_generator():
    image = np.arange(128 * 128 * 3, dtype=np.uint16).reshape(128, 128, 3)
    dataset = ArrayDataset([image], [np.ones((128, 128, 1), bool)], [[1]])
    config = config_of(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=64)
    random.seed(3)
    y, x = random.randint(0, 64), random.randint(0, 64)
    random.seed(3)
    found = modellib.load_image_gt(dataset, config, 0)[0]
    np.testing.assert_array_equal(found, image[y : y + 64, x : x + 64])


def test_training_takes_class_ids_of_whole_floats():
    """np.ones(count), as many datasets return them."""
    dataset = ArrayDataset([np.zeros((128, 128, 3), np.uint8)], [boxes_as_masks(2)], [[1.0, 2.0]])
    sample = SampleMaker(dataset, config_of()).make(0, np.random.default_rng(0))
    assert sample["input_gt_class_ids"][:2].tolist() == [1, 2]
    dataset.image_info[0]["parts"] = (*dataset.image_info[0]["parts"][:2], [1.5, 2.0])
    with pytest.raises(DatasetError, match="whole number in class_ids"):
        SampleMaker(dataset, config_of()).make(0, np.random.default_rng(0))


# Batches


def images_of(batches):
    return [np.unique(modellib.unmold_image(batch[0][0], config_of())).tolist() for batch in batches]


def test_batches_go_through_the_images_in_order_and_skip_empty_ones():
    generator = modellib.data_generator(dataset_of(1, 0, 2, 1), config_of(), shuffle=False, batch_size=2)
    assert images_of(itertools.islice(generator, 3)) == [[0, 2], [0, 3], [2, 3]]


def test_a_batch_with_random_rois_and_targets():
    config = config_of(TRAIN_ROIS_PER_IMAGE=16)
    generator = modellib.data_generator(
        dataset_of(2, 3), config, shuffle=False, random_rois=60, batch_size=2, detection_targets=True
    )
    inputs, outputs = next(generator)
    assert [array.shape for array in inputs[7:]] == [(2, 60, 4), (2, 16, 4)]
    assert [array.shape for array in outputs] == [(2, 16, 1), (2, 16, 4, 4), (2, 16, 28, 28, 4)]
    assert [array.dtype for array in (*inputs[7:], *outputs)] == [np.int32, np.int32, np.int32, np.float32, np.float32]
    inputs, outputs = next(modellib.data_generator(dataset_of(2), config, random_rois=9))
    assert len(inputs) == 8 and inputs[7].shape == (1, 9, 4) and outputs == []


def test_ground_truth_beyond_its_rows_is_drawn():
    inputs, _ = next(modellib.data_generator(dataset_of(12), config_of(MAX_GT_INSTANCES=5, USE_MINI_MASK=False)))
    class_ids, boxes, masks = inputs[4:]
    assert class_ids.shape == (1, 5) and (class_ids > 0).all()
    assert len(np.unique(boxes[0], axis=0)) == 5
    np.testing.assert_array_equal(utils.extract_bboxes(masks[0]), boxes[0])


def test_sources_without_augmentation():
    dataset = dataset_of(1, 1)
    dataset.image_info[1]["source"] = "untouched"
    dataset.prepare()
    seen = []

    def watch(image, masks, rng):
        seen.append(int(image[0, 0, 0]))
        return image, masks

    generator = modellib.data_generator(
        dataset, config_of(), shuffle=False, augmentation=watch, no_augmentation_sources=["untouched"]
    )
    next(generator), next(generator)
    assert seen == [0]


def test_five_bad_images_are_logged_and_the_sixth_raises(caplog):
    dataset = dataset_of(1, 1)
    calls = itertools.count()
    good = dataset.load_image

    def load_image(image_id):
        if next(calls) % 2:
            raise OSError("damaged")
        return good(image_id)

    dataset.load_image = load_image
    generator = modellib.data_generator(dataset, config_of(), shuffle=False)
    with caplog.at_level(logging.ERROR):
        assert images_of(itertools.islice(generator, 6)) == [[0]] * 6
        assert caplog.text.count("Error processing image") == 5
        with pytest.raises(OSError, match="damaged"):
            next(generator)


def test_a_dataset_without_any_object_is_told():
    with pytest.raises(DatasetError, match="None of the 2 images has an object"):
        next(modellib.data_generator(dataset_of(0, 0), config_of()))
    empty = ArrayDataset([], [], [])
    with pytest.raises(DatasetError, match="None of the 0 images"):
        next(modellib.data_generator(empty, config_of()))

"""Samples against golden numbers, and the loader: its order, its threads, and what happens when things go wrong."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import PIL.Image
import pytest

from mrcnn.config import Config
from mrcnn.data.augmentation import Affine, AugmentationError, Brightness, Compose, Flip, Rotate90
from mrcnn.data.batches import BatchError, BatchLoader, load_image_gt
from mrcnn.data.dataset import Dataset, DatasetError
from mrcnn.data.image_meta import ImageMeta
from mrcnn.data.masks import extract_bboxes
from mrcnn.data.samples import SampleMaker
from tests.golden import check, load, part


class SmallConfig(Config):
    NUM_CLASSES = 4
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    MAX_GT_INSTANCES = 8
    IMAGES_PER_GPU = 2


def config_of(**fields):
    return type("C", (SmallConfig,), fields)()


class ArrayDataset(Dataset):
    """Images and masks from arrays."""

    def __init__(self, images, masks, class_ids):
        super().__init__()
        for i in (1, 2, 3):
            self.add_class("arrays", i, f"class {i}")
        for i, parts in enumerate(zip(images, masks, class_ids, strict=True)):
            self.add_image("arrays", f"id{i}", None, parts=parts)
        self.prepare()

    def load_image(self, image_id):
        return self.image_info[image_id]["parts"][0]

    def load_mask(self, image_id):
        _, masks, class_ids = self.image_info[image_id]["parts"]
        return masks, np.asarray(class_ids)


def rectangles(rng, height=60, width=80, count=3):
    masks = np.zeros((height, width, count), bool)
    for i in range(count):
        y, x = rng.integers(0, height - 12), rng.integers(0, width - 12)
        masks[y : y + rng.integers(4, 12), x : x + rng.integers(4, 12), i] = True
    return masks


def shapes(count=5, empty=(), **more):
    """A dataset of rectangles on noise. Each image's upper left pixel tells its number."""
    rng = np.random.default_rng(0)
    images, masks, class_ids = [], [], []
    for i in range(count):
        instances = 0 if i in empty else 1 + i % 3
        mask = rectangles(rng, count=instances, **more)
        image = rng.integers(0, 256, (*mask.shape[:2], 3), dtype=np.uint8)
        images.append(image)
        masks.append(mask)
        class_ids.append(np.arange(instances) % 3 + 1)
    return ArrayDataset(images, masks, class_ids)


def same(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def batch_ids(batch):
    return batch["input_image_meta"][:, 0].astype(int).tolist()


# Golden: load_image_gt and whole batches.


@pytest.mark.parametrize("case", ["mini", "full"])
def test_golden_load_image_gt(case):
    given = part("golden_data", f"load_image_gt.{case}.in")
    wanted = part("golden_data", f"load_image_gt.{case}.out")
    dataset = ArrayDataset([given["image"]] * 2, [given["mask"]] * 2, [[1, 2, 3]] * 2)
    found = load_image_gt(dataset, config_of(), 1, use_mini_mask=case == "mini")
    for name, array in zip(("image", "image_meta", "class_ids", "bbox", "mask"), found, strict=True):
        check(f"load_image_gt {case} {name}", array, wanted[name], atol=1e-12 if name == "image_meta" else 0)
        assert array.dtype == wanted[name].dtype


def test_golden_batch():
    given = part("golden_data", "data_generator.a.in")
    wanted = part("golden_data", "data_generator.a.out")
    dataset = ArrayDataset(given["images"], given["masks"], [[1, 2, 3]] * 3)
    maker = SampleMaker(dataset, config_of())
    recorded = wanted["image_meta"][:, 0].astype(int)
    samples = [maker.make(int(i), np.random.default_rng(0)) for i in recorded]
    batch = {name: np.stack([s[name] for s in samples]) for name in samples[0]}
    check("batch image", batch["input_image"], wanted["images"], atol=1e-5)
    check("batch meta", batch["input_image_meta"], wanted["image_meta"], atol=1e-6)
    check("batch rpn_bbox", batch["input_rpn_bbox"], wanted["rpn_bbox"], atol=1e-6)
    check("batch class ids", batch["input_gt_class_ids"], wanted["gt_class_ids"])
    check("batch boxes", batch["input_gt_boxes"], wanted["gt_boxes"])
    check("batch masks", batch["input_gt_masks"], wanted["gt_masks"])
    # Negatives are drawn at random.
    np.testing.assert_array_equal(batch["input_rpn_match"] == 1, wanted["rpn_match"] == 1)
    assert ((batch["input_rpn_match"] == -1).sum((1, 2)) == (wanted["rpn_match"] == -1).sum((1, 2))).all()
    for name in ("rpn_match", "gt_class_ids", "gt_masks"):
        assert batch[f"input_{name}"].dtype == load("golden_data")[f"data_generator.a.out.{name}"].dtype
    assert all(batch[f"input_{n}"].dtype == np.float32 for n in ("image", "image_meta", "rpn_bbox", "gt_boxes"))


# Loading one image.


def test_instances_left_without_a_pixel_are_dropped_and_crowds_stay():
    masks = rectangles(np.random.default_rng(0), count=4)
    masks[..., 1] = False
    dataset = ArrayDataset([np.zeros((60, 80, 3), np.uint8)], [masks], [[1, 2, -3, 2]])
    _, _, class_ids, boxes, mini = load_image_gt(dataset, config_of(), 0)
    assert class_ids.tolist() == [1, -3, 2]
    assert boxes.shape == (3, 4)
    assert mini.shape == (56, 56, 3)

    def blank(image, masks, rng):
        masks = masks.copy()
        masks[..., 0] = False
        return image, masks

    assert load_image_gt(dataset, config_of(), 0, augmentation=blank)[2].tolist() == [-3, 2]


def test_augmentation_that_turns_the_image():
    dataset = shapes(1)
    shape_seen = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        image, meta, _, boxes, masks = load_image_gt(dataset, config_of(), 0, Rotate90(), rng, use_mini_mask=False)
        assert image.shape == (128, 128, 3)
        fields = ImageMeta.from_array(meta)
        shape_seen.add(tuple(fields.original_image_shape))
        np.testing.assert_array_equal(boxes, extract_bboxes(masks))
        y1, x1, y2, x2 = fields.window
        assert (y2 - y1, x2 - x1) in {(96, 128), (128, 96)}
    assert shape_seen == {(60, 80, 3), (80, 60, 3)}


@pytest.mark.parametrize("mode", ["none", "square", "pad64", "crop"])
def test_resize_modes(mode):
    height, width = (128, 64) if mode == "none" else (150, 200)
    dataset = shapes(1, height=height, width=width)
    config = config_of(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64)
    first = load_image_gt(dataset, config, 0, rng=np.random.default_rng(1), use_mini_mask=False)
    again = load_image_gt(dataset, config, 0, rng=np.random.default_rng(1), use_mini_mask=False)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (
        first[0].shape
        == {"none": (128, 64, 3), "square": (128, 128, 3), "pad64": (192, 256, 3), "crop": (64, 64, 3)}[mode]
    )
    assert first[4].shape[:2] == first[0].shape[:2]
    assert (first[4].any((0, 1))).all()


def test_active_classes_are_those_of_the_source():
    dataset = shapes(1)
    dataset.add_class("other", 1, "x")
    dataset.add_image("other", 0, None, parts=(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64, 1)), [4]))
    dataset.prepare()
    config = config_of(NUM_CLASSES=5)
    metas = ImageMeta.parse(np.stack([load_image_gt(dataset, config, i)[1] for i in range(2)]))
    assert metas["active_class_ids"].tolist() == [[1, 1, 1, 1, 0], [1, 0, 0, 0, 1]]
    assert metas["image_id"].tolist() == [0, 1]


def test_grayscale_and_other_channels():
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    dataset = ArrayDataset([image], [np.ones((64, 64, 1), bool)], [[1]])
    found, meta, *_ = load_image_gt(dataset, config_of(IMAGE_CHANNEL_COUNT=1, MEAN_PIXEL=np.array([5.0])), 0)
    assert found.shape == (128, 128, 1)
    assert found.dtype == np.uint16
    assert ImageMeta.from_array(meta).original_image_shape == (64, 64, 1)


@pytest.mark.parametrize(
    ("masks", "class_ids", "message"),
    [
        (np.ones((80, 60, 1)), [1], r"\[60, 80, N\].*\(80, 60, 1\)\. Is the photo turned by its EXIF"),
        (np.ones((60, 80)), [1], r"\[60, 80, N\] as the image is. Received: shape \(60, 80\)"),
        (np.ones((60, 80, 2)), [1], r"each of its 2 masks\. Received: int64, shape \(1,\)"),
        (np.ones((60, 80, 1)), [1.5], r"Received: float64"),
        (np.ones((60, 80, 2)), [1, 7], r"source 'arrays': \[1, 2, 3\].*Received: \[7\]"),
        (np.ones((60, 80, 1)), [0], r"Received: \[0\]"),
        (np.zeros((60, 80, 1)), [7], r"Received: \[7\]"),
    ],
)
def test_masks_that_do_not_fit(masks, class_ids, message):
    dataset = ArrayDataset([np.zeros((60, 80, 3), np.uint8)], [masks], [class_ids])
    with pytest.raises(DatasetError, match=message):
        load_image_gt(dataset, config_of(), 0)


def test_dataset_that_does_not_fit_the_configuration():
    with pytest.raises(DatasetError, match=r"4 \(BG, class 1, class 2, class 3\)\. Received: 2"):
        load_image_gt(shapes(1), config_of(NUM_CLASSES=2), 0)
    dataset = shapes(1)
    dataset.add_image("arrays", 1, None)
    with pytest.raises(DatasetError, match="not prepared"):
        BatchLoader(dataset, config_of())
    for empty in (Dataset(), shapes(0)):
        with pytest.raises(DatasetError, match="has no images"):
            BatchLoader(empty, config_of())


def test_augmentation_misfit_is_refused():
    with pytest.raises(AugmentationError, match="<lambda> must return masks"):
        load_image_gt(shapes(1), config_of(), 0, lambda image, masks, rng: (image[:10], masks))


# Samples.


@pytest.mark.parametrize("use_mini_mask", [True, False])
def test_image_without_objects_is_a_negative_example(use_mini_mask):
    config = config_of(USE_MINI_MASK=use_mini_mask)
    sample = SampleMaker(shapes(1, empty=[0]), config).make(0, np.random.default_rng(0))
    assert (sample["input_rpn_match"] == -1).sum() == 256
    assert not (sample["input_rpn_match"] == 1).any()
    assert not sample["input_rpn_bbox"].any()
    assert not sample["input_gt_class_ids"].any()
    assert not sample["input_gt_boxes"].any()
    assert sample["input_gt_masks"].shape == ((56, 56, 8) if use_mini_mask else (128, 128, 8))
    assert not sample["input_gt_masks"].any()


def test_an_empty_mask_of_the_background_is_no_object():
    """As datasets say that an image has none."""
    image, masks = np.zeros((60, 80, 3), np.uint8), rectangles(np.random.default_rng(0), count=2)
    nothing = np.zeros((60, 80, 1))
    dataset = ArrayDataset([image] * 2, [nothing, np.dstack([masks, nothing])], [np.zeros(1), [1, 2, 0]])
    with BatchLoader(dataset, config_of(), shuffle=False) as loader:
        class_ids = next(loader)["input_gt_class_ids"]
    np.testing.assert_array_equal(class_ids, [[0] * 8, [1, 2, *[0] * 6]])


def test_more_instances_than_fit_are_drawn_at_random():
    masks = rectangles(np.random.default_rng(0), count=30)
    dataset = ArrayDataset([np.zeros((60, 80, 3), np.uint8)], [masks], [np.arange(30) % 3 + 1])
    _, _, class_ids, boxes, mini = load_image_gt(dataset, config_of(), 0)
    assert len(class_ids) == 30
    maker = SampleMaker(dataset, config_of())
    samples = [maker.make(0, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    same(samples[0], samples[1])
    assert (samples[0]["input_gt_boxes"] != samples[2]["input_gt_boxes"]).any()
    for row in range(8):
        box = samples[0]["input_gt_boxes"][row]
        (place,) = np.flatnonzero((boxes == box).all(axis=1) & (class_ids == samples[0]["input_gt_class_ids"][row]))
        np.testing.assert_array_equal(samples[0]["input_gt_masks"][..., row], mini[..., place])


def test_given_rois():
    sample = SampleMaker(shapes(1), config_of(USE_RPN_ROIS=False, POST_NMS_ROIS_TRAINING=30)).make(
        0, np.random.default_rng(0)
    )
    assert sample["input_roi"].shape == (30, 4)
    assert sample["input_roi"].dtype == np.int32
    assert "input_roi" not in SampleMaker(shapes(1), config_of()).make(0, np.random.default_rng(0))


def test_sources_that_are_not_augmented():
    dataset = shapes(2)
    dataset.image_info[1]["source"] = "real"
    dataset.source_class_ids = {}
    dataset.prepare()
    dataset.source_class_ids["real"] = dataset.source_class_ids["arrays"]
    black = lambda image, masks, rng: (image * 0, masks)  # noqa: E731
    maker = SampleMaker(dataset, config_of(), black, no_augmentation_sources=["real"])
    mean = config_of().MEAN_PIXEL.astype(np.float32)
    images = [maker.make(i, np.random.default_rng(0))["input_image"] + mean for i in range(2)]
    assert np.abs(images[0]).max() < 1e-4
    assert np.abs(images[1]).max() > 100
    with pytest.raises(DatasetError, match=r"sources of the dataset \(.*arrays, real\)\. Received: reel"):
        SampleMaker(dataset, config_of(), no_augmentation_sources="reel")


# The loader's order.


def test_batch_has_the_networks_inputs():
    with BatchLoader(shapes(), config_of(), batch_size=3) as loader:
        batch = next(loader)
    found = {name: (array.shape, str(array.dtype)) for name, array in batch.items()}
    assert found == {
        "input_image": ((3, 128, 128, 3), "float32"),
        "input_image_meta": ((3, 16), "float32"),
        "input_rpn_match": ((3, 4092, 1), "int32"),
        "input_rpn_bbox": ((3, 256, 4), "float32"),
        "input_gt_class_ids": ((3, 8), "int32"),
        "input_gt_boxes": ((3, 8, 4), "float32"),
        "input_gt_masks": ((3, 56, 56, 8), "bool"),
    }


AUGMENTATION = Compose([Flip(), Rotate90(), Brightness(0.1), Affine(scale=(0.8, 1.2), rotate=(-10, 10))])


@pytest.mark.parametrize("config", [config_of(), config_of(SKIP_EMPTY_IMAGES=True)], ids=["all", "skip"])
def test_batches_do_not_depend_on_the_threads(config):
    dataset = shapes(7, empty=[2, 5])
    runs = []
    for workers in (0, 1, 2, 4):
        with BatchLoader(dataset, config, augmentation=AUGMENTATION, seed=3, workers=workers) as loader:
            runs.append([next(loader) for _ in range(9)])
            assert [batch_ids(b) for b in runs[-1]] == [loader.image_ids(step) for step in range(9)]
    for other in runs[1:]:
        for batch, its in zip(runs[0], other, strict=True):
            same(batch, its)


@pytest.mark.parametrize("workers", [0, 2])
def test_parts_of_a_batch_are_its_own(workers):
    config = config_of(IMAGES_PER_GPU=4, SKIP_EMPTY_IMAGES=True)
    dataset = shapes(7, empty=(3,))
    parts = [BatchLoader(dataset, config, workers=workers, part=(number, 2)) for number in range(2)]
    with BatchLoader(dataset, config, workers=0) as whole, parts[0], parts[1]:
        for step in range(3):
            expected, first, second = next(whole), next(parts[0]), next(parts[1])
            same({name: np.concatenate([first[name], second[name]]) for name in expected}, expected)
            assert parts[0].image_ids(step)[:2] + parts[1].image_ids(step)[2:] == batch_ids(expected)
    with pytest.raises(ValueError, match=r"parts divide the batch of 4.*Received: \(0, 3\)"):
        BatchLoader(dataset, config, part=(0, 3))


def test_resume_gives_what_would_have_come():
    dataset = shapes(5)
    with BatchLoader(dataset, config_of(), augmentation=AUGMENTATION) as loader:
        batches = [next(loader) for _ in range(8)]
        assert loader.step == 8
    with BatchLoader(dataset, config_of(), augmentation=AUGMENTATION, start_step=5, workers=1) as loader:
        for batch in batches[5:]:
            same(next(loader), batch)


def test_each_pass_holds_every_image_once_in_a_new_order():
    loader = BatchLoader(shapes(5), config_of())
    order = [i for step in range(25) for i in loader.image_ids(step)]
    passes = [order[i : i + 5] for i in range(0, 50, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len({tuple(one) for one in passes}) > 7
    assert all(isinstance(i, int) for i in order)
    other = BatchLoader(shapes(5), config_of(), seed=1)
    assert [other.image_ids(step) for step in range(5)] != [loader.image_ids(step) for step in range(5)]
    straight = BatchLoader(shapes(5), config_of(), shuffle=False)
    assert [straight.image_ids(step) for step in range(3)] == [[0, 1], [2, 3], [4, 0]]


def test_the_seed_is_the_configurations_unless_given():
    dataset = shapes(5)
    loaders = [BatchLoader(dataset, config_of(SEED=9)), BatchLoader(dataset, config_of(), seed=9)]
    orders = [[loader.image_ids(step) for step in range(10)] for loader in loaders]
    assert orders[0] == orders[1]


def test_passes_differ_in_their_augmentation():
    with BatchLoader(shapes(1), config_of(), augmentation=AUGMENTATION, batch_size=1) as loader:
        images = {next(loader)["input_image"].tobytes() for _ in range(5)}
    assert len(images) == 5


def test_batch_larger_than_the_dataset():
    with BatchLoader(shapes(2), config_of(), batch_size=5) as loader:
        batch = next(loader)
    assert sorted(batch_ids(batch)[:2]) == sorted(batch_ids(batch)[2:4]) == [0, 1]


def test_skipped_images_are_replaced_in_order():
    config = config_of(SKIP_EMPTY_IMAGES=True)
    with BatchLoader(shapes(4, empty=[1, 2]), config, shuffle=False) as loader:
        assert loader.image_ids(0) == [0, 1]
        assert [batch_ids(next(loader)) for _ in range(2)] == [[0, 3], [3, 3]]
        assert [loader.image_ids(step) for step in range(2)] == [[0, 3], [3, 3]]
    with BatchLoader(shapes(4, empty=[1, 2]), config_of(), shuffle=False) as loader:
        assert batch_ids(next(loader)) == [0, 1]


def test_a_crowd_alone_counts_as_empty_where_empty_images_are_skipped():
    dataset = shapes(2)
    image, masks, _ = dataset.image_info[0]["parts"]
    dataset.image_info[0]["parts"] = (image, masks, [-1] * masks.shape[2])
    with BatchLoader(dataset, config_of(SKIP_EMPTY_IMAGES=True)) as loader:
        assert batch_ids(next(loader)) == [1, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_all_images_empty(workers):
    dataset = shapes(3, empty=[0, 1, 2])
    with (
        BatchLoader(dataset, config_of(SKIP_EMPTY_IMAGES=True), workers=workers) as loader,
        pytest.raises(BatchError, match="None of the 3 images has an object.*SKIP_EMPTY_IMAGES to False"),
    ):
        next(loader)
    with BatchLoader(dataset, config_of(), workers=workers) as loader:
        assert (next(loader)["input_rpn_match"] == -1).sum() == 512


def test_images_of_different_sizes_in_a_batch():
    rng = np.random.default_rng(0)
    images = [np.zeros((h, w, 3), np.uint8) for h, w in ((64, 128), (128, 64))]
    masks = [rectangles(rng, *image.shape[:2]) for image in images]
    dataset = ArrayDataset(images, masks, [[1, 2, 3]] * 2)
    for mode in ("none", "pad64"):
        config = config_of(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64)
        with (
            BatchLoader(dataset, config, shuffle=False) as loader,
            pytest.raises(
                BatchError, match=f"'{mode}'.*arrays.id0: 64 x 128, arrays.id1: 128 x 64.*'square'"
            ) as caught,
        ):
            next(loader)
        assert caught.value.step == 0
        with BatchLoader(dataset, config, shuffle=False, batch_size=1) as loader:
            assert [next(loader)["input_image"].shape for _ in range(2)] == [(1, 64, 128, 3), (1, 128, 64, 3)]


def test_size_that_the_network_cannot_halve():
    with (
        BatchLoader(shapes(1), config_of(IMAGE_RESIZE_MODE="none")) as loader,
        pytest.raises(BatchError, match="multiple of 64. Received: 60"),
    ):
        next(loader)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"seed": -1}, {"workers": 1.5}, {"start_step": -1}, {"workers": True}]
)
def test_numbers_that_cannot_be_used(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number"):
        BatchLoader(shapes(1), config_of(), **wrong)


def test_anchors_are_made_once_for_each_size():
    maker = SampleMaker(shapes(3), config_of())
    for i in range(3):
        maker.make(i, np.random.default_rng(0))
    assert maker.anchors.cache_info().misses == 1


# Trouble.


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("mrcnn-loader")]


def await_threads(count, seconds=10):
    end = time.monotonic() + seconds
    while len(loader_threads()) > count and time.monotonic() < end:
        time.sleep(0.01)
    return len(loader_threads())


class FailingDataset(ArrayDataset):
    bad = frozenset()

    def load_image(self, image_id):
        if image_id in self.bad:
            raise OSError("the disk is on fire")
        return super().load_image(image_id)


def failing(count=6, bad=(3,)):
    good = shapes(count)
    dataset = FailingDataset(*zip(*(info["parts"] for info in good.image_info), strict=True))
    dataset.bad = frozenset(bad)
    return dataset


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_error_names_the_image_and_ends_the_threads(workers):
    before = await_threads(0)
    loader = BatchLoader(failing(), config_of(), shuffle=False, workers=workers)
    assert batch_ids(next(loader)) == [0, 1]
    with pytest.raises(
        BatchError, match=r"Image 3 \(source 'arrays', id 'id3', path None\), in the batch of step 1: OSError: the disk"
    ) as caught:
        next(loader)
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.image_id, caught.value.step) == (3, 1)
    assert await_threads(before) == before
    assert list(loader) == []


def test_a_broken_file_is_named(tmp_path):
    dataset = Dataset()
    for i in range(3):
        dataset.add_image("files", i, tmp_path / f"{i}.png")
        PIL.Image.new("RGB", (64, 64)).save(tmp_path / f"{i}.png")
    dataset.prepare()
    (tmp_path / "2.png").write_bytes(b"no image")
    with (
        BatchLoader(dataset, config_of(NUM_CLASSES=1), shuffle=False, batch_size=3) as loader,
        pytest.warns(UserWarning, match="does not override load_mask"),
        pytest.raises(BatchError, match=r"Image 2 .*2\.png\).*ImageError: Cannot read the image file .*2\.png"),
    ):
        next(loader)


class SlowDataset(ArrayDataset):
    """Loads of all but the `free` images wait for `gate`; all are counted."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.gate = threading.Event()
        self.free = ()
        self.loads = 0

    def load_image(self, image_id):
        self.loads += 1
        if image_id not in self.free:
            self.gate.wait(20)
        return super().load_image(image_id)


@pytest.fixture
def slow():
    return SlowDataset(*zip(*(info["parts"] for info in shapes(50).image_info), strict=True))


def test_look_ahead_is_bounded(slow):
    slow.gate.set()
    with BatchLoader(slow, config_of(), workers=3) as loader:
        next(loader)
        time.sleep(0.5)
        # The batch taken and 1 + 6 / 2 ahead of it, of two images each.
        assert slow.loads == 2 + 2 * 4
        next(loader)


@pytest.mark.parametrize("way", ["close", "collect", "with", "generator"])
def test_leaving_early_ends_the_threads(slow, way):
    before = await_threads(0)
    loader = BatchLoader(slow, config_of(), workers=4)
    slow.free = loader.image_ids(0)
    next(loader)
    assert len(loader_threads()) == before + 4
    start = time.monotonic()
    if way == "close":
        loader.close()
        assert list(loader) == []
        loader.close()
    elif way == "collect":
        gone = weakref.ref(loader)
        del loader
        gc.collect()
        assert gone() is None
    elif way == "with":
        with loader:
            pass
    else:
        consumer = (batch for batch in loader)
        consumer.close()
        del consumer, loader
        gc.collect()
    assert time.monotonic() - start < 2
    loads = slow.loads
    slow.gate.set()
    assert await_threads(before) == before
    assert slow.loads <= loads + 4


def test_closing_from_another_thread_while_waiting(slow):
    loader = BatchLoader(slow, config_of(), workers=1)
    threading.Timer(0.2, loader.close).start()
    threading.Timer(0.3, slow.gate.set).start()
    start = time.monotonic()
    assert list(loader) == []
    assert time.monotonic() - start < 10


def test_an_interrupt_while_waiting_loses_nothing(slow, monkeypatch):
    import mrcnn.data.batches as module

    true_wait = module.wait

    def interrupted(*arguments, **options):
        monkeypatch.setattr(module, "wait", true_wait)
        slow.gate.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "wait", interrupted)
    with BatchLoader(slow, config_of(), workers=2) as loader:
        with pytest.raises(KeyboardInterrupt):
            next(loader)
        found = [next(loader) for _ in range(4)]
    with BatchLoader(slow, config_of(), workers=0) as loader:
        for batch in found:
            same(batch, next(loader))


def test_exit_from_a_worker_reaches_the_consumer():
    def leave(image, masks, rng):
        raise SystemExit(3)

    with (
        BatchLoader(shapes(), config_of(), augmentation=leave, workers=2) as loader,
        pytest.raises(SystemExit),
    ):
        next(loader)


def test_several_consumers_share_the_batches():
    with BatchLoader(shapes(5), config_of(), workers=3) as loader:
        found, lock = [], threading.Lock()

        def consume():
            for _ in range(5):
                batch = next(loader)
                with lock:
                    found.append(batch["input_image"].tobytes())

        threads = [threading.Thread(target=consume) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    with BatchLoader(shapes(5), config_of(), workers=0) as loader:
        wanted = [next(loader)["input_image"].tobytes() for _ in range(20)]
    assert sorted(found) == sorted(wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_with_its_own_threads():
    with BatchLoader(shapes(5), config_of(), workers=2, seed=1) as loader:
        next(loader)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(writing, bytes(i for _ in range(4) for i in batch_ids(next(loader))))
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        wanted = [i for _ in range(4) for i in batch_ids(next(loader))]
        end = time.monotonic() + 30
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(child, 9)
            time.sleep(0.01)
        with os.fdopen(reading, "rb") as pipe:
            assert list(pipe.read()) == wanted


def test_many_loaders_made_and_left():
    before = await_threads(0)
    dataset = failing(8, bad=(7,))
    blamed = set()
    for seed in range(30):
        loader = BatchLoader(dataset, config_of(), workers=1 + seed % 4, seed=seed)
        for _ in range(seed % 5):
            try:
                next(loader)
            except BatchError as error:
                blamed.add(error.image_id)
                break
        if seed % 2:
            loader.close()
    assert blamed == {7}
    del loader
    gc.collect()
    assert await_threads(before) == before


PROGRAM = """
import signal, sys, time
import numpy as np
from mrcnn.config import Config
from mrcnn.data.batches import BatchLoader
from mrcnn.data.dataset import Dataset

class Slow(Dataset):
    def load_image(self, image_id):
        time.sleep(0.2)
        return np.zeros((64, 64, 3), np.uint8)

    def load_mask(self, image_id):
        return np.zeros((64, 64, 0), bool), np.zeros(0, np.int32)

class Small(Config):
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64

dataset = Slow()
for i in range(100):
    dataset.add_image("s", i, None)
dataset.prepare()
# A shell that starts tests in the background makes them deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
loader = BatchLoader(dataset, Small())
next(loader)
print("ready", flush=True)
if sys.argv[1] == "interrupt":
    for batch in loader:
        pass
"""


@pytest.mark.parametrize(
    "way", ["exit", pytest.param("interrupt", marks=pytest.mark.skipif(os.name == "nt", reason="needs SIGINT"))]
)
def test_a_process_ends_with_its_loader_open(way):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, way], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        if way == "interrupt":
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, errors = process.communicate(timeout=30)
        # What the threads have begun, and the few samples that wait for them, are 0.2 s each.
        assert time.monotonic() - start < 10
    finally:
        process.kill()
    assert ("KeyboardInterrupt" in errors) == (way == "interrupt")
    assert "Exception ignored" not in errors

"""Detector: the same results one by one, in lists, in streams and from many threads; and what it needs to run."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

import mrcnn
from mrcnn import inference
from mrcnn.config import Config
from mrcnn.data.molding import mold_inputs
from mrcnn.data.rle import encode_masks
from mrcnn.inference import Detector, anchor_cache
from tests.fake_engine import BrokenEngine, FakeEngine

SHAPES = [(64, 64, 3), (64, 128, 3), (48, 64, 3), (64, 100), (128, 64, 3), (70, 50, 4), (64, 64, 3), (33, 77, 3)]


class SmallConfig(Config):
    NAME = "small"
    NUM_CLASSES = 4
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 128
    IMAGE_RESIZE_MODE = "pad64"


def make_images(seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def assert_same(found, expected, close=False):
    """Results are equal; `close`: but for what threads may do to the last bits of a network's sums."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if close and key in ("rois", "scores"):
                np.testing.assert_allclose(value, other[key], atol=1 if key == "rois" else 1e-5)
            elif close and key == "masks":
                assert value.shape == other[key].shape
                assert (value != other[key]).mean() < 0.01
            else:
                np.testing.assert_array_equal(value, other[key])


@cache
def small_network():
    from mrcnn.model import MaskRCNN
    from tests import golden
    from tests.shapes import ShapesConfig

    config = ShapesConfig.from_dict(
        {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 64, "DETECTION_MIN_CONFIDENCE": 0, "IMAGES_PER_GPU": 2}
    )
    model = MaskRCNN("inference", config, "logs")
    golden.fill_small(model.keras_model)
    return model


@pytest.fixture(params=["fake", "real"])
def detector(request):
    """A real network gets images one by one, for in batches of another size its sums are rounded in another way."""
    if request.param == "fake":
        return Detector(FakeEngine(), SmallConfig())
    return Detector(small_network().detector.engine, small_network().config, batch_size=1)


# What comes out


def test_forms_of_masks_tell_the_same():
    detector, images = Detector(FakeEngine(), SmallConfig()), make_images()
    expected = detector.detect(images)
    assert sum(len(result["rois"]) for result in expected) > 20
    for image, result in zip(images, expected, strict=True):
        assert result["masks"].dtype == bool
        assert result["masks"].shape == (*image.shape[:2], len(result["rois"]))
        assert (result["rois"].dtype, result["class_ids"].dtype) == (np.int32, np.int32)
        assert (np.diff(result["scores"]) <= 0).all()
    for form in ("rle", "polygons", "none"):
        found = detector.detect(images, masks=form)
        alone = detector.detect(images[:1], masks=form)[0]
        assert ("masks" in alone) == (form != "none")
        for result, other in zip(found, expected, strict=True):
            masks = result.pop("masks", None)
            if form == "rle":
                assert masks == encode_masks(other["masks"])
            elif form == "polygons":
                for n, polygons in enumerate(masks):
                    drawn = np.zeros(other["masks"].shape[:2], np.uint8)
                    if polygons:
                        cv2.fillPoly(drawn, polygons, 1)
                    np.testing.assert_array_equal(drawn.astype(bool), other["masks"][:, :, n])
            assert_same([result], [{key: value for key, value in other.items() if key != "masks"}])


def test_min_confidence_leaves_out_what_scores_less():
    images = make_images()
    everything = Detector(FakeEngine(), SmallConfig()).detect(images)
    for result, other in zip(
        Detector(FakeEngine(), SmallConfig(), min_confidence=0.5).detect(images), everything, strict=True
    ):
        sure = other["scores"] >= 0.5
        np.testing.assert_array_equal(result["scores"], other["scores"][sure])
        np.testing.assert_array_equal(result["rois"], other["rois"][sure])
        np.testing.assert_array_equal(result["masks"], other["masks"][:, :, sure])
    assert min(other["scores"].min() for other in everything) < 0.5


def test_detect_molded_answers_in_pixels_of_the_molded_image():
    """As ground truth of `load_image_gt` is: a script measures one against the other."""
    engine = FakeEngine()
    detector, images = Detector(engine, SmallConfig()), make_images(shapes=[(48, 100, 3)] * 3)
    molded, metas, windows = mold_inputs(images, detector.config)
    assert molded.shape == (3, 64, 192, 3) and windows.tolist() == [[0, 29, 64, 162]] * 3  # enlarged, and padded
    found = detector.detect_molded(molded, metas)
    for result, (raw, _) in zip(found, engine.run(molded, metas.astype(np.float32), molded), strict=True):
        boxes = np.rint(raw[:, :4] * (63, 191, 63, 191) + (0, 0, 1, 1))
        seen = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        np.testing.assert_array_equal(result["rois"], boxes[seen])
        assert result["masks"].shape == (64, 192, seen.sum())
        for n, (y1, x1, y2, x2) in enumerate(result["rois"]):
            assert result["masks"][y1:y2, x1:x2, n].sum() == result["masks"][:, :, n].sum()
    assert sum(result["masks"].sum() for result in found)
    assert "masks" not in detector.detect_molded(molded, metas, masks="none")[0]
    assert detector.detect_molded(molded[:0], metas[:0]) == []


# Lists and streams


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_stream_gives_what_each_image_alone_gives(detector, workers):
    images = make_images()
    alone = [detector.detect([image])[0] for image in images]
    assert any(len(result["rois"]) for result in alone)
    found = list(detector.stream(iter(images), workers=workers))
    assert_same(found, alone, close=not isinstance(detector.engine, FakeEngine))
    assert_same(detector.detect(images), found)


def test_images_of_one_molded_shape_go_together_within_the_look_ahead():
    engine = FakeEngine()
    list(Detector(engine, SmallConfig()).stream(make_images()))
    shapes = [(64, 64), (64, 128), (64, 128), (64, 128), (128, 64), (128, 64), (64, 64), (64, 192)]
    assert sum(batch[0] for batch in engine.batches) == len(shapes)
    assert {batch[1:3] for batch in engine.batches} == set(shapes)
    assert [batch[0] for batch in engine.batches].count(2) == 3
    assert all(a[:1] == b[:1] and a[1:] == (len_of(b), 4) for a, b in zip(engine.anchors, engine.batches, strict=True))
    one_by_one = FakeEngine()
    Detector(one_by_one, SmallConfig(), batch_size=1).detect(make_images())
    assert [batch[0] for batch in one_by_one.batches] == [1] * len(shapes)


def len_of(batch):
    """Anchors of a batch's shape."""
    return len(anchor_cache(SmallConfig())(batch[1:3])[0])


def test_a_photo_of_4_to_3_costs_no_square_with_pad64():
    class LargeConfig(SmallConfig):
        IMAGE_MIN_DIM = 768
        IMAGE_MAX_DIM = 1024

    for mode, expected in (("pad64", (768, 1024)), ("square", (1024, 1024))):
        engine = FakeEngine()
        detector = Detector(engine, LargeConfig.from_dict({**LargeConfig().to_dict(), "IMAGE_RESIZE_MODE": mode}))
        result = detector.detect([np.zeros((480, 640, 3), np.uint8)])[0]
        assert engine.batches == [(1, *expected, 3)]
        assert result["masks"].shape[:2] == (480, 640)
        assert (result["rois"][:, 2:] <= (480, 640)).all()


def test_stream_reads_files(tmp_path):
    images = make_images(shapes=[(64, 64, 3), (40, 90, 3), (64, 100, 3)])
    paths = []
    for index, image in enumerate(images):
        paths.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(paths[-1]), image[..., ::-1])
    detector = Detector(FakeEngine(), SmallConfig())
    expected = detector.detect(images)
    assert_same(detector.detect(paths), expected)
    assert_same(detector.detect([str(paths[0])]), expected[:1])
    for image, result in zip(images, detector.stream(paths, with_images=True), strict=True):
        np.testing.assert_array_equal(result["image"], image)


def test_an_image_that_cannot_be_taken_is_named_at_its_place(tmp_path):
    good = np.zeros((64, 64, 3), np.uint8)
    missing = tmp_path / "missing.png"
    (tmp_path / "text.png").write_text("no picture")
    detector = Detector(FakeEngine(), SmallConfig())
    for images, kind, message in (
        ([good, good, missing], FileNotFoundError, r"Image 2 of 3 \(.*missing\.png\): No such"),
        ([good, tmp_path / "text.png", good], ValueError, r"Image 1 of 3 \(.*text\.png\)"),
        ([good, np.zeros((64, 64, 5)), good], ValueError, r"Image 1 of 3: .*5 channels"),
        (["x", good], FileNotFoundError, r"Image 0 of 2 \(x\)"),
        ([None, good], TypeError, "Image 0 of 2: .*whole numbers or floats"),
        ([None], TypeError, "Image 0 of 1"),
    ):
        with pytest.raises(kind, match=message):
            detector.detect(images)
    results = detector.stream([good, good, missing, good])
    assert [len(next(results)), len(next(results))] == [4, 4]
    with pytest.raises(FileNotFoundError, match=r"Image 2 \(.*missing\.png\)"):
        next(results)
    told = []
    found = list(detector.stream([good, missing, None, good], on_error=lambda *what: told.append(what)))
    assert [result is None for result in found] == [False, True, True, False]
    assert [(index, image) for index, image, _ in told] == [(1, missing), (2, None)]
    assert [type(error) for *_, error in told] == [FileNotFoundError, TypeError]


def test_an_error_that_is_made_of_more_than_a_message_is_told_too(monkeypatch):
    def read(path):
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "odd name")

    monkeypatch.setattr(inference, "read_image", read)
    with pytest.raises(ValueError, match=r"Image 0 of 1 \(x\.png\): UnicodeDecodeError: .*odd name"):
        Detector(FakeEngine(), SmallConfig()).detect(["x.png"])


def test_an_engine_that_fails_is_not_the_images_fault():
    detector = Detector(BrokenEngine(at=1), SmallConfig(), batch_size=1)
    results = detector.stream(make_images(), on_error=lambda *what: pytest.fail("asked to go on"))
    next(results)
    with pytest.raises(RuntimeError, match="on fire"):
        list(results)


def test_a_closed_stream_leaves_no_threads_and_runs_no_further():
    engine = FakeEngine(seconds=0.01)
    results = Detector(engine, SmallConfig()).stream(make_images() * 5)
    next(results)
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("mrcnn-")]
    assert len(engine.batches) < 10


def test_arguments_that_cannot_be():
    engine, config = FakeEngine(), SmallConfig()
    detector = Detector(engine, config)
    assert (detector.engine, detector.config, detector.class_names) == (engine, config, None)
    image = np.zeros((64, 64, 3), np.uint8)
    for call, message in (
        (lambda: Detector(engine), "needs the configuration"),
        (lambda: Detector(engine, config, engine="openvino"), "an engine already.*'openvino'"),
        (lambda: Detector(engine, config, batch_size=0), "batch_size must be at least 1"),
        (lambda: detector.detect([image], masks="boolean"), "bool, rle, polygons, none.*'boolean'"),
        (lambda: detector.stream([image], masks="boolean"), "bool, rle, polygons, none"),
        (lambda: detector.stream([image], look_ahead=0), "look_ahead must be at least 1"),
        (lambda: detector.stream([image], workers=0), "workers must be at least 1"),
        (lambda: detector.detect(image), r"list of images.*detect\(\[image\]\)"),
        (lambda: detector.detect("photo.jpg"), r"detect\(\['photo\.jpg'\]\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_folder_stands_for_its_images(tmp_path):
    from PIL import Image

    images = make_images(shapes=[(64, 64, 3)] * 2)
    for name, image in zip(("b.PNG", "a.png"), images, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    detector = Detector(FakeEngine(), SmallConfig())
    for folder in (tmp_path, str(tmp_path)):
        for found, image in zip(detector.detect(folder), images[::-1], strict=True):
            assert_same([found], detector.detect([image]))
    with pytest.raises(FileNotFoundError, match=r"empty holds no images \(\.png, "):
        detector.detect(tmp_path / "empty")


def test_what_has_no_length_is_taken_too():
    images = make_images()
    detector = Detector(FakeEngine(), SmallConfig())
    expected = detector.detect(images)
    assert_same(detector.detect(image for image in images), expected)
    assert_same(detector.detect(tuple(images)), expected)
    with pytest.raises(TypeError, match="takes a list of images. Received: int"):
        detector.detect(3)


# Threads


def test_eight_threads_share_a_detector(detector):
    lots = [make_images(seed) for seed in range(8)]
    expected = [detector.detect(images) for images in lots]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(detector.detect, lots))
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other, close=not isinstance(detector.engine, FakeEngine))


def test_two_detectors_in_two_threads_are_as_one():
    model, images = small_network(), make_images()
    detectors = [Detector(model.keras_model, model.config, engine="keras", precision="float32") for _ in range(2)]
    expected = model.detect(images)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda detector: detector.detect(images), detectors):
            assert_same(found, expected, close=True)


def test_anchors_of_a_shape_are_made_once_for_all_threads(monkeypatch):
    made = []
    real, start = inference.pyramid_anchors, threading.Barrier(8)

    def counted(config, shape):
        made.append(shape)
        return real(config, shape)

    monkeypatch.setattr(inference, "pyramid_anchors", counted)
    detector = Detector(FakeEngine(), SmallConfig())

    def detect(seed):
        start.wait()
        return detector.detect(make_images(seed))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(detect, range(8)))
    assert sorted(made) == [(64, 64), (64, 128), (64, 192), (128, 64)]


def test_only_the_last_few_sizes_anchors_are_kept():
    anchors_of = anchor_cache(SmallConfig())
    first = anchors_of((64, 64))
    for width in range(128, 64 * 9, 64):
        anchors_of((64, width))
        assert anchors_of((64, 64))[0] is first[0]
    for width in range(64 * 9, 64 * 17, 64):
        anchors_of((64, width))
    assert anchors_of((64, 64))[0] is not first[0]


# What it needs


def test_detection_needs_numpy_and_opencv_alone(tmp_path):
    """With an engine that is given, all else blocked: as in a deployment."""
    cv2.imwrite(str(tmp_path / "photo.png"), make_images(shapes=[(40, 90, 3)])[0])
    program = f"""
import sys
blocked = ("keras", "tensorflow", "jax", "torch", "PIL", "tqdm", "h5py", "platformdirs", "pycocotools", "matplotlib",
           "scipy", "pytest", "onnx", "openvino", "onnxruntime", "tifffile")
for name in blocked:
    sys.modules[name] = None
before = set(sys.modules)
from mrcnn import Config, Detector
from tests.fake_engine import FakeEngine
config = Config.from_dict({{"NUM_CLASSES": 4, "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128}})
detector = Detector(FakeEngine(), config)
path = {str(tmp_path / "photo.png")!r}
for form in ("bool", "rle", "polygons", "none"):
    results = detector.detect([path], masks=form) + list(detector.stream([path, path], masks=form))
    config.DETECTION_MIN_CONFIDENCE = 0
    flipped = Detector(FakeEngine(most=60), config, flips=True, min_confidence={{1: 0.1}}, class_agnostic_nms=True)
    results += flipped.detect([path], verbose=1, masks=form, tile=64)
    assert all(len(result["rois"]) for result in results)
loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(sorted(name for name in loaded - set(sys.stdlib_module_names) if name[0] != "_" and name != "cython_runtime"))
"""
    root = Path(mrcnn.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['cv2', 'mrcnn', 'numpy', 'tests']"

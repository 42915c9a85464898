"""Images of other than three channels, and rectangular ones: RGB weights adapted, training, detecting."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest
from keras import ops

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from mrcnn.run_record import read_record
from mrcnn.weights import WeightsError, inspect_weights, load_weights, save_weights
from mrcnn.weights.channels import adapt_kernel, first_kernel
from tests.shapes import Shapes
from tests.test_training import QuickConfig, untraced  # noqa: F401
from tests.test_weights import LAYOUTS, miniature


def convolved(image, kernel):
    return ops.convert_to_numpy(ops.conv(np.float32(image), np.float32(kernel), padding="valid"))


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_a_gray_image_is_seen_as_the_rgb_network_saw_it(channels):
    rng = np.random.default_rng(channels)
    kernel, gray = rng.normal(size=(3, 3, 3, 5)).astype(np.float32), rng.normal(0, 60, (2, 9, 8, 1))
    adapted = adapt_kernel(kernel, channels)
    assert (adapted.shape, adapted.dtype) == ((3, 3, channels, 5), np.float32)
    np.testing.assert_allclose(
        convolved(np.repeat(gray, channels, axis=-1), adapted),
        convolved(np.repeat(gray, 3, axis=-1), kernel),
        rtol=1e-4, atol=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize(("channels", "rgb"), [(4, (0, 1, 2)), (8, (4, 2, 1))])
def test_known_rgb_channels_keep_their_kernels(channels, rgb):
    rng = np.random.default_rng(channels)
    kernel, image = rng.normal(size=(3, 3, 3, 5)), rng.normal(0, 60, (1, 9, 8, channels))
    adapted = adapt_kernel(kernel, channels, rgb)
    np.testing.assert_allclose(convolved(image, adapted), convolved(image[..., list(rgb)], kernel), atol=1e-3)


def test_what_is_no_rgb_kernel_is_refused():
    with pytest.raises(ValueError, match=r"\[height, width, 3, filters\].*\(3, 3, 4, 5\)"):
        adapt_kernel(np.zeros((3, 3, 4, 5)), 1)
    with pytest.raises(ValueError, match=r"three numbers from 0 to 3.*\(1, 2, 4\)"):
        adapt_kernel(np.zeros((3, 3, 3, 5)), 4, (1, 2, 4))


def test_only_one_kernel_can_be_the_first():
    def side(*channels):
        return {f"conv{i}": {"kernel": np.zeros((3, 3, c, 5))} for i, c in enumerate(channels)}

    assert first_kernel(side(4, 4), side(3, 4)) == ("conv0", "kernel")
    assert first_kernel(side(4, 4), side(3, 3)) is None  # which would be a guess
    assert first_kernel(side(3, 4), side(3, 4)) is None
    assert first_kernel(side(4, 4), side(1, 4)) is None  # not of RGB images


@pytest.mark.parametrize("name", LAYOUTS)
def test_rgb_weights_are_adapted_loudly_and_only_when_asked(tmp_path, name):
    rgb, other = miniature(seed=1), miniature(channels=4)
    save_weights(rgb, tmp_path / name)
    before = ops.convert_to_numpy(other.get_layer("conv1").kernel)
    with pytest.raises(WeightsError, match="IMAGE_CHANNEL_COUNT is 4, the file has 3"):
        load_weights(other, tmp_path / name)
    np.testing.assert_array_equal(ops.convert_to_numpy(other.get_layer("conv1").kernel), before)
    with pytest.warns(UserWarning, match=r"is for RGB images. Adapted conv1/kernel.*divided by 4"):
        report = load_weights(other, tmp_path / name, adapt_channels=True)
    assert report.complete and "conv1" in report.loaded
    assert str(report).splitlines()[-1].startswith("adapted: conv1/kernel of 3 channels (RGB) to 4: ")
    assert report.parameters == other.count_params()
    kernel = ops.convert_to_numpy(rgb.get_layer("conv1").kernel)
    np.testing.assert_allclose(
        ops.convert_to_numpy(other.get_layer("conv1").kernel), adapt_kernel(kernel, 4), rtol=1e-6
    )
    np.testing.assert_array_equal(*(ops.convert_to_numpy(m.get_layer("fpn_p2").kernel) for m in (rgb, other)))


class Bands(Shapes):
    """Shapes whose images have as many channels as are wanted: red, green, blue, red, ..."""

    def __init__(self, count, channels, **options):
        super().__init__(count, size=64, **options)
        self.channels = channels

    def load_image(self, image_id):
        return np.resize(np.moveaxis(super().load_image(image_id), -1, 0), (self.channels, 64, 64)).transpose(1, 2, 0)


@pytest.fixture(scope="module")
def rgb_weights(tmp_path_factory):
    keras.utils.set_random_seed(0)  # some initial weights see background everywhere
    path = tmp_path_factory.mktemp("rgb") / "rgb.h5"
    MaskRCNN("inference", QuickConfig(), path.parent).save_weights(path)
    return path


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("channels", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_training_and_measuring_with_other_channels(tmp_path, rgb_weights, channels):
    values = {"IMAGE_CHANNEL_COUNT": channels, "MEAN_PIXEL": np.full(channels, 110.0), "STEPS_PER_EPOCH": 1}
    config = type("OtherConfig", (QuickConfig,), {**values, "VALIDATION_STEPS": 1, "EVALUATE_EVERY": 1})()
    model = MaskRCNN("training", config, tmp_path)
    with pytest.warns(UserWarning, match=f"Adapted conv1/kernel of 3 channels .RGB. to {channels}: "):
        model.load_weights(rgb_weights, by_name=True)
    before = ops.convert_to_numpy(model.keras_model.get_layer("conv1").kernel).copy()
    history = model.train(Bands(2, channels), Bands(2, channels, seed=1), 0.01, 1, "all", verbose=0).history
    after = ops.convert_to_numpy(model.keras_model.get_layer("conv1").kernel)
    assert (np.abs(after - before).max(axis=(0, 1, 3)) > 0).all()
    assert np.isfinite(history["val_loss"][0]) and 0 <= history["val_mask_ap"][0] <= 1
    assert inspect_weights(Path(model.log_dir) / "best.h5").image_channels == channels
    # Predictions beside the truth, of what of the channels people can see.
    record, page = read_record(Path(model.log_dir)), (Path(model.log_dir) / "report.html").read_text()
    shown = [mark["picture"] for kind in ("best", "worst") for mark in record["best"][kind]]
    assert len(shown) == 2 and all(picture in page for picture in shown)
    for picture in shown:
        pixels = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(picture))))
        assert pixels.shape[1] > 2 * pixels.shape[0] and pixels.std() > 10


@pytest.mark.usefixtures("untraced")
def test_training_and_detecting_with_eight_channels_in_a_rectangle(tmp_path, rgb_weights):
    values = {"IMAGE_CHANNEL_COUNT": 8, "MEAN_PIXEL": np.full(8, 110.0), "RGB_CHANNELS": (4, 2, 1)}
    values |= {"IMAGE_SHAPE": (64, 128, 8), "STEPS_PER_EPOCH": 1, "VALIDATION_STEPS": 1, "EVALUATE_EVERY": 1}
    config = type("BandsConfig", (QuickConfig,), values)()
    dataset = Bands(2, 8)
    model = MaskRCNN("training", config, tmp_path)
    assert model.keras_model.inputs[0].shape == (None, 64, 128, 8)
    with pytest.warns(UserWarning, match="Adapted conv1/kernel.*channels 4, 2, 1 have the kernels of red, green and"):
        report = model.load_weights(rgb_weights, by_name=True)
    assert "conv1" in report.loaded and report.adapted
    before = ops.convert_to_numpy(model.keras_model.get_layer("conv1").kernel).copy()
    assert not before[:, :, [0, 3, 5, 6, 7]].any()
    history = model.train(dataset, Bands(2, 8, seed=1), 0.01, 1, "all", verbose=0).history
    assert 0 <= history["val_mask_ap"][0] <= 1 and 'id="images"' in (Path(model.log_dir) / "report.html").read_text()
    after = ops.convert_to_numpy(model.keras_model.get_layer("conv1").kernel)
    assert (np.abs(after - before).max(axis=(0, 1, 3)) > 0).all()  # each channel learns, those of zeros too

    stored = Config.from_dict({**inspect_weights(model.find_last()).config, "BACKBONE": "resnet14"})
    assert stored.IMAGE_SHAPE.tolist() == [64, 128, 8]
    found = MaskRCNN("inference", config, tmp_path)
    found.load_weights("last")  # its own, nothing to adapt
    image = dataset.load_image(0)
    molded, _, windows = found.mold_inputs([image])
    assert molded.shape == (1, 64, 128, 8) and windows.tolist() == [[0, 32, 64, 96]]
    anchors = found.get_anchors(molded.shape[1:])
    assert len(anchors) == 3 * sum((64 // stride) * (128 // stride) for stride in (4, 8, 16, 32, 64))
    result = found.detect([image])[0]
    assert len(result["rois"]) and result["masks"].shape == (64, 64, len(result["rois"]))
    assert (result["rois"] >= 0).all() and (result["rois"] <= 64).all()  # in the image's own pixels


@pytest.mark.parametrize(("channels", "kind"), [(1, "gray"), (1, "color"), (4, "bands")])
def test_images_of_other_channels_are_molded(tmp_path, rgb_weights, channels, kind):
    values = {"IMAGE_CHANNEL_COUNT": channels, "MEAN_PIXEL": np.full(channels, 110.0)}
    model = MaskRCNN("inference", type("Other", (QuickConfig,), values)(), tmp_path)
    with pytest.warns(UserWarning, match="Adapted conv1/kernel"):
        model.load_weights(rgb_weights)
    image = Bands(1, 4 if kind == "bands" else 3).load_image(0)
    image = image[:, :, 0] if kind == "gray" else image
    assert model.mold_inputs([image])[0].shape == (1, 64, 64, channels)

"""Images of other than three channels: the first kernel adapted from RGB weights, and training and detecting with it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.model import MaskRCNN
from mrcnn.weights import WeightsError, inspect_weights, load_weights, save_weights
from mrcnn.weights.channels import adapt_kernel, first_kernel
from tests.shapes import Shapes
from tests.test_training import QuickConfig, untraced  # noqa: F401
from tests.test_weights import LAYOUTS, miniature


def convolved(image, kernel):
    return ops.convert_to_numpy(ops.conv(np.float32(image), np.float32(kernel), padding="valid"))


@pytest.mark.backends
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


@pytest.mark.backends
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

    def __init__(self, count, channels):
        super().__init__(count, size=64)
        self.channels = channels

    def load_image(self, image_id):
        return np.resize(np.moveaxis(super().load_image(image_id), -1, 0), (self.channels, 64, 64)).transpose(1, 2, 0)


@pytest.fixture(scope="module")
def rgb_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("rgb") / "rgb.h5"
    model = MaskRCNN("inference", QuickConfig(), path.parent)
    model.save_weights(path)
    return path


@pytest.mark.parametrize(("channels", "rgb"), [(1, None), (4, (2, 1, 0)), (8, None)])
@pytest.mark.usefixtures("untraced")
def test_training_and_detecting_with_other_channels(tmp_path, rgb_weights, channels, rgb):
    values = {"IMAGE_CHANNEL_COUNT": channels, "MEAN_PIXEL": np.full(channels, 110.0), "RGB_CHANNELS": rgb}
    config = type("BandsConfig", (QuickConfig,), values)()
    dataset = Bands(2, channels)
    model = MaskRCNN("training", config, tmp_path)
    with pytest.warns(UserWarning, match="Adapted conv1/kernel"):
        report = model.load_weights(rgb_weights, by_name=True)
    assert "conv1" in report.loaded and report.adapted
    before = ops.convert_to_numpy(model.keras_model.get_layer("conv1").kernel).copy()
    model.train(dataset, None, 0.01, 1, "all", verbose=0)
    after = ops.convert_to_numpy(model.keras_model.get_layer("conv1").kernel)
    assert (np.abs(after - before).max(axis=(0, 1, 3)) > 0).all()  # each channel learns, those of zeros too
    found = MaskRCNN("inference", config, tmp_path)
    found.load_weights("last")  # its own, nothing to adapt
    assert inspect_weights(found.find_last()).image_channels == channels
    result = found.detect([dataset.load_image(0)])[0]
    assert result["masks"].shape[:2] == (64, 64)


def test_color_files_are_read_by_a_network_of_one_channel(tmp_path):
    config = type("Gray", (QuickConfig,), {"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": np.array([110.0])})()
    model = MaskRCNN("inference", config, tmp_path)
    color = Shapes(1, size=64).load_image(0)
    molded, metas, _ = model.mold_inputs([color])
    assert molded.shape == (1, 64, 64, 1)
    assert isinstance(model.keras_model, keras.Model)

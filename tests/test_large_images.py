"""Images that windows are taken from: the same values as of the whole image, whatever the file is like."""

from __future__ import annotations

import sys
import threading
import warnings

import numpy as np
import PIL.Image
import pytest
import tifffile

from mrcnn.data import large_images
from mrcnn.data.images import ImageError, read_image
from mrcnn.data.large_images import TiffImage, close_image, open_image, whole

WINDOWS = [(0, 0, 70, 90), (3, 5, 4, 6), (16, 0, 48, 90), (31, 17, 69, 89), (64, 80, 70, 90)]


def picture(dtype=np.uint8, channels=3, seed=0, shape=(70, 90)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max + 1, (*shape, channels) if channels > 1 else shape, dtype)


PLAIN = {
    "not compressed": {},
    "big-endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 7},
    "deflate": {"compression": "zlib", "rowsperstrip": 9},
    "predicted": {"compression": "zlib", "predictor": True},
    "tiles": {"tile": (32, 16)},
    "tiles of the image's size and more": {"tile": (96, 112), "compression": "zlib"},
    "pages": {"extra_page": True},
    "BigTIFF": {"bigtiff": True},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", PLAIN)
def test_windows_of_plain_tiffs_are_read_from_the_file(tmp_path, layout, channels, dtype):
    path, image = tmp_path / "image.tif", picture(dtype, channels)
    options = {"photometric": "minisblack" if channels == 1 else "rgb", **PLAIN[layout]}
    file = {name: options.pop(name) for name in ("byteorder", "bigtiff") if name in options}
    more = options.pop("extra_page", False)
    with tifffile.TiffWriter(path, **file) as writer:
        writer.write(image, **options)
        if more:
            writer.write(255 - image, **options)
    expected, opened = read_image(path), open_image(path)
    assert isinstance(opened, TiffImage) and opened.shape == expected.shape and opened.dtype == np.uint8
    for y1, x1, y2, x2 in WINDOWS:
        found = opened[y1:y2, x1:x2]
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected[y1:y2, x1:x2])
    np.testing.assert_array_equal(whole(opened), expected)
    close_image(opened)


def test_tiles_that_a_file_leaves_out_are_black(tmp_path):
    image = picture()
    image[32:64, 16:48] = 0
    parts = [
        None if not image[y : y + 32, x : x + 16].any() else np.pad(
            image[y : y + 32, x : x + 16], ((0, max(0, y + 32 - 70)), (0, max(0, x + 16 - 90)), (0, 0))
        )
        for y in range(0, 70, 32)
        for x in range(0, 90, 16)
    ]  # fmt: skip
    assert sum(part is None for part in parts) == 2
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, iter(parts), shape=image.shape, dtype=np.uint8, photometric="rgb", tile=(32, 16),
                     compression="zlib")  # fmt: skip
    opened = open_image(path)
    assert isinstance(opened, TiffImage)
    np.testing.assert_array_equal(whole(opened), image)


def test_other_tiffs_are_read_whole(tmp_path):
    color = picture()
    files = {
        "planes": (np.moveaxis(color, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "alpha": (picture(channels=4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "floats": ((picture(channels=1) / 255).astype(np.float32), {"photometric": "minisblack"}),
        "turned": (color, {"photometric": "rgb", "extratags": [(274, "H", 1, 6, True)]}),
        "white is 0": (picture(channels=1), {"photometric": "miniswhite"}),
    }
    for name, (values, options) in files.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, values, **options)
        opened = open_image(path)
        assert isinstance(opened, np.ndarray), name
        np.testing.assert_array_equal(opened, read_image(path), err_msg=name)
    (tmp_path / "text.tif").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.tif"):
        open_image(tmp_path / "text.tif")
    with pytest.raises(FileNotFoundError, match="missing"):
        open_image(tmp_path / "missing.tif")


def test_without_tifffile_all_are_read_whole(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "image.tif", picture())
    monkeypatch.setitem(sys.modules, "tifffile", None)
    np.testing.assert_array_equal(open_image(str(tmp_path / "image.tif")), picture())


def test_a_file_that_is_damaged_further_on_is_named(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, picture(), compression="zlib", rowsperstrip=10)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[4], file.pages[0].databytecounts[4]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes(count)
    path.write_bytes(data)
    opened = open_image(path)
    np.testing.assert_array_equal(opened[0:40, 0:90], picture()[:40])
    with pytest.raises(ImageError, match=r"rows 30 to 50 of .*image\.tif"):
        opened[30:50, 0:90]


def test_strips_are_decoded_once_for_a_line_of_tiles_and_not_all_are_kept(tmp_path, monkeypatch):
    path, image = tmp_path / "image.tif", picture(shape=(256, 64))
    tifffile.imwrite(path, image, compression="zlib", rowsperstrip=8)
    opened, decoded = open_image(path), []
    page = opened._page

    class Counting:
        def __getattr__(self, name):
            return getattr(page, name)

        def decode(self, data, index, **options):
            decoded.append(index)
            return page.decode(data, index, **options)

    monkeypatch.setattr(opened, "_page", Counting())
    for left in range(0, 64, 16):
        np.testing.assert_array_equal(opened[64:128, left : left + 16], image[64:128, left : left + 16])
    assert decoded == list(range(8, 16))
    monkeypatch.setattr(large_images, "_KEPT_BYTES", 10 * 8 * 64 * 3)
    np.testing.assert_array_equal(whole(opened), image)
    assert len(opened._kept) == 10


def test_threads_share_a_file(tmp_path):
    path, image = tmp_path / "image.tif", picture(shape=(200, 200))
    tifffile.imwrite(path, image, compression="zlib", tile=(16, 16))
    opened, wrong = open_image(path), []

    def read(seed):
        for y, x in np.random.default_rng(seed).integers(0, 150, (60, 2)).tolist():
            if not np.array_equal(opened[y : y + 50, x : x + 50], image[y : y + 50, x : x + 50]):
                wrong.append((y, x))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", ".png"), ("L", ".png"), ("RGBA", ".png"), ("RGB", ".jpg"), ("L", ".jpg")]
)
def test_large_files_are_decoded_once_and_come_out_as_others_do(tmp_path, monkeypatch, mode, suffix):
    image = PIL.Image.fromarray(np.kron(picture(shape=(9, 11)), np.ones((30, 30, 1), np.uint8))).convert(mode)
    path = tmp_path / f"image{suffix}"
    image.save(path)
    expected, used = read_image(path), []
    monkeypatch.setattr(large_images, "_LARGE", 1000)
    original = large_images.read_with_opencv
    monkeypatch.setattr(large_images, "read_with_opencv", lambda name: used.append(name) or original(name))
    np.testing.assert_array_equal(open_image(path), expected)
    assert used == [str(path)]


def test_what_pillow_takes_for_a_bomb_is_an_image_here(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    PIL.Image.fromarray(picture()).save(path)
    for limit in (5000, 2000):  # of 6300 pixels Pillow warns, or refuses them
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
        monkeypatch.setattr(large_images, "_LARGE", 1000)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(open_image(path), picture())


def test_arrays_and_what_is_like_them():
    image = picture()
    assert open_image(image) is image and whole(image) is image
    np.testing.assert_array_equal(open_image(image.tolist()), image)

    class OnDisk:
        shape = image.shape

        def __getitem__(self, window):
            return image[window]

    on_disk = OnDisk()
    assert open_image(on_disk) is on_disk
    np.testing.assert_array_equal(whole(on_disk), image)
    close_image(on_disk)
    for wrong in (np.zeros((3, 4, 5, 6)), np.zeros((0, 4, 3)), None, 7):
        with pytest.raises(ValueError, match=r"An image must be \[H, W\]"):
            open_image(wrong)

"""Image files: with OpenCV alone they come out as with Pillow."""

from __future__ import annotations

import struct
import sys
import warnings
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest

from mrcnn.data.image_facts import image_facts
from mrcnn.data.images import ImageError, frame_count, image_sizes, read_image, read_values

ORIENTATION = 0x0112


@pytest.fixture
def without_pillow(monkeypatch):
    """From when it is called on, Pillow cannot be imported."""

    def block():
        monkeypatch.setitem(sys.modules, "PIL.Image", None)

    return block


@pytest.fixture
def picture(rng):
    """[60, 80, 3] uint8, smooth with a little noise, as JPEG likes it."""
    y, x = np.mgrid[:60, :80]
    return np.stack([x * 2, y * 3, x + y], axis=-1).astype(np.uint8) + rng.integers(0, 20, (60, 80, 3), dtype=np.uint8)


def write(folder, kind, picture, rng):
    """A file of a kind; its path."""
    path = folder / f"{kind}.png"
    gray, make = picture[:, :, 0], PIL.Image.fromarray
    if kind.startswith("jpeg"):
        path = path.with_suffix(".jpg")
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = int(kind[-1])
        make(gray if "gray" in kind else picture).save(path, exif=exif, quality=90)
    elif kind == "color of 16 bits":
        cv2.imwrite(str(path), rng.integers(0, 65536, (60, 80, 3), dtype=np.uint16))
    elif kind == "float":
        path = path.with_suffix(".tif")
        make(rng.random((60, 80), np.float32)).save(path)
    else:
        image = {
            "color": lambda: make(picture),
            "gray": lambda: make(gray),
            "alpha": lambda: make(np.dstack([picture, gray])),
            "gray and alpha": lambda: make(picture[:, :, :2].copy(), "LA"),
            "palette": lambda: make(picture).quantize(16),
            "one bit": lambda: make(gray > 80),
            "gray of 16 bits": lambda: make(rng.integers(0, 65536, (60, 80), dtype=np.uint16)),
        }[kind]()
        image.save(path)
    return path


@pytest.mark.parametrize(
    "kind",
    ["color", "gray", "alpha", "gray and alpha", "palette", "one bit", "gray of 16 bits", "color of 16 bits", "float",
     "jpeg gray 1", *(f"jpeg {turn}" for turn in range(1, 9))],
)  # fmt: skip
def test_opencv_reads_what_pillow_reads(kind, picture, tmp_path, rng, without_pillow):
    path = write(tmp_path, kind, picture, rng)
    expected, as_stored = read_image(path), read_image(path, apply_orientation=False)
    without_pillow()
    actual = read_image(str(path))
    assert actual.dtype == expected.dtype == np.uint8
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(read_image(path, apply_orientation=False), as_stored)
    assert expected.shape == ((80, 60, 3) if kind.startswith("jpeg") and kind[-1] in "5678" else (60, 80, 3))


def test_errors_without_pillow_name_the_file(tmp_path, without_pillow):
    without_pillow()
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="directory"):
        read_image(tmp_path)
    for content in (b"", b"no image at all"):
        (tmp_path / "text.jpg").write_bytes(content)
        with pytest.raises(ImageError, match=r"text\.jpg.*OpenCV"):
            read_image(tmp_path / "text.jpg")
    cv2.imwrite(str(tmp_path / "far.tif"), np.full((4, 5), 1e6, np.float32))
    with pytest.raises(ImageError, match=r"far\.tif.*0\.\.1 or 0\.\.255"):
        read_image(tmp_path / "far.tif")


@pytest.fixture
def stack(tmp_path):
    """Three gray frames of 0, 40 and 80."""
    frames = [PIL.Image.new("L", (8, 5), 40 * number) for number in range(3)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    return tmp_path / "stack.tif"


@pytest.mark.parametrize("pillow", [True, False])
def test_one_frame_of_several(stack, without_pillow, pillow):
    if not pillow:
        without_pillow()
    for frame in range(3):
        np.testing.assert_array_equal(read_image(stack, frame=frame), np.full((5, 8, 3), 40 * frame, np.uint8))
    with pytest.raises(ImageError, match=r"Cannot read the image file .*stack\.tif"):
        read_image(stack, frame=3)


def test_values_as_they_are_stored(stack, tmp_path):
    assert [values.max() for values in read_values(stack)] == [0, 40, 80] and frame_count(stack) == 3
    palette = PIL.Image.fromarray(np.array([[0, 7], [255, 3]], np.uint8), "L")
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(next(read_values(tmp_path / "p.png")), [[0, 7], [255, 3]])
    assert frame_count(tmp_path / "p.png") == 1
    for read in (lambda path: next(read_values(path)), frame_count, image_sizes):
        (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        with pytest.raises(ImageError, match=r"bad\.png"):
            read(tmp_path / "bad.png")
        with pytest.raises(FileNotFoundError, match=r"No such image file: .*gone\.png"):
            read(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 8])
def test_sizes_are_those_that_images_are_read_in(tmp_path, suffix, orientation, without_pillow):
    exif = PIL.Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{suffix}"
    PIL.Image.new("RGB", (9, 4)).save(path, exif=exif)
    upright, stored = image_sizes(path)
    assert upright == read_image(path).shape[:2] and stored == read_image(path, apply_orientation=False).shape[:2]
    assert upright == ((9, 4) if orientation in (5, 6, 8) else (4, 9))
    without_pillow()
    if suffix == "jpg":
        assert image_sizes(path) == (upright, stored)


@pytest.mark.parametrize("limit", [4000, 2000])  # of 60 x 80 pixels Pillow warns, or refuses them
def test_pillows_limit_of_pixels_is_none_of_ours(tmp_path, monkeypatch, picture, limit):
    image = PIL.Image.fromarray(picture)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.tif", save_all=True, append_images=[image.transpose(PIL.Image.Transpose.ROTATE_180)])
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, frames in (("a.png", 1), ("b.tif", 2)):
            path = tmp_path / name
            assert frame_count(path) == len(list(read_values(path))) == frames
            for frame, facts in enumerate(image_facts(path, range(frames))):
                np.testing.assert_array_equal(read_image(path, frame=frame), picture[::-1, ::-1] if frame else picture)
                assert image_sizes(path, frame) == ((60, 80), (60, 80)) and facts.size == (60, 80)
    with (
        pytest.raises(PIL.Image.DecompressionBombError)
        if limit == 2000
        else pytest.warns(PIL.Image.DecompressionBombWarning)
    ):
        PIL.Image.open(tmp_path / "a.png")


def test_a_header_that_tells_of_more_than_the_file_can_hold(tmp_path, picture):
    path = tmp_path / "a.png"
    PIL.Image.fromarray(picture).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    (facts,) = image_facts(path)
    assert isinstance(facts, ImageError)
    for read in (read_image, image_sizes, frame_count, lambda name: next(read_values(name))):
        with pytest.raises(ImageError, match=r"a\.png: its header tells of 60000 x 60000 pixels, more than \d+ bytes"):
            read(path)

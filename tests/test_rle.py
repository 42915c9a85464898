"""Run-length encoding: the same text that pycocotools makes, from a crop alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn.data.rle import compress, decode_crop, decompress, encode_crops, encode_labels, encode_masks


def reference(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(n) for n in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


@pytest.mark.parametrize("density", [0.0, 0.03, 0.5, 0.97, 1.0])
def test_encode_is_what_pycocotools_makes(density, rng):
    for turn in range(60):
        height, width = (int(n) for n in rng.integers(1, 50, 2))
        full = rng.random((height, width)) < density
        y1, x1 = int(rng.integers(height)), int(rng.integers(width))
        y2, x2 = int(rng.integers(y1, height)) + 1, int(rng.integers(x1, width)) + 1
        if turn % 3 == 0:  # all rows of the image: runs go on from one column into the next
            y1, y2 = 0, height
        inside = np.zeros_like(full)
        inside[y1:y2, x1:x2] = full[y1:y2, x1:x2]
        assert encode_crops([(full[y1:y2, x1:x2], y1, x1)], full.shape) == [reference(inside)]


def test_encode_masks_of_many_sizes_in_any_layout(rng):
    masks = rng.random((70, 90, 5)) < 0.4
    masks[:, :, 1] = False
    masks[:, :, 2] = True
    expected = [reference(masks[:, :, n]) for n in range(5)]
    assert encode_masks(masks) == expected
    assert encode_masks(np.moveaxis(np.ascontiguousarray(np.moveaxis(masks, -1, 0)), 0, -1)) == expected
    assert encode_masks(masks, np.array([[0, 0, 70, 90]] * 5)) == expected
    assert encode_masks(masks[:, :, :0]) == []
    with pytest.raises(ValueError, match=r"shape \[H, W, N\]"):
        encode_masks(masks[:, :, 0])


def test_a_crop_without_pixels_is_an_empty_mask():
    assert encode_crops([(np.zeros((0, 0), bool), 0, 0)], (30, 40, 3)) == [reference(np.zeros((30, 40)))]


def test_compressed_text_holds_large_and_sinking_numbers():
    for counts in ([0], [5], [0, 1, 2], [100000, 3, 7, 90000], [0, 31, 32, 33, 1 << 20, 15, 16, 17]):
        total = sum(counts)
        expected = coco_mask.frPyObjects({"size": [1, total], "counts": counts}, 1, total)["counts"].decode("ascii")
        assert compress([np.array([3, 4]), np.array(counts)]) == [compress([np.array([3, 4])])[0], expected]


def test_nothing_of_the_images_size_is_made():
    crop = np.ones((20, 30), bool)
    tracemalloc.start()
    encoded = encode_crops([(crop, 9000, 9000)], (20000, 20000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    assert int(coco_mask.area(encoded[0])) == 600
    assert coco_mask.toBbox(encoded[0]).tolist() == [9000, 9000, 30, 20]


# Back


@pytest.mark.parametrize("density", [0.0, 0.003, 0.03, 0.5, 0.97, 1.0])
def test_decode_is_what_pycocotools_decodes_cut_to_the_mask(density, rng):
    for turn in range(60):
        height, width = (int(n) for n in rng.integers(1, 50, 2))
        mask = rng.random((height, width)) < density
        if turn % 3 == 0:
            mask[:, : width // 2] = False
            mask[height // 2 :] = False
        encoded = reference(mask)
        whole = {"size": [height, width], "counts": decompress(encoded["counts"]).tolist()}
        for rle in (encoded, {**encoded, "counts": encoded["counts"].encode()}, whole):
            crop, top, left = decode_crop(rle)
            pasted = np.zeros_like(mask)
            pasted[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
            np.testing.assert_array_equal(pasted, mask)
            assert crop.dtype == bool and crop.flags.c_contiguous
            if mask.any():
                assert crop[0].any() and crop[-1].any() and crop[:, 0].any() and crop[:, -1].any()
            else:
                assert crop.shape == (0, 0)


def test_decompress_is_the_way_back_from_compress():
    for counts in ([], [0], [5], [0, 1, 2], [100000, 3, 7, 90000], [0, 31, 32, 33, 1 << 40, 15, 16, 17, 1 << 33]):
        assert decompress(compress([np.array(counts, np.int64)])[0] if counts else "").tolist() == counts


@pytest.mark.parametrize(
    ("rle", "told"),
    [
        ({"counts": "51"}, "size"),
        ({"size": [4], "counts": "51"}, "size"),
        ({"size": [4, 4], "counts": None}, "counts"),
        ({"size": [4, 4], "counts": "5\x01"}, "no compressed run lengths"),
        ({"size": [4, 4], "counts": "5é1"}, "sum"),
        ({"size": [4, 4], "counts": "oo"}, "break off"),
        ({"size": [4, 4], "counts": "o" * 14 + "1"}, "60 bits"),
        ({"size": [4, 4], "counts": [5, 12]}, "sum 17"),
        ({"size": [4, 4], "counts": [5, -1, 12]}, "from -1 on"),
        ({"size": [4, 4], "counts": []}, "sum 0"),
        ({"size": [4, 4], "counts": [[5, 11]]}, "counts"),
    ],
)
def test_what_is_no_encoding_is_refused(rle, told):
    with pytest.raises(ValueError, match=told):
        decode_crop(rle)


def test_nothing_of_the_images_size_is_made_of_a_small_mask():
    (encoded,) = encode_crops([(np.ones((20, 30), bool), 9000, 9000)], (20000, 20000))
    tracemalloc.start()
    crop, top, left = decode_crop(encoded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000 and crop.shape == (20, 30) and crop.all() and (top, left) == (9000, 9000)


@pytest.mark.parametrize("seed", range(5))
def test_label_images_as_mask_by_mask(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 30, 2)
    labels = np.repeat(np.repeat(rng.integers(0, 5, shape), 3, 0), 2, 1) * rng.integers(1, 70)
    numbers, encoded = encode_labels(labels)
    wanted = [number for number in np.unique(labels).tolist() if number]
    assert numbers == wanted
    assert encoded == encode_masks(np.stack([labels == number for number in wanted], -1)) if wanted else not encoded
    assert encode_labels(labels, [0, *wanted[:1]])[0] == wanted[1:]


def test_label_images_without_pixels_or_instances():
    assert encode_labels(np.zeros((0, 4), int)) == ([], [])
    assert encode_labels(np.zeros((3, 4), int)) == ([], [])
    assert encode_labels(np.ones((3, 4), np.uint8))[1] == encode_masks(np.ones((3, 4, 1), bool))

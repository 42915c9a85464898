"""Masks without the image around them: the same pixels as of the whole masks."""

from __future__ import annotations

import numpy as np

from mrcnn.data.crops import Crop


def test_a_crop_is_the_mask_again(rng):
    for _ in range(50):
        mask = rng.random(rng.integers(1, 30, 2)) < rng.choice([0.02, 0.5, 1])
        crop = Crop.of(mask, 7, 11)
        pasted = np.zeros((60, 60), bool)
        y1, x1, y2, x2 = crop.box
        pasted[y1:y2, x1:x2] = crop.mask()
        np.testing.assert_array_equal(pasted[7 : 7 + mask.shape[0], 11 : 11 + mask.shape[1]], mask)
        assert crop.area == mask.sum() == pasted.sum()
        window = (10, 10, 20, 25)
        assert crop.area_in(window) == pasted[10:20, 10:25].sum()
        other_mask = rng.random((20, 20)) < 0.5
        other = np.zeros_like(pasted)
        other[15:35, 5:25] = other_mask
        assert crop.shared(Crop.of(other_mask, 15, 5)) == (pasted & other).sum()

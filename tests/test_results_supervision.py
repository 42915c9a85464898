"""`to_supervision`: detections that the package supervision measures, filters, merges and draws."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import supervision as sv

from mrcnn.results.supervision import to_supervision
from tests.detections import NAMES, odd_masks, result_of


@pytest.mark.parametrize("form", ["bool", "rle", "polygons"])
def test_boxes_classes_scores_and_masks_are_there(form):
    masks = odd_masks()
    result = result_of(masks, form)
    found = to_supervision(result, NAMES, masks.shape)
    assert len(found) == 7 and found.xyxy.dtype == np.float32
    np.testing.assert_array_equal(found.xyxy[:, [1, 0, 3, 2]], result["rois"])
    np.testing.assert_array_equal(found.class_id, result["class_ids"])
    np.testing.assert_array_equal(found.confidence, result["scores"])
    assert found["class_name"].tolist() == [NAMES[class_id] for class_id in result["class_ids"]]
    assert isinstance(found.mask, np.ndarray) == (form == "bool")
    np.testing.assert_array_equal(np.asarray(found.mask), np.moveaxis(masks, -1, 0))
    np.testing.assert_array_equal(found.area, masks.sum(axis=(0, 1)))
    assert np.shares_memory(found.mask, masks) == (form == "bool")
    assert to_supervision(result, None, masks.shape)["class_name"][2] == "class 3"


@pytest.mark.parametrize("form", ["bool", "rle"])
def test_supervision_filters_suppresses_merges_and_draws_them(form):
    masks = np.zeros((60, 80, 3), bool)
    masks[10:30, 10:30, 0] = masks[10:30, 11:30, 1] = masks[40:50, 50:70, 2] = True
    found = to_supervision(result_of(masks, form, [0.9, 0.8, 0.7], [1, 1, 2]), NAMES)
    kept = found.with_nms(0.5)
    assert sorted(kept.confidence.tolist()) == pytest.approx([0.7, 0.9]) and kept.area.tolist() == [400, 200]
    assert found[found.class_id == 2].area.tolist() == [200]
    assert len(sv.Detections.merge([found, kept])) == 5
    image = np.zeros((60, 80, 3), np.uint8)
    drawn = sv.MaskAnnotator(opacity=1.0).annotate(image.copy(), kept)
    np.testing.assert_array_equal(drawn.any(axis=-1), masks[..., [0, 2]].any(axis=-1))
    labeled = sv.LabelAnnotator().annotate(sv.BoxAnnotator().annotate(image.copy(), kept), kept)
    assert labeled.any()


def test_nothing_found_and_no_masks():
    nothing = odd_masks()[..., :0]
    for form in ("bool", "rle"):
        found = to_supervision(result_of(nothing, form), NAMES)
        assert len(found) == 0 and found.xyxy.shape == (0, 4)
        assert len(sv.Detections.merge([found, to_supervision(result_of(odd_masks(), form), NAMES)])) == 7
        assert (sv.MaskAnnotator().annotate(np.zeros((60, 80, 3), np.uint8), found) == 0).all()
    boxes_alone = {key: value for key, value in result_of(odd_masks()).items() if key != "masks"}
    found = to_supervision(boxes_alone, NAMES)
    assert len(found) == 7 and found.mask is None


def test_what_cannot_be_is_refused():
    result = result_of(odd_masks())
    with pytest.raises(ValueError, match="none for class id 3"):
        to_supervision(result, NAMES[:3])
    with pytest.raises(ValueError, match="must have one size"):
        to_supervision(result, NAMES, (50, 50))
    with pytest.raises(ValueError, match="Received: none"):
        to_supervision({**result_of(odd_masks(), "polygons"), "image": None}, NAMES)
    with pytest.raises(ValueError, match="lacks scores"):
        to_supervision({**result, "scores": None}, NAMES)


def test_results_do_without_supervision_and_say_what_is_missing():
    program = (
        "import sys; sys.modules['supervision'] = None\n"
        "import mrcnn\n"
        "mrcnn.save_results\n"
        "heavy = {'keras', 'PIL', 'h5py', 'matplotlib', 'pycocotools', 'tqdm', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "try: mrcnn.to_supervision({'rois': []})\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "keras-mask-rcnn[supervision]"' in done.stdout

"""Matching and average precision: golden numbers, COCO's rules against a slow oracle, results files, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn import evaluation
from mrcnn.coco_results import CocoIds, encode_masks
from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import extract_bboxes
from mrcnn.evaluation import coco_ground_truth, evaluate, to_coco_results, write_results
from tests import golden

GOLDEN = "golden_evaluation"
PARTS = ("gt_boxes", "gt_class_ids", "gt_masks", "pred_boxes", "pred_class_ids", "pred_scores", "pred_masks")


# Helpers for one image ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
def test_matches_and_ap_golden(case, capsys):
    data = golden.load(GOLDEN)
    inputs = [data[f"compute_matches.{case}.in.{part}"] for part in PARTS]
    for suffix, options in (("", {}), ("_iou.3_score.4", {"iou_threshold": 0.3, "score_threshold": 0.4})):
        found = evaluation.compute_matches(*inputs, **options)
        for name, value in zip(("gt_match", "pred_match", "overlaps"), found, strict=True):
            golden.check(f"matches {name}", value, data[f"compute_matches.{case}{suffix}.out.{name}"])
    found = evaluation.compute_ap(*inputs)
    for name, value in zip(("mAP", "precisions", "recalls", "overlaps"), found, strict=True):
        golden.check(f"ap {name}", value, data[f"compute_ap.{case}.out.{name}"])
    capsys.readouterr()
    mean = evaluation.compute_ap_range(*inputs)
    assert capsys.readouterr().out.count("AP @") == 11
    golden.check("ap range", mean, data[f"compute_ap_range.{case}.out"])
    recall, positives = evaluation.compute_recall(inputs[3], inputs[0], 0.5)
    golden.check("recall", recall, data[f"compute_recall.{case}.out.recall"])
    golden.check("recall ids", positives, data[f"compute_recall.{case}.out.positive_ids"])


def test_overlaps_masks_and_trim_zeros_golden():
    data = golden.load(GOLDEN)
    for case in ("a", "empty"):
        prefix = f"compute_overlaps_masks.{case}"
        overlaps = evaluation.compute_overlaps_masks(data[f"{prefix}.in.masks1"], data[f"{prefix}.in.masks2"])
        assert overlaps.dtype == data[f"{prefix}.out"].dtype
        golden.check(prefix, overlaps, data[f"{prefix}.out"])
    golden.check("trim_zeros", evaluation.trim_zeros(data["trim_zeros.a.in.x"]), data["trim_zeros.a.out"])


def test_overlaps_masks_oracle(rng):
    masks1, masks2 = rng.random((300, 400, 3)) > 0.4, rng.random((300, 400, 2)) > 0.7  # more than one block
    masks1[..., 1] = masks2[..., 0] = False
    overlaps = evaluation.compute_overlaps_masks(masks1, masks2.astype(np.float32))
    for i in range(3):
        for j in range(2):
            union = np.count_nonzero(masks1[..., i] | masks2[..., j])
            expected = np.count_nonzero(masks1[..., i] & masks2[..., j]) / union if union else 0
            assert overlaps[i, j] == np.float32(expected)


def one_image(gt_count: int, pred_count: int) -> list[np.ndarray]:
    masks = np.zeros((8, 8, 3), bool)
    for i in range(3):
        masks[2 * i : 2 * i + 2, 1:5, i] = True
    boxes, ids = extract_bboxes(masks), np.array([1, 2, 1])
    scores = np.array([0.5, 0.9, 0.7])
    take, found = slice(gt_count), slice(pred_count)
    return [boxes[take], ids[take], masks[..., take], boxes[found], ids[found], scores[found], masks[..., found]]


@pytest.mark.parametrize(("gt_count", "pred_count"), [(0, 0), (0, 2), (2, 0), (3, 3)])
def test_one_image_without_truth_or_predictions(gt_count, pred_count):
    arrays = one_image(gt_count, pred_count)
    gt_match, pred_match, overlaps = evaluation.compute_matches(*arrays)
    assert gt_match.shape == (gt_count,)
    assert pred_match.shape == (pred_count,)
    assert overlaps.shape == (pred_count, gt_count)
    average, precisions, recalls, _ = evaluation.compute_ap(*arrays)
    assert average == (1 if gt_count == pred_count == 3 else 0)
    assert len(precisions) == len(recalls) == pred_count + 2
    assert evaluation.compute_ap_range(*arrays, verbose=0) == average
    recall, positives = evaluation.compute_recall(arrays[3], arrays[0], 0.5)
    assert recall == (1 if gt_count == pred_count == 3 else 0)
    assert positives.dtype == np.int64


def test_padding_rows_and_score_order():
    arrays = one_image(3, 3)
    arrays[0] = np.vstack([arrays[0], np.zeros((2, 4), int)])
    arrays[1] = np.append(arrays[1], [0, 0])
    gt_match, pred_match, _ = evaluation.compute_matches(*arrays)
    assert gt_match.tolist() == [2, 0, 1]  # places in the order of falling score
    assert pred_match.tolist() == [1, 2, 0]


def test_one_image_mistakes():
    arrays = one_image(2, 2)
    arrays[5] = arrays[5][:1]
    with pytest.raises(ValueError, match=r"pred_scores must hold .* 2 boxes. Received: 1"):
        evaluation.compute_matches(*arrays)
    with pytest.raises(ValueError, match="height and width"):
        evaluation.compute_overlaps_masks(np.zeros((4, 4, 1)), np.zeros((5, 4, 1)))
    with pytest.raises(ValueError, match="at least one IoU threshold"):
        evaluation.compute_ap_range(*one_image(1, 1), iou_thresholds=[])


# Data sets and models to play with ------------------------------------------------------------------------------


class Toys(Dataset):
    """Images given as (masks [H, W, N], class ids [N])."""

    def __init__(self, images, class_ids=(1, 2), source="toys", image_ids=None, category_ids=None):
        super().__init__()
        self.contents = images
        for i, class_id in enumerate(category_ids or class_ids):
            self.add_class(source, class_id, f"kind{i + 1}")
        for i in range(len(images)):
            self.add_image(source, image_ids[i] if image_ids else f"image-{i}", path=f"/nowhere/{i}.png")
        self.prepare()

    def load_image(self, image_id):
        image = np.zeros((*self.contents[image_id][0].shape[:2], 3), np.uint8)
        image[0, 0, 0] = image_id  # so that a model knows which one it sees
        return image

    def load_mask(self, image_id):
        masks, class_ids = self.contents[image_id]
        return masks, np.asarray(class_ids, np.int32)


class Answers:
    """A model that answers from a list of results, one for each image."""

    def __init__(self, results):
        self.results, self.batches = results, []

    def detect(self, images):
        self.batches.append(len(images))
        return [self.results[int(image[0, 0, 0])] for image in images]


def detections(masks, class_ids, scores):
    return {
        "rois": extract_bboxes(masks),
        "class_ids": np.asarray(class_ids, np.int32),
        "scores": np.asarray(scores, np.float32),
        "masks": masks,
    }


def blocks(count, size=(24, 32), side=6):
    """`count` disjoint blocks."""
    masks = np.zeros((*size, count), bool)
    for i in range(count):
        y, x = divmod(i, size[1] // side)
        masks[y * side : y * side + side - 1, x * side : x * side + side - 2, i] = True
    return masks


def nothing(size=(24, 32)):
    return detections(np.zeros((*size, 0), bool), [], [])


def perfect(dataset):
    results = []
    for image_id in dataset.image_ids:
        masks, class_ids = dataset.load_mask(image_id)
        real = class_ids > 0
        results.append(detections(masks[..., real], class_ids[real], np.linspace(0.9, 0.5, real.sum())))
    return results


def scored(dataset, results, **options):
    return evaluate(Answers(results), dataset, progress=False, **options)


@pytest.fixture
def toys():
    return Toys([(blocks(5), [1, 2, 1, 2, 1]), (blocks(3), [2, 2, 1]), (blocks(0), []), (blocks(2), [1, 1])])


# Whole data sets ------------------------------------------------------------------------------------------------


def test_perfect_detections(toys, capsys):
    result = scored(toys, perfect(toys))
    for kind in ("mask", "box"):
        for figure in ("ap", "ap50", "ap75", "ap_small", "recall"):
            assert getattr(result, f"{kind}_{figure}") == pytest.approx(1)
    assert np.isnan(result.mask_ap_large)
    assert result.mask_per_class == pytest.approx({"kind1": 1, "kind2": 1})
    assert (result.image_count, result.annotation_count, result.detection_count) == (4, 10, 10)
    assert result.annotations_per_class == {"kind1": 6, "kind2": 4}
    assert capsys.readouterr() == ("", "")


def test_no_detections(toys):
    result = scored(toys, [nothing()] * 4)
    assert result.mask_ap == result.box_ap50 == result.mask_recall == 0
    assert result.mask_per_class == {"kind1": 0, "kind2": 0}


def test_swapped_classes(toys):
    results = perfect(toys)
    for result in results:
        result["class_ids"] = 3 - result["class_ids"]
    assert scored(toys, results).mask_ap == 0


def test_class_without_truth_has_no_ap():
    dataset = Toys([(blocks(3), [1, 1, 1])])
    result = scored(dataset, perfect(dataset))
    assert result.mask_ap == pytest.approx(1)
    assert np.isnan(result.mask_per_class["kind2"])
    assert result.to_dict()["mask"]["per_class"]["kind2"] is None


def test_no_truth_at_all():
    dataset = Toys([(blocks(0), []), (np.zeros((0, 0, 0), bool), [])])
    dataset.load_image = lambda i: np.full((24, 32, 3), i, np.uint8)
    result = scored(dataset, [nothing(), detections(blocks(1), [1], [0.9])])
    assert np.isnan(result.mask_ap)
    assert (result.annotation_count, result.detection_count) == (0, 1)
    json.dumps(result.to_dict(), allow_nan=False)


def test_false_positive_in_an_empty_image_counts(toys):
    results = perfect(toys)
    results[2] = detections(blocks(1), [1], [0.99])  # image 2 has no objects; the best score of all
    result = scored(toys, results)
    assert 0 < result.mask_per_class["kind1"] < 1
    assert result.mask_per_class["kind2"] == pytest.approx(1)


def test_crowd_is_neither_missed_nor_wrong():
    masks = blocks(4)
    crowd = np.zeros((24, 32, 1), bool)
    crowd[12:] = True
    dataset = Toys([(np.concatenate([masks, crowd], -1), [1, 1, 2, 2, -1])])
    inside = np.zeros((24, 32, 2), bool)
    inside[13:16, 2:9, 0] = inside[18:23, 12:19, 1] = True
    results = perfect(dataset)
    assert scored(dataset, results).mask_ap == pytest.approx(1)
    in_crowd = detections(np.concatenate([masks, inside], -1), [1, 1, 2, 2, 1, 1], [0.5, 0.4, 0.3, 0.2, 0.9, 0.8])
    result = scored(dataset, [in_crowd])
    assert result.mask_ap == result.box_ap == pytest.approx(1)
    assert (result.annotation_count, result.crowd_count) == (4, 1)
    wrong = dict(in_crowd, class_ids=np.array([1, 1, 2, 2, 2, 2]))  # not the crowd's class
    assert scored(dataset, [wrong]).mask_ap < 1


@pytest.mark.parametrize(("most", "ap", "unscored"), [(100, 67 / 101, 50), (150, 1, 0), (30, 21 / 101, 120)])
def test_max_detections_takes_effect(most, ap, unscored):
    dataset = Toys([(blocks(150, size=(120, 120)), [1] * 150)])
    result = scored(dataset, perfect(dataset), max_detections=most)
    assert result.mask_ap == pytest.approx(ap)
    assert result.box_ap50 == pytest.approx(ap)
    assert result.unscored_count == unscored
    assert (f"{unscored} detections beyond {most}" in str(result)) == (unscored > 0)


def test_images_are_batched(toys):
    model = Answers(perfect(toys))
    evaluate(model, toys, progress=False, batch_size=3)
    assert model.batches == [3, 1]
    model = Answers(perfect(toys))
    model.config = type("Config", (), {"BATCH_SIZE": 2})
    evaluate(model, toys, [3, 1, 0], progress=False)
    assert model.batches == [2, 1]


def test_progress_bar_goes_to_stderr(toys, capsys):
    evaluate(Answers(perfect(toys)), toys)
    out, err = capsys.readouterr()
    assert out == ""
    assert "4/4" in err


def test_empty_annotation_is_left_out_and_told(toys):
    masks, class_ids = toys.contents[0]
    masks[..., 1] = False
    result = scored(
        toys, perfect(Toys([(masks[..., [0, 2, 3, 4]], class_ids[:1] + class_ids[2:]), *toys.contents[1:]]))
    )
    assert result.mask_ap == pytest.approx(1)
    assert result.empty_annotation_count == 1
    assert "1 annotated instances without a pixel" in str(result)


def test_sources_are_not_judged_by_each_others_classes():
    dataset = Toys([(blocks(2), [1, 1]), (blocks(2), [2, 2]), (blocks(0), [])])
    dataset.class_info[2]["source"] = dataset.image_info[1]["source"] = "others"
    dataset.image_info[2]["source"] = "background"
    dataset.prepare()
    results = perfect(dataset)
    results[0] = detections(blocks(3), [1, 1, 2], [0.9, 0.8, 0.99])  # the third may be right: nobody annotated it
    result = scored(dataset, results)
    assert result.mask_ap == pytest.approx(1)
    assert result.unjudged_count == 1
    results[2] = detections(blocks(1), [2], [0.99])  # a source without classes has background only
    result = scored(dataset, results)
    assert result.mask_ap < 1
    assert result.unjudged_count == 1


def test_result_as_table_and_json(toys):
    result = scored(toys, perfect(toys), iou_types="bbox")
    text = str(result)
    assert "4 images, 10 annotated instances, 10 detections" in text
    assert "kind2" in text
    assert "1.000" in text
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["box"]["ap"] == pytest.approx(1)
    assert values["box"]["ap_large"] is None
    assert values["mask"] is None
    with pytest.raises(AttributeError, match="mask_ap was not measured"):
        _ = result.mask_ap
    with pytest.raises(AttributeError, match="no attribute 'mask_app'"):
        _ = result.mask_app


# The oracle -----------------------------------------------------------------------------------------------------


def oracle_iou(found, truth, crowd, kind):
    if kind == "bbox":
        (a,), (b,) = extract_bboxes(found[..., None]).tolist(), extract_bboxes(truth[..., None]).tolist()
        found, truth = np.zeros_like(found), np.zeros_like(truth)
        found[a[0] : a[2], a[1] : a[3]] = True
        truth[b[0] : b[2], b[1] : b[3]] = True
    return np.sum(found & truth) / (np.sum(found) if crowd else np.sum(found | truth))


def oracle_ap(dataset, results, kind, class_id, threshold, most):
    """COCO's average precision, as its rules are told: None without ground truth."""
    judged, total = [], 0
    for image_id, result in enumerate(results):
        masks, ids = dataset.load_mask(image_id)
        truths = [(masks[..., i], ids[i] < 0) for i in range(len(ids)) if abs(ids[i]) == class_id]
        total += sum(not crowd for _, crowd in truths)
        mine = [i for i in range(len(result["class_ids"])) if result["class_ids"][i] == class_id]
        mine.sort(key=lambda i: -result["scores"][i])
        free = [not crowd for _, crowd in truths]
        for i in mine[:most]:
            ious = [oracle_iou(result["masks"][..., i], mask, crowd, kind) for mask, crowd in truths]
            best = max((j for j in range(len(truths)) if free[j]), key=lambda j: ious[j], default=None)
            if best is not None and ious[best] >= threshold:
                free[best] = False
                judged.append((result["scores"][i], True))
            elif not any(truths[j][1] and ious[j] >= threshold for j in range(len(truths))):
                judged.append((result["scores"][i], False))
    if total == 0:
        return None
    judged.sort(key=lambda pair: -pair[0])
    hits, points = 0, []
    for count, (_, right) in enumerate(judged, start=1):
        hits += right
        points.append((hits / total, hits / count))
    levels = np.linspace(0, 1, 101)
    return np.mean([max((p for recall, p in points if recall >= level), default=0) for level in levels])


def shake(rng, mask):
    """A mask moved and eaten at a little."""
    moved = np.roll(mask, rng.integers(-2, 3, 2), axis=(0, 1))
    moved &= rng.random(mask.shape) > rng.choice([0, 0.1, 0.4])
    moved[tuple(rng.integers(0, mask.shape))] = True  # never empty
    return moved


@pytest.mark.parametrize("seed", range(6))
def test_ap_oracle(seed):
    rng = np.random.default_rng(seed)
    contents, results = [], []
    for _ in range(4):
        count = int(rng.integers(0, 9))
        masks = np.zeros((30, 40, count), bool)
        for i in range(count):
            y, x = rng.integers(0, 24), rng.integers(0, 32)
            masks[y : y + rng.integers(4, 12), x : x + rng.integers(4, 12), i] = True
        ids = rng.integers(1, 4, count)
        ids[rng.random(count) < 0.15] *= -1
        contents.append((masks, ids.tolist()))
        kept = [i for i in range(count) for _ in range(rng.integers(0, 3))]
        found = [shake(rng, masks[..., i]) for i in kept] + [shake(rng, np.zeros((30, 40), bool)) for _ in range(2)]
        classes = [abs(ids[i]) if rng.random() < 0.8 else rng.integers(1, 4) for i in kept] + [1, 3]
        results.append(detections(np.stack(found, -1), classes, rng.permutation(len(found)) / 97 + rng.random() / 100))
    dataset = Toys(contents, class_ids=(1, 2, 3))
    thresholds = np.linspace(0.5, 0.95, 10)
    for most in (100, 2):
        result = scored(dataset, results, max_detections=most)
        for kind, figures in (("bbox", result.box), ("segm", result.mask)):
            table = [[oracle_ap(dataset, results, kind, c, t, most) for t in thresholds] for c in (1, 2, 3)]
            for c, row in enumerate(table, start=1):
                expected = np.nan if row[0] is None else np.mean(row)
                assert figures.per_class[f"kind{c}"] == pytest.approx(expected, abs=1e-9, nan_ok=True)
            known = [row for row in table if row[0] is not None]
            assert figures.ap == pytest.approx(np.mean(known), abs=1e-9)
            assert figures.ap50 == pytest.approx(np.mean([row[0] for row in known]), abs=1e-9)
            assert figures.ap75 == pytest.approx(np.mean([row[5] for row in known]), abs=1e-9)


# COCO's dictionaries and files ----------------------------------------------------------------------------------


def test_encoding_is_that_of_pycocotools(rng):
    masks = rng.random((13, 17, 8)) > np.linspace(0.02, 0.98, 8)
    masks[..., 0], masks[..., 1] = True, False
    masks[0, 0, 2] = masks[-1, -1, 2] = True
    masks[0, 0, 3] = masks[-1, -1, 3] = False
    expected = rle_codec.encode(np.asfortranarray(masks.astype(np.uint8)))
    assert encode_masks(masks) == [{"size": [13, 17], "counts": e["counts"].decode()} for e in expected]
    assert encode_masks(np.zeros((5, 5, 0), bool)) == []
    assert encode_masks(masks[:, :, ::-1][:, ::-1])[0] == encode_masks(masks[:, ::-1, -1:])[0]


def test_results_with_encoded_masks_score_the_same(toys, rng):
    results = perfect(toys)
    results[0]["masks"] = np.stack([shake(rng, m) for m in np.moveaxis(results[0]["masks"], -1, 0)], -1)
    encoded = [{**result, "masks": encode_masks(result["masks"])} for result in results]
    result = scored(toys, encoded)
    assert 0 < result.mask_ap == scored(toys, results).mask_ap < 1
    encoded[0]["masks"] = encoded[0]["masks"][:2]
    with pytest.raises(ValueError, match="differ in number: .*'masks': 2"):
        scored(toys, encoded)


def test_source_ids_are_kept_where_they_are_integers(toys):
    dataset = Toys(toys.contents, image_ids=[900, 17, 42, 5], category_ids=[7, 3])
    truth = coco_ground_truth(dataset)
    assert [image["id"] for image in truth["images"]] == [900, 17, 42, 5]
    assert truth["images"][0] == {"id": 900, "file_name": "0.png", "height": 24, "width": 32}
    assert [(c["id"], c["name"]) for c in truth["categories"]] == [(7, "kind1"), (3, "kind2")]
    assert [a["id"] for a in truth["annotations"]] == list(range(1, 11))
    first = truth["annotations"][1]
    assert (first["image_id"], first["category_id"], first["iscrowd"]) == (900, 3, 0)
    assert first["bbox"] == [6, 0, 4, 5]
    assert first["area"] == 20
    result = to_coco_results(dataset, 3, perfect(dataset)[3])[0]
    assert (result["image_id"], result["category_id"], result["bbox"]) == (5, 7, [0, 0, 4, 5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools on numpy 2
        decoded = rle_codec.decode(result["segmentation"]).astype(bool)
    assert np.array_equal(decoded, blocks(1)[..., 0])
    result = scored(dataset, perfect(dataset))
    assert result.mask_per_class == pytest.approx({"kind1": 1, "kind2": 1})
    assert result.annotations_per_class == {"kind1": 6, "kind2": 4}


def test_own_ids_stand_in_for_other_source_ids(toys):
    assert CocoIds.of(toys).images == {0: 0, 1: 1, 2: 2, 3: 3}  # names
    twice = Toys(toys.contents, image_ids=[8, 8, 9, 10])
    assert CocoIds.of(twice).images == {0: 0, 1: 1, 2: 2, 3: 3}
    assert CocoIds.of(twice).categories == {1: 1, 2: 2}


def test_files_score_the_same_with_pycocotools_itself(toys, tmp_path, rng):
    dataset = Toys(toys.contents, image_ids=[900, 17, 42, 5], category_ids=[7, 3])
    results = perfect(dataset)
    results[0]["masks"] = np.stack([shake(rng, m) for m in np.moveaxis(results[0]["masks"], -1, 0)], -1)
    result = scored(dataset, results, results_path=tmp_path / "results.json")
    write_results(tmp_path / "truth.json", coco_ground_truth(dataset))
    truth = COCO(str(tmp_path / "truth.json"))
    engine = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
    engine.evaluate()
    engine.accumulate()
    engine.summarize()
    assert 0 < result.mask_ap < 1
    assert [result.mask_ap, result.mask_ap50, result.mask_ap75] == pytest.approx(engine.stats[:3].tolist())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.json", "truth.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [])
    with pytest.raises(ValueError, match="Out of range float"):
        write_results(path, [{"score": float("nan")}])
    assert path.read_text() == "[]"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


# Mistakes -------------------------------------------------------------------------------------------------------


class Refuses:
    def detect(self, images):
        raise AssertionError("nothing should run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_ids": []}, "Nothing to evaluate: no image ids"),
        ({"image_ids": [0, 9]}, r"image ids 0 to 3. Received: \[9\]"),
        ({"image_ids": [1, 1]}, r"more than once: \[1\]"),
        ({"iou_types": ["mask"]}, 'one or both of "bbox" and "segm"'),
        ({"iou_types": []}, "Received: \\(\\)"),
        ({"max_detections": 0}, "max_detections must be at least 1. Received: 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"results_path": "/nowhere/at/all.json"}, "folder /nowhere/at does not exist"),
    ],
)
def test_mistakes_are_found_before_anything_runs(toys, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate(Refuses(), toys, progress=False, **options)


def test_empty_data_set():
    with pytest.raises(ValueError, match=r"the data set holds no images.*prepare"):
        evaluate(Refuses(), Toys([]), progress=False)


def test_results_that_do_not_fit(toys):
    for part, value, message in (
        ("class_ids", np.array([1, 2, 1, 2, 5]), r"Class id 5 in the result for image 0 \(/nowhere/0.png\)"),
        ("class_ids", np.array([1, 2, 1, 2, 0]), "Class id 0 .* 1 to 2"),
        ("scores", np.array([0.5]), "differ in number: .*'scores': 1"),
        ("masks", None, "lacks masks"),
        ("masks", np.zeros((10, 10, 5), bool), r"measures \[10, 10\], the image \[24, 32\]"),
    ):
        results = perfect(toys)
        results[0][part] = value
        with pytest.raises(ValueError, match=message):
            scored(toys, results)
    results = perfect(toys)
    for result in results:
        del result["masks"]
    assert scored(toys, results, iou_types=("bbox",)).box_ap == pytest.approx(1)


def test_model_that_loses_an_image(toys):
    model = Answers(perfect(toys))
    model.detect = lambda images: []
    with pytest.raises(ValueError, match="0 came for 1"):
        evaluate(model, toys, progress=False)


def test_ground_truth_that_does_not_fit():
    for masks, class_ids, message in (
        (blocks(2), [1], r"Received for image 0 \(/nowhere/0.png\): masks \(24, 32, 2\), 1 class ids"),
        (blocks(2), [1, 7], "Class id 7 in load_mask of image 0"),
        (blocks(2), [1, 0], "Class id 0 in load_mask"),
    ):
        with pytest.raises(ValueError, match=message):
            scored(Toys([(masks, class_ids)]), [nothing()])
    dataset = Toys([(blocks(2), [1, 1])])
    dataset.load_image = lambda i: np.zeros((12, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=r"masks of image 0 .*measure \(24, 32\), the image \(12, 32\)"):
        scored(dataset, [nothing()])


def test_results_for_unknown_images_and_categories(toys):
    truth = coco_ground_truth(toys)
    entry = to_coco_results(toys, 0, perfect(toys)[0])[0]
    for key, message in (("image_id", "image id 77"), ("category_id", "category id 77")):
        with pytest.raises(ValueError, match=message):
            evaluation.coco_average_precision(truth, [{**entry, key: 77}])
    with pytest.raises(ValueError, match="has no mask to score"):
        evaluation.coco_average_precision(truth, [{k: v for k, v in entry.items() if k != "segmentation"}])


def test_no_framework_is_imported():
    code = (
        "import sys, mrcnn.evaluation, mrcnn.visualize;"
        "print(*{'keras', 'tensorflow', 'jax', 'torch', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"

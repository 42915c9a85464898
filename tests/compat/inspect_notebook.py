"""A look inside a trained model: targets, anchors, proposals, heads, masks and weights. A notebook, as a script.

python inspect_notebook.py --weights=/path/to/weights.h5 --confidence=0.5
"""

import argparse
import os
import random

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import polygons

import mrcnn.model as modellib
from mrcnn import utils, visualize
from mrcnn.model import log

ROOT_DIR = os.path.abspath(".")
MODEL_DIR = os.path.join(ROOT_DIR, "logs")
DATA_DIR = os.path.join(ROOT_DIR, "polygons")

parser = argparse.ArgumentParser()
parser.add_argument("--weights", default="one_class.h5")
parser.add_argument("--confidence", type=float, default=0.5)
args = parser.parse_args()


class InferenceConfig(polygons.PolygonConfig):
    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    IMAGE_MIN_DIM = 80
    IMAGE_MAX_DIM = 128
    DETECTION_MIN_CONFIDENCE = args.confidence
    DETECTION_MAX_INSTANCES = 30


def get_ax(rows=1, cols=1, size=6):
    return plt.subplots(rows, cols, figsize=(size * cols, size * rows))[1]


config = InferenceConfig()
dataset = polygons.PolygonDataset()
dataset.load_polygons(DATA_DIR, "val")
dataset.prepare()
model = modellib.MaskRCNN(mode="inference", model_dir=MODEL_DIR, config=config)
model.load_weights(args.weights, by_name=True)

# Detections, beside the ground truth of the same resized image
image_id = random.choice(dataset.image_ids)
image, image_meta, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
    dataset, config, image_id, use_mini_mask=False
)
info = dataset.image_info[image_id]
print("image ID: {}.{} ({}) {}".format(info["source"], info["id"], image_id, dataset.image_reference(image_id)))
print("Original image shape: ", modellib.parse_image_meta(image_meta[np.newaxis, ...])["original_image_shape"][0])
r = model.detect_molded(np.expand_dims(image, 0), np.expand_dims(image_meta, 0), verbose=1)[0]
log("gt_class_id", gt_class_id)
log("gt_bbox", gt_bbox)
log("gt_mask", gt_mask)
print("Found:", len(r["rois"]))
visualize.display_differences(
    image, gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"], dataset.class_names,
    title="", ax=get_ax(), show_box=False, show_mask=False, iou_threshold=0.5, score_threshold=0.5,
)  # fmt: skip
AP = utils.compute_ap_range(
    gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"], verbose=1
)
print("AP over the range:", AP)
results = model.detect([image], verbose=0)[0]
visualize.display_instances(
    image, results["rois"], results["masks"], results["class_ids"], dataset.class_names, results["scores"], ax=get_ax()
)
if len(r["rois"]):
    ap, precisions, recalls, overlaps = utils.compute_ap(
        gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"]
    )
    visualize.plot_precision_recall(ap, precisions, recalls)
    visualize.plot_overlaps(gt_class_id, r["class_ids"], r["scores"], overlaps, dataset.class_names)

# Targets of the region proposal network
model.get_anchors(image.shape)
target_rpn_match, target_rpn_bbox = modellib.build_rpn_targets(
    image.shape, model.anchors, gt_class_id, gt_bbox, model.config
)
log("target_rpn_match", target_rpn_match)
log("target_rpn_bbox", target_rpn_bbox)
positive_anchor_ix = np.where(target_rpn_match[:] == 1)[0]
positive_anchors = model.anchors[positive_anchor_ix]
negative_anchors = model.anchors[np.where(target_rpn_match[:] == -1)[0]]
log("positive_anchors", positive_anchors)
log("negative anchors", negative_anchors)
refined_anchors = utils.apply_box_deltas(
    positive_anchors, target_rpn_bbox[: positive_anchors.shape[0]] * model.config.RPN_BBOX_STD_DEV
)
visualize.draw_boxes(image, boxes=positive_anchors, refined_boxes=refined_anchors, ax=get_ax())

# Its predictions
pillar = model.keras_model.get_layer("ROI").output
nms_node = model.ancestor(pillar, "ROI/rpn_non_max_suppression:0")
if nms_node is None:
    nms_node = model.ancestor(pillar, "ROI/rpn_non_max_suppression/NonMaxSuppressionV2:0")
if nms_node is None:
    nms_node = model.ancestor(pillar, "ROI/rpn_non_max_suppression/NonMaxSuppressionV3:0")
rpn = model.run_graph(
    [image],
    [
        ("rpn_class", model.keras_model.get_layer("rpn_class").output),
        ("pre_nms_anchors", model.ancestor(pillar, "ROI/pre_nms_anchors:0")),
        ("refined_anchors", model.ancestor(pillar, "ROI/refined_anchors:0")),
        ("refined_anchors_clipped", model.ancestor(pillar, "ROI/refined_anchors_clipped:0")),
        ("post_nms_anchor_ix", nms_node),
        ("proposals", model.keras_model.get_layer("ROI").output),
    ],
)
limit = 100
sorted_anchor_ids = np.argsort(rpn["rpn_class"][:, :, 1].flatten())[::-1]
visualize.draw_boxes(image, boxes=model.anchors[sorted_anchor_ids[:limit]], ax=get_ax())
limit = 50
ax = get_ax(1, 2)
pre_nms_anchors = utils.denorm_boxes(rpn["pre_nms_anchors"][0], image.shape[:2])
refined_anchors = utils.denorm_boxes(rpn["refined_anchors"][0], image.shape[:2])
refined_anchors_clipped = utils.denorm_boxes(rpn["refined_anchors_clipped"][0], image.shape[:2])
visualize.draw_boxes(image, boxes=pre_nms_anchors[:limit], refined_boxes=refined_anchors[:limit], ax=ax[0])
visualize.draw_boxes(image, refined_boxes=refined_anchors_clipped[:limit], ax=ax[1])
ixs = rpn["post_nms_anchor_ix"][:limit]
visualize.draw_boxes(image, refined_boxes=refined_anchors_clipped[ixs], ax=get_ax())
h, w = config.IMAGE_SHAPE[:2]
proposals = rpn["proposals"][0, :limit] * np.array([h, w, h, w])
visualize.draw_boxes(image, refined_boxes=proposals, ax=get_ax())
for name, boxes in (("All Anchors", model.anchors), ("Refined Anchors", refined_anchors), ("Proposals", proposals)):
    recall, positive_anchor_ids = utils.compute_recall(boxes, gt_bbox, 0.7)
    print(f"{name} ({len(boxes):5})       Recall: {recall:.3f}  Positive anchors: {len(positive_anchor_ids)}")

# Classification of the proposals
mrcnn = model.run_graph(
    [image],
    [
        ("proposals", model.keras_model.get_layer("ROI").output),
        ("probs", model.keras_model.get_layer("mrcnn_class").output),
        ("deltas", model.keras_model.get_layer("mrcnn_bbox").output),
        ("masks", model.keras_model.get_layer("mrcnn_mask").output),
        ("detections", model.keras_model.get_layer("mrcnn_detection").output),
    ],
)
det_class_ids = mrcnn["detections"][0, :, 4].astype(np.int32)
det_count = np.where(det_class_ids == 0)[0][0]
det_class_ids = det_class_ids[:det_count]
detections = mrcnn["detections"][0, :det_count]
print(f"{det_count} detections: {np.array(dataset.class_names)[det_class_ids]}")
captions = [
    f"{dataset.class_names[int(c)]} {s:.3f}" if c > 0 else ""
    for c, s in zip(detections[:, 4], detections[:, 5], strict=True)
]
visualize.draw_boxes(
    image,
    refined_boxes=utils.denorm_boxes(detections[:, :4], image.shape[:2]),
    visibilities=[2] * len(detections),
    captions=captions,
    title="Detections",
    ax=get_ax(),
)

# Step by step
proposals = utils.denorm_boxes(mrcnn["proposals"][0], image.shape[:2])
roi_class_ids = np.argmax(mrcnn["probs"][0], axis=1)
roi_scores = mrcnn["probs"][0, np.arange(roi_class_ids.shape[0]), roi_class_ids]
roi_class_names = np.array(dataset.class_names)[roi_class_ids]
roi_positive_ixs = np.where(roi_class_ids > 0)[0]
print(f"{np.sum(np.any(proposals, axis=1))} Valid proposals out of {proposals.shape[0]}")
print(f"{len(roi_positive_ixs)} Positive ROIs")
print(list(zip(*np.unique(roi_class_names, return_counts=True), strict=True)))
limit = 20
ixs = np.random.randint(0, proposals.shape[0], limit)
captions = [
    f"{dataset.class_names[c]} {s:.3f}" if c > 0 else ""
    for c, s in zip(roi_class_ids[ixs], roi_scores[ixs], strict=True)
]
visualize.draw_boxes(
    image, boxes=proposals[ixs], visibilities=np.where(roi_class_ids[ixs] > 0, 2, 1), captions=captions, ax=get_ax()
)
roi_bbox_specific = mrcnn["deltas"][0, np.arange(proposals.shape[0]), roi_class_ids]
log("roi_bbox_specific", roi_bbox_specific)
refined_proposals = utils.apply_box_deltas(proposals, roi_bbox_specific * config.BBOX_STD_DEV).astype(np.int32)
log("refined_proposals", refined_proposals)
ids = np.random.randint(0, len(roi_positive_ixs), 5)
visualize.draw_boxes(
    image,
    boxes=proposals[roi_positive_ixs][ids],
    refined_boxes=refined_proposals[roi_positive_ixs][ids],
    visibilities=np.where(roi_class_ids[roi_positive_ixs][ids] > 0, 1, 0),
    captions=captions,
    title="ROIs After Refinement",
    ax=get_ax(),
)
keep = np.where(roi_class_ids > 0)[0]
keep = np.intersect1d(keep, np.where(roi_scores >= config.DETECTION_MIN_CONFIDENCE)[0])
print(f"Keep {len(keep)} of them")
nms_keep = []
for class_id in np.unique(roi_class_ids[keep]):
    ixs = np.where(roi_class_ids[keep] == class_id)[0]
    class_keep = utils.non_max_suppression(
        refined_proposals[keep][ixs], roi_scores[keep][ixs], config.DETECTION_NMS_THRESHOLD
    )
    nms_keep = np.union1d(nms_keep, keep[ixs[class_keep]]).astype(int)
print("Kept after suppression:", len(nms_keep))

# Masks
visualize.display_images(np.transpose(gt_mask[..., :8], [2, 0, 1]), cmap="Blues")
det_boxes = utils.denorm_boxes(mrcnn["detections"][0, :, :4], image.shape[:2])
det_mask_specific = np.array([mrcnn["masks"][0, i, :, :, c] for i, c in enumerate(det_class_ids)])
det_masks = np.array([utils.unmold_mask(m, det_boxes[i], image.shape) for i, m in enumerate(det_mask_specific)])
log("det_mask_specific", det_mask_specific)
log("det_masks", det_masks)
visualize.display_images(det_mask_specific[:4] * 255, cmap="Blues", interpolation="none")
visualize.display_images(det_masks[:4] * 255, cmap="Blues", interpolation="none")

# Activations
activations = model.run_graph(
    [image],
    [
        ("input_image", model.keras_model.get_layer("input_image").output),
        ("res2a_branch2a", model.keras_model.get_layer("res2a_branch2a").output),
        ("rpn_bbox", model.keras_model.get_layer("rpn_bbox").output),
        ("roi", model.keras_model.get_layer("ROI").output),
    ],
)
plt.imshow(modellib.unmold_image(activations["input_image"][0], config))
visualize.display_images(np.transpose(activations["res2a_branch2a"][0, :, :, :4], [2, 0, 1]), cols=4)
plt.hist(activations["rpn_bbox"][0, :, 0], 50)

# Weights
visualize.display_weight_stats(model)
for layer in model.get_trainable_layers():
    for weight in layer.get_weights():
        if weight.ndim > 1:
            print(layer.name, weight.shape, np.isfinite(weight).all())
print("Figures:", len(plt.get_fignums()))

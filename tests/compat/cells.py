"""Cells, each in a PNG mask of its own: train, then write what is found as run lengths into a CSV file.

    python cells.py train --dataset=/path/to/dataset --subset=train --weights=imagenet
    python cells.py detect --dataset=/path/to/dataset --subset=test --weights=last

A dataset has a folder for each subset, in it one for each image, in it `images/*.png` and `masks/*.png`.
"""

import argparse
import datetime
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from small_backbone import BackboneConfig

from mrcnn import model as modellib
from mrcnn import utils, visualize
from mrcnn.config import Config

ROOT_DIR = os.path.abspath(".")
COCO_WEIGHTS_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")
RESULTS_DIR = os.path.join(ROOT_DIR, "results/cells/")
VALIDATION_IMAGES = 2


class CellConfig(Config):
    NAME = "cell"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 1
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    DETECTION_MIN_CONFIDENCE = 0
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    IMAGE_MIN_SCALE = 2.0
    TOP_DOWN_PYRAMID_SIZE = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    PRE_NMS_LIMIT = 200
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 20
    RPN_NMS_THRESHOLD = 0.9
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    MEAN_PIXEL = np.array([43.53, 39.56, 48.22])
    USE_MINI_MASK = True
    MINI_MASK_SHAPE = (28, 28)
    MASK_POOL_SIZE = 7
    MASK_SHAPE = [14, 14]
    TRAIN_ROIS_PER_IMAGE = 6
    MAX_GT_INSTANCES = 20
    DETECTION_MAX_INSTANCES = 8

    def __init__(self):
        self.BACKBONE = BackboneConfig.BACKBONE
        self.COMPUTE_BACKBONE_SHAPE = BackboneConfig.COMPUTE_BACKBONE_SHAPE
        super().__init__()


class CellInferenceConfig(CellConfig):
    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    RPN_NMS_THRESHOLD = 0.7


class CellDataset(utils.Dataset):
    def load_cells(self, dataset_dir, subset):
        """`val` is the first images of the folder `train`, and `train` the others."""
        self.add_class("cell", 1, "cell")
        folder = os.path.join(dataset_dir, "train" if subset == "val" else subset)
        image_ids = sorted(next(os.walk(folder))[1])
        if subset == "val":
            image_ids = image_ids[:VALIDATION_IMAGES]
        elif subset == "train":
            image_ids = image_ids[VALIDATION_IMAGES:]
        for image_id in image_ids:
            self.add_image("cell", image_id=image_id, path=os.path.join(folder, image_id, f"images/{image_id}.png"))

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        mask_dir = os.path.join(os.path.dirname(os.path.dirname(info["path"])), "masks")
        masks = []
        for name in sorted(next(os.walk(mask_dir))[2]):
            if name.endswith(".png"):
                masks.append(np.array(Image.open(os.path.join(mask_dir, name))).astype(bool))
        masks = np.stack(masks, axis=-1)
        return masks, np.ones([masks.shape[-1]], dtype=np.int32)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        return info["id"] if info["source"] == "cell" else super().image_reference(image_id)


def train(model, dataset_dir, subset):
    dataset_train = CellDataset()
    dataset_train.load_cells(dataset_dir, subset)
    dataset_train.prepare()
    dataset_val = CellDataset()
    dataset_val.load_cells(dataset_dir, "val")
    dataset_val.prepare()
    print(f"Images: {dataset_train.num_images} to train on, {dataset_val.num_images} to validate on")
    print("Train all layers")
    model.train(
        dataset_train,
        dataset_val,
        learning_rate=config.LEARNING_RATE,
        epochs=1,
        layers="all",
        augmentation=None,
        no_augmentation_sources=["cell"],
    )


def rle_encode(mask):
    """Run lengths of a mask: pairs of a start, counted from one and down the columns, and a length."""
    m = mask.T.flatten()
    g = np.diff(np.concatenate([[0], m.astype(np.int8), [0]]), n=1)
    starts = np.where(g == 1)[0] + 1
    ends = np.where(g == -1)[0] + 1
    return " ".join(f"{start} {end - start}" for start, end in zip(starts, ends, strict=True))


def mask_to_rle(image_id, mask, scores):
    """Lines "image_id, run lengths", the best object first; where objects overlap, the better one has the pixel."""
    assert mask.ndim == 3, f"Mask must be [H, W, count], but is {mask.shape}"
    if mask.shape[-1] == 0:
        return f"{image_id},"
    order = np.argsort(scores)[::-1] + 1
    mask = np.max(mask * np.reshape(order, [1, 1, -1]), -1)
    lines = []
    for o in order:
        m = np.where(mask == o, 1, 0)
        if m.sum() == 0.0:
            continue
        lines.append(f"{image_id}, {rle_encode(m)}")
    return "\n".join(lines)


def detect(model, dataset_dir, subset):
    print(f"Running on {dataset_dir}")
    submit_dir = os.path.join(RESULTS_DIR, f"submit_{datetime.datetime.now():%Y%m%dT%H%M%S}")
    os.makedirs(submit_dir)
    dataset = CellDataset()
    dataset.load_cells(dataset_dir, subset)
    dataset.prepare()
    submission = []
    for image_id in dataset.image_ids:
        image = dataset.load_image(image_id)
        r = model.detect([image], verbose=0)[0]
        source_id = dataset.image_info[image_id]["id"]
        submission.append(mask_to_rle(source_id, r["masks"], r["scores"]))
        visualize.display_instances(
            image,
            r["rois"],
            r["masks"],
            r["class_ids"],
            dataset.class_names,
            r["scores"],
            show_bbox=False,
            show_mask=False,
            title="Predictions",
        )
        plt.savefig(f"{submit_dir}/{dataset.image_info[image_id]['id']}.png")
        plt.close()
    file_path = os.path.join(submit_dir, "submit.csv")
    with open(file_path, "w") as file:
        file.write("ImageId,EncodedPixels\n" + "\n".join(submission))
    print("Saved to ", submit_dir)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Find cells and outline each.")
    parser.add_argument("command", metavar="<command>", help="'train' or 'detect'")
    parser.add_argument("--dataset", required=True, metavar="/path/to/dataset/")
    parser.add_argument("--weights", required=True, metavar="/path/to/weights.h5", help="or 'coco', 'last', 'imagenet'")
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="/path/to/logs/")
    parser.add_argument("--subset", required=True, metavar="Dataset sub-directory")
    args = parser.parse_args()
    print("Weights: ", args.weights)
    print("Dataset: ", args.dataset)
    print("Subset: ", args.subset)
    print("Logs: ", args.logs)

    config = CellConfig() if args.command == "train" else CellInferenceConfig()
    config.display()
    mode = "training" if args.command == "train" else "inference"
    model = modellib.MaskRCNN(mode=mode, config=config, model_dir=args.logs)

    if args.weights.lower() == "coco":
        weights_path = COCO_WEIGHTS_PATH
        if not os.path.exists(weights_path):
            utils.download_trained_weights(weights_path)
    elif args.weights.lower() == "last":
        weights_path = model.find_last()
    elif args.weights.lower() == "imagenet":
        weights_path = model.get_imagenet_weights()
    else:
        weights_path = args.weights
    print("Loading weights ", weights_path)
    if args.weights.lower() == "coco":
        model.load_weights(
            weights_path, by_name=True, exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
        )
    else:
        model.load_weights(weights_path, by_name=True)

    if args.command == "train":
        train(model, args.dataset, args.subset)
    elif args.command == "detect":
        detect(model, args.dataset, args.subset)
    else:
        print(f"'{args.command}' is not recognized. Use 'train' or 'detect'.")

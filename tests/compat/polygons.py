"""One class of object, outlined with the VGG Image Annotator: train, then splash its color on a gray image.

python polygons.py train --dataset=/path/to/dataset --weights=coco
python polygons.py train --dataset=/path/to/dataset --weights=last
python polygons.py splash --weights=/path/to/weights.h5 --image=/path/or/url
python polygons.py splash --weights=last --video=/path/to/film
"""

import argparse
import datetime
import json
import os
import urllib.request

import cv2
import numpy as np
from PIL import Image, ImageDraw
from small_backbone import BackboneConfig

from mrcnn import model as modellib
from mrcnn import utils

ROOT_DIR = os.path.abspath(".")
COCO_WEIGHTS_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")


class PolygonConfig(BackboneConfig):
    NAME = "polygon"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 1
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    TOP_DOWN_PYRAMID_SIZE = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 64
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 32
    POST_NMS_ROIS_TRAINING = 50
    POST_NMS_ROIS_INFERENCE = 20
    MASK_POOL_SIZE = 7
    MASK_SHAPE = [14, 14]
    TRAIN_ROIS_PER_IMAGE = 6
    MAX_GT_INSTANCES = 5
    DETECTION_MAX_INSTANCES = 5
    DETECTION_MIN_CONFIDENCE = 0.9


class PolygonDataset(utils.Dataset):
    def load_polygons(self, dataset_dir, subset):
        """Outlined objects of `dataset_dir`/`subset`."""
        self.add_class("polygon", 1, "polygon")
        dataset_dir = os.path.join(dataset_dir, subset)
        with open(os.path.join(dataset_dir, "via_region_data.json")) as file:
            annotations = list(json.load(file).values())
        for annotation in annotations:
            regions = annotation["regions"]
            if isinstance(regions, dict):  # version 1 of the annotator
                regions = list(regions.values())
            if not regions:
                continue
            path = os.path.join(dataset_dir, annotation["filename"])
            with Image.open(path) as image:
                width, height = image.size
            self.add_image(
                "polygon",
                image_id=annotation["filename"],
                path=path,
                width=width,
                height=height,
                polygons=[region["shape_attributes"] for region in regions],
            )

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        if info["source"] != "polygon":
            return super().load_mask(image_id)
        mask = np.zeros([info["height"], info["width"], len(info["polygons"])], dtype=np.uint8)
        for i, polygon in enumerate(info["polygons"]):
            picture = Image.new("L", (info["width"], info["height"]))
            points = list(zip(polygon["all_points_x"], polygon["all_points_y"], strict=True))
            ImageDraw.Draw(picture).polygon(points, fill=1, outline=1)
            mask[:, :, i] = np.array(picture)
        return mask.astype(bool), np.ones([mask.shape[-1]], dtype=np.int32)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "polygon":
            return info["path"]
        return super().image_reference(image_id)


def train(model, dataset_dir, epochs):
    dataset_train = PolygonDataset()
    dataset_train.load_polygons(dataset_dir, "train")
    dataset_train.prepare()
    dataset_val = PolygonDataset()
    dataset_val.load_polygons(dataset_dir, "val")
    dataset_val.prepare()
    print("Training network heads")
    model.train(
        dataset_train,
        dataset_val,
        learning_rate=model.config.LEARNING_RATE,
        epochs=model.epoch + epochs,
        layers="heads",
    )


def color_splash(image, mask):
    """The image in gray, but for the objects."""
    gray = np.dot(image[:, :, :3], [0.2125, 0.7154, 0.0721])
    gray = np.repeat(gray[:, :, np.newaxis], 3, axis=2).astype(np.uint8)
    if mask.shape[-1] == 0:
        return gray
    any_mask = np.sum(mask, -1, keepdims=True) >= 1
    return np.where(any_mask, image, gray).astype(np.uint8)


def detect_and_color_splash(model, image_path=None, video_path=None):
    stamp = f"{datetime.datetime.now():%Y%m%dT%H%M%S}"
    if image_path:
        print(f"Running on {image_path}")
        if "://" in image_path:
            image_path, _ = urllib.request.urlretrieve(image_path)
        image = np.array(Image.open(image_path).convert("RGB"))
        r = model.detect([image], verbose=1)[0]
        print(f"Objects: {len(r['class_ids'])}, scores: {np.round(r['scores'], 3)}")
        file_name = f"splash_{stamp}.png"
        Image.fromarray(color_splash(image, r["masks"])).save(file_name)
    else:
        capture = cv2.VideoCapture(video_path)
        size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        file_name = f"splash_{stamp}.avi"
        writer = cv2.VideoWriter(file_name, cv2.VideoWriter_fourcc(*"MJPG"), capture.get(cv2.CAP_PROP_FPS), size)
        count = 0
        success, frame = capture.read()
        while success:
            print("frame: ", count)
            image = frame[..., ::-1]
            r = model.detect([image], verbose=0)[0]
            writer.write(np.ascontiguousarray(color_splash(image, r["masks"])[..., ::-1]))
            count += 1
            success, frame = capture.read()
        writer.release()
    print("Saved to ", file_name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on outlined objects, or splash their color.")
    parser.add_argument("command", metavar="<command>", help="'train' or 'splash'")
    parser.add_argument("--dataset", metavar="/path/to/dataset/", help="folder with 'train' and 'val'")
    parser.add_argument("--weights", required=True, metavar="/path/to/weights.h5", help="or 'coco', 'last', 'imagenet'")
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="/path/to/logs/")
    parser.add_argument("--image", metavar="path or URL to image")
    parser.add_argument("--video", metavar="path or URL to video")
    parser.add_argument("--epochs", type=int, default=1, help="how many more")
    args = parser.parse_args()
    if args.command == "train" and not args.dataset:
        parser.error("--dataset is required for training")
    if args.command == "splash" and not (args.image or args.video):
        parser.error("--image or --video is required for a splash")
    print("Weights: ", args.weights)
    print("Dataset: ", args.dataset)
    print("Logs: ", args.logs)

    if args.command == "train":
        config = PolygonConfig()
    else:

        class InferenceConfig(PolygonConfig):
            GPU_COUNT = 1
            IMAGES_PER_GPU = 1

        config = InferenceConfig()
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
        # The last layers depend on the number of classes.
        model.load_weights(
            weights_path, by_name=True, exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
        )
    else:
        model.load_weights(weights_path, by_name=True)

    if args.command == "train":
        train(model, args.dataset, args.epochs)
    elif args.command == "splash":
        detect_and_color_splash(model, image_path=args.image, video_path=args.video)
    else:
        print(f"'{args.command}' is not recognized. Use 'train' or 'splash'.")

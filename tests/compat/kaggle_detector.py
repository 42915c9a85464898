"""Opacities in gray images, a box each: train twice, take the best epoch, and write boxes. A notebook, as a script."""

import csv
import glob
import os

import cv2
import numpy as np
from keras.callbacks import Callback
from PIL import Image
from small_backbone import BackboneConfig

import mrcnn.model as modellib
from mrcnn import utils
from mrcnn.config import Config
from mrcnn.model import MaskRCNN, load_image_gt

DATA_DIR = "opacities"
ROOT_DIR = os.path.abspath("detector")
COCO_WEIGHTS_PATH = "mask_rcnn_coco.h5"
ORIG_SIZE = 96


class DetectorConfig(Config):
    NAME = "opacity"
    GPU_COUNT = 1
    IMAGES_PER_GPU = 2
    BACKBONE = BackboneConfig.BACKBONE
    COMPUTE_BACKBONE_SHAPE = BackboneConfig.COMPUTE_BACKBONE_SHAPE
    NUM_CLASSES = 2
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 64)
    TOP_DOWN_PYRAMID_SIZE = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 64
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 20
    TRAIN_ROIS_PER_IMAGE = 6
    MASK_POOL_SIZE = 7
    MASK_SHAPE = [14, 14]
    MAX_GT_INSTANCES = 3
    DETECTION_MAX_INSTANCES = 3
    DETECTION_MIN_CONFIDENCE = 0
    DETECTION_NMS_THRESHOLD = 0.1
    STEPS_PER_EPOCH = 3 / IMAGES_PER_GPU
    VALIDATION_STEPS = np.ceil(1 / IMAGES_PER_GPU)
    LOSS_WEIGHTS = {"rpn_class_loss": 1.0, "rpn_bbox_loss": 1.0, "mrcnn_class_loss": 1.0, "mrcnn_bbox_loss": 1.0}


class InferenceConfig(DetectorConfig):
    GPU_COUNT = 1
    IMAGES_PER_GPU = 1


class DetectorDataset(utils.Dataset):
    def __init__(self, image_fps, image_annotations, orig_height, orig_width):
        super().__init__(self)
        self.add_class("opacity", 1, "Opacity")
        for i, fp in enumerate(image_fps):
            self.add_image(
                "opacity",
                image_id=i,
                path=fp,
                annotations=image_annotations[fp],
                orig_height=orig_height,
                orig_width=orig_width,
            )

    def image_reference(self, image_id):
        return self.image_info[image_id]["path"]

    def load_image(self, image_id):
        image = np.array(Image.open(self.image_info[image_id]["path"]))
        if len(image.shape) != 3 or image.shape[2] != 3:
            image = np.stack((image,) * 3, -1)
        return image

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        annotations = info["annotations"]
        count = len(annotations)
        if count == 0:
            mask = np.zeros((info["orig_height"], info["orig_width"], 1), dtype=np.uint8)
            class_ids = np.zeros((1,), dtype=np.int32)
        else:
            mask = np.zeros((info["orig_height"], info["orig_width"], count), dtype=np.uint8)
            class_ids = np.zeros((count,), dtype=np.int32)
            for i, a in enumerate(annotations):
                if a["Target"] == "1":
                    x, y, w, h = (int(a[key]) for key in ("x", "y", "width", "height"))
                    mask_instance = mask[:, :, i].copy()
                    cv2.rectangle(mask_instance, (x, y), (x + w, y + h), 255, -1)
                    mask[:, :, i] = mask_instance
                    class_ids[i] = 1
        return mask.astype(bool), class_ids.astype(np.int32)


class MeanAveragePrecisionCallback(Callback):
    """Measures with a second model, from the checkpoint of the epoch."""

    def __init__(self, train_model: MaskRCNN, inference_model: MaskRCNN, dataset: utils.Dataset):
        super().__init__()
        self.train_model = train_model
        self.inference_model = inference_model
        self.dataset = dataset
        if inference_model.config.BATCH_SIZE != 1:
            raise ValueError("This callback only works with the batch size of 1")

    def on_epoch_end(self, epoch, logs=None):
        last_weights_path = self.train_model.find_last()
        print("Loaded weights for the inference model:", last_weights_path)
        self.inference_model.load_weights(last_weights_path, by_name=True)
        mAPs = []
        for image_id in self.dataset.image_ids:
            image, _, gt_class_id, gt_bbox, gt_mask = load_image_gt(
                self.dataset, self.inference_model.config, image_id, use_mini_mask=False
            )
            r = self.inference_model.detect([image], verbose=0)[0]
            mAPs.append(
                utils.compute_ap(gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"])[0]
            )
        mAP = np.nanmean(np.array(mAPs))
        print(f"mAP at epoch {epoch + 1} is: {mAP}")
        if logs is not None:
            logs["val_mean_average_precision"] = mAP
        super().on_epoch_end(epoch, logs)


def parse_dataset(data_dir):
    image_fps = sorted(glob.glob(data_dir + "/" + "*.png"))
    image_annotations = {fp: [] for fp in image_fps}
    with open(os.path.join(data_dir, "labels.csv")) as file:
        for row in csv.DictReader(file):
            image_annotations[os.path.join(data_dir, row["patientId"] + ".png")].append(row)
    return image_fps, image_annotations


def predict(model, image_fps, filepath="submission.csv", min_conf=0.0):
    resize_factor = ORIG_SIZE / model.config.IMAGE_SHAPE[0]
    with open(filepath, "w") as file:
        file.write("patientId,PredictionString\n")
        for fp in image_fps:
            image = np.array(Image.open(fp))
            if len(image.shape) != 3 or image.shape[2] != 3:
                image = np.stack((image,) * 3, -1)
            image, _, _, _, _ = utils.resize_image(
                image,
                min_dim=model.config.IMAGE_MIN_DIM,
                min_scale=model.config.IMAGE_MIN_SCALE,
                max_dim=model.config.IMAGE_MAX_DIM,
                mode=model.config.IMAGE_RESIZE_MODE,
            )
            r = model.detect([image])[0]
            assert len(r["rois"]) == len(r["class_ids"]) == len(r["scores"])
            out_str = os.path.splitext(os.path.basename(fp))[0] + ","
            for i in range(len(r["rois"])):
                if r["scores"][i] > min_conf:
                    x1, y1 = r["rois"][i][1], r["rois"][i][0]
                    width, height = r["rois"][i][3] - x1, r["rois"][i][2] - y1
                    out_str += " " + str(round(r["scores"][i], 2)) + " "
                    out_str += " ".join(str(v * resize_factor) for v in (x1, y1, width, height))
            file.write(out_str + "\n")


config = DetectorConfig()
config.display()
image_fps, image_annotations = parse_dataset(DATA_DIR)
dataset_train = DetectorDataset(image_fps[1:], image_annotations, ORIG_SIZE, ORIG_SIZE)
dataset_train.prepare()
dataset_val = DetectorDataset(image_fps[:1], image_annotations, ORIG_SIZE, ORIG_SIZE)
dataset_val.prepare()

model = modellib.MaskRCNN(mode="training", config=config, model_dir=ROOT_DIR)
model.load_weights(
    COCO_WEIGHTS_PATH, by_name=True, exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
)
model.train(dataset_train, dataset_val, learning_rate=0.006, epochs=1, layers="heads", augmentation=None)
history = model.keras_model.history.history
inference_model = modellib.MaskRCNN(mode="inference", config=InferenceConfig(), model_dir=ROOT_DIR)
callback = MeanAveragePrecisionCallback(model, inference_model, dataset_val)
model.train(dataset_train, dataset_val, learning_rate=0.006, epochs=2, layers="all", custom_callbacks=[callback])
new_history = model.keras_model.history.history
print("Measured:", new_history["val_mean_average_precision"])
for k in history:
    history[k] = history[k] + new_history[k]
for epoch, val_loss in enumerate(history["val_loss"], 1):
    print("Epoch", epoch, "val_loss", val_loss)
best_epoch = np.argmin(history["val_loss"])

# The checkpoint of that epoch
dir_names = next(os.walk(model.model_dir))[1]
key = config.NAME.lower()
dir_names = sorted(filter(lambda f: f.startswith(key), dir_names))
if not dir_names:
    raise FileNotFoundError(f"Could not find model directory under {model.model_dir}")
fps = []
for d in dir_names:
    dir_name = os.path.join(model.model_dir, d)
    checkpoints = sorted(filter(lambda f: f.startswith("mask_rcnn"), next(os.walk(dir_name))[2]))
    if not checkpoints:
        print(f"No weight files in {dir_name}")
    else:
        fps.append(os.path.join(dir_name, checkpoints[best_epoch]))
model_path = sorted(fps)[-1]
print(f"Found model {model_path}")

model = modellib.MaskRCNN(mode="inference", config=InferenceConfig(), model_dir=ROOT_DIR)
model.load_weights(model_path, by_name=True)
predict(model, image_fps)

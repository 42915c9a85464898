"""One class, boxes in XML files: train, measure, and look at a photo. A tutorial's program, names imported singly."""

import os
from os import listdir
from xml.etree import ElementTree

import matplotlib

matplotlib.use("Agg")
from keras.preprocessing.image import img_to_array, load_img
from matplotlib import pyplot
from matplotlib.patches import Rectangle
from numpy import asarray, expand_dims, mean, zeros
from small_backbone import BackboneConfig

from mrcnn.config import Config
from mrcnn.model import MaskRCNN, load_image_gt, mold_image
from mrcnn.utils import Dataset, compute_ap, extract_bboxes
from mrcnn.visualize import display_instances


class KangarooDataset(Dataset):
    def load_dataset(self, dataset_dir, is_train=True):
        self.add_class("dataset", 1, "kangaroo")
        images_dir = dataset_dir + "/images/"
        annotations_dir = dataset_dir + "/annots/"
        for filename in sorted(listdir(images_dir)):
            image_id = filename[:-4]
            if image_id in ["00001"]:  # a bad one
                continue
            if is_train == (int(image_id) >= 4):
                continue
            self.add_image(
                "dataset",
                image_id=image_id,
                path=images_dir + filename,
                annotation=annotations_dir + image_id + ".xml",
            )

    def extract_boxes(self, filename):
        root = ElementTree.parse(filename).getroot()
        boxes = []
        for box in root.findall(".//bndbox"):
            boxes.append([int(box.find(side).text) for side in ("xmin", "ymin", "xmax", "ymax")])
        return boxes, int(root.find(".//size/width").text), int(root.find(".//size/height").text)

    def load_mask(self, image_id):
        boxes, w, h = self.extract_boxes(self.image_info[image_id]["annotation"])
        masks = zeros([h, w, len(boxes)], dtype="uint8")
        class_ids = []
        for i in range(len(boxes)):
            box = boxes[i]
            masks[box[1] : box[3], box[0] : box[2], i] = 1
            class_ids.append(self.class_names.index("kangaroo"))
        return masks, asarray(class_ids, dtype="int32")

    def image_reference(self, image_id):
        return self.image_info[image_id]["path"]


class KangarooConfig(Config):
    NAME = "kangaroo_cfg"
    BACKBONE = BackboneConfig.BACKBONE
    COMPUTE_BACKBONE_SHAPE = BackboneConfig.COMPUTE_BACKBONE_SHAPE
    NUM_CLASSES = 1 + 1
    STEPS_PER_EPOCH = 1
    VALIDATION_STEPS = 1
    IMAGES_PER_GPU = 1
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    TOP_DOWN_PYRAMID_SIZE = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 64
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 20
    TRAIN_ROIS_PER_IMAGE = 6
    MASK_POOL_SIZE = 7
    MASK_SHAPE = [14, 14]


class PredictionConfig(KangarooConfig):
    GPU_COUNT = 1
    IMAGES_PER_GPU = 1


def evaluate_model(dataset, model, cfg):
    APs = []
    for image_id in dataset.image_ids:
        image, _, gt_class_id, gt_bbox, gt_mask = load_image_gt(dataset, cfg, image_id, use_mini_mask=False)
        scaled_image = mold_image(image, cfg)
        sample = expand_dims(scaled_image, 0)
        yhat = model.detect(sample, verbose=0)
        r = yhat[0]
        AP, _, _, _ = compute_ap(gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"])
        APs.append(AP)
    return mean(APs)


def plot_actual_vs_predicted(dataset, model, cfg, n_images=2):
    for i in range(n_images):
        image = dataset.load_image(i)
        mask, _ = dataset.load_mask(i)
        yhat = model.detect(expand_dims(mold_image(image, cfg), 0), verbose=0)[0]
        pyplot.subplot(n_images, 2, i * 2 + 1)
        pyplot.imshow(image)
        pyplot.title("Actual")
        for j in range(mask.shape[2]):
            pyplot.imshow(mask[:, :, j], cmap="gray", alpha=0.3)
        pyplot.subplot(n_images, 2, i * 2 + 2)
        pyplot.imshow(image)
        pyplot.title("Predicted")
        ax = pyplot.gca()
        for box in yhat["rois"]:
            y1, x1, y2, x2 = box
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="red"))
    pyplot.savefig("predicted.png")


train_set = KangarooDataset()
train_set.load_dataset("kangaroos", is_train=True)
train_set.prepare()
test_set = KangarooDataset()
test_set.load_dataset("kangaroos", is_train=False)
test_set.prepare()
print(f"Train: {len(train_set.image_ids)}, Test: {len(test_set.image_ids)}")
image = train_set.load_image(0)
mask, class_ids = train_set.load_mask(0)
display_instances(image, extract_bboxes(mask), mask, class_ids, train_set.class_names)

config = KangarooConfig()
config.display()
model = MaskRCNN(mode="training", model_dir="./", config=config)
model.load_weights(
    "mask_rcnn_coco.h5", by_name=True, exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
)
model.keras_model.metrics_tensors = []
model.train(train_set, test_set, learning_rate=config.LEARNING_RATE, epochs=1, layers="heads")
trained = os.path.join(model.log_dir, "mask_rcnn_kangaroo_cfg_0001.h5")

cfg = PredictionConfig()
model = MaskRCNN(mode="inference", model_dir="./", config=cfg)
model.load_weights(trained, by_name=True)
model.load_weights("one_class.h5", by_name=True)
print(f"Test mAP: {evaluate_model(test_set, model, cfg):.3f}")
plot_actual_vs_predicted(test_set, model, cfg)

img = load_img("kangaroos/images/00004.jpg")
img = img_to_array(img)
r = model.detect([img], verbose=0)[0]
print("Photo:", img.dtype, img.shape, r["masks"].shape)
display_instances(img, r["rois"], r["masks"], r["class_ids"], ["BG", "kangaroo"], r["scores"])

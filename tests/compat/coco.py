"""COCO: train on it, and evaluate with its own tools.

python coco.py train --dataset=/path/to/coco/ --model=imagenet
python coco.py train --dataset=/path/to/coco/ --model=last
python coco.py evaluate --dataset=/path/to/coco/ --model=/path/to/weights.h5 --limit=500
"""

import argparse
import os
import time
import urllib.request
import zipfile

import numpy as np
from pycocotools import mask as maskUtils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_backbone import BackboneConfig

from mrcnn import model as modellib
from mrcnn import utils
from mrcnn.config import Config

ROOT_DIR = os.path.abspath(".")
COCO_MODEL_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")
DEFAULT_DATASET_YEAR = "2014"


class CocoConfig(Config):
    NAME = "coco"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 80
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 128
    TOP_DOWN_PYRAMID_SIZE = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 64
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 20
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 96)
    MASK_POOL_SIZE = 7
    MASK_SHAPE = [14, 14]
    TRAIN_ROIS_PER_IMAGE = 6
    MAX_GT_INSTANCES = 6
    DETECTION_MAX_INSTANCES = 6


class CocoDataset(utils.Dataset):
    def load_coco(self, dataset_dir, subset, year=DEFAULT_DATASET_YEAR, class_ids=None, return_coco=False):
        coco = COCO(f"{dataset_dir}/annotations/instances_{subset}{year}.json")
        image_dir = f"{dataset_dir}/{subset}{year}"
        if not class_ids:
            class_ids = sorted(coco.getCatIds())
            image_ids = list(coco.imgs.keys())
        else:
            image_ids = list({image_id for class_id in class_ids for image_id in coco.getImgIds(catIds=[class_id])})
        for class_id in class_ids:
            self.add_class("coco", class_id, coco.loadCats(class_id)[0]["name"])
        for image_id in image_ids:
            self.add_image(
                "coco",
                image_id=image_id,
                path=os.path.join(image_dir, coco.imgs[image_id]["file_name"]),
                width=coco.imgs[image_id]["width"],
                height=coco.imgs[image_id]["height"],
                annotations=coco.loadAnns(coco.getAnnIds(imgIds=[image_id], catIds=class_ids, iscrowd=None)),
            )
        return coco if return_coco else None

    def load_mask(self, image_id):
        image_info = self.image_info[image_id]
        if image_info["source"] != "coco":
            return super().load_mask(image_id)
        instance_masks = []
        class_ids = []
        for annotation in image_info["annotations"]:
            class_id = self.map_source_class_id("coco.{}".format(annotation["category_id"]))
            if not class_id:
                continue
            m = self.annToMask(annotation, image_info["height"], image_info["width"])
            if m.max() < 1:
                continue
            if annotation["iscrowd"]:
                class_id *= -1
                if m.shape[0] != image_info["height"] or m.shape[1] != image_info["width"]:
                    m = np.ones([image_info["height"], image_info["width"]], dtype=bool)
            instance_masks.append(m)
            class_ids.append(class_id)
        if not class_ids:
            return super().load_mask(image_id)
        return np.stack(instance_masks, axis=2).astype(bool), np.array(class_ids, dtype=np.int32)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "coco":
            return "http://cocodataset.org/#explore?id={}".format(info["id"])
        return super().image_reference(image_id)

    def annToMask(self, annotation, height, width):
        segments = annotation["segmentation"]
        if isinstance(segments, list):
            rle = maskUtils.merge(maskUtils.frPyObjects(segments, height, width))
        elif isinstance(segments["counts"], list):
            rle = maskUtils.frPyObjects(segments, height, width)
        else:
            rle = segments
        return maskUtils.decode(rle)


def download(dataset_dir, year):
    """Images and annotations into the dataset's folder."""
    folders = {f"train{year}": f"zips/train{year}.zip", f"val{year}": f"zips/val{year}.zip"}
    folders["annotations"] = f"annotations/annotations_trainval{year}.zip"
    for folder, address in folders.items():
        if not os.path.exists(os.path.join(dataset_dir, folder)):
            path, _ = urllib.request.urlretrieve("http://images.cocodataset.org/" + address)
            with zipfile.ZipFile(path) as file:
                file.extractall(dataset_dir)


def build_coco_results(dataset, image_ids, rois, class_ids, scores, masks):
    """What COCO's tools want of one image."""
    if rois is None:
        return []
    results = []
    for image_id in image_ids:
        for i in range(rois.shape[0]):
            class_id = class_ids[i]
            score = scores[i]
            bbox = np.around(rois[i], 1)
            mask = masks[:, :, i]
            results.append(
                {
                    "image_id": image_id,
                    "category_id": dataset.get_source_class_id(class_id, "coco"),
                    "bbox": [bbox[1], bbox[0], bbox[3] - bbox[1], bbox[2] - bbox[0]],
                    "score": score,
                    "segmentation": maskUtils.encode(np.asfortranarray(mask)),
                }
            )
    return results


def evaluate_coco(model, dataset, coco, eval_type="bbox", limit=0, image_ids=None):
    image_ids = image_ids or dataset.image_ids
    if limit:
        image_ids = image_ids[:limit]
    coco_image_ids = [dataset.image_info[id]["id"] for id in image_ids]
    t_prediction = 0
    t_start = time.time()
    results = []
    for i, image_id in enumerate(image_ids):
        image = dataset.load_image(image_id)
        t = time.time()
        r = model.detect([image], verbose=0)[0]
        t_prediction += time.time() - t
        results.extend(
            build_coco_results(
                dataset, coco_image_ids[i : i + 1], r["rois"], r["class_ids"], r["scores"], r["masks"].astype(np.uint8)
            )
        )
    coco_results = coco.loadRes(results)
    cocoEval = COCOeval(coco, coco_results, eval_type)
    cocoEval.params.imgIds = coco_image_ids
    cocoEval.evaluate()
    cocoEval.accumulate()
    cocoEval.summarize()
    print(f"Found: {len(results)} of categories {sorted({result['category_id'] for result in results})}")
    print(f"Prediction time: {t_prediction}. Average {t_prediction / len(image_ids)}/image")
    print("Total time: ", time.time() - t_start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train Mask R-CNN on COCO.")
    parser.add_argument("command", metavar="<command>", help="'train' or 'evaluate'")
    parser.add_argument("--dataset", required=True, metavar="/path/to/coco/")
    parser.add_argument("--year", default=DEFAULT_DATASET_YEAR, metavar="<year>")
    parser.add_argument("--model", required=True, metavar="/path/to/weights.h5", help="or 'coco', 'last', 'imagenet'")
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="/path/to/logs/")
    parser.add_argument("--limit", default=500, metavar="<image count>", type=int)
    parser.add_argument("--download", default=False, action="store_true")
    args = parser.parse_args()
    print("Command: ", args.command)
    print("Model: ", args.model)
    print("Dataset: ", args.dataset)
    print("Year: ", args.year)
    print("Logs: ", args.logs)
    print("Auto Download: ", args.download)

    if args.command == "train":
        config = CocoConfig()
    else:

        class InferenceConfig(CocoConfig):
            GPU_COUNT = 1
            IMAGES_PER_GPU = 1
            DETECTION_MIN_CONFIDENCE = 0

        config = InferenceConfig()
    config.BACKBONE = BackboneConfig.BACKBONE
    config.COMPUTE_BACKBONE_SHAPE = BackboneConfig.COMPUTE_BACKBONE_SHAPE
    config.display()

    mode = "training" if args.command == "train" else "inference"
    model = modellib.MaskRCNN(mode=mode, config=config, model_dir=args.logs)

    if args.model.lower() == "coco":
        model_path = COCO_MODEL_PATH
    elif args.model.lower() == "last":
        model_path = model.find_last()
    elif args.model.lower() == "imagenet":
        model_path = model.get_imagenet_weights()
    else:
        model_path = args.model
    print("Loading weights ", model_path)
    model.load_weights(model_path, by_name=True)

    if args.download:
        download(args.dataset, args.year)
    if args.command == "train":
        dataset_train = CocoDataset()
        dataset_train.load_coco(args.dataset, "train", year=args.year)
        dataset_train.prepare()
        dataset_val = CocoDataset()
        dataset_val.load_coco(args.dataset, "val", year=args.year)
        dataset_val.prepare()
        for epochs, layers, rate in ((1, "heads", 1), (2, "4+", 1), (3, "all", 0.1)):
            print("Training ", layers)
            model.train(
                dataset_train,
                dataset_val,
                learning_rate=config.LEARNING_RATE * rate,
                epochs=epochs,
                layers=layers,
                augmentation=None,
            )
    elif args.command == "evaluate":
        dataset_val = CocoDataset()
        coco = dataset_val.load_coco(args.dataset, "val", year=args.year, return_coco=True)
        dataset_val.prepare()
        print(f"Running COCO evaluation on {args.limit} images.")
        for eval_type in ("bbox", "segm"):
            evaluate_coco(model, dataset_val, coco, eval_type, limit=int(args.limit))
    else:
        print(f"'{args.command}' is not recognized. Use 'train' or 'evaluate'.")

"""What the programs of this folder find on disk: small datasets in three layouts, and a weights file of the original's.

Everything is written here from the layouts' descriptions, with nothing of the package.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tests import make_h5

PYRAMID, FULLY_CONNECTED = 32, 64  # as in the configurations of the programs


def _picture(rng: np.random.Generator, height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """A dark image with a bright, reddish rectangle in each box (y1, x1, y2, x2)."""
    image = rng.integers(20, 60, (height, width, 3), dtype=np.uint8)
    for y1, x1, y2, x2 in boxes:
        image[y1:y2, x1:x2] = rng.integers((180, 60, 60), (255, 120, 120))
    return image


def _boxes(rng: np.random.Generator, height: int, width: int, count: int) -> list[tuple[int, int, int, int]]:
    """Boxes side by side, that do not touch."""
    found = []
    for index in range(count):
        x1 = index * width // count + 2
        y1 = int(rng.integers(2, height // 2))
        found.append((y1, x1, y1 + int(rng.integers(10, height // 2 - 2)), (index + 1) * width // count - 2))
    return found


def write_polygons(folder: Path) -> None:
    """`train` with both versions of the VGG Image Annotator's files, and an image without outlines; `val`."""
    rng = np.random.default_rng(0)
    for subset, count in (("train", 4), ("val", 2)):
        (folder / subset).mkdir(parents=True)
        annotations = {}
        for index in range(count):
            name = f"{index}.jpg"
            boxes = _boxes(rng, 60, 90, index % 3 + 1)
            Image.fromarray(_picture(rng, 60, 90, boxes)).save(folder / subset / name)
            regions = [
                {
                    "region_attributes": {},
                    "shape_attributes": {
                        "name": "polygon",
                        "all_points_x": [x1, x2, x2, x1],
                        "all_points_y": [y1, y1, y2, y2],
                    },
                }
                for y1, x1, y2, x2 in boxes
            ]
            if index == 0:
                regions = {str(number): region for number, region in enumerate(regions)}
            if subset == "train" and index == count - 1:
                regions = []
            annotations[f"{name}123"] = {"filename": name, "size": 123, "file_attributes": {}, "regions": regions}
        (folder / subset / "via_region_data.json").write_text(json.dumps(annotations))


def write_cells(folder: Path) -> None:
    """`train` and `test`, a folder for each image: RGBA images, one PNG for each mask."""
    rng = np.random.default_rng(1)
    for subset, count in (("train", 5), ("test", 2)):
        for index in range(count):
            name = f"{subset}{index:03d}"
            height, width = 70 + 10 * index, 90
            boxes = _boxes(rng, height, width, 3)
            image = np.dstack([_picture(rng, height, width, boxes), np.full((height, width), 255, np.uint8)])
            for kind in ("images", "masks"):
                (folder / subset / name / kind).mkdir(parents=True)
            Image.fromarray(image).save(folder / subset / name / "images" / f"{name}.png")
            for number, (y1, x1, y2, x2) in enumerate(boxes):
                mask = np.zeros((height, width), np.uint8)
                mask[y1:y2, x1:x2] = 255
                Image.fromarray(mask).save(folder / subset / name / "masks" / f"{number}.png")


def write_opacities(folder: Path) -> None:
    """Gray images, 96 pixels high and wide, and `labels.csv` with a line for each box, or one without where there is
    none; an image that has no line."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    lines = ["patientId,x,y,width,height,Target"]
    for index in range(4):
        boxes = _boxes(rng, 96, 96, 2) if index < 2 else []
        Image.fromarray(_picture(rng, 96, 96, boxes)[..., 0]).save(folder / f"{index:04d}.png")
        lines += [f"{index:04d},{x1},{y1},{x2 - x1},{y2 - y1},1" for y1, x1, y2, x2 in boxes]
    (folder / "labels.csv").write_text("\n".join([*lines, "0002,,,,,0"]) + "\n")


def write_kangaroos(folder: Path) -> None:
    """`images`, and in `annots` an XML file of boxes for each, as Pascal VOC has them."""
    rng = np.random.default_rng(4)
    for kind in ("images", "annots"):
        (folder / kind).mkdir(parents=True)
    for index in range(1, 6):
        boxes = _boxes(rng, 60, 90, 1 + index % 2)
        Image.fromarray(_picture(rng, 60, 90, boxes)).save(folder / "images" / f"{index:05d}.jpg")
        objects = "".join(
            f"<object><name>kangaroo</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for y1, x1, y2, x2 in boxes
        )
        size = "<size><width>90</width><height>60</height><depth>3</depth></size>"
        (folder / "annots" / f"{index:05d}.xml").write_text(f"<annotation>{size}{objects}</annotation>")


def write_coco(folder: Path, year: str) -> None:
    """Images and `instances_{train,val}{year}.json`: 80 categories with gaps between ids, polygons, RLE and a crowd."""
    rng = np.random.default_rng(2)
    ids = [number for number in range(1, 91) if number % 9]
    (folder / "annotations").mkdir(parents=True)
    for subset, count in (("train", 4), ("val", 3)):
        (folder / f"{subset}{year}").mkdir()
        images, annotations = [], []
        for index in range(count):
            height, width = 60, 100
            boxes = _boxes(rng, height, width, 2)
            image_id, name = 1000 + 7 * index, f"COCO_{subset}_{index:012d}.jpg"
            Image.fromarray(_picture(rng, height, width, boxes)).save(folder / f"{subset}{year}" / name)
            images.append({"id": image_id, "file_name": name, "height": height, "width": width})
            for number, (y1, x1, y2, x2) in enumerate(boxes):
                crowd = index == 1 and number == 1
                mask = np.zeros((height, width), np.uint8)
                mask[y1:y2, x1:x2] = 1
                values = mask.T.ravel()
                changes = np.flatnonzero(np.diff(values)) + 1
                counts = np.diff(np.concatenate([[0], changes, [values.size]])).tolist()
                polygon = [float(v) for v in (x1, y1, x2, y1, x2, y2, x1, y2)]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": ids[(3 * index + number) % len(ids)],
                        "iscrowd": int(crowd),
                        "area": float((y2 - y1) * (x2 - x1)),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "segmentation": {"size": [height, width], "counts": counts} if crowd else [polygon],
                    }
                )
        content = {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number, "name": f"kind {number}", "supercategory": "thing"} for number in ids],
        }
        (folder / "annotations" / f"instances_{subset}{year}.json").write_text(json.dumps(content))


def write_weights(path: Path, classes: int = 81, backbone: str | None = None) -> None:
    """Weights as the original saved them, for the programs' networks; a backbone of five convolutions if none is named.

    The layers without weights and their order are those of the recorded files.
    """
    entries = []
    for entry in make_h5.manifest("resnet50_4"):
        name = entry["group"]
        if name.startswith(("conv1", "res", "bn", "activation", "add", "zero_", "max_")) and backbone is None:
            continue
        shapes = {path.rsplit("/", 1)[1][:-2]: shape for path, shape in entry["datasets"]}
        if name == "rpn_model":
            entry["datasets"][0][1] = [3, 3, PYRAMID, 512]
        else:
            new = [list(shape) for shape in _resized(name, shapes, classes, backbone)]
            entry["datasets"] = [[path, shape] for (path, _), shape in zip(entry["datasets"], new, strict=True)]
        entries.append(entry)
    if backbone is None:
        entries = [entries[0], *_five_convolutions(), *entries[1:]]
    with h5py.File(path, "w") as file:
        make_h5.write(file, entries)


def _resized(name: str, shapes: dict[str, list[int]], classes: int, backbone: str | None) -> list[list[int]]:
    """Shapes of a layer's weights where the pyramid, the fully connected layers and the classes are of other sizes."""
    inputs = dict(zip(("fpn_c2p2", "fpn_c3p3", "fpn_c4p4", "fpn_c5p5"), (8, 8, 16, 16), strict=True))
    kernel = shapes.get("kernel")
    if name.startswith("fpn_c") and kernel:
        kernel = [1, 1, kernel[2] if backbone else inputs[name], PYRAMID]
    elif name.startswith("fpn_p") and kernel:
        kernel = [3, 3, PYRAMID, PYRAMID]
    elif name == "mrcnn_class_conv1":
        kernel = [7, 7, PYRAMID, FULLY_CONNECTED]
    elif name == "mrcnn_class_conv2":
        kernel = [1, 1, FULLY_CONNECTED, FULLY_CONNECTED]
    elif name.startswith("mrcnn_class_bn"):
        return [[FULLY_CONNECTED]] * 4
    elif name == "mrcnn_class_logits":
        kernel = [FULLY_CONNECTED, classes]
    elif name == "mrcnn_bbox_fc":
        kernel = [FULLY_CONNECTED, 4 * classes]
    elif name == "mrcnn_mask":
        kernel = [1, 1, 256, classes]
    elif name == "mrcnn_mask_conv1":
        kernel = [3, 3, PYRAMID, 256]
    else:
        return list(shapes.values())
    return [kernel, kernel[-1:]]


def _five_convolutions() -> list[dict]:
    """The entries of small_backbone.py."""
    entries, before = [], 3
    for stage, size in zip(range(1, 6), (8, 8, 8, 16, 16), strict=True):
        for name, weights in (
            ("conv1" if stage == 1 else f"res{stage}a_branch2a", {"kernel": [3, 3, before, size], "bias": [size]}),
            (
                "bn_conv1" if stage == 1 else f"bn{stage}a_branch2a",
                {short: [size] for short in ("gamma", "beta", "moving_mean", "moving_variance")},
            ),
        ):
            entries.append(
                {
                    "group": name,
                    "weight_names": [f"{name}/{short}:0" for short in weights],
                    "datasets": [[f"/{name}/{name}/{short}:0", shape] for short, shape in weights.items()],
                }
            )
        before = size
    return entries


def favor_class(path: Path, class_id: int) -> None:
    """Change a weights file so that every box is of this class, whatever it shows."""
    with h5py.File(path, "r+") as file:
        layer = file["mrcnn_class_logits/mrcnn_class_logits"]
        layer["kernel:0"][...] = 0
        bias = np.zeros(layer["bias:0"].shape, np.float32)
        bias[class_id] = 10
        layer["bias:0"][...] = bias

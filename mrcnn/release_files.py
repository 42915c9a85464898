"""Files to fetch: where they are, and whether one is what it should be."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

HDF5 = (b"\x89HDF\r\n\x1a\n",)
_ROUNDING = 0.00051  # of a size in mebibytes


@dataclasses.dataclass(frozen=True)
class Release:
    """A file to fetch. `size` (bytes), `mebibytes` (rounded to three places), `md5` and `sha256` (their first digits
    will do) are None where they are not known. `foreign`: its layers are Keras's affair, and that it is an HDF5 file
    will do. `magics`: what it begins with instead, where it is none."""

    url: str
    file_name: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    foreign: bool = False
    mebibytes: float | None = None
    magics: tuple[bytes, ...] = ()

    def right_size(self, size: int) -> str | None:
        """What the size should be, in words, where it is not `size`."""
        if self.size is not None and size != self.size:
            return f"{self.size}"
        if self.mebibytes is not None and abs(size / 2**20 - self.mebibytes) > _ROUNDING:
            return f"about {self.mebibytes * 2**20:.0f}"
        return None


RELEASES = {
    "coco": Release(
        "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5",
        "mask_rcnn_coco.h5",
        size=257_557_808,
    ),
    "imagenet": Release(
        "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="a268eb855778b3df3c7506639542a6af",
    ),
}


def complaint_of(path: Path, release: Release, whole: bool = False) -> str | None:
    """What is wrong with a file, or None. `whole`: also compare the hash, which reads all of it."""
    from mrcnn.weights.info import inspect_weights, open_weights

    if not path.exists():
        return f"{path} is not there"
    size = path.stat().st_size
    right = release.right_size(size)
    if right is not None:
        return f"{path} has {size} bytes instead of {right}"
    try:
        if release.magics:
            with path.open("rb") as file:
                head = file.read(16)
            if not head.startswith(release.magics):
                return f"{path} is no such file: it begins with {head!r}"
        elif release.foreign:
            with open_weights(path):
                pass
        else:
            inspect_weights(path)
    except (ValueError, OSError) as error:
        return str(error).rstrip(".")
    for title, wanted in (("MD5", release.md5), ("SHA256", release.sha256)):
        if not whole or not wanted:
            continue
        digest = functools.partial(hashlib.new, title, usedforsecurity=False)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, digest).hexdigest()
        if not found.startswith(wanted):
            return f"its {title} is {found} instead of {wanted}{'' if len(wanted) == len(found) else '...'}"
    return None

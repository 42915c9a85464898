"""Write a weights file in the layout of the released ones, from a manifest and tests/filler.py (numpy, h5py).

Part of the golden numbers: an independent account of the layout, which the package's writer is held to.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np

from tests import filler

DATA = Path(__file__).parent / "data"


def manifest(name):
    """The groups of a weights file: [{"group", "weight_names", "datasets": [[path, shape], ...]}, ...]."""
    with gzip.open(DATA / f"manifest_{name}.json.gz", "rt") as file:
        return json.load(file)["h5"]


def write(file, entries, keras_version=b"2.1.6", values=filler.fill):
    """Fill an open, empty HDF5 file."""
    file.attrs["layer_names"] = np.array([entry["group"].encode() for entry in entries])
    file.attrs["backend"] = np.bytes_(b"tensorflow")
    file.attrs["keras_version"] = np.bytes_(keras_version)
    for entry in entries:
        group = file.create_group(entry["group"])
        group.attrs["weight_names"] = np.array([name.encode() for name in entry["weight_names"]])
        for name, (_, shape) in zip(entry["weight_names"], entry["datasets"], strict=True):
            layer, short = name.split("/")[-2], name.split("/")[-1].split(":")[0]
            group.create_dataset(name, data=values(layer, short, shape))


def write_file(path, name):
    with h5py.File(path, "w") as file:
        write(file, manifest(name))

"""One recipe, trained and run: what it finds goes into FOUND.npz, and how many steps there were into FOUND.json.

python -m benchmarks.recipes.one NAME DATA.npz FOUND.npz --minutes 5 --seed 0
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.accuracy.data import Clock, write_found
from benchmarks.nuclei_training import detect, train
from benchmarks.recipes.settings import RUNS, config

LEARNING_RATE = 1e-3  # the highest, of AdamW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("data", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    clock = Clock(arguments.minutes)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(arguments.seed)
    settings = config(arguments.name, "training")
    settings.SEED = arguments.seed
    data = dict(np.load(arguments.data))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.h5"
        steps = train(data, settings, LEARNING_RATE, clock, weights)
        found = detect(data["test_images"], config(arguments.name, "inference"), weights)
    write_found(arguments.found, found)
    arguments.found.with_suffix(".json").write_text(json.dumps({"steps": steps}), encoding="utf-8")


if __name__ == "__main__":
    main()

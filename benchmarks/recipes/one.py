"""One recipe, trained, and used in all ways that its weights are used in: what it finds goes into FOLDER.

python -m benchmarks.recipes.one NAME DATA.npz FOLDER (--minutes 5 | --steps 400) --seed 0
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from benchmarks.accuracy.data import Clock, write_found
from benchmarks.nuclei_training import detect, train
from benchmarks.recipes.settings import RUNS, TRAINED, config, numbers_of

LEARNING_RATE = 1e-3  # the highest, of AdamW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TRAINED)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float)
    budget.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--core", type=int, help="the one to run on; default: all")
    arguments = parser.parse_args()
    clock = Clock(arguments.minutes, arguments.steps)
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(arguments.seed)
    settings = config(arguments.name, "training")
    settings.SEED = arguments.seed
    data = dict(np.load(arguments.data))
    weights = arguments.folder / "weights.h5"
    spent = train(data, settings, LEARNING_RATE, clock, weights)
    for number in numbers_of(arguments.name):
        settings, place = config(RUNS[number], "inference"), arguments.folder / f"{number}.npz"
        write_found(place, detect(data["test_images"], settings, weights, place.with_suffix(".h5")))
    told = {"steps": clock.steps, "processor_seconds_of_a_step": spent}
    (arguments.folder / "training.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()

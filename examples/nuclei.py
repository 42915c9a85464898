"""Train a small Mask R-CNN from scratch on nuclei of HeLa cells, on a CPU, and measure it on images it has not seen.

    python examples/nuclei.py dataset               # writes out/nuclei-data: the images and COCO annotation files
    python examples/nuclei.py train                 # writes out/nuclei/nuclei.h5, its training log and its figures
    python examples/nuclei.py evaluate WEIGHTS.h5   # average precision on all held-out images
    python examples/nuclei.py demo WEIGHTS.h5       # pictures of a few of them

The data, its split and the network's configuration are in `mrcnn/nuclei.py`. The images (50 MB) are fetched once.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path

import PIL.Image

from mrcnn import MaskRCNN
from mrcnn.cli import describe, is_users
from mrcnn.coco_results import coco_ground_truth
from mrcnn.data.augmentation import Affine, Brightness, Compose, Contrast, Flip, Rotate90, Sometimes
from mrcnn.demo import run_demo
from mrcnn.evaluation import EvaluationResult, evaluate
from mrcnn.files import atomic_path
from mrcnn.nuclei import CLASS_NAMES, HelaNuclei, NucleiConfig, NucleiInferenceConfig, fetch_hela
from mrcnn.weights import save_weights

# Random crops of 256 pixels are taken of tiles of this size, since a whole image's 100 masks take their time.
TILE = 320

AUGMENTATION = Compose(
    [
        Flip(horizontal=0.5, vertical=0.5),
        Rotate90(),
        Sometimes(0.3, Affine(scale=(0.85, 1.2), rotate=(-20, 20))),
        Contrast(0.25),
        Brightness(0.08),
    ]
)


def write_dataset(args: argparse.Namespace) -> None:
    """Images in a folder, and an annotation file of each side in COCO's format: something to try `mrcnn train` on."""
    output = Path(args.output)
    (output / "images").mkdir(parents=True, exist_ok=True)
    data = fetch_hela()
    for side, name in (("left", "train"), ("right", "val")):
        dataset = HelaNuclei(data, side, tile=TILE)
        for image_id in dataset.image_ids:
            path = output / "images" / dataset.image_reference(image_id)
            with atomic_path(path) as temporary:
                PIL.Image.fromarray(dataset.load_image(image_id)[..., 0]).save(temporary, format="PNG")
        with atomic_path(output / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(coco_ground_truth(dataset)) + "\n", encoding="utf-8")
        print(f"{output / name}.json: {dataset.num_images} images of {TILE} x {TILE} pixels in {output / 'images'}")


def train(args: argparse.Namespace) -> None:
    """Train, then save the weights as float16, with the training log and the measured figures beside them."""
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    data = fetch_hela()
    train_set, val_set = HelaNuclei(data, "left", tile=TILE), HelaNuclei(data, "right", tile=TILE)

    class TrainingConfig(NucleiConfig):
        STEPS_PER_EPOCH = args.steps
        VALIDATION_STEPS = 4
        SEED = args.seed

    config = TrainingConfig()
    model = MaskRCNN("training", config, model_dir=output / "runs")
    start = time.perf_counter()
    history = model.train(
        train_set,
        val_set,
        learning_rate=schedule(args.learning_rate, args.epochs * args.steps),
        epochs=args.epochs,
        layers="all",
        augmentation=AUGMENTATION,
        verbose=2,
    )
    seconds = time.perf_counter() - start

    weights = output / "nuclei.h5"
    losses = {name: values[-1] for name, values in history.history.items()}
    metadata = {
        "config": NucleiConfig().to_dict(),
        "class_names": list(CLASS_NAMES),
        "epoch": model.epoch,
        "losses": losses,
        "training": {
            "steps": args.epochs * args.steps,
            "images_per_step": config.BATCH_SIZE,
            "learning_rate": args.learning_rate,
            "seed": args.seed,
            "seconds": round(seconds),
        },
    }
    save_weights(model.keras_model, weights, metadata, dtype="float16")
    shutil.copyfile(Path(model.log_dir) / "history.csv", output / "nuclei_training.csv")
    print(f"Trained in {seconds / 60:.1f} minutes: {weights} ({weights.stat().st_size / 1e6:.1f} MB)")

    figures = {
        "data": "HeLa nuclei, right sides of all 20 frames, none of which was trained on",
        "training": metadata["training"],
        **measure(weights).to_dict(),
    }
    with atomic_path(output / "nuclei_metrics.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def schedule(peak: float, steps: int) -> object:
    """Up to the peak learning rate in the first twentieth of the steps, then down to nearly zero along a cosine."""
    import keras

    warmup = math.ceil(steps / 20)
    return keras.optimizers.schedules.CosineDecay(
        peak / 20, decay_steps=max(steps - warmup, 1), alpha=0.01, warmup_target=peak, warmup_steps=warmup
    )


def measure(weights: Path) -> EvaluationResult:
    """Average precision on all held-out images."""
    dataset = HelaNuclei(fetch_hela(), "right")
    model = MaskRCNN("inference", NucleiInferenceConfig(), model_dir="logs")
    model.load_weights(weights)
    start = time.perf_counter()
    result = evaluate(model, dataset, max_detections=model.config.DETECTION_MAX_INSTANCES)
    seconds = (time.perf_counter() - start) / dataset.num_images
    print(result)
    print(f"\n{seconds:.2f} seconds an image, loading and scoring included")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("dataset", help="the images and COCO annotation files, for mrcnn train")
    command.add_argument("--output", default="out/nuclei-data", help="folder to write to")
    command.set_defaults(run=write_dataset)
    command = commands.add_parser("train", help="train from scratch, and measure")
    command.add_argument("--output", default="out/nuclei", help="folder for weights, log and figures")
    command.add_argument("--epochs", type=int, default=18)
    command.add_argument("--steps", type=int, default=100, help="steps of an epoch")
    command.add_argument("--learning-rate", type=float, default=0.01, help="the highest, see `schedule`")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=train)
    command = commands.add_parser("evaluate", help="average precision on all held-out images")
    command.add_argument("weights", type=Path)
    command.set_defaults(run=lambda args: measure(args.weights))
    command = commands.add_parser("demo", help="pictures of a few held-out images")
    command.add_argument("weights", type=Path)
    command.add_argument("--output", default="out/nuclei/demo", help="folder for pictures and JSON files")
    command.set_defaults(run=lambda args: run_demo(args.output, args.weights))
    args = parser.parse_args()
    try:
        args.run(args)
    except Exception as error:
        if not is_users(error):
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`mrcnn train`: training on annotated images."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from mrcnn.applications import application_of
from mrcnn.cli import CommandError, note
from mrcnn.cli.configuration import (
    annotated_images,
    find_weights,
    make_config,
    start_backend,
    stored_values,
)
from mrcnn.cli.data_options import DEFAULT_AUGMENTATION
from mrcnn.cli.optimization import optimization_settings, resume_command
from mrcnn.cli.reporting import PROGRESS, monitoring_values
from mrcnn.cli.resuming import checkpoint_to_resume, training_plan
from mrcnn.config import Config
from mrcnn.data.dataset import Dataset, number_classes
from mrcnn.interrupts import TrainingInterrupted
from mrcnn.presets import PRESETS, subclass
from mrcnn.released import imagenet_name
from mrcnn.run_record import BEST_NAME, REPORT_NAME
from mrcnn.weights.info import CLASS_LAYERS, MASK_RCNN, WeightsInfo, inspect_weights

_DEFAULT_NAME = "mrcnn"
_MOST_VALIDATION_STEPS = 50
# What training with a preset starts from.
_WEIGHTS_OF = {
    "torchvision_v1": "torchvision/maskrcnn_resnet50_fpn_coco",
    "torchvision_v2": "torchvision/maskrcnn_resnet50_fpn_v2_coco",
    "detectron2": "detectron2/mask_rcnn_R_50_FPN_3x",
    "detectron2_lsj": "detectron2/mask_rcnn_R_50_FPN_400ep_LSJ",
    "modern": "torchvision/maskrcnn_resnet50_fpn_v2_coco",
}


def run(args: argparse.Namespace) -> int:
    """Train, and say where the last checkpoint is."""
    train_set, val_set = _datasets(args)
    args.weights = args.weights or _WEIGHTS_OF.get(args.preset, "coco")
    info, resumes = _start(args)
    values = training_values(info, None if resumes else args.preset)
    stored_name = values.get("NAME")
    name = args.name or stored_name or _DEFAULT_NAME
    classes_match = _classes_match(info, train_set)
    goes_on = classes_match and name == stored_name and info.has_optimizer
    if resumes and not goes_on:
        raise CommandError(
            f"--resume: {info.path} is no checkpoint of a run {name!r} on the classes of {args.train}. To start a run "
            "from its weights, give it as --weights."
        )
    plan = training_plan(args, info if resumes else None)
    values |= {"NAME": name, "NUM_CLASSES": train_set.num_classes}
    stored_augmentation = values.get("AUGMENTATION") if goes_on else None
    values["AUGMENTATION"] = args.augmentation or stored_augmentation or DEFAULT_AUGMENTATION
    if not classes_match:
        values["CLASS_WEIGHTS"] = None
    values |= monitoring_values(args, None if val_set is None else val_set.num_images, values if goes_on else {})
    gpus = dict(args.config).get("GPUS")
    if gpus is not None:
        values["GPU_COUNT"] = max(1, len(gpus))  # --config GPU_COUNT=... goes before it
    settings = [*optimization_settings(args), *args.config]
    config = make_config(info, values, settings)
    if not goes_on:
        # One pass over the images an epoch, where nothing else is asked for.
        val_steps = 0 if val_set is None else math.ceil(val_set.num_images / config.BATCH_SIZE)
        values["STEPS_PER_EPOCH"] = math.ceil(train_set.num_images / config.BATCH_SIZE)
        values["VALIDATION_STEPS"] = min(val_steps, _MOST_VALIDATION_STEPS)
        config = make_config(info, values, settings)

    start_backend(args.verbose)
    from mrcnn.model import MaskRCNN

    model = MaskRCNN("training", config, info.path.parents[1] if resumes else args.logs)
    if info is not None:
        exclude = () if classes_match or info.kind != MASK_RCNN else CLASS_LAYERS
        if exclude:
            note(f"{info.path} is for other classes: {', '.join(exclude)} start from scratch.")
        model.load_weights(info.path, by_name=True, exclude=exclude)
        if not goes_on:
            model.set_log_dir()
    elif args.weights == "imagenet":
        model.load_weights(args.weights)
    try:
        history = model.train(
            train_set,
            val_set,
            learning_rate=plan.learning_rate or config.LEARNING_RATE,
            epochs=plan.epochs,
            layers=plan.layers,
            verbose=PROGRESS[args.progress],
            preflight_seconds=args.preflight,
        )
    except TrainingInterrupted as stop:
        note(f"stopped, and saved to {stop.path}. To go on: {resume_command(args.arguments, model.log_dir)}")
        return 128 + stop.signal
    if history is not None:
        print(f"Weights: {model.checkpoint_path.format(epoch=model.epoch)}")
        for name, title in ((BEST_NAME, "Best weights"), (REPORT_NAME, "Report")):
            path = Path(model.checkpoint_path).with_name(name)
            if path.exists():
                print(f"{title}: {path}")
    return 0


def _start(args: argparse.Namespace) -> tuple[WeightsInfo | None, bool]:
    """What the weights to start from tell, None without any; and whether a run is gone on with."""
    named = args.weights in ("none", "coco", "imagenet")
    info = None if named else inspect_weights(find_weights(args.weights))
    name = args.name or (training_values(info).get("NAME") if args.resume == "" else None) or _DEFAULT_NAME
    checkpoint = checkpoint_to_resume(args.resume, args.logs, name)
    if checkpoint is not None:
        note(f"going on from {checkpoint}")
        return inspect_weights(checkpoint), True
    if args.weights == "imagenet":
        config = make_config(None, training_values(None, args.preset), args.config)
        if application_of(config.BACKBONE) is not None:  # which MaskRCNN loads
            return None, False
        return inspect_weights(find_weights(imagenet_name(config))), False
    if args.weights == "none":
        return None, False
    return (inspect_weights(find_weights(args.weights)) if named else info), False


def _classes_match(info: WeightsInfo | None, dataset: Dataset) -> bool:
    """Whether weights are for the dataset's classes, as far as they tell."""
    if info is None or info.num_classes != dataset.num_classes:
        return False
    return info.class_names is None or list(info.class_names) == list(dataset.class_names)


def _datasets(args: argparse.Namespace) -> tuple[Dataset, Dataset | None]:
    train_set = annotated_images(args.train, args.images, args, "train")
    if train_set.num_classes < 2:
        raise CommandError(f"{args.train} has no categories: there is nothing to learn.")
    if args.val is None:
        if args.val_images is not None:
            raise CommandError("--val-images needs --val.")
        return train_set, None
    val_set = annotated_images(args.val, args.val_images or args.images, args, "val")
    number_classes(val_set, train_set.class_names, args.val, f"the training set {args.train}")
    return train_set, val_set


def training_values(info: WeightsInfo | None, preset: str | None = None) -> dict[str, Any]:
    """The configuration to start from.

    Args:
        info: of the weights: what they were trained with, as far as they tell.
        preset: a name in `mrcnn.presets.PRESETS`, whose values go before a trained network's. What a backbone's weights
            hang on goes before the preset.
    """
    chosen = {} if preset is None else _preset_values(preset)
    if info is None:
        return chosen
    if info.kind == MASK_RCNN:
        stored = stored_values(info)
        if "BACKBONE" in stored:  # whose depth is not the preset's to choose
            chosen.pop("BACKBONE", None)
        return {**stored, **chosen}
    if info.config is not None:  # of converted weights: what they hang on
        return {**chosen, **stored_values(info)}
    values = {} if info.backbone in (None, "custom") else {"BACKBONE": info.backbone}
    return {**chosen, **values, **({} if info.image_channels is None else {"IMAGE_CHANNEL_COUNT": info.image_channels})}


def _preset_values(name: str) -> dict[str, Any]:
    """All fields that some preset sets, as this one has them, for a configuration that may have had another."""
    chosen = subclass(Config, name)
    return {field: getattr(chosen, field) for preset in PRESETS.values() for field in preset}

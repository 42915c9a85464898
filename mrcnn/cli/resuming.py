"""`mrcnn train --resume`: which run to go on with, and by which plan."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.cli import CommandError, note
from mrcnn.runs import newest_checkpoint, newest_of_run, time_and_epoch
from mrcnn.stages import stages_from_dict
from mrcnn.weights.info import WeightsInfo

_EPOCHS = 10


@dataclass(frozen=True)
class Plan:
    """What `MaskRCNN.train` is to be given; `learning_rate` None stands for the configuration's."""

    layers: Any
    epochs: int | None
    learning_rate: float | None


def checkpoint_to_resume(resume: str | None, logs: str, name: str) -> Path | None:
    """The checkpoint that --resume stands for; None where it was not given, or there is no run yet.

    Args:
        resume: None; a run's folder or a checkpoint; "" for the newest run.
        logs: where runs are kept.
        name: of the newest run to look for.

    Raises:
        CommandError: there is no such run, or it has no checkpoint.
    """
    if resume is None:
        return None
    if not resume:
        try:
            return Path(newest_checkpoint(logs, name.lower()))
        except FileNotFoundError:
            note(f"no run of {name!r} in {logs} to go on with: a new one starts.")
            return None
    path = Path(resume)
    if path.is_dir():
        try:
            path = Path(newest_of_run(path))
        except FileNotFoundError as error:
            raise CommandError(f"--resume: {error}") from error
    if not path.exists() or time_and_epoch(path) is None:
        raise CommandError(
            f"--resume needs a run's folder (NAMEyyyymmddThhmm) or a checkpoint in it. Received: {resume}."
        )
    return path


def training_plan(args: argparse.Namespace, resumed: WeightsInfo | None) -> Plan:
    """Stages, last epoch and learning rate: of the command line; what that leaves open, of the run gone on with.

    Args:
        args: of `mrcnn train`.
        resumed: what the checkpoint tells; None: a new run.

    Raises:
        CommandError: --stages and --layers together.
    """
    if args.stages is not None and args.layers is not None:
        raise CommandError("--stages and --layers say the same: give one of them.")
    told = {} if resumed is None else resumed.metadata.get("training", {})
    stored = stages_from_dict(told.get("plan", ()))
    if args.stages is not None:
        return Plan(args.stages, args.epochs, args.learning_rate)
    if args.layers is None and len(stored) > 1:
        rate = args.learning_rate
        return Plan([(names, end, rate or own) for names, end, own in stored], args.epochs, rate)
    layers, epochs, rate = args.layers, args.epochs, args.learning_rate
    if len(stored) == 1:
        layers, epochs, rate = layers or stored[0][0], epochs or stored[0][1], rate or stored[0][2]
    return Plan(layers or ("heads" if args.weights in ("coco", "imagenet") else "all"), epochs or _EPOCHS, rate)

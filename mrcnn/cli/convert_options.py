"""The options of `mrcnn convert`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_convert(commands: Any, add_config: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
    """Add the command `convert`; its parser. `add_config` adds --config."""
    command = commands.add_parser(
        "convert",
        help="make a weights file of torchvision's or detectron2's weights",
        description="Make a weights file of others' weights: Mask R-CNNs of torchvision and detectron2 on a ResNet and "
        "a pyramid, and ResNet classifiers of torchvision, timm, detectron2 and keras.applications, as "
        "backbones to train from. The file tells what network it is for and how images go into it, so that `mrcnn "
        "detect` and mrcnn.Detector need nothing else. What a file asks to run is never run: files that hold more than "
        "tensors and arrays are refused.",
    )
    command.add_argument(
        "input", metavar="IN",
        help="a .pth, .pkl, .safetensors or .h5 file; or the name of released weights, such as "
        "torchvision/maskrcnn_resnet50_fpn_v2_coco, which other commands also take as they are",
    )  # fmt: skip
    command.add_argument("output", metavar="OUT", help="the .h5 file to write; one that is there is replaced")
    command.add_argument(
        "--classes", metavar="NAMES",
        help="names of the classes, without the background, separated by commas (default: COCO's, where there are as "
        "many as COCO has)",
    )  # fmt: skip
    command.add_argument("--report", metavar="FILE", help="write what became of each tensor to a file; -v prints it")
    add_config(command)
    command.set_defaults(module="mrcnn.cli.converting")
    return command

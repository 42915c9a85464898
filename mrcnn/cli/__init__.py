"""The `mrcnn` command line: what can be asked, and how errors are told.

Nothing heavy is imported before a command is known to be well formed, so that `--help` answers at once. Exit codes:
0 done, 1 a file or a setting of the user's (or the program) failed, 2 a wrong command line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrcnn
from mrcnn.cli.convert_options import add_convert
from mrcnn.cli.data_options import ANNOTATIONS, IMAGES, add_augmentation, add_data, add_format, add_preflight
from mrcnn.cli.detection_options import add_choices, add_confidence
from mrcnn.cli.devices import add_devices, device_settings
from mrcnn.cli.optimization import add_optimization
from mrcnn.cli.report_options import add_monitoring, add_report

_WEIGHTS_HELP = (
    "a .h5 or .weights.h5 file; or released weights, downloaded once: coco (the original's), or others' such as "
    "torchvision/maskrcnn_resnet50_fpn_v2_coco (see docs/recipes.md); or nuclei (the demo's)"
)
_MODEL_HELP = f"{_WEIGHTS_HELP}; or the folder of an exported model"
_ENGINES = ("auto", "keras", "openvino", "onnxruntime")
_PRECISIONS = ("auto", "float32", "bfloat16", "int8", "f32", "bf16")
# Names of mrcnn.results.saving.FORMATS, and pictures.
_RESULTS = ("pictures", "coco", "labelme", "yolo", "labels", "csv")
# Names of mrcnn.presets.PRESETS.
_PRESETS = ("legacy", "torchvision_v1", "torchvision_v2", "detectron2", "detectron2_lsj", "modern")
_LONGEST_MESSAGE = 500


class CommandError(Exception):
    """What a command cannot do, told in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; None: those of the process.

    Returns:
        The exit code. Wrong usage, `--help` and `--version` leave with SystemExit, as argparse does.
    """
    args = _parser().parse_args(argv)
    args.arguments = list(sys.argv[1:] if argv is None else argv)
    args.verbose = getattr(args, "verbose", False)
    args.config = [*getattr(args, "config", ()), *device_settings(args)]
    try:
        return importlib.import_module(args.module).run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output has gone, as `| head` does. What is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        show_error(error, args.verbose)
        return 1


def show_error(error: Exception, verbose: bool, about: str | None = None) -> None:
    """`mrcnn: error: ...` on the error stream, in one line; before it the traceback, of a bug or where it is asked for.

    Args:
        error: to be shown; being handled just now.
        verbose: whether all of it is to be told.
        about: a file that the message has to name.
    """
    if verbose or not is_users(error):
        import traceback

        traceback.print_exc()
    message = " ".join(describe(error).split())
    if about is not None and about not in message:
        message = f"{about}: {message}"
    if len(message) > _LONGEST_MESSAGE and not verbose:
        message = f"{message[:_LONGEST_MESSAGE]} ... (-v shows all)"
    print(f"mrcnn: error: {message}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """`mrcnn: ...` on the standard error stream: what the user should know, and can go on with."""
    print(f"mrcnn: {message}", file=sys.stderr, flush=True)


def is_users(error: BaseException) -> bool:
    """Whether an error is of the user's making (a file, a setting, a full disk), and not a bug that a traceback is
    needed for: errors of this package's own types, those of the system, and what this package's code raises itself."""
    if type(error).__module__.split(".")[0] == "mrcnn" or isinstance(error, OSError | MemoryError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    package = Path(__file__).parents[1]
    raised_here = trace is not None and Path(trace.tb_frame.f_code.co_filename).is_relative_to(package)
    return isinstance(error, ValueError | ImportError) and raised_here


def describe(error: BaseException) -> str:
    """What to say about an error."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mrcnn", description="Mask R-CNN: find objects and their masks in images.")
    parser.add_argument("--version", action="version", version=f"mrcnn {mrcnn.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parsers = [parser]
    for add in (_add_detect, _add_train, _add_evaluate, _add_export, _add_demo, _add_info, add_report):
        parsers.append(add(commands))
    parsers.append(add_convert(commands, _add_config))
    parsers += add_data(commands, _add_config, _count, _positive)
    for each in parsers:  # before the command or after it; suppressed, for the later would undo the earlier
        each.add_argument(
            "-v", "--verbose", action="store_true", default=argparse.SUPPRESS,
            help="say which engine runs the network and why; show the traceback of an error",
        )  # fmt: skip
    return parser


def _add_detect(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "detect",
        help="find objects in images and videos",
        description="Find objects in images. Of each image a picture NAME_detected.png is written, and of all of them "
        "one file detections.json in COCO's format of results; --format chooses others. Of a video another is written, "
        "NAME_detected.mp4, with the objects drawn into it and without its sound. Ctrl-C ends a video or camera, with "
        "what there is.",
    )
    command.add_argument(
        "images", nargs="+", metavar="IMAGE",
        help="image files, folders of them, video files, a stream's URL, or a camera's number such as 0",
    )  # fmt: skip
    _add_network(command)
    _add_engine(command, "auto, the fastest here", "auto, the engine's fastest")
    command.add_argument(
        "--output", "--out", metavar="PATH", default="detections",
        help="folder to write to (default: detections); for a single video also the file, such as annotated.mp4",
    )  # fmt: skip
    command.add_argument(
        "--format", metavar="F", nargs="+", choices=_RESULTS, default=["pictures", "coco"],
        help="what to write of images, one or several of: pictures, coco (detections.json), labelme (a file for each "
        "image, to be corrected there), yolo (labels for segmentation), labels (label images: 0 is background, n the "
        "nth object), csv (measurements.csv: area, centroid, box and more) (default: pictures coco)",
    )  # fmt: skip
    command.add_argument(
        "--json", metavar="FILE",
        help="where to write COCO's results (default: detections.json in that folder; of videos none unless asked for: "
        "it tells each detection's frame and time)",
    )  # fmt: skip
    command.add_argument(
        "--every", metavar="N", type=_count, default=1,
        help="of a video, look at every Nth frame only; the video written has these frames",
    )  # fmt: skip
    command.add_argument("--max-frames", metavar="N", type=_count, help="of a video or camera, the first N frames")
    add_choices(command, _count)
    command.set_defaults(module="mrcnn.cli.detecting")
    return command


def _add_train(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "train",
        help="train on annotated images",
        description="Train on annotated images. Checkpoints and logs go to a folder of their own below --logs. Given a "
        "checkpoint of such a folder as --weights, training goes on where it ended.",
    )
    command.add_argument(
        "--train", metavar="PATH", required=True, help=f"{ANNOTATIONS}; its part train, if it has parts"
    )
    command.add_argument("--images", metavar="DIR", help=IMAGES)
    command.add_argument("--val", metavar="PATH", help="the same to validate on after each epoch; its part val")
    command.add_argument("--val-images", metavar="DIR", help="folder of its images (default: that of --images)")
    add_format(command, split=False)
    command.add_argument(
        "--weights", metavar="W",
        help="what to start from: coco (default, or the preset's), imagenet, none, others' by name (see `mrcnn "
        "convert`), or a .h5 or .weights.h5 file",
    )  # fmt: skip
    command.add_argument(
        "--preset", choices=_PRESETS, metavar="P",
        help=f"of a new run, the network and how it is trained: {', '.join(_PRESETS)} (default: the file's, or legacy)",
    )  # fmt: skip
    command.add_argument(
        "--layers", metavar="STAGE",
        help="what trains: heads, 3+, 4+, 5+, all, or a regular expression for names of layers "
        "(default: heads from coco and imagenet, else all)",
    )  # fmt: skip
    command.add_argument(
        "--epochs",
        metavar="N",
        type=_count,
        help="the last epoch, counted from the very first (default: 10)",
    )
    command.add_argument("--learning-rate", metavar="X", type=_positive, help="default: LEARNING_RATE of the config")
    add_augmentation(command)
    add_monitoring(command, _count)
    add_preflight(command)
    add_optimization(command, _count)
    _add_config(command)
    add_devices(command, "all; training takes as many as are named here, else --config GPU_COUNT=N of them")
    command.add_argument(
        "--name",
        metavar="NAME",
        type=_name,
        help="of the run: letters, digits, _ and - (default: the file's, or mrcnn)",
    )
    command.add_argument("--logs", metavar="DIR", default="logs", help="where runs are kept (default: logs)")
    command.set_defaults(module="mrcnn.cli.training")
    return command


def _add_evaluate(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "evaluate",
        help="measure average precision",
        description="Measure COCO's average precision of boxes and masks on annotated images. Classes are matched by "
        "name.",
    )
    command.add_argument("annotations", metavar="PATH", help=ANNOTATIONS)
    command.add_argument("--images", metavar="DIR", help=IMAGES)
    add_format(command)
    _add_network(command, "0.05, so that the precision-recall curve is whole")
    _add_engine(
        command, "keras; for an exported model auto, the fastest", "float32; for an exported model what it was made for"
    )
    add_choices(command, _count)
    command.add_argument("--limit", metavar="N", type=_count, help="only the first N images")
    command.add_argument(
        "--max-detections", metavar="N", type=_count, default=100,
        help="best detections of one class in one image that count (default: 100, as COCO has it)",
    )  # fmt: skip
    command.add_argument("--json", metavar="FILE", help="write the figures to a file")
    command.add_argument("--results", metavar="FILE", help="write the detections to a file, in COCO's format")
    command.set_defaults(module="mrcnn.cli.evaluating")
    return command


def _add_export(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "export",
        help="write a network for a runtime such as OpenVINO",
        description="Write a network into a folder that `mrcnn detect` and mrcnn.Detector run without Keras (openvino, "
        "onnx), or that other programs run (saved_model, litert, torch). What was written is run and compared with "
        "Keras, and kept only if both find the same.",
    )
    command.add_argument("weights", metavar="WEIGHTS", help=_WEIGHTS_HELP)
    command.add_argument("output", metavar="DIR", help="folder to make; an exported model that is there is replaced")
    command.add_argument(
        "--format", metavar="F", default="openvino", choices=("openvino", "onnx", "saved_model", "litert", "torch"),
        help="openvino (default), onnx, saved_model, litert or torch",
    )  # fmt: skip
    command.add_argument(
        "--precision", metavar="P", default="float32", choices=("float32", "f32", "bfloat16", "bf16", "int8"),
        help="float32 (default), bfloat16 (openvino, saved_model) or int8 (openvino)",
    )  # fmt: skip
    command.add_argument(
        "--image", metavar="FILE", help="image to check with, best one with objects in it (default: two that ship)"
    )
    command.add_argument(
        "--calibration", metavar="DIR", help="for int8: folder of images like those to come, a hundred or so"
    )
    command.add_argument(
        "--annotations", metavar="PATH",
        help="annotated images, as of `mrcnn evaluate`: tell the average precision before and after; not of "
        "--calibration's images",
    )  # fmt: skip
    command.add_argument("--images", metavar="DIR", help=IMAGES)
    add_format(command)
    _add_network_options(command)
    command.set_defaults(module="mrcnn.cli.exporting")
    return command


def _add_demo(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "demo",
        help="find nuclei in microscope images",
        description="Find the nuclei in images that the demo's network was not trained on, and compare with their "
        "annotation. Fetches the images once (50 MB).",
    )
    command.add_argument("--output", metavar="DIR", default="mrcnn-demo", help="where to write (default: mrcnn-demo)")
    command.add_argument("--weights", metavar="W", help="other weights of the demo's network")
    command.set_defaults(module="mrcnn.cli.showing")
    return command


def _add_info(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "info",
        help="tell what a weights file or an exported model holds",
        description="Tell what a weights file or an exported model holds.",
    )
    command.add_argument("weights", metavar="WEIGHTS", help=_MODEL_HELP)
    command.add_argument("--json", action="store_true", help="print all of it as JSON, the stored configuration too")
    command.set_defaults(module="mrcnn.cli.informing")
    return command


def _add_network(command: argparse.ArgumentParser, confidence: str = "the weights' configuration's, or 0.7") -> None:
    command.add_argument("--weights", metavar="W", required=True, help=_MODEL_HELP)
    _add_network_options(command, confidence)


def _add_network_options(
    command: argparse.ArgumentParser, confidence: str = "the weights' configuration's, or 0.7"
) -> None:
    add_confidence(command, _share, confidence)
    command.add_argument(
        "--classes", metavar="NAMES",
        help="names of the classes, without the background, separated by commas, for weights that do not store them",
    )  # fmt: skip
    _add_config(command)
    add_devices(command)


def _add_engine(command: argparse.ArgumentParser, engine: str, precision: str) -> None:
    command.add_argument(
        "--engine", choices=_ENGINES, metavar="ENGINE",
        help=f"what runs the network: keras, openvino, onnxruntime or auto (default: {engine})",
    )  # fmt: skip
    command.add_argument(
        "--precision", choices=_PRECISIONS, metavar="PRECISION",
        help=f"float32, bfloat16 (both also f32, bf16), int8 or auto (default: {precision})",
    )  # fmt: skip
    command.add_argument("--threads", metavar="N", type=_count, help="how many the engine uses (default: its choice)")


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", metavar="KEY=VALUE", nargs="+", action="extend", type=_setting, default=[],
        help="fields of the configuration, such as IMAGE_MAX_DIM=512 or RPN_ANCHOR_SCALES=8,16,32,64,128",
    )  # fmt: skip


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as Python writes it; what is no such value is taken as text."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", key):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE (files go before --config)")
    try:
        return key, ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return key, value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _count(text: str) -> int:
    value = _number(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(value)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if value != value or abs(value) == float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be of letters, digits, _ and -")
    return text

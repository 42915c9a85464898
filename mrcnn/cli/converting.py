"""`mrcnn convert`: others' weights in, a weights file out. Needs no framework."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mrcnn.cli import CommandError
from mrcnn.cli.configuration import fields_of, named_classes
from mrcnn.converting import Prepared, check_name, prepare, write_converted
from mrcnn.downloads import RELEASES
from mrcnn.files import require_folder, write_text
from mrcnn.released import RELEASED, fetch_original, find_weights, is_released
from mrcnn.weights.conversion import Conversion
from mrcnn.weights.recognition import convert_file

# Fields that a network and its weights have together.
_TOLD = ("BACKBONE", "NUM_CLASSES", "RESNET_STRIDE_IN_3X3", "NORM", "NORM_EPSILON", "IMAGE_CHANNEL_ORDER")


def run(args: argparse.Namespace) -> int:
    """Convert, and tell what was made of what."""
    check_name(args.output)
    if args.report is not None:
        require_folder(args.report)
        if os.path.realpath(args.report) in (os.path.realpath(args.output), os.path.realpath(args.input)):
            raise CommandError(f"--report {args.report} is the file to convert or to write. Give it a name of its own.")
    settings = fields_of(args.config)
    path, origin = _input(args.input)
    if path.exists() and os.path.realpath(path) == os.path.realpath(args.output):
        raise CommandError(f"{args.output} is the file to convert. Give the new one another name.")
    found = convert_file(path)
    names = None
    if args.classes is not None:
        if found.preset is None:
            raise CommandError(f"{args.input} is {found.source}: a backbone has no classes that --classes could name.")
        names = named_classes(path, args.classes, int(found.fields["NUM_CLASSES"]))
    prepared = prepare(found, settings, names)
    write_converted(prepared, args.output, origin)
    _tell(args, found, prepared)
    return 0


def _input(name: str) -> tuple[Path, str]:
    """The file to convert, and what it is called."""
    if not is_released(name):
        return Path(name), Path(name).name
    if name not in RELEASED:
        if name in RELEASES:
            raise CommandError(f"{name} are weights of this package's layers already: use them as they are.")
        find_weights(name)  # which tells of names that are near
    return fetch_original(name), f"{name}, {RELEASED[name].url}"


def _tell(args: argparse.Namespace, found: Conversion, prepared: Prepared) -> None:
    told = [f"{name} {prepared.config[name]}" for name in _TOLD if name in prepared.config]
    print(f"{args.input}: {found.source}")
    print(found.summary())
    print(f"configuration: {', '.join(told)}")
    if prepared.class_names is not None:
        origin = "as named" if args.classes is not None else "taken to be COCO's; --classes names others"
        print(f"classes: {len(prepared.class_names)}, background included ({origin})")
    if args.verbose:
        print("\n".join(map(str, found.fates)))
    if args.report is not None:
        write_text(args.report, "\n".join([found.summary(), *map(str, found.fates)]) + "\n")
        print(f"report: {args.report}")
    print(f"wrote {args.output}: {Path(args.output).stat().st_size / 1e6:.1f} MB")
    if found.preset is None:
        print(f"use it: mrcnn train ... --weights {args.output}")
    else:
        print(f"use it: mrcnn detect photo.jpg --weights {args.output}")

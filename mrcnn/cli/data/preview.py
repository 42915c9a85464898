"""`mrcnn data preview`: what training will see, drawn."""

from __future__ import annotations

import argparse

from mrcnn.cli import CommandError, note
from mrcnn.cli.data.common import configured, content_of
from mrcnn.cli.data_options import DEFAULT_AUGMENTATION
from mrcnn.data.augmentation import recipe
from mrcnn.data.coco import CocoDataset
from mrcnn.drawing import require_picture_name, save_picture


def run(args: argparse.Namespace) -> int:
    """Draw, and write."""
    require_picture_name(args.out)
    content = content_of(args)
    errors = sum(problem.is_error for problem in content.problems)
    if errors:
        note(f"{errors} entries of {args.path} cannot be used, so that training refuses it: see `mrcnn data check`.")
    if not content.images:
        raise CommandError(f"{args.path} has no images to draw.")
    dataset = CocoDataset()
    dataset.add_content(content)
    dataset.prepare()
    config = configured(args, dataset.num_classes)
    from mrcnn.data_pictures import training_sheet

    named = dict(args.config).get("AUGMENTATION", args.augmentation or DEFAULT_AUGMENTATION)
    augmentation = recipe(named)
    sheet = training_sheet(dataset, config, augmentation, args.count, args.draws, args.seed, content.path.name)
    print(f"Wrote {save_picture(args.out, sheet)}.")
    return 0

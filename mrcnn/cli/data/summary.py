"""`mrcnn data summary`: a dataset in figures, and fields of the configuration that they speak for."""

from __future__ import annotations

import argparse

from mrcnn.cli import note
from mrcnn.cli.data.common import paste, surveyed, write_json
from mrcnn.data import summary as figures
from mrcnn.data.survey import sample_images

# Seconds that reading images for their mean takes at most.
_SECONDS_OF_MEAN = 10.0


def run(args: argparse.Namespace) -> int:
    """Look at the dataset, and tell."""
    dataset, config, seen = surveyed(args)
    told = figures.figures(seen, config)
    print("\n".join(figures.lines(told)))
    try:
        images = sample_images(dataset, seen.image_ids, _SECONDS_OF_MEAN)
        means = figures.channel_means(images, config)
    except ValueError as error:  # images of other channels than the configuration's
        note(str(error))
        means = None
    fields = figures.proposals(seen, config, means)
    paste(fields)
    write_json(args.json, {**told, "proposals": fields})
    return 0

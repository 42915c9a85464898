"""`mrcnn data check`: what is wrong with a dataset, before it is trained on."""

from __future__ import annotations

import argparse

from mrcnn.cli import note
from mrcnn.cli.data.check_report import print_report, told
from mrcnn.cli.data.common import configured, content_of, progress, write_json
from mrcnn.data.checking import check
from mrcnn.data.findings import Level
from mrcnn.drawing import require_picture_name, save_picture
from mrcnn.files import require_folder


def run(args: argparse.Namespace) -> int:
    """Check, and tell. 1 where there are errors, or with --strict warnings."""
    if args.picture is not None:
        require_picture_name(args.picture)
    if args.json is not None:
        require_folder(args.json)
    content = content_of(args)
    config = configured(args, max(1 + len(content.categories), 2))
    with progress("images", len(content.images)) as advance:
        found = check(content, config, args.seconds, advance)
    print_report(content, config, found)
    write_json(args.json, told(content, config, found))
    if args.picture is not None:
        from mrcnn.data_pictures import check_sheet

        drawn = check_sheet(content, found, args.count)
        if drawn is None:
            note("there is no image to draw, so no picture is written.")
        else:
            print(f"\nWrote {save_picture(args.picture, drawn)}.")
    failing = (Level.ERROR, Level.WARNING) if args.strict else (Level.ERROR,)
    return int(any(found.findings.count(level) for level in failing))

"""`mrcnn data convert`: a dataset in another format."""

from __future__ import annotations

import argparse

from mrcnn.cli import CommandError, note
from mrcnn.cli.data.common import content_of, handling_of, progress
from mrcnn.cli.data.tables import count_of
from mrcnn.data.content import some
from mrcnn.data.writing.dataset import write_dataset


def run(args: argparse.Namespace) -> int:
    """Convert, and tell what is lost."""
    content = content_of(args)
    if not content.images:
        raise CommandError(f"{args.path} has no images.")
    handling = handling_of(args)
    with progress("images", len(content.images)) as advance:
        written = write_dataset(content, args.output, args.to, handling, advance)
    print(
        f"{args.path} ({content.format}) is {args.output} ({args.to}): {count_of(written.images, 'image')}, "
        f"{count_of(written.objects, 'object')} of {count_of(len(content.categories), 'class', 'classes')}."
    )
    lost = [str(problem).removeprefix(f"{content.path}: ") for problem in content.problems]
    if lost:
        note(f"not all of {args.path} could be read. {count_of(len(lost), 'problem')}: {some(lost)}")
    for line in written.notes():
        note(line)
    if handling == "none":
        if args.to == "yolo":
            print("The images stay where they are: put them into its folder images, or convert with --copy-images.")
        else:
            print(f"The images stay where they are, in {content.folder}.")
    return 0

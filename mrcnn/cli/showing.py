"""`mrcnn demo`: nuclei in held-out microscope images."""

from __future__ import annotations

import argparse

from mrcnn.cli.configuration import find_weights, start_backend


def run(args: argparse.Namespace) -> int:
    """Run the demo, which prints its report."""
    weights = find_weights(args.weights or "nuclei")
    start_backend(args.verbose)
    from mrcnn.demo import run_demo

    run_demo(args.output, weights)
    return 0

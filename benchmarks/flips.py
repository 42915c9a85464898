"""What mirror images bring on the nuclei demo: average precision.

    python -m benchmarks.flips [--limit N] [--output FILE.json]

All right halves of the demo's frames, which its network was not trained on, as in benchmarks.precision; the network in
OpenVINO, float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import machine
from mrcnn.cli.configuration import load_network
from mrcnn.evaluation import evaluate
from mrcnn.flips import FLIPS
from mrcnn.inference import Detector
from mrcnn.nuclei import HelaNuclei, fetch_hela

CHOICES = ((), ("horizontal",), ("vertical",), ("horizontal", "vertical"), tuple(FLIPS))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=None, help="only the first N images")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    arguments = parser.parse_args(argv)
    dataset = HelaNuclei(fetch_hela(), "right")
    ids = list(dataset.image_ids)[: arguments.limit]
    model = load_network("nuclei", [], None, 0.05).model
    most = model.config.DETECTION_MAX_INSTANCES
    rows = []
    for flips in CHOICES:
        detector = Detector(model, engine=arguments.engine, precision="float32", flips=flips)
        result = evaluate(detector, dataset, ids, progress=False, max_detections=most)
        rows.append({"flips": flips, "mask": result.mask.to_dict(), "box": result.box.to_dict()})
        print(
            f"{', '.join(flips) or 'none':28} mask AP {result.mask_ap:.4f} (AP50 {result.mask_ap50:.4f}, AP75 "
            f"{result.mask_ap75:.4f})  box AP {result.box_ap:.4f}",
            flush=True,
        )
    if arguments.output is not None:
        told = {"machine": machine(), "images": len(ids), "engine": arguments.engine, "rows": rows}
        arguments.output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

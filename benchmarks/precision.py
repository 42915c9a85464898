"""What engines and precisions cost on the nuclei demo: average precision, and how far results lie from Keras's.

    python -m benchmarks.precision [--weights FILE] [--limit N] [--output FILE.json]

All right halves of the demo's frames, which its network was not trained on; int8 is calibrated on left halves. All are
compared detection by detection with Keras in float32, at the demo's threshold of confidence. Boxes that end at the
border of the image are told apart: there one rounding decides whether ROIAlign's outermost samples count or are 0.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.apart import summary
from benchmarks.machine import machine, today
from mrcnn.agreement import differences
from mrcnn.cli.configuration import load_network
from mrcnn.data.molding import network_inputs
from mrcnn.evaluation import evaluate
from mrcnn.export import export_model
from mrcnn.inference import Detector
from mrcnn.nuclei import HelaNuclei, fetch_hela

RUNS = (
    ("keras", "float32"),
    ("keras", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("onnxruntime", "float32"),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="nuclei", help="of a network of nuclei; default: the demo's")
    parser.add_argument("--limit", type=int, default=None, help="only the first N images")
    parser.add_argument("--calibration", type=int, default=20, help="left halves that int8 is calibrated on")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    arguments = parser.parse_args(argv)
    folder = fetch_hela()
    held_out, trained_on = HelaNuclei(folder, "right"), HelaNuclei(folder, "left")
    ids = list(held_out.image_ids)[: arguments.limit]
    strict = load_network(arguments.weights, [], None, 0.5).model
    loose = load_network(arguments.weights, [], None, 0.05).model  # for a precision-recall curve that is whole
    inputs = [network_inputs(held_out.load_image(i), strict.config) for i in ids]
    rows: list[dict[str, Any]] = []
    reference: list[Any] = []
    with tempfile.TemporaryDirectory() as temporary:
        calibration = [trained_on.load_image(i) for i in trained_on.image_ids[: arguments.calibration]]
        for engine, precision in RUNS:
            detectors = []
            for name, model in (("loose", loose), ("strict", strict)):
                source: Any = model
                if precision == "int8":
                    source = Path(temporary) / name
                    image = held_out.load_image(ids[0])
                    export_model(
                        model.keras_model, model.config, source, precision="int8", image=image, calibration=calibration
                    )
                detectors.append(Detector(source, engine=engine, precision=precision))
            result = evaluate(
                detectors[0], held_out, image_ids=ids, max_detections=loose.config.DETECTION_MAX_INSTANCES
            )
            raws = [detectors[1].engine.run(*arrays)[0] for arrays in inputs]
            reference = reference or raws
            pairs = zip(reference, raws, inputs, strict=True)
            apart = summary([differences(old, new, arrays[0].shape[1:3]) for old, new, arrays in pairs])
            ap = {"mask_ap": result.mask.ap, "mask_ap50": result.mask.ap50, "box_ap": result.box.ap}
            rows.append({"engine": engine, "precision": precision, **ap, **apart})
            print(_line(rows[-1]), flush=True)
    if arguments.output:
        told = {"date": today(), "machine": machine(), "images": len(ids), "results": rows}
        arguments.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['engine']:12} {row['precision']:9} mask AP {row['mask_ap']:.4f}  AP50 {row['mask_ap50']:.4f}  box AP "
        f"{row['box_ap']:.4f}  {row['matched']} of {row['of']} matched; apart (median, 95th percentile, largest): "
        f"box {_three(row, 'box')} pixels, {row['border_largest']:.2g} among {row['border']} at the border; score "
        f"{_three(row, 'score')}, mask {_three(row, 'mask')}"
    )


def _three(row: dict[str, Any], name: str) -> str:
    return ", ".join(f"{row[f'{name}_{which}']:.2g}" for which in ("median", "95", "largest"))


if __name__ == "__main__":
    raise SystemExit(main())

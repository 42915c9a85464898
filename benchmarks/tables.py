"""The tables of the docs, made of the results in `benchmarks/results`, so that nobody copies numbers by hand.

    python -m benchmarks.tables                prints them
    python -m benchmarks.tables --write        puts them where they belong in the pages of the docs and README.md

A table's place is between the lines `<!-- NAME -->` and `<!-- end of NAME -->`; what is between them is replaced.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import Results, bars
from benchmarks.driver import ROOT
from benchmarks.recipes.tables import ablation, same_time
from benchmarks.stages import STAGES

RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "docs" / "detection.md", ROOT / "docs" / "recipes.md", ROOT / "README.md")
# The files of results, by what they are called here.
FILES = {
    "inference": "epyc-avx512-2-cores.json",
    "same": "same-weights.json",
    "precision": "precision-nuclei.json",
    "peaks": "peak.json",
    "flops": "flops.json",
    "around": "prepost.json",
    "recipes": "recipes-20-minutes.json",
    "ablation": "recipes-250-steps.json",
    "modern_precision": "precision-modern.json",
}
_ENGINES = {"keras": "Keras (TensorFlow)", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
_STAGES = {
    "decode": "decode a JPEG",
    "mold": "resize and mold",
    "trunk": "trunk: backbone, pyramid, RPN",
    "proposals": "proposals",
    "heads": "ROIAlign and box head",
    "masks": "masks of 100 detections",
    "paste": "paste them into the image",
}
# Kinds of OpenVINO's nodes that are convolutions or matrix products.
_PRODUCTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "GroupConvolution")


def read_results(folder: Path = RESULTS) -> Results:
    """All results, by their names in `FILES`."""
    return {name: json.loads((folder / file).read_text(encoding="utf-8")) for name, file in FILES.items()}


def speed(results: Results) -> str:
    """Seconds an image of everyone, the fastest first."""
    measured = [result for result in results["inference"]["results"] if "error" not in result]
    reference = next(result for result in measured if result["name"] == "torchvision-f32")["median_seconds"]
    rows = [("", "seconds", "first start", "later starts", "peak memory", "against torchvision float32")]
    for result in sorted(measured, key=lambda result: result["median_seconds"]):
        later = result["later_first_result_seconds"]
        peak = result["peak_bytes_detection"] or result["peak_bytes_start"]
        cells = [f"{result['median_seconds']:.2f}", f"{result['first_result_seconds']:.1f} s"]
        cells += ["" if later is None else f"{later:.1f} s", f"{peak / 1e9:.2f} GB"]
        rows.append((_who(result), *cells, f"{reference / result['median_seconds']:.1f} x"))
    return _table(rows)


def same(results: Results) -> str:
    """Seconds an image where all run torchvision's network with the same weights."""
    measured = [result for result in results["same"]["results"] if "error" not in result]
    rows = [("", "seconds", "peak memory")]
    for result in sorted(measured, key=lambda result: result["median_seconds"]):
        peak = result["peak_bytes_detection"] or result["peak_bytes_start"]
        rows.append((_who(result), f"{result['median_seconds']:.2f}", f"{peak / 1e9:.2f} GB"))
    return _table(rows)


def _who(result: dict[str, Any]) -> str:
    options, note = result["options"], result["note"]
    if result["name"].startswith("ours-"):
        name = f"ours, {_ENGINES[options['engine']]} {options['precision']}"
        return f"**{name}**" if options["engine"] == "openvino" else name
    told = note if note and "pasting" not in note else ""  # the page says so of all that are converted
    return result["family"] + (f" ({told})" if told else "")


def peaks(results: Results) -> str:
    """How near the network comes to what the machine can do."""
    flops = sum(results["flops"]["flops"]["ours"].values())
    rows = [("", "peak of convolutions", "the network at that rate", "reached", "share")]
    for stages in _of_openvino(results):
        peak = results["peaks"]["peaks_gflops"][stages["precision"]]
        floor, total = flops / peak / 1e9, _median(results, f"ours {stages['precision']}", "openvino")
        rows.append(
            (stages["precision"], f"{peak:.0f} GFLOP/s", f"{floor:.2f} s", f"{total:.2f} s", f"{floor / total:.0%}")
        )
    return _table(rows)


def flops(results: Results) -> str:
    """GFLOP by part of the network."""
    columns = results["flops"]["flops"]
    rows = [("GFLOP", *columns)]
    rows += [(part, *(f"{counts[part] / 1e9:.0f}" for counts in columns.values())) for part in columns["ours"]]
    return _table([*rows, ("sum", *(f"{sum(counts.values()) / 1e9:.0f}" for counts in columns.values()))])


def stages(results: Results) -> str:
    """Milliseconds by stage, engine and precision."""
    columns = results["inference"]["stages"]
    rows = [("milliseconds", *(f"{_ENGINES[c['engine']]} {c['precision']}" for c in columns))]
    rows += [(_STAGES[stage], *(f"{c['stages'][stage] * 1e3:.0f}" for c in columns)) for stage in STAGES]
    rows.append(("all but decoding", *(f"{c['total'] * 1e3:.0f}" for c in columns)))
    apart = (f"{_not_products(c) * 1e3:.0f}" if any(c["kinds"].values()) else "" for c in columns)
    return _table([*rows, ("of these neither convolutions nor products", *apart)])


def _not_products(measured: dict[str, Any]) -> float:
    """Seconds of a detection, decoding aside, that are neither convolutions nor matrix products."""
    kinds = [pair for of_stage in measured["kinds"].values() for pair in of_stage.items()]
    return measured["total"] - sum(seconds for kind, seconds in kinds if kind.startswith(_PRODUCTS))


def precision(results: Results, of: str = "precision") -> str:
    """What precision costs."""
    head = ("engine", "precision", "mask AP", "box AP", "found again", "boxes, pixels", "at the border", "scores")
    rows = [head]
    for row in results[of]["results"]:
        found = f"{row['matched']} of {row['of']}"
        if (row["engine"], row["precision"]) == ("keras", "float32"):
            apart = ["the reference", "", ""]
        else:
            apart = [_spread(row, "box"), f"{row['border_largest']:.2g}", _spread(row, "score")]
        rows.append((row["engine"], row["precision"], f"{row['mask_ap']:.4f}", f"{row['box_ap']:.4f}", found, *apart))
    return _table(rows)


def _spread(row: dict[str, Any], name: str) -> str:
    return ", ".join(f"{row[f'{name}_{which}']:.2g}" for which in ("median", "95", "largest"))


def around(results: Results) -> str:
    """What lies around the network, milliseconds by size of the photo."""
    photos = results["around"]["photos"]
    rows = [("milliseconds", *(f"{photo['photo'][1]} x {photo['photo'][0]}" for photo in photos))]
    rows += [(name, *(f"{photo['seconds'][name] * 1e3:.1f}" for photo in photos)) for name in photos[0]["seconds"]]
    return _table([*rows, ("sum with boolean masks", *(f"{photo['sum_seconds'] * 1e3:.1f}" for photo in photos))])


def aims(results: Results) -> str:
    """What was aimed at and what was reached; see `benchmarks.bars`."""
    rows = [("aim", "reached", "at 100% of the peak", "it would take", "")]
    rows += [(bar.aim, bar.reached, bar.at_peak, bar.takes, "met" if bar.met else "not met") for bar in bars(results)]
    return _table(rows)


def published(results: Results) -> str:
    """What others have published of the original."""
    return "\n".join(f"- {one['what']} (<https://{one['source']}>)" for one in results["inference"]["published"])


def readme(results: Results) -> str:
    """The README's sentence."""
    bf16, int8 = (_median(results, f"ours {kind}", "openvino") for kind in ("bfloat16", "int8"))
    f32, half = (_medians(results, f"torchvision {kind}") for kind in ("float32", "bfloat16"))
    return (
        f"A ResNet-101 at 1024 x 1024 takes {bf16:.1f} s an image in bfloat16 and {int8:.1f} s in int8 on two cores "
        f"without AMX, where\ntorchvision takes {min(f32):.1f} to {max(f32):.1f} s in float32 and {min(half):.1f} to "
        f"{max(half):.1f} s in bfloat16, with its allocator tuned and\nas it comes."
    )


BLOCKS: dict[str, Callable[[Results], str]] = {
    "speed": speed,
    "same": same,
    "published": published,
    "peaks": peaks,
    "flops": flops,
    "stages": stages,
    "around": around,
    "precision": precision,
    "aims": aims,
    "readme": readme,
    "recipes": lambda results: _table(same_time(results["recipes"])),
    "ablation": lambda results: _table(ablation(results["ablation"])),
    "modern_precision": lambda results: precision(results, "modern_precision"),
}


def filled(page: str, results: Results) -> str:
    """The text of a page with its blocks made anew.

    Raises:
        ValueError: a block that nobody makes, or one without an end.
    """

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"There is no block {name!r}. There are: {', '.join(BLOCKS)}.")
        return f"<!-- {name} -->\n{BLOCKS[name](results)}\n<!-- end of {name} -->"

    page = re.sub(r"<!-- (?P<name>\w+) -->\n.*?<!-- end of (?P=name) -->", made, page, flags=re.DOTALL)
    begun, ended = (set(re.findall(rf"<!-- {word}(\w+) -->", page)) for word in ("", "end of "))
    if begun != ended:
        raise ValueError(f"Blocks that begin or end alone: {', '.join(sorted(begun ^ ended))}.")
    return page


def _of_openvino(results: Results) -> list[dict[str, Any]]:
    return [stages for stages in results["inference"]["stages"] if stages["engine"] == "openvino"]


def _medians(results: Results, family: str) -> list[float]:
    measured = results["inference"]["results"]
    return [one["median_seconds"] for one in measured if one["family"] == family and "error" not in one]


def _median(results: Results, family: str, engine: str) -> float:
    return next(
        one["median_seconds"]
        for one in results["inference"]["results"]
        if one["family"] == family and one["options"]["engine"] == engine
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = ("| " + " | ".join(cells) + " |" for cells in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into the docs, in place of printing")
    arguments = parser.parse_args(argv)
    results = read_results()
    if not arguments.write:
        print("\n\n".join(f"{name}\n{block(results)}" for name, block in BLOCKS.items()))
        return 0
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The picture of a run of `benchmarks.inference`: seconds an image, ours and the others'.

python -m benchmarks.plot benchmarks/results/NAME.json docs/images/NAME.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.measures import fastest_of_families

OURS, OTHERS = "#d1495b", "#8d99ae"


def bars(told: dict[str, Any]) -> list[tuple[str, float, float, float, bool]]:
    """Label, median, lowest, highest and whether it is ours, of the fastest of each family, the slowest first."""
    chosen = fastest_of_families(told["results"]).values()
    rows = [
        (
            result["family"] + (f"\n{result['note']}" if result["note"] else ""),
            result["median_seconds"],
            result["lowest_seconds"],
            result["highest_seconds"],
            result["name"].startswith("ours-"),
        )
        for result in chosen
    ]
    return sorted(rows, key=lambda row: -row[1])


def draw(told: dict[str, Any], path: Path) -> None:
    """Draw the results in `told`, a file of `benchmarks.inference`, into an image file.

    Raises:
        ValueError: nothing was measured.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = bars(told)
    if not rows:
        raise ValueError("There is nothing to draw: no candidate was measured.")
    figure, axes = pyplot.subplots(figsize=(8.5, 0.5 * len(rows) + 1.4), dpi=150, layout="constrained")
    for place, (_, median, lowest, highest, is_ours) in enumerate(rows):
        axes.barh(place, median, color=OURS if is_ours else OTHERS, height=0.66)
        axes.plot([lowest, highest], [place, place], color="#2b2d42", linewidth=1)
        axes.text(max(highest, median), place, f"  {median:.2f} s", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    axes.set_xlim(0, 1.12 * max(max(row[1], row[3]) for row in rows))
    axes.set_xlabel("seconds an image, lower is better: median, with lowest and highest")
    machine, setting = told["machine"], told["setting"]
    axes.set_title(
        f"Mask R-CNN, ResNet-101, {setting['side']} x {setting['side']}, {setting['proposals']} proposals, "
        f"{setting['detections']} detections\n{machine['processor']}, {machine['cores']} cores",
        fontsize=10,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("image", type=Path)
    arguments = parser.parse_args()
    draw(json.loads(arguments.results.read_text(encoding="utf-8")), arguments.image)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

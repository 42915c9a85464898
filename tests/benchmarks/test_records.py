"""Figures in the pages are those of the records in benchmarks/results, and what writes the records."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks import mask_memory, writing_results
from benchmarks.loader import TIMES, consumed
from mrcnn.results import saving
from mrcnn.results.saving import FORMATS

ROOT = Path(__file__).parents[2]
DATA, DETECTION = (" ".join((ROOT / "docs" / name).read_text("utf-8").split()) for name in ("data.md", "detection.md"))


def record(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def test_how_fast_data_comes():
    results = record("loader")["results"]
    for line in results:
        height, width = line["photo"]
        figures = f"{line['rate']:.1f} | {line['cpu_seconds'] * 1e3:.0f} ms"
        assert f"| {width} x {height} | `{line['augmentation']}` | {figures} |" in DATA
    assert len(results) == len(re.findall(r"\| \d+ x \d+ \| `\w+` \|", DATA))
    taken = consumed(record("training-epyc-avx512-2-cores"))
    assert f"takes {taken['f32']:.2f} images a second in float32 and {taken['bf16']:.2f} in bfloat16" in DATA
    ratio = min(line["rate"] for line in results if line["augmentation"] == "standard") / max(taken.values())
    assert f"the slowest of these with `standard` makes {int(ratio)} times as many" in DATA and ratio > TIMES
    memory = record("loader-memory")["memory"]
    growth, held = f"{memory['growth']:.0f}", f"{memory['resident'][-1] / 1e6:.0f}"
    assert f"(`--batches {memory['batches']}`: {growth} bytes a batch, of {held} MB)" in DATA


def test_large_images():
    found = record("large-image")
    for row in found["rows"]:
        if row["file"] == "tif":
            continue  # the page has the PNG file's
        seconds = peak = ""
        name = "the half frames one by one"
        if row["file"]:
            tile, _, overlap = row["tiles"].partition(":")
            name = f"tiles of {tile}, overlap {overlap}"
            seconds, peak = f"{row['seconds']:.0f}", f"{row['peak_bytes'] / 1e9:.2f} GB"
        recall, precision = row["found"] / row["objects"], row["found"] / row["detections"]
        counts = f"{row['detections']:,} | {row['found']:,} | {recall:.3f} | {precision:.3f}"
        assert " ".join(f"| {name} | {counts} | {seconds} | {peak} |".split()) in DETECTION
        assert f"with {row['objects']:,} nuclei" in DETECTION
    assert len(re.findall(r"\| (?:tiles of \d+|the half frames)", DETECTION)) == 3


def test_memory_of_annotations():
    found = record("mask-memory")
    results = found["results"]
    assert (found["images"], found["instances"]) == (10_000, 100)
    assert [one["kind"] for one in results] == list(mask_memory.KINDS)
    held, peak = ([one[f"{name}_of_all"] / 1e9 for one in results] for name in ("held", "peak"))
    told = f"take {min(held):.1f} to {max(held):.1f} GB, and {max(peak):.1f} GB at most while they are read"
    assert told in DATA and max(peak) < 2


def test_results_of_a_large_image():
    found = record("writing-results")
    told = re.search(r"a format takes at most (\d+) seconds of one core and ([\d.]+) GB", DETECTION)
    assert max(one["cpu_seconds"] for one in found["results"]) <= float(told[1])
    assert max(one["gb"] for one in found["results"]) <= float(told[2])
    assert [one["format"] for one in found["results"]] == list(FORMATS)
    assert f"{found['side']:,} x {found['side']:,} pixels with {found['instances']:,} objects" in DETECTION


def test_what_the_benchmarks_write(tmp_path, monkeypatch, capsys):
    path = tmp_path / "memory.json"
    mask_memory.main(["--images", "2", "--instances", "3", "--size", "256", "--kinds", "via_csv", "--json", str(path)])
    found = json.loads(path.read_text())
    assert found["images"] == 2 and found["machine"]["cores"] >= 1
    (one,) = found["results"]
    assert (one["kind"], one["images"], one["instances"]) == ("via_csv", 2, 6) and "via_csv" in capsys.readouterr().out
    monkeypatch.setattr(saving, "FORMATS", {name: FORMATS[name] for name in ("coco", "csv")})
    path = tmp_path / "writing.json"
    assert writing_results.main(["--side", "300", "--instances", "3", "--json", str(path), "--bar", "-1"]) == 1
    found = json.loads(path.read_text())
    assert (found["side"], found["instances"]) == (300, 3)
    assert [one["format"] for one in found["results"]] == ["coco", "csv"]
    assert all(one["seconds"] > 0 and one["gb"] >= 0 and one["file_mb"] > 0 for one in found["results"])

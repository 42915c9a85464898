"""What was aimed at, held against what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# Results by name, see `benchmarks.tables`.
Results = Mapping[str, Any]

# (precision of ours, how many times faster at least, than whom, who that is in words). All of ours on OpenVINO.
SPEED = (
    ("bfloat16", 10, "torchvision-f32", "torchvision float32"),
    ("bfloat16", 4, "torchvision-bf16", "torchvision bfloat16, channels last"),
    ("bfloat16", 1.1, "torchvision-openvino-bf16", "torchvision in OpenVINO bfloat16"),
    ("float32", 1.8, "torchvision-f32", "torchvision float32"),
    ("int8", 1.7, "torchvision-openvino-bf16", "torchvision in OpenVINO bfloat16"),
    ("int8", 16, "torchvision-f32", "torchvision float32"),
)
# Likewise where both run torchvision's network with its weights: ours are those of `benchmarks.same_weights`.
SAME_SPEED = (
    ("bfloat16", 11, "torchvision-f32", "torchvision float32"),
    ("bfloat16", 4.5, "torchvision-bf16", "torchvision bfloat16, channels last"),
    ("bfloat16", 1.25, "torchvision-openvino-bf16", "torchvision in OpenVINO bfloat16"),
    ("float32", 1.9, "torchvision-f32", "torchvision float32"),
)
SHARE_OF_PEAK = 0.5
AP_LOST = {"bfloat16": 0.003, "int8": 0.01}
FLOAT32_APART = 1e-3  # pixels, and scores
PEAK_BYTES = 1.5e9
FIRST_SECONDS = 3.0
SHARE_AROUND = 0.05


class Bar(NamedTuple):
    """A row of the account: the aim, what was reached, what would be with nothing lost, what the aim would take."""

    aim: str
    reached: str
    at_peak: str
    takes: str
    met: bool


def bars(results: Results) -> Iterator[Bar]:
    """All bars, in order."""
    measured = {one["name"]: one for one in results["inference"]["results"] if "error" not in one}
    flops = sum(results["flops"]["flops"]["ours"].values()) / 1e9
    peaks = results["peaks"]["peaks_gflops"]
    seconds = {kind: measured[f"ours-openvino-{short}"] for kind, short in _SHORT.items()}
    for precision, factor, peer, words in SPEED:
        yield _speed(precision, factor, measured[peer], words, _best(measured.values(), peer), seconds, flops, peaks)
    yield from _same(results)
    for precision, ours in seconds.items():
        share = flops / peaks[precision] / ours["median_seconds"]
        aim = f"{precision}: {SHARE_OF_PEAK:.0%} of the peak of convolutions"
        yield Bar(aim, f"{share:.0%}", "", "", share >= SHARE_OF_PEAK)
    yield from _precision(results["precision"]["results"])
    peak = seconds["bfloat16"]["peak_bytes_detection"]
    yield Bar("peak memory under 1.5 GB in bfloat16", f"{peak / 1e9:.2f} GB", "", "", peak < PEAK_BYTES)
    for precision in ("bfloat16", "int8"):
        for when, key in (("first start", "first_result_seconds"), ("later starts", "later_first_result_seconds")):
            taken = seconds[precision][key]
            if taken is not None:
                aim = f"{precision}: first result within {FIRST_SECONDS:g} s, {when}"
                yield Bar(aim, f"{taken:.1f} s", "", "", taken < FIRST_SECONDS)
    around = next(photo for photo in results["around"]["photos"] if photo["photo"] == [1024, 1024])["sum_seconds"]
    for precision, ours in seconds.items():
        share = around / ours["median_seconds"]
        aim = f"{precision}: molding, boxes and pasting within {SHARE_AROUND:.0%} of a detection"
        yield Bar(aim, f"{share:.1%}", "", "", share <= SHARE_AROUND)


def _same(results: Results) -> Iterator[Bar]:
    """The bars of the same network on both sides."""
    measured = {one["name"]: one for one in results["same"]["results"] if "error" not in one}
    flops = sum(results["flops"]["flops"]["torchvision"].values()) / 1e9
    seconds = {kind: measured[f"ours-torchvision-openvino-{_SHORT[kind]}"] for kind in ("float32", "bfloat16")}
    for precision, factor, peer, words in SAME_SPEED:
        best = _best(measured.values(), peer)
        bar = _speed(
            precision, factor, measured[peer], words, best, seconds, flops, results["peaks"]["peaks_gflops"]
        )  # fmt: skip
        yield bar._replace(aim=f"the same network in {bar.aim}")


_SHORT = {"float32": "f32", "bfloat16": "bf16", "int8": "int8"}


def _best(measured: Any, peer: str) -> dict[str, Any]:
    """The fastest of a peer's family."""
    measured = list(measured)
    family = next(one["family"] for one in measured if one["name"] == peer)
    return min((one for one in measured if one["family"] == family), key=lambda one: one["median_seconds"])


def _speed(
    precision: str, factor: float, peer: dict[str, Any], words: str, best: dict[str, Any], seconds: dict[str, Any],
    flops: float, peaks: Mapping[str, float],
) -> Bar:  # fmt: skip
    theirs, tuned = peer["median_seconds"], best["median_seconds"]
    ours, floor = seconds[precision]["median_seconds"], flops / peaks[precision]

    def times(mine: float) -> str:
        return f"{theirs / mine:.2f} x" + (f" ({tuned / mine:.2f} x its best)" if tuned < theirs else "")

    rate = flops / (theirs / factor)
    takes = f"{rate:.0f} GFLOP/s; the peak is {peaks[precision]:.0f}"
    aim = f"{precision}: {factor:g} x as fast as {words}"
    return Bar(aim, times(ours), times(floor), takes, theirs / ours >= factor)


def _precision(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    by_name = {(row["engine"], row["precision"]): row for row in rows}
    reference = by_name["keras", "float32"]["mask_ap"]
    plain = [by_name[engine, "float32"] for engine in ("openvino", "onnxruntime")]
    box = max(max(row["box_largest"], row["border_largest"]) for row in plain)
    score = max(row["score_largest"] for row in plain)
    found = all(row["matched"] == row["of"] == row["detections"] for row in plain)
    met = found and max(box, score) <= FLOAT32_APART
    yield Bar("float32 engines within 1e-3 of Keras", f"{box:.2g} pixels, {score:.2g} of a score", "", "", met)
    for precision, limit in AP_LOST.items():
        lost = reference - by_name["openvino", precision]["mask_ap"]
        told = f"{abs(lost):.4f} {'lost' if lost > 0 else 'gained'}"
        yield Bar(f"{precision}: under {limit:g} mask AP lost", told, "", "", lost < limit)

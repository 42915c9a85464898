"""Tables of what recipes do to accuracy, of the files that `python -m benchmarks.recipes` writes."""

from __future__ import annotations

from typing import Any

from benchmarks.recipes.settings import LEGACY, LEGACY_ALL_SCORES, MODERN, RUNS, SWITCHES, WEIGHTS_OF

Rows = list[tuple[str, ...]]


def same_time(recorded: dict[str, Any]) -> Rows:
    """Legacy and modern, trained for the same time."""
    rows: Rows = [("", "steps", "mask AP", "mask AP50", "box AP", "box AP50")]
    for name in (LEGACY, LEGACY_ALL_SCORES, MODERN):
        result = recorded["results"][name]
        scores = (result[kind][score] for kind in ("mask", "box") for score in ("ap", "ap50"))
        rows.append((name, f"{result['steps']:,}", *(f"{score:.3f}" for score in scores)))
    return rows


def seeds(recorded: dict[str, Any]) -> list[str]:
    """The runs of the modern recipe that differ in their seed alone."""
    return [name for name in recorded["results"] if name == MODERN or name.startswith(f"{MODERN}, seed ")]


def spread(recorded: dict[str, Any], kind: str) -> float:
    """Largest less smallest AP of them; kind: "mask" or "box"."""
    found = [recorded["results"][name][kind]["ap"] for name in seeds(recorded)]
    return max(found) - min(found)


def ablation(recorded: dict[str, Any]) -> Rows:
    """What AP and time of the modern recipe become where one of its choices is taken back."""
    results, modern = recorded["results"], recorded["results"][MODERN]
    step = modern["processor_seconds_of_a_step"]
    rows: Rows = [("taken back", "fields", "mask AP", "box AP", "a step takes")]
    scores = (f"{modern[kind]['ap']:.3f}" for kind in ("mask", "box"))
    rows.append(("**nothing: modern**", "", *scores, f"{step:.2f} s of a core"))

    def changed(name: str, title: str, fields: str = "") -> tuple[str, ...]:
        changes = (f"{results[name][kind]['ap'] - modern[kind]['ap']:+.3f}" for kind in ("mask", "box"))
        share = results[name]["processor_seconds_of_a_step"] / step - 1
        return title, fields, *changes, "the same weights" if WEIGHTS_OF.get(name) == MODERN else f"{share:+.0%}"

    rows += [changed(name, name.removeprefix(f"{MODERN}, ")) for name in seeds(recorded) if name != MODERN]
    rows += [changed(name, f"all: {name}") for name in (LEGACY, LEGACY_ALL_SCORES)]
    fields = {name: ", ".join(f"`{field}`" for field in SWITCHES[name]) for name in RUNS if name in SWITCHES}
    return rows + [changed(name, name, told) for name, told in fields.items()]

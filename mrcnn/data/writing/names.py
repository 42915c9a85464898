"""Names for files that are made of others, which may share names over several folders."""

from __future__ import annotations


def free_name(stem: str, used: set[str], ending: str = "") -> str:
    """`stem`, or `stem_2`, `stem_3` and so on where another file of this run has that name, whose ending included, in
    letters of either case. It is added to `used`."""
    name, number = stem, 1
    while f"{name}{ending}".lower() in used:
        number += 1
        name = f"{stem}_{number}"
    used.add(f"{name}{ending}".lower())
    return name

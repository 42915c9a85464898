"""Parts of figures with matplotlib: axes to draw on, and boxes, masks and captions on them.

Letters: H, W height and width. Boxes are (y1, x1, y2, x2) in pixels, y2 and x2 one outside; masks are [H, W]
bool. Colors are (red, green, blue) from 0 to 1, or any other notation of matplotlib's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.drawing import apply_mask, mask_outlines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Backends that write files and open no window: their show() warns.
_FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def pyplot() -> Any:
    """`matplotlib.pyplot`, imported here so that only those who plot wait for it and have a backend
    chosen."""
    import matplotlib.pyplot as plt

    return plt


def axes(ax: Axes | None, figsize: tuple[float, float] | None) -> tuple[Axes, bool]:
    """Axes to draw on, and whether their figure is ours to show."""
    if ax is not None:
        return ax, False
    return pyplot().subplots(figsize=figsize)[1], True


def finish(ax: Axes, own: bool) -> Axes:
    """`ax`, its figure shown if it is our own."""
    if own:
        show()
    return ax


def show() -> None:
    """Show open figures, where the backend has a way to."""
    plt = pyplot()
    if plt.get_backend().lower() not in _FILE_BACKENDS:
        plt.show()


def add_box(ax: Axes, box: Sequence[float], color: Any, alpha: float = 1.0, linestyle: str = "solid") -> None:
    """Outline a box on the axes."""
    from matplotlib.patches import Rectangle

    y1, x1, y2, x2 = box
    # Pixel centers have whole coordinates: a pixel's own edge lies half a pixel before.
    corner, width, height = (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1
    ax.add_patch(
        Rectangle(
            corner,
            width,
            height,
            linewidth=1.5,
            alpha=alpha,
            linestyle=linestyle,
            edgecolor=color,
            facecolor="none",
        )
    )


def add_text(ax: Axes, box: Sequence[float], text: str, color: Any) -> None:
    """Write a caption above the upper left corner of a box, on a plate of the box's color."""
    if text:
        from matplotlib.colors import to_rgb

        color = to_rgb(color)
        plate = {"facecolor": color, "alpha": 0.8, "pad": 1.5, "edgecolor": "none"}
        ink = "black" if np.dot(color, [0.299, 0.587, 0.114]) > 0.5 else "white"
        # An annotation, unlike a plain text, is shown whole at the rim and yet hidden when its corner is out of view.
        ax.annotate(text, (box[1], box[0]), color=ink, size=10, va="bottom", bbox=plate, annotation_clip=True)


def add_mask(ax: Axes, picture: np.ndarray, mask: np.ndarray, color: Any, outline: bool = True) -> None:
    """Fill the mask in the picture, and outline it on the axes."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Polygon

    apply_mask(picture, mask, to_rgb(color))
    if outline:
        for points in mask_outlines(np.asarray(mask) > 0):
            ax.add_patch(Polygon(points, facecolor="none", edgecolor=to_rgb(color), linewidth=1.2))

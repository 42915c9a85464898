"""What was found in overlapping tiles of an image, as the objects of the whole image: each once, and whole.

Letters: H, W image size; T tiles, N objects, n detections of a tile. Boxes and windows are (y1, x1, y2, x2) in
*pixels* of the image, y2 and x2 one outside.

What a border of its tile may have cut, and another tile sees with room around it, is left to that tile. Of the rest,
detections of one class in two tiles are pieces of one object when each goes on where the other's tile ends and, within
what both tiles see, their masks agree. Pieces are united, however many tiles they lie in. Of several views of an object
then one stays: of two detections in different tiles that share half of the smaller one's pixels, the better. Better is
one that no border of a tile may have cut, of these the one of the higher score; of the others, and of what was united,
the larger. Detections of the same tile are never compared: the network has done that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn.data.crops import Crop
from mrcnn.data.tiles import Window

# From so much on, masks agree (IoU within what both tiles see), or share an object (of the smaller one's pixels).
SAME = 0.5
# Pieces of one object share at least this part of the smaller: less may be the blurred seam of two that touch.
_LEAST_SHARED = 0.02
# What ends so near a border of its tile, in pixels or in parts of its side, may be cut by it.
_NEAR_PIXELS, _NEAR_PART = 4, 0.1
# The room that another tile must have around it, in parts of its side, to know better.
_ROOM_PART = 0.25
# What goes on beyond a tile shows that a piece that seemed whole there is not, where it is so much larger.
_LARGER = 1.25


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects of an image, or of a tile of it; boxes and masks in pixels of the image.

    Attributes:
        boxes: [N, 4] int32.
        class_ids: [N] int32.
        scores: [N] float32.
        crops: N masks.
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    crops: list[Crop]

    def masks(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """Each mask [h, w] bool with its first row and its first column in the image."""
        return ((crop.mask(), crop.top, crop.left) for crop in self.crops)


@dataclass(eq=False)
class _Object:
    """A detection, or several that are pieces of one object.

    Attributes:
        box, class_id, score, crop: as in the result.
        seen: the mask that is compared: of a detection without any, all of its box.
        window: the tile; of several pieces the box.
        doubtful: whether the object may go on beyond a border of its tile.
        united: whether it is of several pieces.
    """

    box: Sequence[int]
    class_id: int
    score: float
    crop: Crop
    seen: Crop
    window: Window
    doubtful: bool
    united: bool = False


def merge_tiles(
    windows: Sequence[Window],
    found: Sequence[Detections],
    image_shape: Sequence[int],
    class_agnostic: bool = False,
) -> Detections:
    """Make one of what overlapping tiles tell.

    Args:
        windows: T tiles of the image.
        found: what is in each of them.
        image_shape: (H, W, ...).
        class_agnostic: whether detections of different classes can be of one object; its class is then that of the
            largest piece.

    Returns:
        Best score first. An object that a tile has whole keeps the box, score and mask of that detection. One that was
        united has the union of the masks, the box around it, and of the scores the mean, weighted by pixels.
    """
    tiles = np.array(windows, np.int64).reshape(-1, 4)
    found = [_without_known_better(i, tiles, one, image_shape) for i, one in enumerate(found)]
    tile_of = np.repeat(np.arange(len(windows)), [len(one.crops) for one in found])
    pieces = [piece for window, one in zip(windows, found, strict=True) for piece in _pieces(window, one, image_shape)]
    pairs = _pairs(tiles, tile_of, pieces, class_agnostic)
    shared = {(i, j): pieces[i].seen.shared(pieces[j].seen) for i, j in pairs}

    groups = _Groups(len(pieces))
    for (i, j), count in shared.items():
        if _one_goes_on(pieces[i].crop, pieces[j].crop, windows[tile_of[i]], windows[tile_of[j]], count):
            groups.join(i, j)
    objects, object_of = [], np.zeros(len(pieces), int)
    for members in groups.members():
        object_of[members] = len(objects)
        objects.append(_united([pieces[i] for i in members]) if len(members) > 1 else pieces[members[0]])

    overlaps: dict[int, dict[int, int]] = {number: {} for number in range(len(objects))}
    for (i, j), count in shared.items():
        a, b = int(object_of[i]), int(object_of[j])
        if a != b and b not in overlaps[a]:
            if objects[a].united or objects[b].united:
                count = objects[a].seen.shared(objects[b].seen)
            overlaps[a][b] = overlaps[b][a] = count
    kept = [objects[number] for number in _best(objects, overlaps)]
    kept.sort(key=lambda one: -one.score)
    return Detections(
        np.array([one.box for one in kept], np.int32).reshape(-1, 4),
        np.array([one.class_id for one in kept], np.int32),
        np.array([one.score for one in kept], np.float32),
        [one.crop for one in kept],
    )


def _without_known_better(tile: int, tiles: np.ndarray, found: Detections, image_shape: Sequence[int]) -> Detections:
    """What was found in one of the tiles [T, 4], but for what its border may have cut and another tile sees with room
    around it."""
    cut = np.flatnonzero(_near(found.boxes, tiles[tile], image_shape))
    boxes = found.boxes[cut][:, None]
    others = np.flatnonzero(_touch(tiles[tile], tiles))
    others = tiles[others[others != tile]]
    wanted = np.maximum(_NEAR_PIXELS, _ROOM_PART * _sides(boxes))
    known = (_room(boxes, others, image_shape) >= wanted).all(axis=-1).any(axis=1)
    kept = np.delete(np.arange(len(found.boxes)), cut[known])
    return Detections(
        found.boxes[kept], found.class_ids[kept], found.scores[kept], [found.crops[index] for index in kept]
    )


def _near(boxes: np.ndarray, window: Window, image_shape: Sequence[int]) -> np.ndarray:
    """Whether a border of a tile may have cut boxes [n, 4]."""
    return (_room(boxes, window, image_shape) < np.maximum(_NEAR_PIXELS, _NEAR_PART * _sides(boxes))).any(axis=1)


def _room(boxes: np.ndarray, window: np.ndarray | Window, image_shape: Sequence[int]) -> np.ndarray:
    """How far boxes [..., 4] are from the sides of a window (or of windows [..., 4]), below 0 outside: [..., 4]. At a
    border of the image there is no end of room, for nothing is cut there."""
    window = np.asarray(window, np.float64)
    room = np.concatenate([boxes[..., :2] - window[..., :2], window[..., 2:] - boxes[..., 2:]], axis=-1)
    at_border = np.concatenate([window[..., :2] <= 0, window[..., 2:] >= np.array(image_shape[:2])], axis=-1)
    return np.where(at_border, np.inf, room)


def _sides(boxes: np.ndarray) -> np.ndarray:
    """Heights and widths of boxes [..., 4] as (h, w, h, w): [..., 4]."""
    return np.tile(boxes[..., 2:] - boxes[..., :2], 2)


def _pieces(window: Window, found: Detections, image_shape: Sequence[int]) -> list[_Object]:
    """What was found in a tile, each for itself."""
    doubtful = _near(found.boxes, window, image_shape)
    return [
        _Object(box, class_id, score, crop, crop if crop.area else _filled(box), window, is_doubtful)
        for box, class_id, score, crop, is_doubtful in zip(
            found.boxes.tolist(), found.class_ids.tolist(), found.scores.tolist(), found.crops,
            doubtful.tolist(), strict=True,
        )
    ]  # fmt: skip


def _filled(box: Sequence[int]) -> Crop:
    y1, x1, y2, x2 = box
    return Crop.of(np.ones((max(0, y2 - y1), max(0, x2 - x1)), bool), y1, x1)


def _pairs(
    tiles: np.ndarray, tile_of: np.ndarray, pieces: Sequence[_Object], class_agnostic: bool
) -> Iterator[tuple[int, int]]:
    """Detections of different tiles [T, 4] whose masks may touch, by index."""
    boxes = np.array([piece.seen.box for piece in pieces], np.int64).reshape(-1, 4)
    class_ids = np.array([piece.class_id for piece in pieces], np.int64)
    own = [np.flatnonzero(tile_of == tile) for tile in range(len(tiles))]
    for first, window in enumerate(tiles):
        for second in first + 1 + np.flatnonzero(_touch(window, tiles[first + 1 :])):
            mine = own[first][_touch(tiles[second], boxes[own[first]])]
            others = own[second][_touch(window, boxes[own[second]])]
            near = _touch(boxes[mine][:, None], boxes[others][None])
            if not class_agnostic:
                near &= class_ids[mine][:, None] == class_ids[others][None]
            for i, j in zip(*np.nonzero(near), strict=True):
                yield int(mine[i]), int(others[j])


def _touch(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether boxes [..., 4] have a pixel in common."""
    low, high = np.maximum(one[..., :2], others[..., :2]), np.minimum(one[..., 2:], others[..., 2:])
    return (low < high).all(axis=-1)


def _one_goes_on(one: Crop, other: Crop, window: Window, other_window: Window, shared: int) -> bool:
    """Whether masks of two tiles, with `shared` pixels in common, are pieces of one object, of which each tile sees
    something that the other does not."""
    if not shared or shared < _LEAST_SHARED * min(one.area, other.area):
        return False
    inside, other_inside = one.area_in(other_window), other.area_in(window)
    if inside == one.area or other_inside == other.area:
        return False
    return shared >= SAME * (inside + other_inside - shared)


def _united(pieces: Sequence[_Object]) -> _Object:
    boxes = np.array([piece.crop.box for piece in pieces])
    (top, left), (bottom, right) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
    mask = np.zeros((bottom - top, right - left), bool)
    for piece in pieces:
        y1, x1, y2, x2 = piece.crop.box
        mask[y1 - top : y2 - top, x1 - left : x2 - left] |= piece.crop.mask()
    crop = Crop.of(mask, top, left)
    areas = [piece.crop.area for piece in pieces]
    score = float(np.average([piece.score for piece in pieces], weights=areas))
    class_id = pieces[int(np.argmax(areas))].class_id
    return _Object(crop.box, class_id, score, crop, crop, crop.box, doubtful=False, united=True)


def _best(objects: Sequence[_Object], overlaps: dict[int, dict[int, int]]) -> list[int]:
    """Which objects stay.

    Args:
        overlaps: of each object, pixels that it shares with others, by their index.
    """

    def rank(number: int) -> tuple[int, float]:
        one = objects[number]
        if (
            one.united
            or one.doubtful
            or any(
                count >= SAME * one.seen.area and _shows_more(objects[other], one)
                for other, count in overlaps[number].items()
            )
        ):
            return 1, -one.seen.area
        return 0, -one.score

    gone: set[int] = set()
    kept = []
    for number in sorted(range(len(objects)), key=rank):
        if number in gone:
            continue
        kept.append(number)
        area = objects[number].seen.area
        gone.update(
            other for other, count in overlaps[number].items() if count >= SAME * min(area, objects[other].seen.area)
        )
    return kept


def _shows_more(other: _Object, one: _Object) -> bool:
    """Whether `one`, which seemed whole, is a part of `other`, which is larger and goes on where its tile ends."""
    larger = other.seen.area > _LARGER * one.seen.area
    return larger and (other.united or other.seen.area_in(one.window) < other.seen.area)


class _Groups:
    """Numbers from 0 to `count` - 1 in groups, at first each for itself."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def join(self, i: int, j: int) -> None:
        """Put the groups of two numbers together."""
        self._parents[self._root(i)] = self._root(j)

    def members(self) -> list[list[int]]:
        """The numbers of each group."""
        groups: dict[int, list[int]] = {}
        for number in range(len(self._parents)):
            groups.setdefault(self._root(number), []).append(number)
        return list(groups.values())

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = number = self._parents[self._parents[number]]
        return number

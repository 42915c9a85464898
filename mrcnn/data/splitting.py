"""Images dealt to parts, such as for training and for validation, so that each part has its share of every class.

Letters: M images, K classes, G groups, P parts, F features.

Which part a group goes to hangs on a hash of its name, not on its place in a file: groups are ordered by their rarest
class, in each class by hash, and each class is cut at the parts' shares. What that leaves uneven (an image has several
classes, and groups differ in size) is mended by moving and exchanging groups as long as that helps. So the same images
are dealt alike in any order, and a few new ones move few of the others: the greedy "iterative stratification"
(Sechidis et al. 2011) deals as evenly, but one image more changes every later choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

# A count this near to its share is left alone: in objects or images, or as a share of what the part is to have.
_NEAR = 0.5
_NEAR_SHARE = 0.02
# Groups that are looked at for one move.
_CANDIDATES = 256
_SWAPPED = 64
# Each is looked for among thousands of pairs, which takes some milliseconds.
_MOST_SWAPS = 500
# What a move must gain at least, as a share of the unevenness that it is to mend.
_WORTH = 0.05


def deal(
    names: Sequence[str],
    counts: Sequence[Mapping[int, int]],
    shares: Sequence[float],
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The part of each image.

    Args:
        names: M names. Images of one name stay together.
        counts: for each image, how many objects of each class it has.
        shares: P positive numbers that sum to 1.
        groups: M names of groups; images of one group stay together. None: each image by itself.
        seed: another one deals otherwise.

    Returns:
        [M] int64, from 0 to P - 1. No part is empty where there are as many groups as parts.

    Raises:
        ValueError: shares that are none; or one image in two groups.
    """
    shares = np.asarray(shares, np.float64)
    if shares.ndim != 1 or not len(shares) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"Shares must be above 0 and sum to 1. Received: {', '.join(f'{v:g}' for v in shares)}.")
    if not len(names):
        return np.zeros(0, np.int64)
    keys, group_of = _groups(names, groups)
    table = _Table(group_of, counts, len(keys))
    luck = np.array([_hash(key, seed) for key in keys])
    parts = _cut(table, luck, shares)
    _Repair(table, luck, shares, parts).run()
    _fill_empty(table, luck, shares, parts)
    return parts[group_of]


def _groups(names: Sequence[str], groups: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    """Names of the groups, sorted, and the place there of each image's."""
    owners = list(names if groups is None else groups)
    group_of_name: dict[str, str] = {}
    for name, group in zip(names, owners, strict=True):
        if group_of_name.setdefault(name, group) != group:
            raise ValueError(f"The image {name} is there twice, in the groups {group_of_name[name]!r} and {group!r}.")
    keys = sorted(set(owners))
    place = {key: i for i, key in enumerate(keys)}
    return keys, np.array([place[owner] for owner in owners], np.int64)


def _hash(text: str, seed: int) -> float:
    """A number from 0 to 1 that looks random, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


class _Table:
    """What each group holds, as rows of (feature, value): features are the images, the images without objects, and for
    each class the images that have it and its objects."""

    def __init__(self, group_of: np.ndarray, counts: Sequence[Mapping[int, int]], group_count: int) -> None:
        classes = sorted({class_id for one in counts for class_id, count in one.items() if count > 0})
        place = {class_id: i for i, class_id in enumerate(classes)}
        held: list[dict[int, int]] = [{} for _ in range(group_count)]
        for group, one in zip(group_of.tolist(), counts, strict=True):
            mine, there = held[group], [(place[c], n) for c, n in one.items() if n > 0]
            pairs = [(0, 1), *([] if there else [(1, 1)])]
            pairs += [pair for i, n in there for pair in ((2 + 2 * i, 1), (3 + 2 * i, int(n)))]
            for feature, value in pairs:
                mine[feature] = mine.get(feature, 0) + value
        rows = np.repeat(np.arange(group_count), [len(one) for one in held])
        columns = np.array([feature for one in held for feature in one], np.int64)
        self.values = np.array([value for one in held for value in one.values()], np.float64)
        self.columns, self.rows = columns, rows
        self.starts = np.searchsorted(rows, np.arange(group_count + 1))
        self.group_count, self.feature_count = group_count, 2 + 2 * len(classes)
        self.totals = np.bincount(columns, self.values, self.feature_count)
        self.images = np.bincount(group_of, minlength=group_count).astype(np.float64)
        by_column = np.argsort(columns, kind="stable")
        self._rows_by_column = rows[by_column]
        self._column_starts = np.searchsorted(columns[by_column], np.arange(self.feature_count + 1))

    def having(self, feature: int) -> np.ndarray:
        """The groups that have some of a feature."""
        return self._rows_by_column[self._column_starts[feature] : self._column_starts[feature + 1]]

    def entries(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in `columns` and `values` of some groups' features, and which of the groups each is of."""
        lengths = self.starts[groups + 1] - self.starts[groups]
        owner = np.repeat(np.arange(len(groups)), lengths)
        first = np.repeat(self.starts[groups] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        return first + np.arange(len(owner)), owner

    def rarest(self) -> np.ndarray:
        """[G] the feature "images with class" of each group that fewest images have; that of no objects is one too."""
        images = np.where(np.arange(self.feature_count) % 2 == 0, self.totals, np.inf)
        images[:2] = np.inf, self.totals[1]
        order = np.lexsort([np.arange(self.feature_count), images])
        rank = np.empty(self.feature_count, np.int64)
        rank[order] = np.arange(self.feature_count)
        return order[np.minimum.reduceat(rank[self.columns], self.starts[:-1])]

    def held_by(self, parts: np.ndarray, part_count: int) -> np.ndarray:
        """[P, F] what each part holds."""
        cells = parts[self.rows] * self.feature_count + self.columns
        return np.bincount(cells, self.values, part_count * self.feature_count).reshape(part_count, -1)


def _cut(table: _Table, luck: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Groups of one rarest class in the order of their luck, cut at the shares; by the middle of each group."""
    rarest = table.rarest()
    order = np.lexsort([luck, rarest])
    images, stratum = table.images[order], rarest[order]
    firsts = np.flatnonzero(np.r_[True, stratum[1:] != stratum[:-1]])
    which = np.cumsum(np.r_[True, stratum[1:] != stratum[:-1]]) - 1
    ends = np.cumsum(images)
    before = (ends - images)[firsts][which]
    total = np.add.reduceat(images, firsts)[which]
    middle = (ends - images / 2 - before) / total
    parts = np.empty(len(order), np.int64)
    parts[order] = np.minimum(np.searchsorted(np.cumsum(shares), middle, side="right"), len(shares) - 1)
    return parts


class _Repair:
    """Moves groups as long as what is most uneven comes nearer to the shares. Unevenness is that of the chi-square
    test: (held - wanted)² / wanted, divided by the feature's total, so that rare classes come first."""

    def __init__(self, table: _Table, luck: np.ndarray, shares: np.ndarray, parts: np.ndarray) -> None:
        self.table, self.parts = table, parts
        self.off = table.held_by(parts, len(shares)) - shares[:, None] * table.totals
        wanted = np.maximum(shares[:, None] * table.totals, 1e-9)
        self.weight = 1 / (wanted * np.maximum(table.totals, 1))
        largest = np.zeros(table.feature_count)
        np.maximum.at(largest, table.columns, table.values)
        self.near = np.maximum(np.maximum(_NEAR, largest / 2), _NEAR_SHARE * wanted)
        self.by_luck: list[np.ndarray | None] = [None] * table.feature_count
        self.luck = luck

    def run(self) -> None:
        """Change `parts` in place."""
        self._repeat(self._move, 4 * self.table.group_count + 100)
        self._even_images()
        self._repeat(self._swap, _MOST_SWAPS)

    def _repeat(self, mend: Callable[[int, int, float], np.ndarray], times: int) -> None:
        """Mend what is most uneven, a feature of a part, until nothing is or can be mended, or so many times."""
        stuck = np.zeros(self.off.shape, bool)
        for _ in range(times):
            cost = np.where(stuck, 0, self.weight * np.maximum(np.abs(self.off) - self.near, 0) ** 2)
            part, feature = np.unravel_index(int(cost.argmax()), cost.shape)
            if cost[part, feature] <= 0:
                return
            moved = mend(int(part), int(feature), _WORTH * float(cost[part, feature]))
            if len(moved):
                stuck[:, self.table.columns[self.table.entries(moved)[0]]] = False
            else:
                stuck[part, feature] = True

    def _move(self, part: int, feature: int, least: float) -> np.ndarray:
        """Move the group that helps most out of the part, or into it, and give it; none where none helps."""
        there = self._having(feature)
        too_many = self.off[part, feature] > 0
        groups = there[(self.parts[there] == part) == too_many][:_CANDIDATES]
        if not len(groups):
            return groups
        targets = [p for p in range(len(self.off)) if p != part] if too_many else [part]
        costs = np.stack([self._costs(groups, target) for target in targets])
        target, chosen = np.unravel_index(int(costs.argmin()), costs.shape)
        if costs[target, chosen] > -least:
            return groups[:0]
        self._put(groups[chosen], targets[target])
        return groups[[chosen]]

    def _having(self, feature: int) -> np.ndarray:
        """The groups that have a feature, in the order of their luck."""
        there = self.by_luck[feature]
        if there is None:
            there = self.table.having(feature)
            there = self.by_luck[feature] = there[np.argsort(self.luck[there], kind="stable")]
        return there

    def _swap(self, part: int, feature: int, least: float) -> np.ndarray:
        """Exchange the two groups of as many images that help most, one of the part, and give them; none where none
        help."""
        there, everything = self._having(feature), self._having(0)
        too_many = self.off[part, feature] > 0
        best, pair = -least, None
        for other in range(len(self.off)):
            if other == part:
                continue
            rich, poor = (part, other) if too_many else (other, part)
            leaving = there[self.parts[there] == rich][:_SWAPPED]
            coming = everything[self.parts[everything] == poor][:_CANDIDATES]
            if not len(leaving) or not len(coming):
                continue
            costs = self._costs(leaving, poor)[:, None] + self._costs(coming, rich)
            both = self.weight[rich] + self.weight[poor]
            costs -= 2 * (self._dense(leaving) * both) @ self._dense(coming).T
            costs[self.table.images[leaving][:, None] != self.table.images[coming]] = np.inf
            i, j = np.unravel_index(int(costs.argmin()), costs.shape)
            if costs[i, j] < best:
                best, pair = costs[i, j], (leaving[i], poor, coming[j], rich)
        if pair is None:
            return there[:0]
        self._put(*pair[:2])
        self._put(*pair[2:])
        return np.array([pair[0], pair[2]])

    def _dense(self, groups: np.ndarray) -> np.ndarray:
        places, owner = self.table.entries(groups)
        rows = np.zeros((len(groups), self.table.feature_count))
        rows[owner, self.table.columns[places]] = self.table.values[places]
        return rows

    def _even_images(self) -> None:
        """How many images a part has is what people look at first: move those that do the least harm, until no group
        brings the numbers nearer."""
        for _ in range(self.table.group_count):
            images = self.off[:, 0]
            source, target = int(images.argmax()), int(images.argmin())
            groups = np.flatnonzero(self.parts == source)
            sizes = self.table.images[groups]
            after = np.maximum(np.abs(images[source] - sizes), np.abs(images[target] + sizes))
            groups = groups[after < max(images[source], -images[target]) - 1e-9]
            if not len(groups):
                return
            groups = groups[np.argsort(self.luck[groups], kind="stable")][:_CANDIDATES]
            self._put(groups[int(self._costs(groups, target).argmin())], target)

    def _costs(self, groups: np.ndarray, target: int) -> np.ndarray:
        """By how much unevenness grows when each of the groups goes to a part."""
        places, owner = self.table.entries(groups)
        columns, values = self.table.columns[places], self.table.values[places]
        source = self.parts[groups][owner]
        leaves = self.weight[source, columns] * (values**2 - 2 * values * self.off[source, columns])
        enters = self.weight[target, columns] * (values**2 + 2 * values * self.off[target, columns])
        return np.bincount(owner, leaves + enters, len(groups))

    def _put(self, group: int, target: int) -> None:
        places, _ = self.table.entries(np.array([group]))
        columns, values = self.table.columns[places], self.table.values[places]
        self.off[self.parts[group], columns] -= values
        self.off[target, columns] += values
        self.parts[group] = target


def _fill_empty(table: _Table, luck: np.ndarray, shares: np.ndarray, parts: np.ndarray) -> None:
    """Give a part that got nothing one group of the part that has most, as long as that has two."""
    for part in range(len(shares)):
        held = np.bincount(parts, minlength=len(shares))
        if held[part] or held.max() < 2:
            continue
        there = np.flatnonzero(parts == held.argmax())
        parts[there[np.lexsort([luck[there], table.images[there]])[0]]] = part

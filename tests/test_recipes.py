"""Augmentations by name, and that of a configuration."""

import pickle

import numpy as np
import pytest

from mrcnn.cli import _parser
from mrcnn.config import AUGMENTATIONS, Config, ConfigError
from mrcnn.data.augmentation import augment_labeled, recipe
from tests.augmented import follows, painted


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_name_makes_one(name):
    assert name == Config.from_dict({"AUGMENTATION": name}).AUGMENTATION
    augmentation = recipe(name)
    if name == "none":
        assert augmentation is None
        return
    mirrored, counts = 0, set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mine, other = ((*painted(rng), np.arange(1, 6, dtype=np.int32)) for _ in range(2))
        image, masks, ids = augment_labeled(augmentation, *mine, rng, lambda rng, other=other: other)
        assert image.shape == mine[0].shape and masks.shape[2] == len(ids)
        counts.add(len(ids))
        mirrored += np.array_equal(image, mine[0][:, ::-1])
        if name != "strong":  # a pasted object hides others in channels of their own
            assert follows(image, masks, exact=name == "flip") or name == "standard"
    assert (5 < mirrored < 15) == (name == "flip")
    assert (len(counts) > 1) == (name == "strong")
    pickle.loads(pickle.dumps(augmentation))


def test_other_names_are_refused():
    with pytest.raises(ValueError, match=r"none, flip, standard, strong. Received: 'strng'"):
        recipe("strng")
    with pytest.raises(ConfigError, match=r"AUGMENTATION must be one of none, flip.*Received: 'wild'"):
        Config.from_dict({"AUGMENTATION": "wild"})
    assert Config().AUGMENTATION == "none"


def test_the_command_line_knows_the_same_names():
    train = ["train", "--train", "a.json", "--images", "b"]
    for name in AUGMENTATIONS:
        assert _parser().parse_args([*train, "--augment", name]).augmentation == name
    assert _parser().parse_args([*train, "--augmentation", "none"]).augmentation == "none"
    assert _parser().parse_args(train).augmentation is None

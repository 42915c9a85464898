"""Configurations in pickles: of classes by name, of classes made on the fly, and copies."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

from mrcnn.config import Config
from tests.shapes import ShapesConfig


def backbone(image):
    return image


class Own(ShapesConfig):
    BACKBONE = backbone
    MEAN_PIXEL = np.array([1.0, 2.0, 3.0])
    MY_NOTE = "mine"


def made_in_a_function():
    class Local(Own):
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 192
        BACKBONE = backbone
        ANOTHER = (1, 2)

    return Local()


CONFIGS = {
    "by name": Own,
    "from values": lambda: Own.from_dict({"IMAGES_PER_GPU": 3, "NUM_CLASSES": 7}),
    "twice": lambda: type(Config.from_dict({"NUM_CLASSES": 7})).from_dict({"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": 5}),
    "local": made_in_a_function,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back(name):
    config = CONFIGS[name]()
    config.LATER = [1]
    again = pickle.loads(pickle.dumps(config))
    assert again.to_dict() == config.to_dict() and isinstance(again, Config)
    for attribute in ("BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE", "LATER", "MY_NOTE", "ANOTHER"):
        np.testing.assert_array_equal(getattr(again, attribute, None), getattr(config, attribute, None))
    assert again.BACKBONE is config.BACKBONE or again.BACKBONE == config.BACKBONE
    assert isinstance(again, Own) == isinstance(config, Own)
    again.validate()


def test_a_class_with_a_name_stays_itself_and_copies_keep_theirs():
    assert type(pickle.loads(pickle.dumps(Own()))) is Own
    for make in CONFIGS.values():
        config = make()
        twin = copy.copy(config)
        assert type(twin) is type(config) and vars(twin).keys() == vars(config).keys()
        twin.BATCH_SIZE = 99
        assert config.BATCH_SIZE != 99
        assert copy.deepcopy(config).to_dict() == config.to_dict()


def test_another_process_reads_it():
    data = pickle.dumps(Config.from_dict({"NUM_CLASSES": 9, "IMAGES_PER_GPU": 3}))
    program = "import pickle, sys; c = pickle.load(sys.stdin.buffer); print(c.NUM_CLASSES, c.BATCH_SIZE)"
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert done.stdout.split() == [b"9", b"3"]


def test_what_cannot_be_pickled_is_told():
    config = type("C", (Config,), {"NUM_CLASSES": 2, "BACKBONE": lambda image: image})()
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(config)

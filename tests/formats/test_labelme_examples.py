"""labelme's own examples: what labelme, labelme2coco.py and labelme2voc.py wrote of the same three photos."""

from __future__ import annotations

import pytest

from mrcnn.data.content import Kind
from mrcnn.data.formats import load_dataset, read_content
from tests.formats.test_readers import overlap
from tests.labelme_examples import EXAMPLES

pytestmark = pytest.mark.skipif(
    not EXAMPLES.is_dir(),
    reason="labelme's examples are not there: `make setup-labelme` fetches them where apt has labelme-examples",
)


def objects(name):
    """(photo, class, mask) of all objects of a dataset."""
    dataset = load_dataset(EXAMPLES / "instance_segmentation" / name)
    found = []
    for number, info in enumerate(dataset.image_info):
        masks, class_ids = dataset.load_mask(number)
        photo = info["path"].rpartition("/")[2]
        found += [(photo, dataset.class_names[k], masks[..., n]) for n, k in enumerate(class_ids)]
    return found


@pytest.fixture(scope="module")
def truth():
    return objects("data_annotated")


@pytest.mark.parametrize("name,least", [("data_dataset_coco", 0.99), ("data_dataset_voc", 0.9)])
def test_other_formats_of_the_same(truth, name, least):
    """labelme fills outlines in another way than COCO does, so that labelme2voc.py's masks differ along borders."""
    left = objects(name)
    assert len(left) == len(truth) == 12
    for photo, label, mask in truth:
        rated = [overlap(mask, found[2]) if found[:2] == (photo, label) else 0 for found in left]
        assert max(rated) > least, (photo, label)
        left.pop(rated.index(max(rated)))


def test_shapes_that_enclose_nothing_are_told():
    content = read_content(EXAMPLES / "primitives" / "primitives.json")
    assert len(content.annotations) == 4
    told = [(problem.kind, problem.entry, problem.message.split(",")[0]) for problem in content.problems]
    assert told == [
        (Kind.SHAPE, "shape 4", "is a line"), (Kind.SHAPE, "shape 5", "is a point"),
        (Kind.SHAPE, "shape 6", "is a linestrip"),
    ]  # fmt: skip

"""CVAT: shapes, groups, other XML files, and XML that is out to do harm."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mrcnn.data.content import Kind
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import load_dataset, read_content
from tests.formats import samples
from tests.formats.samples import CVAT_RING, CVAT_SQUARE, RING, SQUARE


def masks(path):
    return np.moveaxis(load_dataset(path).load_mask(0)[0], -1, 0)


def test_shapes(tmp_path):
    box = (
        '<box label="cat" source="manual" occluded="0" xtl="4.00" ytl="6.00" xbr="12.00" ybr="14.00" z_order="0"></box>'
    )
    # A box of 4 x 8 about the same center, turned by 90 degrees, and its other half.
    turned = '<box label="cat" occluded="0" xtl="6.00" ytl="8.00" xbr="10.00" ybr="16.00" rotation="{}" z_order="0"/>'
    tag = '<tag label="dog" source="manual"></tag>'
    ellipse = (
        '<ellipse label="dog" occluded="0" cx="16.00" cy="12.00" rx="10.00" ry="3.00" rotation="34.38" z_order="0"/>'
    )
    square, upright, lying, oval = masks(
        samples.cvat(tmp_path, box + turned.format(0) + turned.format("90.0") + tag + ellipse)
    )
    np.testing.assert_array_equal(square, SQUARE)
    assert upright[8:16, 6:10].all() and upright.sum() == 32
    assert lying[10:14, 4:12].all() and lying.sum() == 32
    wanted = samples.disk(16, 12, 10, 3, 0.6)
    assert (oval & wanted).sum() / (oval | wanted).sum() > 0.85


def test_a_group_is_one_instance(tmp_path):
    square, ring = (
        CVAT_SQUARE.replace('label="cat"', 'label="dog" group_id="4"'),
        CVAT_RING.replace("<mask", '<mask group_id="4"'),
    )
    joined, alone = masks(samples.cvat(tmp_path, square + CVAT_SQUARE + ring))
    np.testing.assert_array_equal(joined, SQUARE | RING)
    np.testing.assert_array_equal(alone, SQUARE)


@pytest.mark.parametrize("tag", ["polyline", "points", "cuboid", "skeleton"])
def test_shapes_that_enclose_nothing(tmp_path, tag):
    path = samples.cvat(tmp_path, CVAT_SQUARE + CVAT_RING + f'<{tag} label="cat" points="1,1;2,2;3,1"/>')
    (problem,) = read_content(path).problems
    assert problem.kind == Kind.SHAPE and problem.entry == f"line 11, {tag} of a.png"
    with pytest.raises(
        DatasetError, match=rf"annotations\.xml: 1 of 3 annotations .* line 11, {tag} of a\.png: is a {tag}"
    ):
        load_dataset(path)


def test_projects_have_parts_and_several_lists_of_labels(tmp_path):
    path = samples.cvat(tmp_path)
    text = path.read_text().replace("<job>", "<project>").replace("</job>", "</project>")
    path.write_text(text.replace('name="a.png"', 'name="a.png" subset="Train" task_id="7"'))
    (tmp_path / "images" / "Train").mkdir()
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "Train" / "a.png")
    assert load_dataset(path).image_info[0]["path"].endswith("images/Train/a.png")


def test_frames_without_a_suffix(tmp_path):
    path = samples.cvat(tmp_path)
    path.write_text(path.read_text().replace('name="a.png"', 'name="a"'))
    assert load_dataset(path).num_images == 2


def test_other_xml_files(tmp_path):
    path = samples.cvat(tmp_path)
    text = path.read_text()
    path.write_text(text.replace("</meta>", '</meta><track id="0" label="cat"><box frame="0"/></track>'))
    with pytest.raises(DatasetError, match=r"annotations\.xml: line 9: is a track, of CVAT for video. Export"):
        load_dataset(path)
    path.write_text("<annotation><folder>x</folder><object/></annotation>")
    with pytest.raises(DatasetError, match=r"holds boxes in Pascal VOC's format, but no masks"):
        load_dataset(path)
    path.write_text("<kml/>")
    with pytest.raises(DatasetError, match=r"root element is 'kml', not 'annotations'"):
        load_dataset(path)
    path.write_text("<annotations/>")
    with pytest.raises(DatasetError, match=r"has neither 'meta' nor 'image'"):
        load_dataset(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DatasetError, match=r"annotations\.xml: line \d+: no well-formed XML: "):
        load_dataset(path)


@pytest.mark.parametrize(
    "kind",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY {n} "{"&" + p + ";"}{"&" + p + ";"}">' for p, n in
                                                         zip("abcdefghij", "bcdefghijk", strict=True)) + "]>",
        '<!DOCTYPE x [<!ENTITY k SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x [<!ENTITY % k "x">]>',
    ],
)  # fmt: skip
def test_entities_are_refused(tmp_path, kind):
    path = samples.cvat(tmp_path)
    head, rest = path.read_text().split("\n", 1)
    path.write_text(f"{head}\n{kind}\n" + rest.replace("<version>1.1", "<version>&k;"))
    start = time.monotonic()
    with pytest.raises(DatasetError, match=r"annotations\.xml: line 2: declares an entity '[ak]'"):
        load_dataset(path)
    assert time.monotonic() - start < 2


def test_deep_nesting(tmp_path):
    path = samples.cvat(tmp_path, "<a>" * 100_000 + "</a>" * 100_000)
    assert load_dataset(path).num_images == 2


def test_encodings(tmp_path):
    path = samples.cvat(tmp_path)
    text = path.read_text().replace("cat", "Kätzchen")
    path.write_bytes(text.replace("utf-8", "iso-8859-1").encode("iso-8859-1"))
    assert "Kätzchen" in load_dataset(path).class_names
    path.write_bytes(text.replace("utf-8", "utf-16").encode("utf-16"))
    assert "Kätzchen" in load_dataset(path).class_names
    for name in ("klingon", "utf-7", "shift_jis"):
        path.write_text(text.replace("utf-8", name), encoding="utf-8")
        with pytest.raises(DatasetError, match=r"annotations\.xml"):
            load_dataset(path)

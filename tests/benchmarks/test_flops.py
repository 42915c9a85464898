"""FLOPs of networks small enough to count by hand."""

from __future__ import annotations

import json

import keras
import pytest
from keras import layers

from benchmarks import flops
from benchmarks.flops import by_part, count_flops


def test_against_a_count_by_hand():
    image = layers.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="conv1")(image)
    x = layers.BatchNormalization()(x)
    nested_input = layers.Input((None, None, 4))
    nested = keras.Model(nested_input, layers.Conv2D(5, 1, name="rpn_conv_shared")(nested_input), name="rpn_model")
    both = [nested(x), nested(layers.MaxPooling2D()(x))]
    up = layers.Conv2DTranspose(6, 2, strides=2, name="mrcnn_mask_deconv")(both[0])
    pooled = layers.GlobalAveragePooling2D()(both[1])
    logits = layers.Dense(7, name="mrcnn_class_logits")(pooled)
    model = keras.Model(image, [up, logits])

    counts = count_flops(model, [(2, 16, 12, 3)])
    assert counts == {
        "conv1": 2 * (2 * 8 * 6) * (3 * 3 * 3 * 4),
        "rpn_conv_shared": 2 * 2 * (8 * 6 + 4 * 3) * (4 * 5),
        "mrcnn_mask_deconv": 2 * (2 * 8 * 6) * (2 * 2 * 5 * 6),
        "mrcnn_class_logits": 2 * 2 * (5 * 7),
    }
    assert by_part({**counts, "fpn_p2": 11}) == {
        "backbone": counts["conv1"],
        "feature pyramid": 11,
        "region proposals": counts["rpn_conv_shared"],
        "box head": counts["mrcnn_class_logits"],
        "mask head": counts["mrcnn_mask_deconv"],
    }
    # Nothing of the counting stays behind.
    assert count_flops(model, [(2, 16, 12, 3)]) == counts
    assert model(keras.ops.zeros((1, 16, 12, 3)))[0].shape == (1, 16, 12, 6)


def test_our_network_has_the_flops_of_its_figure():
    from benchmarks.ours import config
    from mrcnn.network import build_network

    settings = config(64)
    settings.BACKBONE = "resnet50"
    anchors = sum(3 * (64 // stride) ** 2 for stride in settings.BACKBONE_STRIDES)
    sums = by_part(count_flops(build_network(settings, "inference"), [(1, 64, 64, 3), (1, 93), (1, anchors, 4)]))
    # 3x3 and two 1x1 convolutions of 512 channels at each cell of five levels.
    cells = anchors // 3
    assert sums["region proposals"] == 2 * cells * (9 * 256 * 512 + 512 * (6 + 12))
    # 1000 regions of 7 x 7 x 256 to 1024, 1024 to 1024, and to 81 classes with 4 deltas each.
    assert sums["box head"] == 2 * 1000 * (49 * 256 * 1024 + 1024 * 1024 + 1024 * 81 * 5)
    # 100 regions: four 3x3 convolutions at 14 x 14, the transposed one, and masks of 28 x 28 for 81 classes.
    assert sums["mask head"] == 2 * 100 * (196 * 4 * 9 * 256**2 + 196 * 4 * 256**2 + 784 * 256 * 81)
    assert sums["feature pyramid"] == pytest.approx(
        2 * 256 * (256 * 256 + 64 * 512 + 16 * 1024 + 4 * 2048 + (256 + 64 + 16 + 4) * 9 * 256)
    )


def test_counts_are_written_down(tmp_path, monkeypatch):
    counts = {"backbone": 3 * 10**9, "box head": 10**9}
    monkeypatch.setattr(flops, "our_flops", lambda side: counts)
    assert flops.main(["--side", "64", "--output", str(tmp_path / "flops.json")]) == 0
    assert json.loads((tmp_path / "flops.json").read_text()) == {"side": 64, "flops": {"ours": counts}}

"""The weights that a network has, told by its configuration: compared with networks that are built."""

from __future__ import annotations

import pytest

from mrcnn.config import Config
from mrcnn.network import build_network
from mrcnn.weights.contents import WeightsError
from mrcnn.weights.info import RESNETS
from mrcnn.weights.layout import backbone_layout, network_layout
from mrcnn.weights.variables import model_layers

NARROW = {
    "NUM_CLASSES": 5, "TOP_DOWN_PYRAMID_SIZE": 8, "RPN_CONV_SIZE": 6, "FPN_CLASSIF_FC_LAYERS_SIZE": 7,
    "MASK_CONV_SIZE": 4, "BOX_HEAD_CONV_SIZE": 10, "POOL_SIZE": 5, "RPN_ANCHOR_RATIOS": [0.5, 2],
}  # fmt: skip


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (Config.legacy(), {"BACKBONE": "resnet50"}),
        (Config.torchvision_v1(), {"BACKBONE": "resnet18", "IMAGE_CHANNEL_COUNT": 3}),
        (Config.torchvision_v2(), {"BACKBONE": "resnet34"}),
        (Config.modern(), {"BACKBONE": "resnext50_32x4d", "NORM": "group"}),
    ],
    ids=["legacy", "torchvision_v1", "torchvision_v2", "group"],
)
def test_the_weights_of_networks(base, changes):
    config = base.from_dict({**NARROW, **changes})
    built = {
        layer: {name: tuple(variable.shape) for name, variable in weights.items()}
        for layer, weights in model_layers(build_network(config, "inference")).items()
    }
    assert network_layout(config) == built
    backbone = backbone_layout(config)
    assert backbone == {layer: built[layer] for layer in backbone}
    assert not [layer for layer in built if layer not in backbone and layer.startswith(("res", "bn", "conv"))]


def test_every_resnet_has_a_layout():
    widths = {}
    for name in RESNETS.values():
        config = Config.torchvision_v1().from_dict({"BACKBONE": name})
        if name == "resnet14":
            with pytest.raises(WeightsError, match="converted for torchvision's ResNets"):
                network_layout(config)
            continue
        layers = backbone_layout(config)
        widths[name] = sum(
            shape[0] * shape[1] * shape[2] * shape[3]
            for weights in layers.values()
            for shape in weights.values()
            if len(shape) == 4
        )
    # Parameters that torchvision tells of each, less normalizations and the last layer.
    told = {"resnet18": 11_689_512, "resnet50": 25_557_032, "resnet101": 44_549_160, "wide_resnet50_2": 68_883_240}
    for name, count in told.items():
        last = 513_000 if name == "resnet18" else 2_049_000
        normalized = {"resnet18": 9_600, "resnet50": 53_120, "resnet101": 105_344, "wide_resnet50_2": 68_224}[name]
        assert widths[name] == count - last - normalized, name

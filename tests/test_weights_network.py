"""The real network against the golden weights files: what it reads and what it writes.

On one backend: how weights get into a model does not depend on it, and building is slow on some.
"""

from __future__ import annotations

import gzip
import shutil

import numpy as np
from keras import ops

from mrcnn.config import Config
from mrcnn.network import build_network
from mrcnn.weights import inspect_weights, load_weights, save_weights
from tests import golden, make_h5
from tests.backbones import five_convolutions


def tiny_network():
    class TinyConfig(Config):
        NAME = "tiny"
        BACKBONE = staticmethod(five_convolutions)
        NUM_CLASSES = 3
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
        IMAGES_PER_GPU = 1
        TOP_DOWN_PYRAMID_SIZE = 8
        FPN_CLASSIF_FC_LAYERS_SIZE = 16
        RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
        POST_NMS_ROIS_INFERENCE = 20
        DETECTION_MAX_INSTANCES = 6
        DETECTION_MIN_CONFIDENCE = 0

    return build_network(TinyConfig(), "inference")


def test_golden_file_of_the_old_keras(tmp_path):
    path = tmp_path / "tiny.h5"
    with gzip.open(make_h5.DATA / "tiny_keras_weights.h5.gz") as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    network = tiny_network()
    report = load_weights(network, path)
    assert report.complete
    assert set(report.loaded) > {"conv1", "rpn_conv_shared", "mrcnn_mask"}
    assert report.parameters == network.count_params() == inspect_weights(path).parameter_count
    data = golden.load("tiny_h5_expected")
    inputs = [data[key].astype(np.float32) for key in ("input_image", "input_image_meta", "input_anchors")]
    outputs = network([ops.convert_to_tensor(x) for x in inputs], training=False)
    names = ("detections", "mrcnn_class", "mrcnn_bbox", "mrcnn_mask", "rpn_rois", "rpn_class", "rpn_bbox")
    for name, output in zip(names, outputs, strict=True):
        golden.check(f"tiny_h5 {name}", ops.convert_to_numpy(output), data[name], atol=1e-4)


def test_golden_layout_of_the_real_network(tmp_path):
    class Network(Config):
        BACKBONE = "resnet50"
        NUM_CLASSES = 4
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64

    network = build_network(Network(), "training")
    golden.fill(network)
    save_weights(network, tmp_path / "ours.h5")
    make_h5.write_file(tmp_path / "expected.h5", "resnet50_4")
    assert (tmp_path / "ours.h5").read_bytes() == (tmp_path / "expected.h5").read_bytes()
    assert inspect_weights(tmp_path / "ours.h5").parameter_count == 44_673_706

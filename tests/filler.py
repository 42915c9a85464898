"""Deterministic weight filler for Matterport-style Mask R-CNN (numpy only).

Rule (version 1)
----------------
For every weight, identified by `layer` (the Keras layer name; for the nested model
"rpn_model" the INNER layer name, e.g. "rpn_conv_shared"; for TimeDistributed the OUTER
name, e.g. "mrcnn_class_bn1") and `short` (kernel | bias | gamma | beta | moving_mean |
moving_variance):

    seed = zlib.crc32(f"{layer}/{short}".encode("utf8")) & 0xffffffff
    n    = np.random.RandomState(seed).standard_normal(size=shape)   # float64, C order
                                                                      # shape = KERAS shape
    kernel           w = K(layer) * sqrt(G / fan_in) * n
    bias             w = B(layer) * n
    gamma            w = g0 * (1 + 0.1 * n),  g0 = 0.15 for names ending in "branch2c", else 1
    beta             w = BETA(layer) + 0.1 * n
    moving_mean      w = 0.1 * n
    moving_variance  w = exp(0.1 * n)
    result = w.astype(np.float32)

fan_in = prod(shape[:-1]); for "mrcnn_mask_deconv" (Conv2DTranspose, Keras shape
[kh, kw, out, in], stride 2, kernel 2) fan_in = shape[3].
G = 2 for kernels followed by ReLU (all "res*", "conv1", "rpn_conv_shared",
"mrcnn_class_conv*", "mrcnn_mask_conv*", "mrcnn_mask_deconv"), else 1.
K(layer), B(layer), BETA(layer): tables below (defaults 1, 0.01, 0).
Keras kernel layouts: Conv2D [kh, kw, in, out]; Dense [in, out];
Conv2DTranspose [kh, kw, out, in].
"""

import zlib

import numpy as np

RELU_PREFIX = ("res", "conv1", "rpn_conv_shared", "mrcnn_class_conv", "mrcnn_mask_conv", "mrcnn_mask_deconv")
KSCALE = {
    "conv1": 1.0 / 64,  # molded pixels are about +-128
    "fpn_c5p5": 0.7,
    "fpn_c4p4": 0.7,
    "fpn_c3p3": 0.7,
    "fpn_c2p2": 0.7,
    "fpn_p2": 0.7,
    "fpn_p3": 0.7,
    "fpn_p4": 0.7,
    "fpn_p5": 0.7,
    "rpn_class_raw": 0.5,
    "rpn_bbox_pred": 0.4,
    "mrcnn_class_logits": 8.0,
    "mrcnn_bbox_fc": 2.0,
}  # every other kernel: 1
BSCALE = {}  # every bias: 0.01
BETA = {"mrcnn_class_bn1": -1.0, "mrcnn_class_bn2": -2.0}  # offset added to beta; else 0


def fill(layer, short, shape):
    shape = tuple(int(s) for s in shape)
    seed = zlib.crc32(f"{layer}/{short}".encode()) & 0xFFFFFFFF
    n = np.random.RandomState(seed).standard_normal(size=shape)
    if short == "kernel":
        fan_in = shape[3] if layer == "mrcnn_mask_deconv" else int(np.prod(shape[:-1]))
        gain = 2.0 if layer.startswith(RELU_PREFIX) else 1.0
        w = KSCALE.get(layer, 1.0) * np.sqrt(gain / fan_in) * n
    elif short == "bias":
        w = BSCALE.get(layer, 0.01) * n
    elif short == "gamma":
        w = (0.15 if layer.endswith("branch2c") else 1.0) * (1 + 0.1 * n)
    elif short == "beta":
        w = BETA.get(layer, 0.0) + 0.1 * n
    elif short == "moving_mean":
        w = 0.1 * n
    elif short == "moving_variance":
        w = np.exp(0.1 * n)
    else:
        raise ValueError(short)
    return w.astype(np.float32)


def selftest():
    """Known answers, so that a port of this file can be checked."""
    k = fill("conv1", "kernel", (7, 7, 3, 64))
    return {
        "conv1/kernel[0,0,0,:3]": k[0, 0, 0, :3].tolist(),
        "conv1/kernel sum": float(k.astype(np.float64).sum()),
        "bn2a_branch2c/gamma[:3]": fill("bn2a_branch2c", "gamma", (256,))[:3].tolist(),
        "mrcnn_mask_deconv/kernel[0,0,0,:3]": fill("mrcnn_mask_deconv", "kernel", (2, 2, 256, 256))[
            0, 0, 0, :3
        ].tolist(),
        "mrcnn_class_bn1/beta[:3]": fill("mrcnn_class_bn1", "beta", (1024,))[:3].tolist(),
        "rpn_class_raw/bias": fill("rpn_class_raw", "bias", (6,)).tolist(),
    }


if __name__ == "__main__":
    import json

    print(json.dumps(selftest(), indent=1))

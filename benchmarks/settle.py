"""Random weights with the activations of trained ones, so that time goes where it goes in earnest.

One pass over the photo sets the statistics of every batch normalization, so that activations keep their size through a
hundred layers. Then the classifier is made decisive: each region votes for a class or two above the threshold of
scores, as a trained network's regions do, and for the background never, so that 100 detections come of any photo.
Without this, 1000 regions x 80 classes would go into the last non-max suppression of the networks that look at every
class.
"""

from __future__ import annotations

import numpy as np

# Standard deviation of the logits, and the score below which no box is returned: the default of the peers.
LOGIT_SPREAD = 4.0
SCORE_THRESHOLD = 0.05
# The background's logit.
NEVER = -100.0


def decisive(kernel: np.ndarray, bias: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [F, K] and bias [K] of a classifier (background first) that spreads its logits as wanted.

    Args:
        kernel, bias: as they are.
        logits: [N, K], what they give for the photo's regions.
    """
    scale = LOGIT_SPREAD / logits.std(axis=0)[1:].mean()
    kernel, bias = kernel * scale, (bias - logits.mean(axis=0)) * scale  # no class is everybody's favorite
    bias[0] = NEVER
    return kernel.astype(np.float32), bias.astype(np.float32)

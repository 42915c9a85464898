"""Random weights with the activations of trained ones."""

from __future__ import annotations

import numpy as np

from benchmarks import ours
from benchmarks.photo import load_photo, saved_photo
from benchmarks.settle import LOGIT_SPREAD, NEVER, SCORE_THRESHOLD, decisive
from mrcnn.model import MaskRCNN
from tests.shapes import ShapesConfig


def test_a_decisive_classifier_votes_for_few_classes():
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 1, (500, 64))
    kernel, bias = rng.normal(0, 0.01, (64, 81)), rng.normal(0, 1, 81)
    kernel, bias = decisive(kernel, bias, features @ kernel + bias)
    logits = features @ kernel + bias
    assert np.allclose(logits[:, 1:].mean(axis=0), 0, atol=1e-3)
    assert np.isclose(logits[:, 1:].std(axis=0).mean(), LOGIT_SPREAD, rtol=1e-3)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert bias[0] == NEVER
    assert probabilities[:, 0].max() < 1e-20
    assert 1 <= (probabilities > SCORE_THRESHOLD).sum(axis=1).mean() < 6


def test_the_photo_is_a_photo(tmp_path):
    photo = load_photo(96)
    assert photo.shape == (96, 96, 3)
    assert photo.dtype == np.uint8
    assert photo.std() > 30
    assert np.array_equal(np.load(saved_photo(tmp_path, 96)), photo)


def test_our_network_settles(tmp_path):
    class Batch(ShapesConfig):
        TRAIN_BN = True

    class Stored(ShapesConfig):
        DETECTION_MIN_CONFIDENCE = SCORE_THRESHOLD

    photo = load_photo(128)
    settled, network = (MaskRCNN("inference", config(), tmp_path) for config in (Batch, Stored))
    assert ours.settle(settled, photo) == Batch.POST_NMS_ROIS_INFERENCE
    network.keras_model.set_weights(settled.keras_model.get_weights())
    (found,) = network.detect([photo])
    assert len(found["rois"]) == Stored.DETECTION_MAX_INSTANCES
    assert np.isfinite(found["scores"]).all()
    assert len(set(found["class_ids"])) > 1
    # The statistics are those of the photo: behind a normalization, mean 0 and deviation 1.
    import keras

    layer = next(layer for layer in network.keras_model.layers if isinstance(layer, keras.layers.BatchNormalization))
    molded, metas, _ = network.mold_inputs([photo])
    probe = keras.Model(network.keras_model.inputs, layer.output)
    normalized = probe.predict([molded, metas, network.get_anchors(molded.shape[1:])[None]], verbose=0)
    assert np.allclose(normalized.mean(axis=(0, 1, 2)), 0, atol=1e-3)
    assert np.allclose(normalized.std(axis=(0, 1, 2)), 1, atol=2e-2)

"""The network run by Keras in two parts: the plain network's numbers, of real detections only."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import cache
from importlib import resources

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.engines.base import EngineError
from mrcnn.engines.keras_engine import KerasEngine, preset_threads
from mrcnn.layers.roi_heads import PyramidROIAlign
from mrcnn.network import build_network
from tests import golden
from tests.nuclei_network import in_order, network_inputs, nuclei_network, nuclei_picture
from tests.running import call

on_every_backend = pytest.mark.backends
BACKEND = keras.backend.backend()


@cache
def plain_engine():
    config, model = nuclei_network()
    return KerasEngine(model, config)


@on_every_backend
def test_results_are_those_of_the_plain_network():
    """Three images in a batch, one of them empty: without the padding and the other class's masks."""
    config, model = nuclei_network()
    arrays = network_inputs(config, [nuclei_picture(count, seed=count) for count in (5, 0, 9)])
    detections, _, _, masks, *_ = call(model, arrays)
    engine = plain_engine()
    results = engine.run(*arrays)
    assert [len(rows) for rows, _ in results] == [5, 0, 9]
    for index, (rows, own) in enumerate(results):
        expected, all_masks = in_order(detections[index], masks[index])
        rows, own = in_order(rows, own)
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        np.testing.assert_allclose(own, all_masks[..., 1], atol=1e-4)
        assert rows.dtype == own.dtype == np.float32
        assert own.shape == (len(rows), 28, 28)
    assert (engine.name, engine.precision, engine.threads) == ("keras", "float32", None)


def test_golden():
    """Numbers of the original; two classes are detected, so the masks of each must be its own."""
    data = golden.load("e2e_r50_b1")
    config = golden.config_of(data)
    model = build_network(config, "inference")
    golden.fill(model)
    arrays = [data["input_image"], data["input_image_meta"], data["input_anchors"]]
    ((rows, masks),) = KerasEngine(model, config).run(*arrays)
    count = int(np.sum(data["detections"][0, :, 4] > 0))
    assert len(set(rows[:, 4])) > 1
    golden.check("keras engine detections", rows, data["detections"][0, :count], atol=1e-4)
    expected = data["mrcnn_mask"][0, np.arange(count), :, :, rows[:, 4].astype(int)]
    golden.check("keras engine masks", masks, expected, atol=1e-4)


@on_every_backend
def test_numbers_of_detections_share_a_program(monkeypatch):
    """The mask head is traced (or on PyTorch: run) so often: not for every number of detections, and not for none."""
    config, model = nuclei_network()
    traces = []
    original = PyramidROIAlign.cut

    def counted(self, boxes, *arguments):
        if self.name == "roi_align_mask":
            traces.append(boxes.shape)
        return original(self, boxes, *arguments)

    monkeypatch.setattr(PyramidROIAlign, "cut", counted)
    engine = KerasEngine(model, config)
    assert [len(rows) for rows, _ in engine.run(*network_inputs(config, [nuclei_picture(0)]))] == [0]
    assert traces == []
    for count in (3, 5, 9, 1):
        ((rows, _),) = engine.run(*network_inputs(config, [nuclei_picture(count, seed=count)]))
        assert len(rows) == count
    # On JAX 3, 5 and 1 are as 8, and 9 is as 16.
    assert len(traces) == {"tensorflow": 1, "jax": 2, "torch": 4}[BACKEND]


@on_every_backend
def test_weights_are_the_models_own_unless_folded():
    config, model = nuclei_network()
    arrays = network_inputs(config, [nuclei_picture(4)])
    plain, folded = plain_engine(), KerasEngine(model, config, fold=True)
    before = [engine.run(*arrays)[0] for engine in (plain, folded)]
    np.testing.assert_allclose(*[in_order(*result)[0] for result in before], atol=1e-4)
    bias = model.get_layer("mrcnn_mask").bias
    kept = ops.convert_to_numpy(bias)
    try:
        bias.assign(kept + 100)
        after = [engine.run(*arrays)[0] for engine in (plain, folded)]
    finally:
        bias.assign(kept)
    assert np.all(after[0][1] == 1) and not np.all(before[0][1] == 1)
    np.testing.assert_allclose(after[1][1], before[1][1], atol=1e-6)


@on_every_backend
def test_bfloat16_finds_the_same_objects():
    config, model = nuclei_network()
    arrays = network_inputs(config, [nuclei_picture(count, seed=count) for count in (6, 3)])
    engine = KerasEngine(model, config, "bf16")
    assert engine.precision == "bfloat16"
    for exact, rounded in zip(plain_engine().run(*arrays), engine.run(*arrays), strict=True):
        (rows, masks), (low_rows, low_masks) = in_order(*exact), in_order(*rounded)
        assert rows.shape == low_rows.shape
        assert low_rows.dtype == low_masks.dtype == np.float32
        pixels = np.abs(rows[:, :4] - low_rows[:, :4]).max() * arrays[0].shape[1]
        print(f"pixels off: {pixels:.2g}, scores {np.abs(rows - low_rows)[:, 5].max():.2g}")
        assert 0 < pixels < 0.5  # 0 would be no bfloat16
        assert np.abs(rows - low_rows)[:, 5].max() < 0.01
        assert np.mean((masks > 0.5) != (low_masks > 0.5)) < 0.01


@on_every_backend
def test_shared_by_threads():
    config, _ = nuclei_network()
    engine = plain_engine()
    batches = [network_inputs(config, [nuclei_picture(count, seed=count)]) for count in (2, 3, 4, 6)]
    alone = [engine.run(*batch)[0] for batch in batches]
    together = [[] for _ in batches]

    def work(index):
        for _ in range(3):
            together[index].append(engine.run(*batches[index])[0])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, found in zip(alone, together, strict=True):
        assert len(found) == 3
        for result in found:
            for one, other in zip(expected, result, strict=True):
                np.testing.assert_allclose(other, one, atol=1e-5)


@on_every_backend
def test_device_is_named():
    assert plain_engine().device.partition(":")[0] in ("CPU", "GPU")


@on_every_backend
def test_threads():
    config, model = nuclei_network()
    if BACKEND == "torch":
        import torch

        before = torch.get_num_threads()
        try:
            assert KerasEngine(model, config, threads=1).threads == 1
            assert torch.get_num_threads() == 1
        finally:
            torch.set_num_threads(before)
    else:  # TensorFlow runs already: it has built the network
        message = "keeps it.*TF_NUM_INTRAOP_THREADS" if BACKEND == "tensorflow" else "Received: threads 97"
        with pytest.raises(EngineError, match=message):
            KerasEngine(model, config, threads=97)


THREADS = """
import sys
import keras, tensorflow
from mrcnn import Detector
from mrcnn.nuclei import NucleiInferenceConfig
detector = Detector(sys.argv[1], NucleiInferenceConfig(), engine="keras", precision="float32", threads=1)
assert detector.engine.threads == tensorflow.config.threading.get_intra_op_parallelism_threads() == 1
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others can be told at any time, or never")
def test_threads_for_a_weights_file():
    """TensorFlow is told before the network is built. In a process of its own, where it has not started."""
    path = resources.files("mrcnn") / "assets" / "nuclei.h5"
    done = subprocess.run([sys.executable, "-c", THREADS, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow can be told too late")
def test_threads_are_preset_as_well_as_can_be():
    nuclei_network()  # TensorFlow has started
    for engine, threads in (("auto", 97), ("openvino", 97), ("keras", None)):
        preset_threads(threads, engine)
    with pytest.raises(EngineError, match="keeps it"):
        preset_threads(97, "keras")


@on_every_backend
def test_what_cannot_be_is_refused():
    config, model = nuclei_network()
    with pytest.raises(EngineError, match="float32 or bfloat16.*'int8'"):
        KerasEngine(model, config, "int8")
    with pytest.raises(EngineError, match="folded copy.*fold False"):
        KerasEngine(model, config, "bfloat16", fold=False)
    with pytest.raises(ValueError, match="Received: 'half'"):
        KerasEngine(model, config, "half")
    with pytest.raises(ValueError, match="Received: 0"):
        KerasEngine(model, config, threads=0)

"""Habits of TensorFlow 1: graphs that a script opens around our calls."""

from __future__ import annotations

import threading

import pytest

from mrcnn import habits
from mrcnn.habits import eagerly
from mrcnn.model import MaskRCNN
from tests import golden
from tests.small import SmallConfig, images

tf = pytest.importorskip("tensorflow")


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(habits, "_told", set())


def test_detection_inside_a_graph(rng):
    """`graph = tf.get_default_graph()` and, in a server's thread, `with graph.as_default(): model.detect(...)`."""
    with pytest.warns(FutureWarning, match="graphs and sessions are not needed"), tf.Graph().as_default():
        model = MaskRCNN("inference", SmallConfig(), "logs")
    golden.fill_small(model.keras_model)
    pictures, found = images(rng), {}
    expected = model.detect(pictures)
    graph = tf.compat.v1.get_default_graph()

    def serve():
        with graph.as_default():
            found["results"] = model.detect(pictures)
            found["values"] = model.run_graph(pictures, {"p6": model.keras_model.get_layer("fpn_p6").output})

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    for one, other in zip(expected, found["results"], strict=True):
        assert one["rois"].tolist() == other["rois"].tolist()
    assert found["values"]["p6"].shape == (2, 1, 1, 64)


def test_what_runs_inside_goes_through_arguments_results_and_errors():
    @eagerly
    def divide(a, b=1):
        assert tf.executing_eagerly()
        return a / b

    with tf.Graph().as_default():
        with pytest.warns(FutureWarning, match="not needed"):
            assert divide(6, b=3) == 2
        with pytest.raises(ZeroDivisionError):
            divide(1, 0)


def test_eager_execution_turned_off(monkeypatch):
    monkeypatch.setattr(tf, "executing_eagerly", lambda: False)  # as after tf.compat.v1.disable_eager_execution()
    with pytest.raises(RuntimeError, match="disable_v2_behavior.*Take that line out"):
        MaskRCNN("inference", SmallConfig(), "logs")


def test_inside_a_function_of_tensorflows_nothing_changes():
    threads = []
    note = eagerly(lambda: threads.append(threading.current_thread()))
    tf.function(note)()
    assert threads == [threading.current_thread()]

"""Habits of TensorFlow 1 and Keras 2: graphs that a script opens around our calls, names that are gone."""

from __future__ import annotations

import threading
import warnings
from types import ModuleType

import keras
import pytest

from mrcnn import habits
from mrcnn.habits import eagerly, explain_missing, tell_once
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


def test_the_line_of_a_warning_is_the_scripts():
    """Also where the package lies twice between, and Keras."""
    frames = {"__name__": "keras.src.layers.layer", "tell_once": tell_once}
    exec("def assign(): tell_once('this', 'has no effect.')", frames)
    inner = {"__name__": "mrcnn.model", "assign": frames["assign"]}
    exec("def outer(): assign()", inner)
    with pytest.warns(FutureWarning, match="^this: has no effect.$") as told:
        inner["outer"]()
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inner["outer"]()


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("learning_phase", r"the argument `training` of a layer's call \(docs/interop.md\)"),
        ("set_session", "nothing, for there are no sessions; and GPU_MEMORY = 'growth'"),
        ("get_session", "nothing, for there are no sessions"),
        ("function", r"keras\.Model\(inputs, outputs\), or model\.run_graph\(images, outputs\)"),
        ("int_shape", r"tensor\.shape"),
        ("shape", r"keras\.ops\.shape"),
        ("mean", r"keras\.ops\.mean"),
    ],
)
def test_names_that_the_backend_of_keras_lost_tell_what_took_their_place(name, now):
    assert not hasattr(keras.backend, name)
    with pytest.raises(AttributeError, match=f"'{name}', which Keras 3 took away. In its place: .*{now}"):
        getattr(keras.backend, name)


def test_other_missing_names_are_missing_as_ever():
    for name in ("no_such_thing", "__no_such_thing__", "__version__"):
        with pytest.raises(AttributeError, match=rf"^module 'keras.backend' has no attribute '{name}'$"):
            getattr(keras.backend, name)
    assert keras.backend.epsilon() > 0
    assert getattr(keras.backend, "learning_phase", None) is None
    with pytest.raises(ImportError):
        from keras.backend import set_session  # noqa: F401


def test_a_module_that_knows_missing_names_already_keeps_knowing_them():
    module = ModuleType("backend")

    def earlier(name):
        if name == "learning_phase":
            return 7
        raise AttributeError(name)

    module.__getattr__ = earlier
    for _ in range(2):  # once is enough
        explain_missing(module, ModuleType("operations"))
    assert module.learning_phase == 7
    with pytest.raises(AttributeError, match=r"In its place: keras\.Input"):
        _ = module.placeholder

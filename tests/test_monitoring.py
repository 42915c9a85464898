"""Average precision during training, the best weights, when to stop, and what is left in the run's folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from mrcnn import monitoring
from mrcnn.average_precision import AveragePrecision
from mrcnn.config import ConfigError
from mrcnn.data.dataset import DatasetError
from mrcnn.evaluation import EvaluationResult, evaluate
from mrcnn.model import MaskRCNN
from mrcnn.monitoring import MIN_CONFIDENCE, Monitor, detector_of
from mrcnn.network import build_network
from mrcnn.run_record import read_record
from mrcnn.weights import inspect_weights
from tests.shapes import Shapes
from tests.test_training import QuickConfig, untraced  # noqa: F401

# A quarter of a minute on JAX, which compiles every operation of a network on its own.
ON_ALL_BUT_JAX = pytest.mark.slow if keras.backend.backend() == "jax" else pytest.mark.backends
AP_NAMES = {f"val_{name}" for name in monitoring.FIGURES}


# What a whole run leaves


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three epochs, average precision after the second and the last."""
    from tests.test_training import Untraced

    config = QuickConfig.from_dict(
        {"EVALUATE_EVERY": 2, "EVALUATE_IMAGES": 4, "VALIDATION_STEPS": 1, "STEPS_PER_EPOCH": 1}
    )
    val_dataset = Shapes(8, seed=1, size=64)
    keras.utils.set_random_seed(0)  # some initial weights see background everywhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrcnn.training.TrainingModel", Untraced)
        model = MaskRCNN("training", config, tmp_path_factory.mktemp("logs"))
        history = model.train(Shapes(4, size=64), val_dataset, 0.001, 3, "all", verbose=0)
    return model, history, val_dataset


def test_figures_are_in_history_and_csv(trained):
    model, history, _ = trained
    assert set(history.history) >= AP_NAMES | {"loss", "val_loss"}
    assert len(history.history["val_mask_ap"]) == 2
    with (Path(model.log_dir) / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val_mask_ap"] == "" for row in rows] == [True, False, False]
    assert all(row["val_loss"] for row in rows)
    for row, ap in zip(rows[1:], history.history["val_box_ap50"], strict=True):
        assert float(row["val_box_ap50"]) == pytest.approx(ap, rel=1e-5)


def test_the_best_weights_have_the_measured_precision(trained):
    model, history, val_dataset = trained
    folder = Path(model.log_dir)
    kept = inspect_weights(folder / "best.h5")
    assert kept.epoch in (2, 3) and not kept.has_optimizer and list(kept.class_names) == val_dataset.class_names
    config = QuickConfig.from_dict({"DETECTION_MIN_CONFIDENCE": MIN_CONFIDENCE})
    detecting = MaskRCNN("inference", config, folder.parent)
    detecting.load_weights(folder / "best.h5")
    result = evaluate(detecting, val_dataset, [0, 2, 4, 6], progress=False)
    told = read_record(folder)["best"]
    assert told["epoch"] == kept.epoch and told["images_of"] == 8
    assert result.detection_count == told["result"]["detection_count"] > 0
    assert told["result"]["mask"]["ap"] == pytest.approx(result.mask_ap, abs=1e-6)
    assert told["result"]["box"]["ap50"] == pytest.approx(result.box_ap50, abs=1e-6)
    assert history.history["val_mask_ap"][kept.epoch - 2] == pytest.approx(result.mask_ap, abs=1e-6)


@ON_ALL_BUT_JAX
def test_the_training_network_lends_its_weights():
    keras.utils.set_random_seed(0)
    config = QuickConfig.from_dict({"IMAGE_RESIZE_MODE": "crop", "DETECTION_MIN_CONFIDENCE": 0.9})
    network = build_network(config, "training")
    detector = detector_of(network, config)
    assert detector_of(network, config) is detector
    assert config.DETECTION_MIN_CONFIDENCE == 0.9 and config.IMAGE_RESIZE_MODE == "crop"
    image = Shapes(1, size=80).load_image(0)  # a whole one, larger than the crops that it trains on
    before = detector.detect([image], masks="none")[0]["scores"]
    layer = network.get_layer("mrcnn_class_logits")
    own = [keras.ops.convert_to_numpy(w) for w in layer.weights]
    layer.set_weights([own[0], own[1] + np.array([1e6, 0, 0, 0], np.float32)])  # all is background now
    assert len(before) and len(detector.detect([image], masks="none")[0]["scores"]) == 0
    layer.set_weights(own)
    np.testing.assert_allclose(detector.detect([image], masks="none")[0]["scores"], before, atol=1e-6)


def test_tensorboard_has_figures_and_pictures(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(trained[0].log_dir)
    pictures = EventAccumulator(str(folder / "pictures")).Reload()
    tags = pictures.Tags()["tensors"]
    assert len(tags) == 4 and all(tag.startswith("true and predicted/image") for tag in tags)
    told = pictures.Tensors(tags[0])
    assert [event.step for event in told] == [1, 2]  # epochs from 0, as Keras counts
    width, height, data = told[0].tensor_proto.string_val[:3]
    assert int(width) == 2 * int(height) + 6 and data.startswith(b"\x89PNG")
    curves = EventAccumulator(str(folder / "validation")).Reload()
    assert [event.step for event in curves.Tensors("epoch_mask_ap")] == [1, 2]


def test_the_report_is_there(trained):
    folder = Path(trained[0].log_dir)
    text = (folder / "report.html").read_text()
    for part in ("losses", "precision", "classes", "confusion", "images", "data", "configuration"):
        assert f'id="{part}"' in text
    record = read_record(folder)
    assert [entry["epoch"] for entry in record["epochs"]] == [2, 3]
    assert record["data"]["train"]["images"] == 4 and record["data"]["validation"]["read"] == 8
    confusion = np.array(record["best"]["confusion"])
    truth = np.bincount(np.concatenate([trained[2].load_mask(i)[1] for i in (0, 2, 4, 6)]), minlength=4)
    np.testing.assert_array_equal(confusion.sum(axis=1)[1:], truth[1:])


# Which epoch is the best, and when it ends: by figures that are made up


class Small(keras.Sequential):
    """Stands for a training network."""

    def __init__(self):
        super().__init__([keras.Input((1,)), keras.layers.Dense(1, name="only")])
        self.stop_training = False


def result_of(ap):
    figures = AveragePrecision(*[ap] * 7, per_class={"square": ap}, per_class50={"square": ap})
    return EvaluationResult(4, 5, 6, 100, box=figures, mask=figures, annotations_per_class={"square": 5})


@pytest.fixture
def monitor_of(tmp_path, monkeypatch):
    """A function (fields of the configuration, APs of the epochs that are evaluated) -> a monitor that finds them."""

    def make(fields, aps=(), initial_epoch=0, last_epoch=100, **options):
        config = QuickConfig.from_dict({"VALIDATION_STEPS": 1, **fields})
        dataset = Shapes(4, size=64)
        monitor = Monitor(
            config, dataset, dataset, tmp_path, {"class_names": dataset.class_names}, initial_epoch=initial_epoch,
            last_epoch=last_epoch, **options,
        )  # fmt: skip
        left = iter(aps)
        judge = monitoring.Judge(dataset, dataset.class_names, 0.5)
        monkeypatch.setattr(monitor, "_evaluate", lambda: (result_of(next(left)), judge, 0.1))
        monitor.set_model(Small())
        return monitor

    return make


def run(monitor, losses, first=0):
    """Numbers of the epochs that were run, and that of the best one after each."""
    epochs, best = [], []
    for epoch, loss in enumerate(losses, start=first):
        monitor.on_epoch_end(epoch, {"val_loss": loss})
        epochs.append(epoch + 1)
        best.append(monitor.best_epoch)
        if monitor.model.stop_training:
            break
    return epochs, best


def test_the_greatest_precision_is_best_and_of_equal_ones_the_lowest_loss(monitor_of, tmp_path):
    monitor = monitor_of({"EVALUATE_EVERY": 1}, [0, 0, 0, 0.3, 0.2, 0.3, 0.31])
    _, best = run(monitor, [5, 3, 4, 9, 1, 9, 9])
    assert best == [1, 2, 2, 4, 4, 4, 7]
    told = inspect_weights(tmp_path / "best.h5")
    assert told.epoch == 7 and told.metadata["best"]["score"] == [0.31, -9.0]
    assert read_record(tmp_path)["best"]["epoch"] == 7
    assert [entry["mask"]["ap"] for entry in read_record(tmp_path)["epochs"]] == [0, 0, 0, 0.3, 0.2, 0.3, 0.31]


def test_every_so_many_epochs_and_the_last(monitor_of):
    monitor = monitor_of({"EVALUATE_EVERY": 3}, [0.1, 0.2, 0.3], last_epoch=7)
    logs = [{"val_loss": 1.0} for _ in range(7)]
    for epoch, told in enumerate(logs):
        monitor.on_epoch_end(epoch, told)
    assert ["val_mask_ap" in told for told in logs] == [False, False, True, False, False, True, True]


def test_early_stopping_counts_epochs_without_a_better_result(monitor_of, capsys):
    assert run(monitor_of({"EVALUATE_EVERY": 1, "EARLY_STOPPING": 2}, [0.1, 0.3, 0.2, 0.3, 0.9]), [1] * 5)[0][-1] == 4
    assert "No better mask_ap for 2 epochs: training stops. The best was epoch 2." in capsys.readouterr().out
    # While there is no precision yet, a falling loss is progress.
    monitor = monitor_of({"EVALUATE_EVERY": 1, "EARLY_STOPPING": 2}, [0] * 9, verbose=0)
    assert run(monitor, [9, 8, 7, 6, 5, 5, 5, 5, 5])[0][-1] == 7
    assert capsys.readouterr().out == ""
    assert run(monitor_of({"EVALUATE_EVERY": 2, "EARLY_STOPPING": 3}, [0.5, 0.4, 0.3, 0.2]), [1] * 9)[0][-1] == 6
    assert run(monitor_of({"EVALUATE_EVERY": 1}, [0.5, 0.4, 0.3, 0.2]), [1] * 4)[0][-1] == 4


def test_without_precision_the_loss_decides(monitor_of, tmp_path):
    assert run(monitor_of({"EARLY_STOPPING": 2}), [3, 2, 2.5, 2.1, 1])[0][-1] == 4
    assert inspect_weights(tmp_path / "best.h5").epoch == 2


def test_nothing_is_kept_where_nothing_is_asked_for(monitor_of, tmp_path):
    run(monitor_of({}), [3, 2, 1])
    assert not (tmp_path / "best.h5").exists()


def test_going_on_knows_the_best_so_far(monitor_of, tmp_path):
    fields = {"EVALUATE_EVERY": 1, "EARLY_STOPPING": 3}
    run(monitor_of(fields, [0.1, 0.5, 0.4]), [1] * 3)
    again = monitor_of(fields, [0.45, 0.46, 0.6], initial_epoch=3, stage_start=0)
    assert (again.best_epoch, again.best_score) == (2, [0.5, -1.0])
    assert run(again, [1] * 3, first=3)[0][-1] == 5  # three epochs after the best, as without a pause
    assert [entry["epoch"] for entry in read_record(tmp_path)["epochs"]] == [1, 2, 3, 4, 5]
    # Back to before the best epoch: that one is no longer of this run.
    assert monitor_of(fields, initial_epoch=1).best_epoch is None
    assert [entry["epoch"] for entry in read_record(tmp_path, 1)["epochs"]] == [1]
    assert read_record(tmp_path, 1)["best"] is None
    # Another measure than the one it was best by.
    assert monitor_of({"EARLY_STOPPING": 3}, initial_epoch=5).best_epoch is None
    (tmp_path / "best.h5").write_bytes(b"half a file")
    assert monitor_of(fields, initial_epoch=5).best_epoch is None


def test_a_stage_has_its_own_patience(monitor_of):
    fields = {"EVALUATE_EVERY": 1, "EARLY_STOPPING": 2}
    run(monitor_of(fields, [0.5, 0.4]), [1] * 2)
    assert run(monitor_of(fields, [0.3, 0.4, 0.4], initial_epoch=2), [1] * 3, first=2)[0][-1] == 4


def test_a_validation_set_without_objects_is_told(tmp_path, monkeypatch):
    class Empty(Shapes):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return masks[..., :0], class_ids[:0]

    class Blind:
        def detect(self, images):
            none = {"rois": np.zeros((0, 4), int), "class_ids": np.zeros(0, int), "scores": np.zeros(0)}
            return [{**none, "masks": np.zeros((*image.shape[:2], 0), bool)} for image in images]

    monkeypatch.setattr(monitoring, "detector_of", lambda model, config: Blind())
    dataset = Empty(2, size=64)
    config = QuickConfig.from_dict({"EVALUATE_EVERY": 1})
    monitor = Monitor(
        config, dataset, dataset, tmp_path, {"class_names": dataset.class_names}, initial_epoch=0, last_epoch=9
    )
    monitor.set_model(Small())
    logs = {"val_loss": 1.0}
    with pytest.warns(UserWarning, match="no annotated objects.*EVALUATE_EVERY to 0"):
        monitor.on_epoch_end(0, logs)
    assert np.isnan(logs["val_mask_ap"]) and monitor.best_epoch is None
    assert "NaN" not in (tmp_path / "monitoring.json").read_text()
    assert json.loads((tmp_path / "monitoring.json").read_text())["epochs"][0]["mask"]["ap"] is None


def test_an_evaluation_ends_when_training_is_to_stop(tmp_path, monkeypatch):
    looked = []

    class Slow:
        def detect(self, images):
            looked.append(len(images))
            none = {"rois": np.zeros((0, 4), int), "class_ids": np.zeros(0, int), "scores": np.zeros(0)}
            return [{**none, "masks": np.zeros((*image.shape[:2], 0), bool)} for image in images]

    monkeypatch.setattr(monitoring, "detector_of", lambda model, config: Slow())
    dataset, logs = Shapes(4, size=64), {"val_loss": 1.0}
    monitor = Monitor(
        QuickConfig.from_dict({"EVALUATE_EVERY": 1}), dataset, dataset, tmp_path, {"class_names": dataset.class_names},
        initial_epoch=0, last_epoch=9, interrupted=lambda: sum(looked) >= 2,
    )  # fmt: skip
    monitor.set_model(Small())
    monitor.on_epoch_end(0, logs)
    assert sum(looked) == 2 and logs == {"val_loss": 1.0} and not (tmp_path / "best.h5").exists()


def test_images_to_evaluate_are_spread_evenly(tmp_path):
    dataset = Shapes(10, size=64)
    config = QuickConfig.from_dict({"EVALUATE_EVERY": 1, "EVALUATE_IMAGES": 4})
    arguments = (config, dataset, dataset, tmp_path, {})
    assert Monitor(*arguments, initial_epoch=0, last_epoch=1).image_ids == [0, 2, 5, 7]
    everything = (QuickConfig.from_dict({"EVALUATE_EVERY": 1}), *arguments[1:])
    assert Monitor(*everything, initial_epoch=0, last_epoch=1).image_ids == list(range(10))


@pytest.mark.parametrize(
    ("fields", "validates", "error", "message"),
    [
        ({"EVALUATE_EVERY": 2}, False, ConfigError, "EVALUATE_EVERY is 2, which needs a validation set"),
        ({"EARLY_STOPPING": 2}, False, ConfigError, "EARLY_STOPPING is 2, which needs a validation set"),
        ({"EARLY_STOPPING": 2, "VALIDATION_STEPS": 0}, True, ConfigError, "nothing to judge epochs by"),
        ({"EVALUATE_EVERY": 2, "NUM_CLASSES": 3}, True, DatasetError, "NUM_CLASSES must be"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_work(tmp_path, fields, validates, error, message):
    config, dataset = QuickConfig.from_dict(fields), Shapes(2, size=64)
    with pytest.raises(error, match=message):
        Monitor(config, dataset, dataset if validates else None, tmp_path, {}, initial_epoch=0, last_epoch=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["EVALUATE_EVERY", "EVALUATE_IMAGES", "EARLY_STOPPING"])
def test_fields_are_whole_numbers(name):
    with pytest.raises(ConfigError, match=f"{name} must be a whole number of at least 0"):
        QuickConfig.from_dict({name: -1})

"""The benchmark of the loader: its data, its numbers, and what it calls a failure."""

import json

import numpy as np
import pytest

from benchmarks import loader as benchmark


def quiet(line):
    pass


def test_data_is_what_a_reader_of_coco_reads(tmp_path):
    dataset = benchmark.make_dataset(tmp_path / "a", 60, 80, count=3, objects=6)
    assert dataset.num_images == 3 and dataset.num_classes == 81
    for image_id in dataset.image_ids:
        masks, class_ids = dataset.load_mask(image_id)
        assert dataset.load_image(image_id).shape == (60, 80, 3)
        assert 3 <= len(class_ids) <= 6 and masks.shape[:2] == (60, 80)
    again = benchmark.make_dataset(tmp_path / "b", 60, 80, count=3, objects=6)
    np.testing.assert_array_equal(again.load_mask(2)[0], dataset.load_mask(2)[0])


def test_what_training_takes():
    results = {
        "f32": [{"name": "ours-f32", "median_seconds": 2.0}, {"name": "torchvision-f32-frozen", "median_seconds": 1.0}],
        "bf16": [{"name": "ours-bf16", "median_seconds": 0.8}],
    }
    told = {"setting": {"batch": 2}, "results": results}
    assert benchmark.consumed(told) == {"f32": 1.0, "bf16": 2.5}
    with pytest.raises(ValueError, match="no training step of ours"):
        benchmark.consumed({"setting": {"batch": 2}, "results": {"f32": []}})


class Loader:
    """Counts what is asked of it, and may keep what it makes."""

    batch_size = 2

    def __init__(self, kept=None):
        self.made, self.kept = 0, kept

    def __next__(self):
        self.made += 1
        if self.kept is not None:
            self.kept.append(np.ones(100_000))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def test_rounds_take_turns_each_with_a_new_loader():
    made = []

    def make():
        made.append(Loader())
        return made[-1]

    results = benchmark.measure([make, make], batches=5, rounds=3, patience=0, report=quiet)
    assert len(made) == 8 and {one.made for one in made} == {5 + benchmark._AHEAD}
    for result in results:
        assert result["rounds"] == 3 and result["rate"] > 0 and len(result["rates"]) in (3, 3 - result["disturbed"])


@pytest.mark.skipif(not benchmark._STATM.exists(), reason="only Linux tells")
def test_memory_that_grows_is_seen():
    kept = []
    growing = benchmark.watch_memory(Loader(kept), 60, quiet)
    assert 700_000 < growing["growth"] < 900_000 and len(growing["resident"]) == 20
    loader = Loader()
    assert abs(benchmark.watch_memory(loader, 60, quiet)["growth"]) < 100_000 and loader.made == 60


def test_it_fails_where_the_loader_is_too_slow(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "PhotoConfig", benchmark.TinyConfig)
    monkeypatch.setattr(benchmark, "SIDE", 64)
    argv = [
        "--photos",
        "32x48",
        "--images",
        "4",
        "--rounds",
        "1",
        "--patience",
        "0",
        "--json",
        str(tmp_path / "l.json"),
    ]
    assert benchmark.main([*argv, "--consumed", "0.001"]) == 0
    told = json.loads((tmp_path / "l.json").read_text())
    assert told["ratio"] > 5 and {line["augmentation"] for line in told["results"]} == set(benchmark.AUGMENTATIONS)
    assert told["consumed"] == {"given": 0.001} and "asked for" in capsys.readouterr().out
    assert benchmark.main([*argv, "--consumed", "1e9"]) == 1


@pytest.mark.skipif(not benchmark._STATM.exists(), reason="only Linux tells")
def test_memory_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "MOST_GROWTH", 10_000_000)
    assert benchmark.main(["--batches", "20", "--workers", "0", "--json", str(tmp_path / "m.json")]) == 0
    assert json.loads((tmp_path / "m.json").read_text())["memory"]["batches"] == 20
    monkeypatch.setattr(benchmark, "MOST_GROWTH", -10_000_000)
    assert benchmark.main(["--batches", "20", "--workers", "0"]) == 1

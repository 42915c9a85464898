"""A machine that only detects: an exported model where there is numpy, OpenCV and a runtime, and no Keras."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mrcnn
from mrcnn import Detector
from mrcnn.export import export_model
from tests.nuclei_network import nuclei_network, nuclei_picture

ROOT = Path(mrcnn.__file__).parents[1]


@cache
def bare_python():
    """Python with numpy, OpenCV and the runtimes alone, made where it is not there yet."""
    folder = ROOT / ".venv-bare"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready, packages = folder / ".ready", ["numpy", "opencv-python-headless", "openvino", "onnxruntime"]
    if not ready.exists() or ready.read_text(encoding="utf-8").split() != packages:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *packages], check=True)
        ready.write_text("\n".join(packages), encoding="utf-8")
    return python


BARE = """
import importlib.util, json, sys
import numpy as np
for name in ("keras", "tensorflow", "jax", "torch", "h5py", "PIL", "matplotlib", "pycocotools", "tqdm", "platformdirs",
             "scipy", "onnx"):
    assert importlib.util.find_spec(name) is None, name
for name in {"openvino", "onnxruntime"} - {sys.argv[4]}:
    sys.modules[name] = None  # as if it were not installed
from mrcnn import Detector
detector = Detector(sys.argv[1], precision="float32")
result = detector.detect([np.load(sys.argv[2])])[0]
np.savez(sys.argv[3], **result)
print(detector.engine.name, detector.config.NAME, detector.class_names)
"""


@pytest.mark.parametrize(("format", "runtime"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_a_deployment_has_numpy_opencv_and_a_runtime(format, runtime, tmp_path):
    """The same masks as Keras finds, where there is no Keras."""
    config, network = nuclei_network(0.5)
    image = nuclei_picture(12, seed=1)
    export_model(network, config, tmp_path / "model", format, class_names=("BG", "nucleus"), image=image)
    np.save(tmp_path / "image.npy", image)
    command = [bare_python(), "-c", BARE, *(tmp_path / name for name in ("model", "image.npy", "result.npz")), runtime]
    home = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=home, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [runtime, config.NAME, "['BG',", "'nucleus']"]
    kept = list((tmp_path / ".cache" / "mrcnn").rglob("*.blob"))  # for a quicker start the next time
    assert len(kept) == (runtime == "openvino") or sys.platform != "linux"
    (expected,) = Detector(network, config, engine="keras", precision="float32").detect([image])
    with np.load(tmp_path / "result.npz") as found:
        order, other = (np.lexsort(boxes.T) for boxes in (expected["rois"], found["rois"]))
        np.testing.assert_array_equal(found["rois"][other], expected["rois"][order])
        np.testing.assert_array_equal(found["class_ids"][other], expected["class_ids"][order])
        np.testing.assert_allclose(found["scores"][other], expected["scores"][order], atol=1e-4)
        same = found["masks"][..., other] == expected["masks"][..., order]
    assert same.mean() > 0.9999 and len(order) == 12

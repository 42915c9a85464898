"""torchvision, run once in a process and an environment of its own, for it does not go with the PyTorch of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.torchvision.kept import unpack
from tests.torchvision.peer import KEPT_CASES

# What tests/data keeps is compared in every run on TensorFlow; what a peer computes itself, and on the other backends,
# in `make test-all`, for its environment takes 6 GB.
KEPT = [
    pytest.param(name, marks=[pytest.mark.slow] if keras.backend.backend() != "tensorflow" else [])
    for name in KEPT_CASES
]
ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
PYTHON = Path("Scripts/python.exe" if os.name == "nt" else "bin/python")


def interpreter() -> Path:
    """The Python that has torchvision: MRCNN_PEER_PYTHON, else that of `make setup-peers`."""
    named = os.environ.get("MRCNN_PEER_PYTHON")
    path = Path(named) if named else ROOT / ".venv-peers" / PYTHON
    if not path.exists():
        pytest.fail(f"torchvision's environment is not there: {path}. `make setup-peers` makes it.", pytrace=False)
    return path.absolute()


def photos() -> list[np.ndarray]:
    """Parts of a photo, [H, W, 3] uint8 RGB: wide, very wide, upright and larger than what the networks work at; and
    one of a size that they work at, for training."""
    import cv2
    import matplotlib.cbook

    with matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=True) as file:
        encoded = np.frombuffer(file.read(), np.uint8)
    photo = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    parts = (photo[60:210, 120:300], photo[20:180, 60:440], photo[:, :500])
    return [np.ascontiguousarray(part) for part in (*parts, photo[100:292, 150:406])]


def run_peer(module: str, folder: Path) -> Path:
    """The folder, with the photos and what a module wrote that was run on them."""
    np.savez(folder / "photos.npz", *photos())
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(interpreter()), "-m", module, str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout, file=sys.stderr)
    return folder


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """The folder with what `tests.torchvision.peer` writes."""
    return run_peer("tests.torchvision.peer", tmp_path_factory.mktemp("torchvision"))


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """A folder like `recorded`, of what tests/data keeps of the small networks."""
    folder = tmp_path_factory.mktemp("kept")
    for name in KEPT_CASES:
        state, arrays = unpack(DATA / f"torchvision_{name}.npz")
        np.savez(folder / f"{name}_weights.npz", **state)
        np.savez(folder / f"{name}.npz", **arrays, train_photo=photos()[-1])
    return folder


@pytest.fixture(scope="session")
def recorded_detectron2(tmp_path_factory) -> Path:
    """The folder with what `tests.torchvision.detectron2_peer` writes."""
    return run_peer("tests.torchvision.detectron2_peer", tmp_path_factory.mktemp("detectron2"))

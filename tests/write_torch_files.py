"""Files that torch.save writes, and what is in them:

    python -m tests.write_torch_files FOLDER

FOLDER gets `NAME.pth` and `expected.npz`, whose arrays are named "NAME/TENSOR". In a process of its own, for TensorFlow
and PyTorch do not go well in one."""

from __future__ import annotations

import argparse
import collections
import sys
from pathlib import Path

import numpy as np
import torch


class Halves(torch.nn.Module):
    """Layers of several types that share and cut storages."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3)
        self.second = torch.nn.BatchNorm2d(4)
        self.tied = torch.nn.Linear(4, 4)
        self.other = torch.nn.Linear(4, 4)
        self.other.weight = self.tied.weight
        both = torch.arange(24, dtype=torch.float32).reshape(4, 6)
        self.register_buffer("columns", both.t())
        self.register_buffer("part", both[1:3, 2:5])
        self.register_buffer("halves", torch.linspace(-3, 3, 7).half())
        self.register_buffer("brains", torch.linspace(-3, 3, 7).bfloat16())
        self.register_buffer("doubles", torch.linspace(0, 1, 5).double())
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("whole", torch.arange(5, dtype=torch.uint8))
        self.register_buffer("empty", torch.zeros(0, 3))


def main(folder: Path) -> None:
    torch.manual_seed(0)
    model = Halves()
    state = model.state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    args = argparse.Namespace(lr=0.1, device=torch.device("cpu"), shape=torch.Size([1, 2]), dtype=torch.float32)
    checkpoint = {
        "model": state, "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(), "args": args,
        "epoch": 3, "scaler": None,
    }  # fmt: skip
    parallel = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
    kinds = {
        "plain": state, "parameters": dict(model.named_parameters()), "checkpoint": checkpoint,
        "lightning": {"state_dict": {f"model.{k}": v for k, v in state.items()}, "hyper_parameters": {}},
        "parallel": {"state_dict": parallel}, "whole": model,
    }  # fmt: skip
    expected = {}
    for name, item in kinds.items():
        torch.save(item, folder / f"{name}.pth")
        torch.save(item, folder / f"{name}_old.pth", _use_new_zipfile_serialization=False)
        tensors = dict(model.named_parameters()) if name == "parameters" else state
        expected |= {f"{name}/{key}": tensor.detach().float().numpy() for key, tensor in tensors.items()}
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(folder / "script.pth"))
    np.savez(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

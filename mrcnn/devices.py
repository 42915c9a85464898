"""Which GPUs the framework uses, and how it takes their memory: told before it starts, for it keeps both then.

`MaskRCNN` does it for its configuration's GPUS and GPU_MEMORY, the command line for `--gpus`, `--memory-growth` and
`--memory-share`. A script that uses the framework before it makes a `MaskRCNN` calls `choose_devices` first of all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from mrcnn.backend import require_backend
from mrcnn.config_checks import GPUS_WANTED, MEMORY_WANTED, is_gpu_list, is_gpu_memory


class DeviceError(RuntimeError):
    """Devices that cannot be had, or not any more. The message says why and what would do."""


# What was chosen in this process.
_chosen: dict[str, Any] = {}


def choose_devices(gpus: Sequence[int] | None = None, memory: str | float | None = None) -> None:
    """Let Keras's backend use these GPUs only, and take their memory so. What was chosen before may be chosen again.

    Args:
        gpus: numbers of GPUs, as nvidia-smi counts those that CUDA_VISIBLE_DEVICES leaves; empty: none, the CPU alone.
            None: all. On PyTorch, where a process uses one, it is the first; of processes that torchrun started, each
            uses its own of them.
        memory: "growth": as much as is needed, when it is needed. A number above 0, at most 1: that share of each GPU's
            memory. None: as the framework has it (TensorFlow: all at once; JAX: three quarters; PyTorch: as needed).

    Raises:
        DeviceError: a GPU that is not there, or the framework has started otherwise already.
        ValueError: an argument that cannot be.
    """
    if not is_gpu_list(gpus):
        raise ValueError(f"gpus must be {GPUS_WANTED}. Received: {gpus!r}.")
    if not is_gpu_memory(memory):
        raise ValueError(f"memory must be {MEMORY_WANTED}. Received: {memory!r}.")
    wanted = {"gpus": None if gpus is None else tuple(int(number) for number in gpus), "memory": memory}
    new = {name: value for name, value in wanted.items() if value is not None and _chosen.get(name) != value}
    if not new:
        return
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order of nvidia-smi
    choose = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}.get(require_backend())
    if choose is not None:
        choose(new.get("gpus"), new.get("memory"))
    _chosen.update(new)


def _on_tensorflow(gpus: tuple[int, ...] | None, memory: str | float | None) -> None:
    import tensorflow as tf

    there = tf.config.list_physical_devices("GPU")
    try:
        if gpus is not None:
            _check_numbers(gpus, len(there), "TensorFlow")
            if there:
                tf.config.set_visible_devices([there[number] for number in gpus], "GPU")
        used = tf.config.get_visible_devices("GPU") if there else []
        for gpu in used if memory is not None else []:
            if memory == "growth":
                tf.config.experimental.set_memory_growth(gpu, True)
            else:
                limit = tf.config.LogicalDeviceConfiguration(int(memory * _megabytes(there.index(gpu))))
                tf.config.set_logical_device_configuration(gpu, [limit])
    except RuntimeError as error:
        if isinstance(error, DeviceError):
            raise
        raise _too_late("TensorFlow", gpus, memory) from error


def _on_jax(gpus: tuple[int, ...] | None, memory: str | float | None) -> None:
    import jax

    if _jax_has_started():
        if all(device.platform == "cpu" for device in jax.devices()) and not gpus:
            return  # there is no GPU whose use or memory could be told
        raise _too_late("JAX", gpus, memory)
    if memory is not None:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false" if memory == "growth" else "true"
        if memory != "growth":
            os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(memory)
    if gpus == ():
        jax.config.update("jax_platforms", "cpu")
    elif gpus is not None:
        visible = _visible(gpus)
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = visible
        found = [device for device in jax.devices() if device.platform != "cpu"]
        if len(found) < len(gpus):
            raise _missing(gpus, "JAX", f"{len(found) or 'none'} of them")


def _jax_has_started() -> bool:
    from jax._src import xla_bridge  # there is no public way to ask without starting it

    return xla_bridge.backends_are_initialized()


def _on_torch(gpus: tuple[int, ...] | None, memory: str | float | None) -> None:
    import torch

    if gpus is not None:
        _check_numbers(gpus, torch.cuda.device_count(), "PyTorch")
        device = f"cuda:{gpus[int(os.environ.get('LOCAL_RANK', 0)) % len(gpus)]}" if gpus else "cpu"
        os.environ["KERAS_TORCH_DEVICE"] = device
        core = sys.modules.get("keras.src.backend.torch.core")
        if core is not None and device != core.DEFAULT_DEVICE:
            if torch.cuda.is_initialized():
                raise _too_late("PyTorch", gpus, memory)
            core.DEFAULT_DEVICE = device  # as the variable of the environment has it where Keras is not imported yet
        if gpus:
            torch.cuda.set_device(device)
    if isinstance(memory, float | int) and torch.cuda.is_available():  # "growth" is what it always does
        for number in range(torch.cuda.device_count()):
            torch.cuda.set_per_process_memory_fraction(float(memory), number)


def _check_numbers(gpus: tuple[int, ...], there: int, framework: str) -> None:
    if any(number >= there for number in gpus):
        numbers = {0: "none", 1: "one, number 0"}.get(there, f"{there}, numbers 0 to {there - 1}")
        raise _missing(gpus, framework, numbers)


def _missing(gpus: tuple[int, ...], framework: str, found: str) -> DeviceError:
    return DeviceError(
        f"GPUS asks for GPU {', '.join(map(str, gpus))}, and {framework} finds {found}. Check nvidia-smi, "
        f"CUDA_VISIBLE_DEVICES and that {framework} is installed with GPU support; an empty GPUS is the CPU alone."
    )


def _too_late(framework: str, gpus: Any, memory: Any) -> DeviceError:
    names = " and ".join(name for name, value in (("GPUS", gpus), ("GPU_MEMORY", memory)) if value is not None)
    return DeviceError(
        f"{framework} has started already, and keeps the devices and memory it has: {names} came too late. Make the "
        "MaskRCNN before the first operation, or call mrcnn.devices.choose_devices(...) at the top of the script."
    )


def _visible(gpus: tuple[int, ...]) -> str:
    """CUDA_VISIBLE_DEVICES for these, out of those that it leaves now."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if before is None:
        return ",".join(map(str, gpus))
    there = [name for name in before.split(",") if name.strip()]
    _check_numbers(gpus, len(there), f"CUDA_VISIBLE_DEVICES={before}")
    return ",".join(there[number].strip() for number in gpus)


def _megabytes(number: int) -> int:
    """Memory of a GPU, of those that CUDA_VISIBLE_DEVICES leaves. TensorFlow takes a share as a number of MB only."""
    name = _visible((number,))
    try:
        told = subprocess.run(  # noqa: S603
            ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", f"--id={name}"],  # noqa: S607
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(told.stdout.split()[0])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        raise DeviceError(
            f"How much memory GPU {name} has is not known, for nvidia-smi does not tell ({error}), and TensorFlow "
            "takes a share of it as a number of MB only. Use GPU_MEMORY 'growth'."
        ) from error

"""An engine for whatever a user has: an exported model, a weights file, a network in memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mrcnn.bundle import Bundle, is_bundle, read_bundle
from mrcnn.cache import known_cache_folder
from mrcnn.config import Config
from mrcnn.engines.base import Engine, EngineError, check_threads, precision_name
from mrcnn.engines.choice import Choice, choose, installed_engines
from mrcnn.requirements import installed

ENGINES = ("keras", "openvino", "onnxruntime")
# Which engines read an exported model's file, the fastest where one was measured first.
_READERS = {"openvino": ("openvino",), "onnx": ("openvino", "onnxruntime")}
_WEIGHTS = (".h5", ".hdf5", ".keras")
_OTHERS = (".pth", ".pt", ".pkl", ".bin", ".safetensors")  # of other packages

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An engine, what goes with it, and why it is this one."""

    engine: Engine
    config: Config
    class_names: tuple[str, ...] | None
    reason: str


def open_engine(
    model: Any,
    config: Config | None = None,
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    device: str | None = None,
) -> Opened:
    """Make an engine.

    Args:
        model: the path of an exported model, or of a weights file; a `MaskRCNN` in inference mode; or an inference
            network of `build_network`.
        config: the configuration, where `model` does not tell it.
        engine: "keras", "openvino", "onnxruntime", or "auto": which measures fastest here, of those that are installed
            and can run the model.
        precision: "float32", "bfloat16", "int8", or "auto": int8 for a model that was quantized, else what measures
            fastest here in the engine.
        threads: how many to use; None: the engine decides.
        device: the named engine's name for a device, such as OpenVINO's "GPU"; None: the CPU (keras: Keras's own).

    Raises:
        FileNotFoundError, BundleError, WeightsError: a file that is missing, damaged or of another kind.
        EngineError: nothing here can run it as asked.
        ImportError: an engine that was named is not installed.
        ValueError: an argument that cannot be.
    """
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"engine must be auto, {', '.join(ENGINES)}. Received: {engine!r}.")
    if device is not None and engine in ("auto", "keras"):
        raise ValueError(
            "device is the name that the engine openvino or onnxruntime has for it: name the engine too. Received: "
            f"device {device!r}, engine {engine!r}."
        )
    precision = precision_name(precision)
    check_threads(threads)
    if isinstance(model, str | Path):
        if Path(model).is_dir() or is_bundle(model):
            opened = _open_bundle(read_bundle(model), config, engine, precision, threads, device)
        else:
            loaded = _load_weights(Path(model), config, engine, threads)
            opened = _open_network(*loaded, engine, precision, threads, device, own=True)
    else:
        network, config = _network_of(model, config)
        opened = _open_network(network, config, None, engine, precision, threads, device)
    _log.info("engine %s, %s: %s", opened.engine.name, opened.engine.precision, opened.reason)
    return opened


def _open_bundle(
    bundle: Bundle, config: Config | None, engine: str, precision: str, threads: int | None, device: str | None
) -> Opened:
    config = bundle.config if config is None else config
    readers = _READERS.get(bundle.format, ())
    if not readers:
        raise EngineError(
            f"{bundle.folder} was exported as {bundle.format}, for other programs to run. For detection here "
            f"export it as {' or '.join(_READERS)}."
        )
    if engine != "auto" and engine not in readers:
        raise EngineError(
            f"{bundle.folder} was exported as {bundle.format}, which runs on {' or '.join(readers)}. Received: engine "
            f"{engine!r}."
        )
    quantized = bundle.precision == "int8"
    usable = [name for name in readers if installed(name)] if engine == "auto" else [engine]
    if not usable:
        raise EngineError(f"{bundle.folder} needs one of these packages, and none is installed: {', '.join(readers)}.")
    if quantized:
        choice = Choice(usable[0], precision, "the model is quantized to int8")
    else:
        agrees = (bundle.checks.get("bfloat16") or {}).get("agrees", True)  # the export compared it with Keras
        wanted = "float32" if precision == "auto" and not agrees else precision
        choice = _choose_of(usable, wanted, threads, device)
    made = _engine_of_file(choice, bundle.path, threads, device, quantized)
    return Opened(made, config, bundle.class_names, choice.reason)


def _open_network(
    network: Any, config: Config, class_names: tuple[str, ...] | None, engine: str, precision: str, threads: int | None,
    device: str | None, own: bool = False,
) -> Opened:  # fmt: skip
    """`own`: nobody else has the network, so that a copy of it, made for the engine, does as well."""
    if precision == "int8":
        raise EngineError("precision 'int8' needs a quantized model: `mrcnn export --precision int8` makes one.")
    usable = [engine]
    if engine == "auto":
        # Another runtime is given an ONNX graph, which takes a package of its own.
        usable = [name for name in installed_engines() if name == "keras" or installed("onnx")]
    choice = _choose_of(usable, precision, threads, device)
    if choice.engine != "keras":
        try:
            return Opened(_convert(network, config, choice, threads, device), config, class_names, choice.reason)
        except EngineError as error:
            if engine != "auto" or "keras" not in usable:
                raise
            _log.warning("%s Going on with the engine keras.", error)
            # The precision that was asked for, not the one that was fastest elsewhere.
            own_choice = choose(["keras"], precision, threads)
            choice = replace(own_choice, reason=f"{choice.engine} cannot: {error}")
    from mrcnn.engines.keras_engine import KerasEngine

    made = KerasEngine(network, config, choice.precision, threads, fold=True if own else None)
    return Opened(made, config, class_names, choice.reason)


def _choose_of(engines: list[str], precision: str, threads: int | None, device: str | None) -> Choice:
    """One of some engines, and a precision; "auto" where the engine itself tells best."""
    if len(engines) == 1:
        if precision != "auto":
            return Choice(engines[0], precision, "asked for")
        if device not in (None, "CPU") or not installed(engines[0]):  # measured is the CPU; making it says what lacks
            return Choice(engines[0], precision, "asked for")
    return choose(engines, precision, threads)


def _convert(network: Any, config: Config, choice: Choice, threads: int | None, device: str | None) -> Engine:
    from mrcnn.graph.network import network_graph

    return _engine_of_file(choice, network_graph(network, config).SerializeToString(), threads, device)


def _engine_of_file(
    choice: Choice, model: Path | bytes, threads: int | None, device: str | None, quantized: bool = False
) -> Engine:
    device = device or "CPU"
    if choice.engine == "openvino":
        from mrcnn.engines.openvino_engine import OpenVINOEngine

        folder = known_cache_folder() if isinstance(model, Path) else None
        cache = folder / "openvino" if folder is not None else None
        return OpenVINOEngine(model, choice.precision, threads, device, quantized, cache)
    from mrcnn.engines.onnxruntime_engine import ONNXRuntimeEngine

    return ONNXRuntimeEngine(model, choice.precision, threads, device)


def _network_of(model: Any, config: Config | None) -> tuple[Any, Config]:
    """The Keras network and configuration of a `MaskRCNN`, or of a network given with its configuration."""
    network = getattr(model, "keras_model", model)
    config = getattr(model, "config", None) if config is None and network is not model else config
    if getattr(model, "mode", "inference") != "inference":
        raise ValueError(f"Detection needs a model in 'inference' mode. This one is in {model.mode!r} mode.")
    if not hasattr(network, "inputs") or not hasattr(network, "get_layer"):
        raise TypeError(
            "model must be the path of an exported model or of a weights file, a MaskRCNN, a network of build_network, "
            f"or an engine. Received: {type(model).__name__}."
        )
    if config is None:
        raise ValueError("A network without its configuration cannot be run: give config=.")
    return network, config


def _found(path: Path) -> Path:
    """A weights file that is there, fetched if it is the name of released weights."""
    if path.exists():
        return path
    if installed("h5py"):
        # Here, for a machine that only detects has no h5py.
        from mrcnn.released import find_weights, is_released

        if is_released(path):
            return find_weights(path)
    raise FileNotFoundError(f"There is no exported model and no weights file {path}.")


def _load_weights(
    path: Path, config: Config | None, engine: str, threads: int | None
) -> tuple[Any, Config, tuple[str, ...] | None]:
    """The network of a weights file, for an engine that uses so many threads."""
    path = _found(path)
    if path.suffix not in _WEIGHTS:
        hint = f" `mrcnn convert {path} NAME.h5` may make one of it." if path.suffix in _OTHERS else ""
        raise EngineError(
            f"{path} is neither an exported model (a folder) nor a weights file ({', '.join(_WEIGHTS)}).{hint}"
        )
    from mrcnn import weights
    from mrcnn.engines.keras_engine import preset_threads
    from mrcnn.network import build_network

    info = weights.inspect_weights(path)
    if config is None:
        if info.config is None:
            raise EngineError(f"{path} stores no configuration: give config=, the one that it was trained with.")
        fields = Config.fields()
        config = Config.from_dict({name: value for name, value in info.config.items() if name in fields})
    preset_threads(threads, engine)
    network = build_network(config, "inference")
    weights.load_weights(network, path)
    return network, config, info.class_names

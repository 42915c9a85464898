"""The formats of exported models: what each can be, and what writing it takes. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mrcnn.bundle import is_bundle
from mrcnn.engines.base import precision_name
from mrcnn.requirements import installed, require


class ExportError(Exception):
    """A network that cannot be exported as asked, or an exported one that does not give what Keras gives."""


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        precisions: that it can be had in.
        packages: that writing it and checking it takes, and which extra of this package brings each.
        backend: what Keras must run on to write it; None: anything.
        open_sizes: whether the exported model takes any number of images, of any size.
    """

    precisions: tuple[str, ...]
    packages: dict[str, str]
    backend: str | None = None
    open_sizes: bool = True


FORMATS = {
    "openvino": Format(("float32", "bfloat16", "int8"), {"onnx": "openvino", "openvino": "openvino"}),
    "onnx": Format(("float32",), {"onnx": "onnx", "onnxruntime": "onnx"}),
    "saved_model": Format(("float32", "bfloat16"), {"tensorflow": "tensorflow"}, "tensorflow"),
    "litert": Format(("float32",), {"tensorflow": "tensorflow"}, "tensorflow"),
    "torch": Format(("float32",), {"torch": "torch"}, "torch", open_sizes=False),
}


def check_export(format: str, precision: str, folder: str | Path) -> str:
    """Refuse what cannot be exported, before anything heavy is done.

    Returns:
        The full name of the precision.

    Raises:
        ExportError: a format that cannot be had in this precision.
        ImportError: a package is missing.
        FileExistsError: the folder is something else than an exported model.
        FileNotFoundError: the folder that it is to be in does not exist.
        ValueError: an unknown name.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}. Received: {format!r}.")
    precision = precision_name(precision)
    precisions = FORMATS[format].precisions
    if precision not in precisions:
        others = [name for name in FORMATS if precision in FORMATS[name].precisions]
        raise ExportError(
            f"{format} is exported in {' or '.join(precisions)}. Received: precision {precision!r}"
            + (f", for which there is {' or '.join(others)}." if others else ".")
        )
    folder = Path(folder)
    if folder.exists() and not is_bundle(folder):
        raise FileExistsError(f"{folder} exists and is no exported model. Choose another name, or remove it.")
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder {folder.parent} does not exist. Create it first, or choose another.")
    packages = FORMATS[format].packages | ({"nncf": "int8"} if precision == "int8" else {})
    for package, extra in packages.items():
        if not installed(package):
            require(package, extra, f"Exporting as {format}, {precision},")
    return precision

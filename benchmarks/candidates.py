"""Who is measured: what makes each candidate, with which options, and in which environment its process runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# glibc gives big buffers back to the system at once and pays page faults for each new one; told not to, it keeps them.
# PyTorch's performance tuning guide recommends as much (there by another allocator); any candidate may be run so.
MALLOC_SUFFIX = "+malloc"
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}

OURS = "ours"
TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Candidate:
    """One way to find the objects in a photo.

    Attributes:
        name: what the command line and the results call it.
        maker: "module:Class"; see `benchmarks.worker`.
        options: keyword arguments of the maker.
        family: what it is a variant of, such as "torchvision float32"; the fastest of a family stands for it.
        peer: runs in the interpreter of `--peer-python`.
        environment: variables of its process, beside those there are.
        note: what a reader of its numbers should know.
    """

    name: str
    maker: str
    options: Mapping[str, Any]
    family: str
    peer: bool
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


_NO_PASTE = "mask pasting is left out, else it does not convert"
_CHANNELS_LAST = "channels last"


def _ours(engine: str, precision: str) -> Candidate:
    short = {"float32": "f32", "bfloat16": "bf16", "int8": "int8"}[precision]
    environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"} if engine == "keras" else {}
    return Candidate(
        f"{OURS}-{engine}-{short}",
        "benchmarks.ours:OurDetector",
        {"engine": engine, "precision": precision},
        f"{OURS} {precision}",
        peer=False,
        environment=environment,
        note="exported model" if engine != "keras" else "",
    )


def _same_weights(precision: str) -> Candidate:
    """torchvision's network and weights on our engine."""
    short = {"float32": "f32", "bfloat16": "bf16", "int8": "int8"}[precision]
    return Candidate(
        f"{OURS}-{TORCHVISION}-openvino-{short}",
        "benchmarks.same_weights:SameWeightsDetector",
        {"engine": "openvino", "precision": precision, "weights": TORCHVISION},
        f"{OURS} {precision}, torchvision's network",
        peer=False,
        note="the same weights",
    )


def _torch(name: str, module: str, family: str, note: str = "", **options: Any) -> Candidate:
    return Candidate(name, module, options, family, peer=True, note=note)


_TORCHVISION = "benchmarks.torchvision_peer:TorchvisionDetector"
_OPENVINO = "benchmarks.converted:OpenVINOPeer"

CANDIDATES: tuple[Candidate, ...] = (
    _ours("keras", "float32"),
    _ours("keras", "bfloat16"),
    _ours("openvino", "float32"),
    _ours("openvino", "bfloat16"),
    _ours("openvino", "int8"),
    _ours("onnxruntime", "float32"),
    _torch("torchvision-f32", _TORCHVISION, "torchvision float32", precision="float32", channels_last=False),
    _torch(
        "torchvision-f32-nhwc", _TORCHVISION, "torchvision float32", _CHANNELS_LAST,
        precision="float32", channels_last=True,
    ),
    _torch(
        "torchvision-bf16", _TORCHVISION, "torchvision bfloat16", f"autocast, {_CHANNELS_LAST}",
        precision="bfloat16", channels_last=True,
    ),
    _torch("torchvision-openvino-f32", _OPENVINO, "torchvision in OpenVINO float32", _NO_PASTE, precision="float32"),
    _torch("torchvision-openvino-bf16", _OPENVINO, "torchvision in OpenVINO bfloat16", _NO_PASTE, precision="bfloat16"),
    _torch(
        "torchvision-onnxruntime-f32", "benchmarks.converted:OnnxRuntimePeer", "torchvision in ONNX Runtime float32",
        _NO_PASTE,
    ),
    # After torchvision's own, which make the weights.
    _same_weights("float32"),
    _same_weights("bfloat16"),
    _same_weights("int8"),
    _torch("mayaku-f32", "benchmarks.mayaku_peer:MayakuDetector", "mayaku float32", precision="float32"),
    _torch("mayaku-bf16", "benchmarks.mayaku_peer:MayakuDetector", "mayaku bfloat16", "autocast", precision="bfloat16"),
)  # fmt: skip

# Every one, and those that allocate a lot also with the allocator told to keep what it has.
DEFAULT = tuple(
    name
    for candidate in CANDIDATES
    for name in (candidate.name, candidate.name + MALLOC_SUFFIX)
    if not name.endswith(MALLOC_SUFFIX) or candidate.name.startswith((f"{TORCHVISION}-f32", f"{TORCHVISION}-bf16"))
)

# The original's speed on a CPU, for which nobody has published a measurement with its conditions. As text only: other
# machines, other photos.
PUBLISHED = (
    {
        "what": "Matterport's Mask R-CNN, own data set, Core i7 with 8 threads or cores: 13 s an image",
        "source": "github.com/matterport/Mask_RCNN/issues/866",
    },
    {
        "what": "Matterport's Mask R-CNN, a CPU not named: more than 25 s an image",
        "source": "github.com/matterport/Mask_RCNN/issues/2191",
    },
)


def find(names: Sequence[str]) -> list[Candidate]:
    """The candidates of these names, in this order; a name may end in `MALLOC_SUFFIX`.

    Raises:
        ValueError: a name that nobody has, or one twice.
    """
    known = {candidate.name: candidate for candidate in CANDIDATES}
    chosen = []
    for name in names:
        plain = name.removesuffix(MALLOC_SUFFIX)
        if plain not in known:
            raise ValueError(
                f"No candidate is called {name!r}. There are: {', '.join(known)} (each also with {MALLOC_SUFFIX})."
            )
        candidate = known[plain]
        if plain != name:
            note = ", ".join(filter(None, [candidate.note, "glibc's allocator tuned"]))
            candidate = replace(candidate, name=name, environment={**candidate.environment, **MALLOC}, note=note)
        chosen.append(candidate)
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise ValueError(f"Named twice: {', '.join(sorted(twice))}.")
    return chosen

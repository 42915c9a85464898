"""State dicts as torchvision and detectron2 have them, of small networks with random weights; and files of them,
written by hand. Nothing here needs their packages.

Letters: K classes (0 is background).
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np

K = 5
WIDTH, HIDDEN, MASK = 8, 12, 6  # of the pyramid and the RPN, of the box head's layers, of the mask head
BASIC, BOTTLENECKS = (2, 2, 2, 2), (3, 4, 6, 3)
State = dict[str, np.ndarray]


def norm(state: State, name: str, width: int, rng: np.random.Generator, counter: bool = True) -> None:
    for weight in ("weight", "bias", "running_mean", "running_var"):
        state[f"{name}.{weight}"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
    if counter:
        state[f"{name}.num_batches_tracked"] = np.array(7)


def conv(state: State, name: str, rng: np.random.Generator, *shape: int, bias: bool = True) -> None:
    state[f"{name}.weight"] = rng.standard_normal(shape, np.float32)
    if bias:
        state[f"{name}.bias"] = rng.standard_normal(shape[0], np.float32)


def resnet18(rng: np.random.Generator, prefix: str = "", counter: bool = True, channels: int = 3) -> State:
    """torchvision's ResNet-18 without its last layer; real widths, for those are what it is known by."""
    state: State = {}
    conv(state, f"{prefix}conv1", rng, 64, channels, 7, 7, bias=False)
    norm(state, f"{prefix}bn1", 64, rng, counter)
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"{prefix}layer{stage}.{block}"
            conv(state, f"{name}.conv1", rng, width, before, 3, 3, bias=False)
            norm(state, f"{name}.bn1", width, rng, counter)
            conv(state, f"{name}.conv2", rng, width, width, 3, 3, bias=False)
            norm(state, f"{name}.bn2", width, rng, counter)
            if before != width:
                conv(state, f"{name}.downsample.0", rng, width, before, 1, 1, bias=False)
                norm(state, f"{name}.downsample.1", width, rng, counter)
            before = width
    return state


def torchvision_v1(seed: int = 0, pool: int = 7) -> State:
    """`MaskRCNN(resnet_fpn_backbone("resnet18"), K)` with a narrow pyramid and narrow heads."""
    rng = np.random.default_rng(seed)
    state = resnet18(rng, "backbone.body.", counter=False)
    for index, width in enumerate((64, 128, 256, 512)):
        conv(state, f"backbone.fpn.inner_blocks.{index}.0", rng, WIDTH, width, 1, 1)
        conv(state, f"backbone.fpn.layer_blocks.{index}.0", rng, WIDTH, WIDTH, 3, 3)
    conv(state, "rpn.head.conv.0.0", rng, WIDTH, WIDTH, 3, 3)
    _tail(state, rng, pool, normed=False)
    return state


def torchvision_v2(seed: int = 0, pool: int = 7) -> State:
    """As `maskrcnn_resnet50_fpn_v2` has it, of a ResNet-18, narrow."""
    rng = np.random.default_rng(seed)
    state = resnet18(rng, "backbone.body.")
    for index, width in enumerate((64, 128, 256, 512)):
        for block, inputs, side in (("inner", width, 1), ("layer", WIDTH, 3)):
            conv(state, f"backbone.fpn.{block}_blocks.{index}.0", rng, WIDTH, inputs, side, side, bias=False)
            norm(state, f"backbone.fpn.{block}_blocks.{index}.1", WIDTH, rng)
    for index in range(2):
        conv(state, f"rpn.head.conv.{index}.0", rng, WIDTH, WIDTH, 3, 3)
    _tail(state, rng, pool, normed=True)
    return state


def _tail(state: State, rng: np.random.Generator, pool: int, normed: bool) -> None:
    conv(state, "rpn.head.cls_logits", rng, 3, WIDTH, 1, 1)
    conv(state, "rpn.head.bbox_pred", rng, 12, WIDTH, 1, 1)
    if normed:
        for index in range(4):
            conv(state, f"roi_heads.box_head.{index}.0", rng, WIDTH, WIDTH, 3, 3, bias=False)
            norm(state, f"roi_heads.box_head.{index}.1", WIDTH, rng)
        conv(state, "roi_heads.box_head.5", rng, HIDDEN, WIDTH * pool * pool)
    else:
        conv(state, "roi_heads.box_head.fc6", rng, HIDDEN, WIDTH * pool * pool)
        conv(state, "roi_heads.box_head.fc7", rng, HIDDEN, HIDDEN)
    conv(state, "roi_heads.box_predictor.cls_score", rng, K, HIDDEN)
    conv(state, "roi_heads.box_predictor.bbox_pred", rng, 4 * K, HIDDEN)
    for index in range(4):
        conv(state, f"roi_heads.mask_head.{index}.0", rng, MASK, MASK if index else WIDTH, 3, 3, bias=not normed)
        if normed:
            norm(state, f"roi_heads.mask_head.{index}.1", MASK, rng)
    conv(state, "roi_heads.mask_predictor.conv5_mask", rng, MASK, MASK, 2, 2)
    conv(state, "roi_heads.mask_predictor.mask_fcn_logits", rng, K, MASK, 1, 1)


# Modules of torchvision, and what detectron2 calls them; its names of normalizations lie below their convolutions.
_MODULES = {
    "rpn.head.cls_logits": "proposal_generator.rpn_head.objectness_logits",
    "rpn.head.bbox_pred": "proposal_generator.rpn_head.anchor_deltas",
    "roi_heads.box_head.fc6": "roi_heads.box_head.fc1",
    "roi_heads.box_head.5": "roi_heads.box_head.fc1",
    "roi_heads.box_head.fc7": "roi_heads.box_head.fc2",
    "roi_heads.box_predictor.cls_score": "roi_heads.box_predictor.cls_score",
    "roi_heads.box_predictor.bbox_pred": "roi_heads.box_predictor.bbox_pred",
    "roi_heads.mask_predictor.conv5_mask": "roi_heads.mask_head.deconv",
    "roi_heads.mask_predictor.mask_fcn_logits": "roi_heads.mask_head.predictor",
    "rpn.head.conv.0.0": "proposal_generator.rpn_head.conv.conv0",
    "rpn.head.conv.1.0": "proposal_generator.rpn_head.conv.conv1",
}
for _index in range(4):
    _MODULES |= {
        f"backbone.fpn.inner_blocks.{_index}.0": f"backbone.fpn_lateral{_index + 2}",
        f"backbone.fpn.inner_blocks.{_index}.1": f"backbone.fpn_lateral{_index + 2}.norm",
        f"backbone.fpn.layer_blocks.{_index}.0": f"backbone.fpn_output{_index + 2}",
        f"backbone.fpn.layer_blocks.{_index}.1": f"backbone.fpn_output{_index + 2}.norm",
        f"roi_heads.box_head.{_index}.0": f"roi_heads.box_head.conv{_index + 1}",
        f"roi_heads.box_head.{_index}.1": f"roi_heads.box_head.conv{_index + 1}.norm",
        f"roi_heads.mask_head.{_index}.0": f"roi_heads.mask_head.mask_fcn{_index + 1}",
        f"roi_heads.mask_head.{_index}.1": f"roi_heads.mask_head.mask_fcn{_index + 1}.norm",
    }


def as_detectron2(state: State, prefix: str = "backbone.bottom_up.") -> State:
    """A state dict of torchvision as detectron2 would have the same network: other names, the background last, and no
    rows for it in boxes and masks."""
    deep = any(name.startswith("rpn.head.conv.1") for name in state)
    renamed: State = {}
    for name, array in state.items():
        module, _, weight = name.rpartition(".")
        body = module.removeprefix("backbone.body.")
        if body == "conv1":
            module = f"{prefix}stem.conv1"
        elif body == "bn1":
            module = f"{prefix}stem.conv1.norm"
        elif body.startswith("layer"):
            stage, block, kind, *part = body.split(".")
            inner = {"downsample": "shortcut" + (".norm" if part == ["1"] else "")}.get(kind)
            inner = inner or (kind if kind.startswith("conv") else f"conv{kind[-1]}.norm")
            module = f"{prefix}res{int(stage[-1]) + 1}.{block}.{inner}"
        else:
            module = _MODULES[module]
            if not deep:
                module = module.replace(".conv.conv0", ".conv")
        if module.endswith("cls_score"):
            array = np.concatenate([array[1:], array[:1]])
        elif module.endswith("bbox_pred"):
            array = array[4:]
        elif module.endswith("predictor"):
            array = array[1:]
        renamed[f"{module}.{weight}"] = array
    return renamed


def without_background(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    """Make what a conversion of torchvision's gives for the background's boxes and masks zero, in place."""
    for layer, count in (("mrcnn_bbox_fc", 4), ("mrcnn_mask", 1)):
        for array in arrays[layer].values():
            array[..., :count] = 0


# Files


class _Global:
    """Pickled as the name of a function or class, whether there is one or not."""

    def __init__(self, name: str) -> None:
        self.module, _, self.name = name.rpartition(".")

    def __call__(self, *arguments: object) -> _Call:
        return _Call(self, arguments)


class _Call:
    def __init__(self, function: _Global, arguments: tuple[object, ...], state: object = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state


class _Pickler(pickle._Pickler):
    """Writes calls of functions that are not here."""

    def save(self, item: object, save_persistent_id: bool = True) -> None:
        if isinstance(item, _Global):
            self.write(pickle.GLOBAL + f"{item.module}\n{item.name}\n".encode())
        elif isinstance(item, _Call):
            self.save(item.function)
            self.save(item.arguments)
            self.write(pickle.REDUCE)
            if item.state is not None:
                self.save(item.state)
                self.write(pickle.BUILD)
        else:
            super().save(item, save_persistent_id)


def global_(name: str) -> _Global:
    return _Global(name)


def call(name: str, *arguments: object, state: object = None) -> _Call:
    return _Call(_Global(name), arguments, state)


def pickled(item: object, protocol: int = 2, persistent: object = None) -> bytes:
    """A pickle in which calls of `call` are made by whoever loads it."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol)
    if persistent is not None:
        pickler.persistent_id = persistent
    pickler.dump(item)
    return buffer.getvalue()


class Stored:
    """A storage, which a file of torch.save refers to."""

    def __init__(self, key: str, kind: str, count: int) -> None:
        self.key, self.kind, self.count = key, kind, count


def torch_zip(path: Path, tree: object, storages: dict[str, bytes], **entries: bytes) -> Path:
    """A file of torch.save: `tree` with `tensor`s in it, and the bytes of storages by key."""

    def persistent(item: object) -> object:
        if not isinstance(item, Stored):
            return None
        return ("storage", global_(f"torch.{item.kind}"), item.key, "cpu", item.count)

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(tree, persistent=persistent))
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in {"byteorder": b"little", "version": b"3\n", **entries}.items():
            archive.writestr(f"archive/{name}", data)
    return path


def tensor(stored: Stored, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> _Call:
    return call("torch._utils._rebuild_tensor_v2", stored, offset, size, stride, False, call("collections.OrderedDict"))


def torch_state(path: Path, state: State) -> Path:
    """A file of torch.save of a state dict."""
    tree, storages = {}, {}
    for index, (name, array) in enumerate(state.items()):
        kind = {"f": "FloatStorage", "i": "LongStorage"}[array.dtype.kind]
        strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides[: array.ndim])
        tree[name] = tensor(Stored(str(index), kind, array.size), 0, array.shape, strides)
        storages[str(index)] = array.tobytes()
    return torch_zip(path, tree, storages)


def safetensors(path: Path, arrays: State, **kinds: str) -> Path:
    """A file of safetensors; `kinds` are the types to say of arrays, by name, where these are not float32."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": kinds.get(name, "F32"), "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    data = [array.tobytes() for array in arrays.values()]
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *data]))
    return path

"""The names that existing projects call, their arguments and defaults: tests/data/public_api.json holds them all.

What is there may get further arguments that have defaults; nothing of it may go, or change its place.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json

import numpy as np
import pytest

from tests.golden import DATA

API = json.loads((DATA / "public_api.json").read_text(encoding="utf-8"))
ENTRIES = [(module, name) for module, names in API.items() for name in names]
METHODS = [
    (module, name, method) for module, name in ENTRIES for method in API[module][name].get("methods", {})
]  # fmt: skip


def arguments(signature):
    """The text "(a, b=1, **kwargs)" as names, defaults by name, and whether other keywords are taken."""
    told = ast.parse(f"def f{signature}: pass").body[0].args
    names = [argument.arg for argument in told.args]
    values = [ast.literal_eval(node) for node in told.defaults]
    return names, dict(zip(names[len(names) - len(values) :], values, strict=True)), told.kwarg is not None


def check_signature(function, signature, is_method=False):
    parameters = list(inspect.signature(function).parameters.values())[int(is_method) :]
    names, defaults, keywords = arguments(signature)
    assert [p.name for p in parameters[: len(names)]] == names
    for parameter in parameters[: len(names)]:
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert parameter.default == defaults.get(parameter.name, inspect.Parameter.empty), parameter.name
    rest = parameters[len(names) :]
    assert all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in rest)
    assert not keywords or any(p.kind is p.VAR_KEYWORD for p in rest)


@pytest.mark.parametrize(("module", "name"), ENTRIES)
def test_names_and_signatures(module, name):
    entry, found = API[module][name], getattr(importlib.import_module(module), name)
    if entry["kind"] == "value":
        assert found == entry["value"]
    elif entry["kind"] == "class":
        assert inspect.isclass(found)
        assert all(isinstance(getattr(found, one), property) for one in entry.get("properties", ()))
    else:
        check_signature(found, entry["signature"])


@pytest.mark.parametrize(("module", "name", "method"), METHODS)
def test_methods(module, name, method):
    owner = getattr(importlib.import_module(module), name)
    check_signature(getattr(owner, method), API[module][name]["methods"][method], is_method=True)


@pytest.mark.parametrize("field", API["mrcnn.config"]["Config"]["defaults"])
def test_defaults_of_the_configuration(field):
    from mrcnn.config import Config

    expected, found = API["mrcnn.config"]["Config"]["defaults"][field], getattr(Config(), field)
    if isinstance(expected, list):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected
        assert type(found) is type(expected)


def test_attributes_of_instances(tmp_path):
    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN
    from mrcnn.parallel_model import ParallelModel
    from mrcnn.utils import Dataset

    class SmallConfig(Config):
        BACKBONE = "resnet14"
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
        TOP_DOWN_PYRAMID_SIZE = FPN_CLASSIF_FC_LAYERS_SIZE = 8

    dataset = Dataset()
    dataset.prepare()
    model = MaskRCNN("inference", SmallConfig(), str(tmp_path))
    parallel = ParallelModel(model.keras_model, 1)
    for module, name, instance in (
        ("mrcnn.utils", "Dataset", dataset),
        ("mrcnn.model", "MaskRCNN", model),
        ("mrcnn.parallel_model", "ParallelModel", parallel),
    ):
        missing = [one for one in API[module][name]["attributes"] if not hasattr(instance, one)]
        assert not missing, f"{name} lacks {missing}"


def test_classes_that_projects_derive_from_are_what_they_were():
    import keras

    from mrcnn.model import BatchNorm
    from mrcnn.parallel_model import ParallelModel

    assert issubclass(BatchNorm, keras.layers.BatchNormalization)
    assert issubclass(ParallelModel, keras.Model)


def test_the_list_is_compared_with_what_is_there():
    """The checks see what they are for: another order, another default, an argument too many, one that is missing."""
    check_signature(lambda a, b=1, *, c=2: None, "(a, b=1)")
    for wrong in (lambda b, a=1: None, lambda a, b=2: None, lambda a, b: None, lambda a: None, lambda a, b, c: None):
        with pytest.raises(AssertionError):
            check_signature(wrong, "(a, b=1)")

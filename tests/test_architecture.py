"""The house: which way imports go, what stays light, how long a file may be. See docs/design.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mrcnn

ROOT = Path(mrcnn.__file__).parent
MODULES = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))

# For each room, what it may import of the package besides itself. Nothing else, lazily or not.
MAY_IMPORT = {
    "mrcnn.backend": [],
    "mrcnn.files": [],
    "mrcnn.cache": [],
    "mrcnn.requirements": [],
    "mrcnn.pipeline": [],
    "mrcnn.quiet": [],
    "mrcnn.colors": [],
    "mrcnn.habits": [],
    "mrcnn.runs": [],
    "mrcnn.stages": [],
    "mrcnn.interrupts": [],
    "mrcnn.tables": [],
    "mrcnn.config_checks": [],
    "mrcnn.config_pickling": [],
    "mrcnn.config_habits": ["config_checks", "habits"],
    "mrcnn.presets": [],
    "mrcnn.applications": [],
    "mrcnn.recipe": ["config_checks", "presets"],
    "mrcnn.config_rules": ["applications", "config_checks", "config_habits", "recipe"],
    "mrcnn.config": ["applications", "config_checks", "config_habits", "config_pickling", "config_rules", "presets",
                     "recipe"],
    "mrcnn.ops": [],
    "mrcnn.layers": ["backend", "ops"],
    "mrcnn.losses": ["config", "ops"],
    "mrcnn.network": ["applications", "config", "data.image_meta", "layers", "losses", "ops"],
    "mrcnn.data": ["config", "files", "ops.anchors", "ops.boxes"],  # the numpy side of ops
    "mrcnn.weights": ["files", "habits"],
    "mrcnn.folding": ["layers"],
    "mrcnn.frozen_norms": ["folding", "layers"],
    "mrcnn.bundle": ["config", "files"],
    "mrcnn.engines.base": [],
    "mrcnn.graph": ["config", "data.image_meta", "engines.base", "folding", "ops.boxes", "requirements"],
    "mrcnn.engines": ["bundle", "cache", "config", "data.image_meta", "files", "folding", "graph", "layers", "network",
                      "ops", "released", "requirements", "weights"],
    "mrcnn.release_files": ["weights.info"],
    "mrcnn.downloads": ["cache", "files", "release_files"],
    "mrcnn.converting": ["config", "data.coco_names", "files", "habits", "presets", "weights"],
    "mrcnn.released": ["cache", "converting", "downloads", "release_files", "weights"],
    "mrcnn.lazy_logs": [],
    "mrcnn.callbacks": ["files", "lazy_logs"],
    "mrcnn.keras_model": ["habits", "weights"],
    "mrcnn.imagenet": ["applications", "config", "downloads", "layers", "released", "weights"],
    "mrcnn.stage_layers": [],
    "mrcnn.devices": ["backend", "config_checks"],
    "mrcnn.parallel": ["config", "devices", "ops"],
    "mrcnn.parallel_model": ["parallel"],
    "mrcnn.optimization": ["config", "ops", "parallel"],
    "mrcnn.resuming": ["config", "interrupts", "lazy_logs", "optimization", "parallel", "runs", "weights"],
    "mrcnn.fitting": ["lazy_logs", "resuming"],
    "mrcnn.training": ["callbacks", "config", "data", "fitting", "frozen_norms", "interrupts", "keras_model",
                       "monitoring", "ops", "optimization", "parallel", "resuming", "run_record", "stage_layers",
                       "watching"],
    "mrcnn.selection": ["config", "engines.base", "ops.boxes"],
    "mrcnn.flips": ["config", "data.image_meta", "engines.base", "ops.boxes", "selection"],
    "mrcnn.merging": ["data.crops", "data.tiles"],
    "mrcnn.tiling": ["config", "data", "merging", "pipeline"],
    "mrcnn.inference": ["config", "data", "engines", "flips", "merging", "ops.anchors", "ops.boxes", "pipeline",
                        "selection", "tiling"],
    "mrcnn.matching": ["ops.boxes"],
    "mrcnn.average_precision": [],
    "mrcnn.coco_results": ["data", "files"],
    "mrcnn.results": ["coco_results", "data", "files", "requirements"],
    "mrcnn.evaluation": ["average_precision", "coco_results", "data", "files", "matching"],
    "mrcnn.judging": ["colors", "data", "drawing", "matching"],
    "mrcnn.run_record": ["data", "files"],
    "mrcnn.report": ["config", "files", "run_record", "weights.info"],
    "mrcnn.console": ["config"],
    "mrcnn.monitoring": ["config", "data", "engines", "evaluation", "inference", "judging", "network", "optimization",
                         "run_record", "weights"],
    "mrcnn.watching": ["config", "console", "monitoring", "report", "run_record"],
    "mrcnn.quantization": ["config", "data", "engines.base", "evaluation", "graph.names", "ops.anchors", "ops.boxes",
                           "requirements"],
    "mrcnn.agreement": ["engines.base", "ops.boxes"],
    "mrcnn.formats": ["bundle", "engines.base", "requirements"],
    "mrcnn.slim": ["config", "engines", "folding", "layers", "network", "ops"],
    "mrcnn.exporters": ["config", "data", "engines", "formats", "graph", "ops", "quantization", "quiet", "requirements",
                        "slim"],
    "mrcnn.export": ["agreement", "bundle", "config", "data", "engines", "exporters", "formats", "ops", "slim"],
    "mrcnn.lettering": [],
    "mrcnn.drawing": ["colors", "data.outlines", "data.rle", "files", "lettering"],
    "mrcnn.contact_sheet": ["lettering"],
    "mrcnn.data_pictures": ["colors", "config", "contact_sheet", "data", "drawing"],
    "mrcnn.video": ["colors", "drawing", "files", "quiet"],
    "mrcnn.figures": ["drawing"],
    "mrcnn.visualize": ["colors", "drawing", "figures", "matching", "tables"],
    "mrcnn.legacy": ["config", "data", "layers", "losses", "ops"],
    "mrcnn.utils": ["data", "downloads", "files", "legacy.draws", "matching", "ops.anchors", "ops.boxes"],
    "mrcnn.graph_queries": ["keras_model", "layers.proposals"],
    "mrcnn.memory": [],
    "mrcnn.estimate": ["memory"],
    "mrcnn.preflight": ["config", "data", "estimate"],
    "mrcnn.run_stages": ["interrupts", "optimization", "preflight", "resuming", "run_record", "stages", "training",
                         "weights"],
    "mrcnn.model": ["config", "converting", "data", "devices", "downloads", "engines", "graph_queries", "habits",
                    "imagenet", "inference", "keras_model", "legacy", "network", "ops.anchors", "ops.boxes",
                    "optimization", "parallel", "preflight", "released", "run_stages", "runs", "training", "weights"],
    "mrcnn.nuclei": ["cache", "config", "data", "downloads", "files"],
    "mrcnn.demo": ["data", "drawing", "evaluation", "files", "model", "nuclei"],
    "mrcnn.cli": ["__init__", "applications", "backend", "bundle", "config", "converting", "data", "data_pictures",
                  "demo", "downloads", "drawing", "engines", "evaluation", "export", "files", "formats", "inference",
                  "interrupts", "model", "nuclei", "presets", "quantization", "quiet", "released", "report", "results",
                  "run_record", "runs", "selection", "stages", "tiling", "video", "weights"],
    "mrcnn.__main__": ["cli"],
    "mrcnn.__init__": ["backend", "config", "data", "evaluation", "inference", "model", "results", "visualize"],
}  # fmt: skip


def module_name(path: Path) -> str:
    name = ".".join(path.with_suffix("").parts)
    return name if name == "mrcnn.__init__" else name.removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Full names of the package's modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT.parent / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import; the house writes names in full"
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "mrcnn" else {node.module}
            )
    return {"mrcnn.__init__" if name == "mrcnn" else name for name in found if name.split(".")[0] == "mrcnn"}


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(name: str) -> str:
    return next(room for room in MAY_IMPORT if within(name, room))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_downward(path):
    room = room_of(module_name(path))
    allowed = [room, *(f"mrcnn.{name}" for name in MAY_IMPORT[room])]
    strangers = [name for name in imports(path) if not any(within(name, other) for other in allowed)]
    assert not strangers, f"{path} ({room}) may not import {strangers}"


def test_the_rules_have_no_cycle():
    """Rooms can be built one after the other: each imports only rooms that stand already."""
    standing, left = set(), set(MAY_IMPORT) - {"mrcnn.__init__"}
    while left:
        ready = {
            room for room in left if {room_of(f"mrcnn.{n}") for n in MAY_IMPORT[room]} - {"mrcnn.__init__"} <= standing
        }
        assert ready, f"these import each other in a circle: {sorted(left)}"
        standing |= ready
        left -= ready


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_file_has_one_job_and_at_most_400_lines(path):
    assert len((ROOT.parent / path).read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
    "module",
    [
        "mrcnn",
        "mrcnn.config",
        "mrcnn.weights",
        "mrcnn.weights.recognition",
        "mrcnn.released",
        "mrcnn.evaluation",
        "mrcnn.data.batches",
        "mrcnn.data.formats",
        "mrcnn.data_pictures",
        "mrcnn.utils",
    ],
)
def test_light_modules_import_no_framework(module):
    program = (
        f"import sys, {module}; "
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there():
    for name in mrcnn.__all__:
        assert getattr(mrcnn, name).__name__ == name
    assert set(mrcnn.__all__) <= set(dir(mrcnn))
    with pytest.raises(AttributeError, match="no attribute 'MaskRcnn'"):
        _ = mrcnn.MaskRcnn

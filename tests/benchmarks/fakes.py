"""Detectors that find nothing in particular, for the workers of the benchmark."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np


class Fake:
    """Writes down when it was called, sleeps, and finds `detections` boxes; goes wrong as told at its call `at`.

    Args:
        log: a file for lines of [name, event].
        wrong: "raise", "exit", "hang", "nan" or "shape".
        needs: bytes that getting ready takes, and gives back.
        keeps: whether it puts a file where our package keeps things, and writes down how many it found there.
    """

    facts = {"versions": {}}

    def __init__(
        self,
        cache: Path,
        photo: np.ndarray,
        name: str,
        log: str,
        detections: int = 3,
        wrong: str = "",
        at: int = 0,
        needs: int = 0,
        keeps: bool = False,
    ) -> None:
        np.ones(needs, np.uint8)
        self.name, self.log, self.detections, self.wrong, self.at = name, Path(log), detections, wrong, at
        self.calls = 0
        self._note("start")
        if keeps:
            folder = Path(os.environ["MRCNN_CACHE"])
            folder.mkdir(exist_ok=True)
            self._note(f"kept {len(list(folder.iterdir()))}")
            (folder / str(os.getpid())).touch()

    @staticmethod
    def prepare(cache: Path, photo: np.ndarray, log: str, name: str, wrong: str = "", **_: Any) -> None:
        if wrong == "prepare":
            raise OSError("nothing to prepare it with")
        with open(log, "a") as file:
            file.write(json.dumps([name, "prepare"]) + "\n")

    def __call__(self, photo: np.ndarray) -> dict[str, np.ndarray]:
        print("libraries print what they like")
        self._note(os.environ.get("FAKE_EVENT", "detect"))
        boxes = np.zeros((self.detections, 4))
        masks = np.zeros((self.detections, *photo.shape[:2]), bool)
        if self.wrong and self.calls == self.at:
            if self.wrong == "raise":
                raise RuntimeError("out of luck")
            if self.wrong == "exit":
                os.write(2, b"the library's last words")
                os._exit(3)
            if self.wrong == "hang":
                time.sleep(600)
            if self.wrong == "nan":
                boxes = np.full((self.detections, 4), np.nan)
            if self.wrong == "shape":
                masks = masks[:, 1:]
        self.calls += 1
        numbers = np.zeros(self.detections)
        return {"boxes": boxes, "labels": numbers, "scores": numbers, "masks": masks}

    def _note(self, event: str) -> None:
        with self.log.open("a") as file:
            file.write(json.dumps([self.name, event]) + "\n")


class FakeTrainer:
    """Writes down when it stepped; its losses are `loss`, from its call `at` on `later`."""

    def __init__(
        self,
        cache: Path,
        photo: np.ndarray,
        name: str,
        log: str,
        loss: float = 1.0,
        later: float | None = None,
        at: int = 0,
        rois: int = 8,
    ) -> None:
        self.name, self.log, self.loss, self.later, self.at = name, Path(log), loss, later, at
        self.calls = 0
        self.facts = {"trains": True, "rois": rois, "mask_rois": 2}

    def __call__(self, photo: np.ndarray) -> dict[str, float]:
        with self.log.open("a") as file:
            file.write(json.dumps([self.name, "step"]) + "\n")
        loss = self.loss if self.later is None or self.calls < self.at else self.later
        self.calls += 1
        return {"class_loss": loss, "mask_loss": 0.5}

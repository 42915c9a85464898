"""`mrcnn detect` of videos: what counts as one, where things go, and what is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mrcnn.cli import main
from mrcnn.cli.filming import is_video, output_path
from mrcnn.video import VideoReader, video_writer
from tests.command_line import FindsOne, error_line, running, write_weights


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder to work in, with a video, an image, and a network that finds one dog in each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mrcnn.cli.detecting.open_detector", lambda args: running())
    write_weights(tmp_path / "w.h5")
    with video_writer("clip.avi", 12.5, (40, 60)) as write:
        for index in range(6):
            write(np.full((40, 60, 3), 30 * index, np.uint8))
    Image.new("RGB", (30, 20), (200, 90, 10)).save("photo.png")
    # Detection sets it for the process.
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", os.environ.get("OPENCV_FFMPEG_LOGLEVEL", "-8"))
    return tmp_path


def frames_of(path: str) -> int:
    with VideoReader(path) as reader:
        return len(list(reader))


def test_what_counts_as_a_video(folder):
    (folder / "7").touch()
    (folder / "frames.mp4").mkdir()
    videos = ["a.MP4", "dir/a.mov", "0", "12", "rtsp://host/x", "http://host/a.png"]
    images = ["a.png", "7", "a.gif", "frames.mp4", "dir", "2024"]
    assert [name for name in [*videos, *images] if is_video(name)] == videos


def test_names_of_videos(tmp_path):
    used: set[str] = set()
    names = ["a.avi", "b/a.avi", "b/a.wmv", "0", "rtsp://me:secret@cam.example:554/live/1?token=x"]
    assert [output_path(name, tmp_path, used).name for name in names] == [
        "a_detected.avi", "a_2_detected.avi", "a_detected.mp4", "camera0_detected.mp4",
        "cam_example_554_live_1_detected.mp4",
    ]  # fmt: skip


def test_a_video_into_a_file_with_results(capsys):
    argv = ["detect", "clip.avi", "--weights", "w.h5", "--out", "annotated.mp4", "--json", "results.json"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].startswith("clip.avi: 6 frames of 60 x 40, 6 instances. In ") and "frames a second" in lines[0]
    assert lines[1:] == ["Video: annotated.mp4 (12.5 frames a second).", "Results: results.json."]
    assert frames_of("annotated.mp4") == 6 and not os.path.exists("detections")
    entries = json.loads(Path("results.json").read_text())
    assert [(e["image_id"], e["frame"], e["time"]) for e in entries] == [(i + 1, i, i / 12.5) for i in range(6)]
    assert {(e["file_name"], e["category_name"], *e["bbox"]) for e in entries} == {("clip.avi", "dog", 1, 2, 4, 4)}
    assert entries[0]["segmentation"]["size"] == [40, 60]


def test_images_and_videos_together_and_one_is_broken(capsys):
    Path("broken.mp4").write_text("no video")
    argv = ["detect", "clip.avi", "broken.mp4", "photo.png", "none.mp4", "clip.avi", "--weights", "w.h5"]
    assert main([*argv, "--every", "4"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("mrcnn: error: ") for line in errors] == [True, True]
    assert "broken.mp4" in errors[0] and "No such video file: none.mp4" in errors[1]
    assert sorted(os.listdir("detections")) == [
        "clip_2_detected.avi", "clip_detected.avi", "detections.json", "photo_detected.png",
    ]  # fmt: skip
    assert frames_of("detections/clip_detected.avi") == 2
    entries = json.loads(Path("detections/detections.json").read_text())  # of videos only where they are asked for
    assert [entry["file_name"] for entry in entries] == ["photo.png"]
    assert main([*argv, "--max-frames", "2", "--json", "all.json"]) == 1
    entries = json.loads(Path("all.json").read_text())
    assert [entry["file_name"] for entry in entries] == ["photo.png"] + 4 * ["clip.avi"]
    assert [entry["image_id"] for entry in entries] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["clip.avi", "photo.png", "--out", "a.mp4"], "For 1 images and 1 videos give a folder"),
        (["photo.png", "--out", "a.mp4"], "For 1 images and 0 videos"),
        (["clip.avi", "--out", "nowhere/a.mp4"], "nowhere does not exist"),
        (["clip.avi", "--out", "clip.avi"], "would replace its source, clip.avi"),
        (["clip.avi", "--out", "photo.png"], "photo.png"),
        (["98"], "Cannot read a frame of camera 98"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, told, capsys):
    before = Path("clip.avi").read_bytes()
    assert main(["detect", *arguments, "--weights", "w.h5"]) == 1
    assert told in error_line(capsys)
    assert Path("clip.avi").read_bytes() == before


def test_a_camera_by_its_number(monkeypatch, capsys):
    sources, capture = [], cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: sources.append(source) or capture(source or "clip.avi"))
    assert main(["detect", "0", "--weights", "w.h5", "--max-frames", "3"]) == 0
    assert sources[0] == 0 and frames_of("detections/camera0_detected.mp4") == 3
    assert "0: 3 frames" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["clip.avi", "photo.png"])
def test_interruption_keeps_what_is_done(name, monkeypatch, capsys):
    """Ctrl-C, which reaches the main thread, while the third result is awaited."""
    found = running()
    stream = found.detector.stream

    def until_interrupted(images, **options):
        for count, result in enumerate(stream(images, **options)):
            if count == 2:
                raise KeyboardInterrupt
            yield result

    found.detector.stream = until_interrupted
    monkeypatch.setattr("mrcnn.cli.detecting.open_detector", lambda args: found)
    arguments = [name] * (1 if name == "clip.avi" else 5)
    assert main(["detect", *arguments, "--weights", "w.h5", "--json", "results.json"]) == 130
    assert "mrcnn: Interrupted" in capsys.readouterr().err
    assert len(json.loads(Path("results.json").read_text())) == 2
    if name == "clip.avi":
        assert frames_of("detections/clip_detected.avi") == 2
    else:
        assert sorted(os.listdir("detections")) == ["photo_2_detected.png", "photo_detected.png"]


def test_seconds_are_those_of_the_network_alone(monkeypatch, capsys):
    """With a clock that goes on by a second with each run of the network, and by nothing else."""
    now = [0.0]

    class Slow(FindsOne):
        def run(self, molded, metas, anchors):
            now[0] += 1 + len(seen)
            seen.append(molded.shape)
            return super().run(molded, metas, anchors)

    seen: list[tuple] = []
    monkeypatch.setattr("mrcnn.cli.running.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("mrcnn.cli.detecting.open_detector", lambda args: running(Slow()))
    assert main(["detect", "photo.png", "none.png", "photo.png", "photo.png", "--weights", "w.h5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[1:4]] == ["1.00", "2.00", "3.00"]
    assert "(the network alone: 0.4)" in lines[4]  # two images in five seconds: the first run does not count

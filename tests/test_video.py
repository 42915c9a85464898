"""Videos: what is read and written, and that a video is annotated frame by frame, whole or not at all."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import mrcnn
from mrcnn.colors import instance_colors
from mrcnn.config import Config
from mrcnn.inference import Detector
from mrcnn.video import Frame, VideoError, VideoReader, annotate_video, video_writer
from tests.fake_engine import BrokenEngine, FakeEngine


def gray(index: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), 10 + 20 * index, np.uint8)


def make_video(path: Path, count: int = 10, size: tuple[int, int] = (48, 64), fps: float = 12.5) -> Path:
    with video_writer(path, fps, size) as write:
        for index in range(count):
            write(gray(index, size))
    return path


def indices(frames: list) -> list[int]:
    """Which of the frames of `make_video` these are, by their gray."""
    return [round((float(frame.image.mean()) - 10) / 20) for frame in frames]


def turned(path: Path, angle: int) -> Path:
    """An MP4 file that says to turn its pictures clockwise, as telephones write it."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # behind version and flags, times, track, duration, layer and volume
    assert struct.unpack_from(">9i", data, matrix) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    cosine, sine = {90: (0, 65536), 180: (-65536, 0)}[angle]
    struct.pack_into(">9i", data, matrix, cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def detector(engine=None) -> Detector:
    config = Config.from_dict({
        "NUM_CLASSES": 4, "IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": None, "IMAGES_PER_GPU": 1,
    })  # fmt: skip
    return Detector(engine or FakeEngine(), config)


# Reading


def test_frames_come_in_order_with_their_times(tmp_path):
    with VideoReader(make_video(tmp_path / "a.mp4")) as reader:
        assert (reader.size, reader.fps, reader.frame_count) == ((48, 64), 12.5, 10)
        frames = list(reader)
    assert indices(frames) == [frame.index for frame in frames] == list(range(10))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(10) / 12.5, atol=1e-3)
    assert reader.read == 10 and reader.missing == 0


def test_every_and_the_most_frames(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    for every, most, expected in ((3, None, [0, 3, 6, 9]), (1, 4, [0, 1, 2, 3]), (2, 5, [0, 2, 4]), (20, None, [0])):
        with VideoReader(path, every, most) as reader:
            frames = list(reader)
        assert [frame.index for frame in frames] == indices(frames) == expected
        assert reader.missing == 0
    with pytest.raises(ValueError, match="every must be at least 1. Received: 0"):
        VideoReader(path, every=0)


@pytest.mark.parametrize("angle, corner", [(90, (0, -1)), (180, (-1, -1))])
def test_videos_are_turned_upright(tmp_path, angle, corner):
    with video_writer(tmp_path / "a.mp4", 10, (32, 64)) as write:
        frame = np.full((32, 64, 3), 40, np.uint8)
        frame[:16, :16] = 220  # upper left
        write(frame)
    with VideoReader(turned(tmp_path / "a.mp4", angle)) as reader:
        (frame,) = reader
        assert reader.size == ((64, 32) if angle == 90 else (32, 64))
    assert frame.image[corner].min() > 180 and (frame.image > 130).mean() == pytest.approx(1 / 8, abs=0.02)


def test_colors_are_red_green_blue(tmp_path):
    with video_writer(tmp_path / "a.mp4", 10, (32, 32)) as write:
        write(np.full((32, 32, 3), (220, 120, 20), np.uint8))
    with VideoReader(tmp_path / "a.mp4") as reader:
        (frame,) = reader
    np.testing.assert_allclose(frame.image.mean(axis=(0, 1)), (220, 120, 20), atol=6)


def test_what_is_no_video_is_told(tmp_path, capfd):
    whole = make_video(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    (tmp_path / "empty.mp4").touch()
    for name in ("cut.mp4", "text.mp4", "empty.mp4"):
        with pytest.raises(VideoError, match=rf"Cannot read a frame of .*{name}\. It is no video"):
            VideoReader(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"No such video file: .*none\.mp4"):
        VideoReader(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="Cannot read a frame of camera 98. Is it there"):
        VideoReader(98)
    assert capfd.readouterr().err == ""  # where OpenCV and FFmpeg would have written half a page


def test_a_video_that_is_cut_short_tells_how_many_frames_miss(tmp_path):
    whole = make_video(tmp_path / "a.avi", 10, (96, 128)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: whole.index(b"idx1") - 400])  # without the index and the last frames
    with VideoReader(tmp_path / "cut.avi") as reader:
        assert 1 < len(list(reader)) == 10 - reader.missing < 10


class Camera:
    """Stands in for cv2.VideoCapture: frames of given sizes; its clock started long ago, and it knows no length."""

    def __init__(self, *sizes: tuple[int, int]) -> None:
        self.sizes, self.at, self.released = sizes, -1, False

    def isOpened(self):
        return True

    def grab(self):
        self.at += 1
        return self.at < len(self.sizes)

    def retrieve(self):
        return True, gray(self.at, self.sizes[self.at])

    def get(self, what):
        return {cv2.CAP_PROP_POS_MSEC: 5e6 + 40 * self.at, cv2.CAP_PROP_FRAME_COUNT: -1.0}.get(what, 0.0)

    def release(self):
        self.released = True


def test_cameras_and_frames_of_another_size(tmp_path, monkeypatch):
    camera = Camera((48, 64), (48, 64), (64, 48))
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: camera)
    with VideoReader(0) as reader:
        assert (reader.name, reader.fps, reader.frame_count) == ("camera 0", 25, None)
        frames = iter(reader)
        assert [next(frames).seconds for _ in range(2)] == pytest.approx([0, 0.04])
        with pytest.raises(VideoError, match="Frame 2 of camera 0 measures 48 x 64, those before 64 x 48"):
            next(frames)
    assert camera.released


# Writing


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov", ".webm"])
def test_odd_sizes_keep_all_pixels_and_rates_that_are_no_whole_number(tmp_path, suffix):
    frame = gray(3, (75, 101))
    frame[:, 93:] = 200
    with video_writer(tmp_path / f"a{suffix}", 30000 / 1001, (75, 101)) as write:
        for _ in range(3):
            write(frame)
    with VideoReader(tmp_path / f"a{suffix}") as reader:
        frames = list(reader)
    assert reader.size == (76, 102) and reader.fps == pytest.approx(29.97, abs=0.01) and len(frames) == 3
    assert abs(frames[1].image[:, 96:].mean() - 200) < 12 and abs(frames[1].image[:, :88].mean() - 70) < 12


def test_a_video_appears_whole_or_not_at_all(tmp_path):
    old = make_video(tmp_path / "a.mp4").read_bytes()

    def fail_midway():
        with video_writer(tmp_path / "a.mp4", 10, (48, 64)) as write:
            write(gray(1))
            raise KeyError

    with pytest.raises(KeyError):
        fail_midway()
    with (
        pytest.raises(VideoError, match=r"takes frames of \(48, 64, 3\). Received: \(64, 48, 3\)"),
        video_writer(tmp_path / "b.mp4", 10, (48, 64)) as write,
    ):
        write(gray(1, (64, 48)))
    with pytest.raises(VideoError, match="No frame was given"), video_writer(tmp_path / "b.mp4", 10, (48, 64)):
        pass
    with (
        pytest.raises(VideoError, match=r"one of .mp4, .*Received: b\.gif"),
        video_writer(tmp_path / "b.gif", 10, (48, 64)),
    ):
        pass
    with pytest.raises(FileNotFoundError, match="nowhere"), video_writer(tmp_path / "nowhere" / "b.mp4", 10, (48, 64)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == old


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_a_full_disk_is_noticed(tmp_path):
    """OpenCV itself says nothing: here the process may write no more than 20,000 bytes into a file."""
    program = f"""
import resource, signal
import numpy as np
from mrcnn.video import Frame, VideoError, video_writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    with video_writer({str(tmp_path / "a.mp4")!r}, 10, (120, 160)) as write:
        for index in range(20):
            write(np.random.default_rng(index).integers(0, 255, (120, 160, 3), dtype=np.uint8))
except VideoError as error:
    print(error)
"""
    root = Path(mrcnn.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert "a.mp4 came out damaged: 0 of 20 frames can be read" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


# Annotating


def test_each_frame_gets_its_own_detections(tmp_path):
    path = make_video(tmp_path / "a.mp4", 8)
    finder = detector()
    with VideoReader(path) as reader:
        frames = [frame.image for frame in reader]
    expected = finder.detect(frames)
    told = []
    report = annotate_video(finder, path, tmp_path / "b.mp4", on_frame=lambda frame, found: told.append((frame, found)))
    assert (report.frames, report.size, report.fps, report.interrupted) == (8, (48, 64), 12.5, False)
    assert report.instances == sum(len(result["rois"]) for result in expected)
    for index, ((frame, found), image, other) in enumerate(zip(told, frames, expected, strict=True)):
        assert frame.index == index
        np.testing.assert_array_equal(frame.image, image)
        np.testing.assert_array_equal(found["rois"], other["rois"])
    with VideoReader(tmp_path / "b.mp4") as reader:
        drawn = [frame.image for frame in reader]
    assert len(drawn) == 8 and all(np.abs(a.astype(int) - b).max() > 60 for a, b in zip(drawn, frames, strict=True))


class FillsTheFrame(FakeEngine):
    """Finds one instance as large as the image, of class 1 + the number of the run, by turns of three."""

    def run(self, molded, metas, anchors):
        height, width = molded.shape[1:3]
        y1, x1, y2, x2 = metas[0, 7:11]
        box = [y1 / (height - 1), x1 / (width - 1), (y2 - 1) / (height - 1), (x2 - 1) / (width - 1)]
        self.batches.append(molded.shape)
        found = np.array([[*box, 1 + (len(self.batches) - 1) % 3, 1]], np.float32)
        return [(found, np.ones((1, 28, 28), np.float32))]


def test_a_class_keeps_its_color(tmp_path):
    with video_writer(tmp_path / "a.mp4", 10, (64, 64)) as write:
        for _ in range(6):
            write(np.full((64, 64, 3), 100, np.uint8))
    annotate_video(detector(FillsTheFrame()), tmp_path / "a.mp4", tmp_path / "b.mp4")
    with VideoReader(tmp_path / "b.mp4") as reader:
        found = [frame.image[28:36, 28:36].mean(axis=(0, 1)) for frame in reader]
    blended = 100 * 0.55 + instance_colors(3) * 255 * 0.45
    np.testing.assert_allclose(found, np.concatenate([blended, blended]), atol=12)


def test_every_few_frames_the_video_is_as_long_as_before(tmp_path):
    report = annotate_video(
        detector(), make_video(tmp_path / "a.mp4"), tmp_path / "b.mp4", every=2, max_frames=6, class_names=None
    )
    assert (report.frames, report.fps, report.missing) == (3, 6.25, 0)
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert reader.fps == 6.25 and len(list(reader)) == 3


def test_a_handful_of_frames_is_in_memory(tmp_path):
    readers, ahead = [], []
    annotate_video(
        detector(), make_video(tmp_path / "a.mp4", 12), tmp_path / "b.mp4", on_open=readers.append,
        on_frame=lambda frame, found: ahead.append(readers[0].read - frame.index),
    )  # fmt: skip
    assert len(ahead) == 12 and max(ahead) <= 5


def test_an_interrupted_video_holds_what_there_is(tmp_path):
    def stop(at: int):
        def on_frame(frame, found):
            if frame.index == at:
                raise KeyboardInterrupt

        return on_frame

    path = make_video(tmp_path / "a.mp4")
    report = annotate_video(detector(), path, tmp_path / "b.mp4", on_frame=stop(3))
    assert report.interrupted and report.frames == 4 and report.missing == 0
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert len(list(reader)) == 4

    impatient = detector()
    impatient.stream = lambda images, masks: (stop(frame.index)(frame, None) for frame in [Frame(3, 0, next(images))])
    with pytest.raises(KeyboardInterrupt):
        annotate_video(impatient, path, tmp_path / "c.mp4")
    assert not (tmp_path / "c.mp4").exists()


def test_an_error_leaves_nothing_behind(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    with pytest.raises(RuntimeError, match="on fire"):
        annotate_video(detector(BrokenEngine(at=4)), path, tmp_path / "b.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]

"""The Dataset's numbering and the reading of image files of all kinds."""

import numpy as np
import PIL.Image
import pytest

from mrcnn.data.dataset import Dataset, DatasetError
from mrcnn.data.images import ImageError, read_image


@pytest.fixture
def two_sources():
    dataset = Dataset()
    dataset.add_class("shapes", 1, "square")
    dataset.add_class("shapes", 7, "circle,round thing")
    dataset.add_class("coco", 1, "person")
    dataset.add_image("shapes", "a", None, bg_color=3)
    dataset.add_image("coco", 42, "/somewhere/42.jpg")
    dataset.add_image("plain", 0, None)
    dataset.prepare()
    return dataset


def test_numbering(two_sources):
    d = two_sources
    assert d.num_classes == 4
    assert d.class_ids.tolist() == [0, 1, 2, 3]
    assert d.class_names == ["BG", "square", "circle", "person"]
    assert d.num_images == 3
    assert d.image_ids.tolist() == [0, 1, 2]
    assert d.class_info[0] == {"source": "", "id": 0, "name": "BG"}
    assert d.image_info[0] == {"id": "a", "source": "shapes", "path": None, "bg_color": 3}
    assert d.class_from_source_map == {".0": 0, "shapes.1": 1, "shapes.7": 2, "coco.1": 3}
    assert d.image_from_source_map == {"shapes.a": 0, "coco.42": 1, "plain.0": 2}
    assert set(d.sources) == {"", "shapes", "coco", "plain"}
    assert {k: d.source_class_ids[k] for k in ("shapes", "coco", "plain")} == {
        "shapes": [0, 1, 2],
        "coco": [0, 3],
        "plain": [0],
    }
    assert d.map_source_class_id("shapes.7") == 2
    assert d.get_source_class_id(2, "shapes") == 7
    assert d.source_image_link(1) == "/somewhere/42.jpg"
    assert [d.image_reference(i) for i in range(3)] == ["shapes.a", "/somewhere/42.jpg", "plain.0"]


def test_prepare_again_after_more_images(two_sources):
    two_sources.add_image("coco", 43, None)
    assert len(two_sources.image_ids) == 3
    two_sources.prepare()
    assert len(two_sources.image_ids) == 4


def test_empty_dataset():
    dataset = Dataset()
    assert len(dataset.image_ids) == 0
    dataset.prepare()
    assert (dataset.num_images, dataset.num_classes, dataset.class_names) == (0, 1, ["BG"])
    with pytest.raises(DatasetError, match="has no images"):
        dataset.load_image(0)


def test_a_class_is_added_once():
    dataset = Dataset()
    dataset.add_class("a", 1, "x")
    dataset.add_class("a", 1, "x")
    dataset.add_class("b", 1, "x")
    with pytest.warns(UserWarning, match="named 'x' already"):
        dataset.add_class("a", 1, "y")
    assert [info["name"] for info in dataset.class_info] == ["BG", "x", "x"]


def test_errors_name_what_would_do(two_sources):
    with pytest.raises(DatasetError, match=r"dot. Received: 'a\.b'"):
        two_sources.add_class("a.b", 1, "x")
    with pytest.raises(DatasetError, match=r"'shapes\.2'.*shapes\.1"):
        two_sources.map_source_class_id("shapes.2")
    with pytest.raises(DatasetError, match="of source 'coco', not 'shapes'"):
        two_sources.get_source_class_id(3, "shapes")
    with pytest.raises(DatasetError, match=r"0 to 3\. Received: 9"):
        two_sources.get_source_class_id(9, "shapes")
    with pytest.raises(DatasetError, match=r"0 to 2 in this dataset\. Received: 3"):
        two_sources.load_image(3)
    with pytest.raises(DatasetError, match=r"Image 0 \(shapes\.a\) has no path"):
        two_sources.load_image(0)
    with pytest.raises(FileNotFoundError, match=r"No such image file: /somewhere/42\.jpg"):
        two_sources.load_image(1)


def test_default_load_mask_warns_and_is_empty(two_sources):
    with pytest.warns(UserWarning, match="does not override load_mask"):
        masks, class_ids = two_sources.load_mask(0)
    assert masks.shape[2] == 0
    assert class_ids.shape == (0,)
    assert class_ids.dtype == np.int32


def test_images_that_a_load_mask_leaves_to_the_base_class_have_no_objects():
    class Mine(Dataset):
        def load_mask(self, image_id):
            return super().load_mask(image_id)

    with pytest.warns(
        UserWarning, match=r"^Mine\.load_mask leaves images to Dataset\.load_mask: those have no"
    ) as told:
        assert Mine().load_mask(0)[0].shape[2] == 0
    assert told[0].filename == __file__


def test_class_map_is_accepted_with_a_warning():
    with pytest.warns(UserWarning, match="class_map has no effect"):
        Dataset({"a": 1})


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def save(path, array, mode=None, **options):
    image = PIL.Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_rgb_through_the_dataset(tmp_path, picture):
    dataset = Dataset()
    dataset.add_image("s", 0, save(tmp_path / "ünï çode.png", picture))
    dataset.prepare()
    image = dataset.load_image(np.int64(0))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, picture)
    image[0] = 0  # the caller's own


def test_gray_and_bilevel(tmp_path, picture):
    gray = picture[..., 0]
    image = read_image(save(tmp_path / "g.png", gray))
    np.testing.assert_array_equal(image, np.repeat(gray[..., None], 3, axis=-1))
    image = read_image(save(tmp_path / "b.png", gray > 100))
    np.testing.assert_array_equal(image[..., 1], (gray > 100) * 255)


def test_alpha_is_dropped(tmp_path, picture):
    rgba = np.concatenate([picture, picture[..., :1]], axis=-1)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba)), picture)
    image = read_image(save(tmp_path / "la.png", picture[..., :2].copy()))
    np.testing.assert_array_equal(image[..., 2], picture[..., 0])


def test_palette(tmp_path):
    indexed = PIL.Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode=None).convert("P")
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.save(tmp_path / "p.png", transparency=1)
    image = read_image(tmp_path / "p.png")
    assert image.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]


def test_cmyk(tmp_path, picture):
    image = read_image(save(tmp_path / "c.jpg", np.full_like(picture, 200), "CMYK"))
    assert image.shape == picture.shape
    assert np.abs(image.astype(int) - 200).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_keep_their_full_range(tmp_path, suffix):
    values = np.array([[0, 257, 514], [32768, 65534, 65535]], np.uint16)
    image = read_image(save(tmp_path / f"x.{suffix}", values))
    assert image.dtype == np.uint8
    assert image[..., 0].tolist() == [[0, 1, 2], [128, 255, 255]]
    assert (image == image[..., :1]).all()


def test_floats(tmp_path):
    unit = np.array([[0, 0.5, 1.0]], np.float32)
    assert read_image(save(tmp_path / "u.tif", unit))[0, :, 0].tolist() == [0, 128, 255]
    assert read_image(save(tmp_path / "b.tif", unit * 255))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ImageError, match=r"n\.tif.*0\.\.1 or 0\.\.255. Received: -3\.0\.\.-0\.0"):
        read_image(save(tmp_path / "n.tif", unit * -3))
    with pytest.raises(ImageError, match=r"i\.tif.*0\.\.65535. Received: 0\.\.70000"):
        read_image(save(tmp_path / "i.tif", (unit * 70000).astype(np.int32)))
    with pytest.raises(ImageError, match="Received: nan"):
        read_image(save(tmp_path / "nan.tif", unit * np.nan))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, picture, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "o.png", picture, exif=exif)
    turned = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, -1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture),
    }[orientation]
    np.testing.assert_array_equal(read_image(tmp_path / "o.png"), turned)
    np.testing.assert_array_equal(read_image(tmp_path / "o.png", apply_orientation=False), picture)


def test_first_frame(tmp_path, picture):
    frames = [PIL.Image.fromarray(picture), PIL.Image.fromarray(255 - picture)]
    frames[0].save(tmp_path / "f.tif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(str(tmp_path / "f.tif")), picture)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of a truncated TIFF before it fails
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp"])
def test_truncated_files_are_named(tmp_path, picture, suffix):
    whole = save(tmp_path / f"whole.{suffix}", picture).read_bytes()
    broken = tmp_path / f"broken.{suffix}"
    for length in [0, 1, 10, 30, len(whole) // 2]:
        broken.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=rf"broken\.{suffix}"):
            read_image(broken)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp"])
def test_damaged_files_are_read_or_named(tmp_path, picture, suffix):
    whole = save(tmp_path / f"whole.{suffix}", picture).read_bytes()
    broken = tmp_path / f"broken.{suffix}"
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(50):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 10):
            damaged[place] = rng.integers(256)
        broken.write_bytes(damaged)
        try:
            assert read_image(broken).ndim == 3
        except ImageError as error:
            messages.append(str(error))
    assert all(f"broken.{suffix}" in message for message in messages)


def test_a_text_file_and_a_folder(tmp_path):
    (tmp_path / "t.png").write_text("no image")
    with pytest.raises(ImageError, match=r"t\.png"):
        read_image(tmp_path / "t.png")
    with pytest.raises((ImageError, PermissionError), match=str(tmp_path.name)):
        read_image(tmp_path)

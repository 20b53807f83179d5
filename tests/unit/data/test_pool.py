"""Pools: images from folders, arrays and data sets, without labels, at any size and with any channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tree_files import truncate, write_image

from bench import data
from bench.cli import answer
from bench.data.images import grey, resize
from bench.data.pool import load_pool, locate
from bench.errors import MissingData, UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def clean(monkeypatch, tmp_path):
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path, clean):
    """A data folder with an empty pool in it."""
    (tmp_path / "data" / "pool").mkdir(parents=True)
    return tmp_path / "data"


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, **options)
    return path


def states(folder, **options):
    return {each.name: each.state for each in data.status("pool", folder, **options)}


def test_the_pool_of_the_data_folder_is_its_array(folder):
    save(folder / "pool" / "images.npy", PIXELS)
    write_image(folder / "pool" / "beside.png", 8, 8)
    pool = load_pool("pool", size=8, channels=3, folder=folder)
    assert (pool.name, pool.altered, len(pool.fingerprint)) == ("pool", (), 64)
    assert torch.equal(pool.images, torch.from_numpy(PIXELS).movedim(3, 1))
    assert states(folder) == {"pool/images.npy": "ok"}
    assert locate("pool", folder) == folder / "pool" / "images.npy"


def test_or_else_all_images_below_it_in_the_order_of_their_names(folder):
    names = ["a.PNG", "b/a.bmp", "b/c/d.webp", "c.jpg", "d.jpeg"]
    for seed, name in enumerate(names):
        write_image(folder / "pool" / name, 8, 8, seed=seed)
    for ignored in ("notes.txt", ".hidden.png", "labels.npy"):
        (folder / "pool" / ignored).write_text("not an image")
    pool = load_pool("pool", size=8, channels=3, folder=folder)
    expected = [np.asarray(Image.open(folder / "pool" / name).convert("RGB")) for name in names]
    assert np.array_equal(pool.images.movedim(1, 3).numpy(), np.stack(expected))
    assert states(folder, thorough=True) == {"pool": "ok"}
    assert data.status("pool", folder)[0].message == f"{folder / 'pool'}: 5 images"


@pytest.mark.usefixtures("clean")
def test_any_folder_or_array_will_do(tmp_path):
    array = save(tmp_path / "mine.npy", PIXELS)
    Image.fromarray(PIXELS[0]).save(write_image(tmp_path / "mine" / "x.png", 1, 1))
    from_array = load_pool(str(array), size=8, channels=3)
    from_folder = load_pool(str(tmp_path / "mine"), size=8, channels=3)
    assert torch.equal(from_array.images[:1], from_folder.images)
    assert locate(str(array)) == array


@pytest.mark.usefixtures("clean")
def test_grey_and_colour_become_each_other(tmp_path):
    colour, one = save(tmp_path / "colour.npy", PIXELS), save(tmp_path / "grey.npy", PIXELS[..., 0])
    made_grey = load_pool(str(colour), size=8, channels=1).images
    pillow = np.stack([np.asarray(Image.fromarray(each).convert("L")) for each in PIXELS])
    assert np.array_equal(made_grey[:, 0].numpy(), pillow)
    made_colour = load_pool(str(one), size=8, channels=3).images
    assert made_colour.shape == (5, 3, 8, 8)
    assert all(np.array_equal(made_colour[:, channel].numpy(), PIXELS[..., 0]) for channel in range(3))
    with pytest.raises(UserError, match="a pool has images with 1 or 3 channels, not 2"):
        load_pool(str(one), size=8, channels=2)
    with pytest.raises(UserError, match="image size 0: must be at least 1 pixel"):
        load_pool(str(one), size=0, channels=1)


@pytest.mark.parametrize(("width", "height"), [(40, 16), (16, 40), (16, 16), (5, 7)])
@pytest.mark.usefixtures("clean")
def test_the_shorter_side_is_resized_and_the_middle_kept(tmp_path, width, height):
    path = write_image(tmp_path / "one" / "x.png", width, height)
    pool = load_pool(str(path.parent), size=8, channels=3)
    assert pool.images.shape == (1, 3, 8, 8)
    if (width, height) == (40, 16):
        whole = resize(torch.from_numpy(np.array(Image.open(path))).movedim(2, 0)[None], (8, 20))
        assert torch.equal(pool.images, whole[..., 6:14])


@pytest.mark.usefixtures("clean")
def test_every_mode_of_eight_bits_is_read_and_others_are_refused(tmp_path):
    for mode in ("L", "P", "1", "RGBA", "CMYK"):
        ending = "jpg" if mode == "CMYK" else "png"
        write_image(tmp_path / "modes" / f"{mode}.{ending}", 8, 8, mode=mode)
    assert load_pool(str(tmp_path / "modes"), size=8, channels=3).images.shape == (5, 3, 8, 8)
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "modes" / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png: mode I;16, expected 8 bits per channel"):
        load_pool(str(tmp_path / "modes"), size=8, channels=3)


def test_the_training_images_of_a_data_set_are_a_pool():
    pool = load_pool("digits", size=16, channels=3)
    digits = data.load("digits", size=16)
    assert torch.equal(pool.images, digits.train.images.expand(-1, 3, -1, -1))
    assert (pool.name, pool.altered, locate("digits")) == ("digits", (), None)


def test_a_segmentation_set_is_a_pool_too():
    pool = load_pool("shapes", size=32, channels=1)
    assert torch.equal(pool.images[:9], resize(grey(data.load("shapes", size=64).train.images[:9]), 32))


def test_a_pool_is_no_data_set_of_a_task(folder):
    with pytest.raises(UserError, match="pool has no labels: it is a pool of images, not a task's data set"):
        data.load("pool", size=8, folder=folder)


@pytest.mark.parametrize(
    ("array", "options", "sentence"),
    [
        (PIXELS.astype(np.float32), {}, "an array of float32 (5, 8, 8, 3), expected uint8 (N, H, W, 3) or (N, H, W)"),
        (PIXELS[..., :2], {}, "an array of uint8 (5, 8, 8, 2), expected uint8 (N, H, W, 3) or (N, H, W)"),
        (PIXELS[0, 0], {}, "an array of uint8 (8, 3), expected uint8 (N, H, W, 3) or (N, H, W)"),
        (PIXELS[:0], {}, "an array of uint8 (0, 8, 8, 3), expected uint8 (N, H, W, 3) or (N, H, W)"),
        (np.array([{}]), {"allow_pickle": True}, "an array of Python objects (pickle), which is never loaded"),
    ],
)
def test_an_array_of_another_kind_is_refused(folder, array, options, sentence):
    path = save(folder / "pool" / "images.npy", array, **options)
    with pytest.raises(UserError) as error:
        load_pool("pool", size=8, channels=3, folder=folder)
    assert str(error.value).startswith(f"pool: {path}: {sentence}")
    assert "To fix it, put images.npy, of uint8" in str(error.value)
    with pytest.raises(UserError) as error:
        load_pool(str(path), size=8, channels=3)
    assert str(error.value).startswith(f"{path}: {sentence}")
    assert states(folder) == {"pool/images.npy": "corrupted"}


def test_a_truncated_array_and_one_that_is_none(folder):
    path = save(folder / "pool" / "images.npy", PIXELS)
    truncate(path, 0.5)
    with pytest.raises(UserError, match=rf"{path}: truncated: \d+ of 960 bytes of pixels"):
        load_pool("pool", size=8, channels=3, folder=folder)
    for content in (b"", b"\x93NUMPY\x01\x00", b"no array at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{path}: not a pool of images; needed is a folder of images \(png, jpg"):
            load_pool(str(path), size=8, channels=3)


def test_an_image_that_cannot_be_read_is_named(folder, capsys):
    write_image(folder / "pool" / "a.png", 8, 8)
    bad = truncate(write_image(folder / "pool" / "b.png", 64, 64))
    with pytest.raises(UserError) as error:
        load_pool("pool", size=8, channels=3, folder=folder)
    assert str(error.value) == f"{bad}: truncated: the image ends early"
    assert answer(["data", "verify", "pool", "--data", str(folder)]) == 1
    assert f"  {bad}: truncated: the image ends early\n" in capsys.readouterr().out


def test_nothing_there_is_missing_data(folder, tmp_path):
    with pytest.raises(MissingData, match=r"pool: missing from .*: pool\. To fix it, put images\.npy, of uint8 "):
        load_pool("pool", size=8, channels=3, folder=folder)
    with pytest.raises(MissingData, match=r"pool: missing from .*: pool\. "):
        load_pool("pool", size=8, channels=3, folder=tmp_path / "nowhere")
    with pytest.raises(
        MissingData, match=r"no images found; needed is a folder of images \(png, jpg, jpeg, webp, bmp\) or"
    ):
        load_pool(str(folder / "pool"), size=8, channels=3)
    with pytest.raises(UserError, match=r"'digist' is not a file, folder or data set; did you mean 'digits'\?"):
        load_pool("digist", size=8, channels=3)


def test_a_folder_is_decoded_once_for_each_form(folder, tmp_path, monkeypatch):
    write_image(folder / "pool" / "a.png", 8, 8)
    first = [load_pool("pool", size=8, channels=channels, folder=folder).fingerprint for channels in (1, 3)]
    monkeypatch.setattr("bench.data.trees.picture", lambda _: pytest.fail("decoded again"))
    assert [load_pool("pool", size=8, channels=channels, folder=folder).fingerprint for channels in (1, 3)] == first
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 2


@pytest.mark.data("pool")
def test_the_prepared_pool():
    """10,000 training images of Tiny-ImageNet, halved to 32x32; the statistics are measured, not published."""
    pool = load_pool("pool", size=32, channels=3)
    if len(pool.images) != 10_000:
        pytest.skip("another pool")
    pixels = pool.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0.4826, 0.4513, 0.4015], abs=1e-3)
    assert pixels.movedim(1, 0).flatten(1).std(1).tolist() == pytest.approx([0.2587, 0.2521, 0.2653], abs=1e-3)

"""Pools: images from folders, arrays and data sets, without labels, at any size and with any channels."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from tree_files import truncate, write_image

from bench import data
from bench.cli import answer
from bench.data import trees
from bench.data.images import grey, resize
from bench.data.pool import content_name, image_files, load_pool, locate
from bench.data.source import MalformedError
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
        MissingData,
        match=r"no images found; needed is a folder of images \(png, jpg, webp, bmp, gif, tif, ppm, \.\.\.\) or",
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


# ---- folders as people have them -------------------------------------------------------------------------------------


def scene() -> np.ndarray:
    """As a viewer shows it: the upper half nearly white, the lower half dark blue."""
    pixels = np.full((40, 60, 3), 240, np.uint8)
    pixels[20:] = (20, 20, 90)
    return pixels


def put(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(("tag", "turn"), [(3, "ROTATE_180"), (6, "ROTATE_90"), (8, "ROTATE_270"), (5, "TRANSPOSE")])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_an_image_is_turned_as_its_exif_says(tmp_path, tag, turn, ending):
    exif = Image.Exif()
    exif[trees.ORIENTATION] = tag
    stored = Image.fromarray(scene()).transpose(getattr(Image.Transpose, turn))
    path = put(tmp_path / "exif" / f"x.{ending}", stored, exif=exif)
    assert np.abs(trees.picture(path).astype(int) - scene()).max() < 20
    if ending != "png":
        assert trees.header(path) == (60, 40)


@pytest.mark.usefixtures("clean")
def test_transparency_is_white_in_every_mode(tmp_path):
    rgba = np.zeros((40, 40, 4), np.uint8)  # what is hidden under the transparency is black
    rgba[10:30, 10:30] = (200, 30, 30, 255)
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([0, 0, 0, 200, 30, 30] + [0] * 762)
    palette.paste(1, (10, 10, 30, 30))
    paths = [
        put(tmp_path / "rgba.png", rgba),
        put(tmp_path / "palette.png", palette, transparency=0),
        put(tmp_path / "palette.gif", palette, transparency=0),
        put(tmp_path / "rgba.webp", rgba, lossless=True),
    ]
    expected = np.full((40, 40, 3), 255, np.uint8)
    expected[10:30, 10:30] = (200, 30, 30)
    for path in paths:
        assert np.array_equal(trees.picture(path), expected), path.name
    grey = put(tmp_path / "la.png", Image.fromarray(rgba).convert("LA"))
    assert trees.picture(grey)[0, 0].tolist() == [255, 255, 255]
    assert trees.picture(grey)[20, 20].tolist() == [81, 81, 81]
    half = put(tmp_path / "half.png", np.full((1, 1, 4), (0, 0, 0, 128), np.uint8))
    assert trees.picture(half)[0, 0].tolist() == [127, 127, 127]


HIDDEN = (".ipynb_checkpoints/a.png", "@eaDir/a.png/THUMB.jpg", ".thumbs/a.png", "__MACOSX/._a.png", "._a.png")


@pytest.mark.usefixtures("clean")
def test_what_editors_and_servers_leave_behind_is_no_part_of_a_pool(tmp_path):
    for name in ("a.png", *HIDDEN):
        put(tmp_path / "pool" / name, scene())
    assert [path.name for path in image_files(tmp_path / "pool")] == ["a.png"]
    alone = put(tmp_path / "alone" / "a.png", scene())
    assert content_name(tmp_path / "pool") == content_name(alone.parent)


@pytest.mark.usefixtures("clean")
def test_linked_folders_are_followed_and_loops_refused(tmp_path):
    for name in ("store/1.png", "store/2.png", "linked/3.png"):
        put(tmp_path / name, scene())
    (tmp_path / "linked" / "more").symlink_to(tmp_path / "store")
    (tmp_path / "linked" / "4.png").symlink_to(tmp_path / "store" / "1.png")
    names = [path.relative_to(tmp_path / "linked").as_posix() for path in image_files(tmp_path / "linked")]
    assert names == ["3.png", "4.png", "more/1.png", "more/2.png"]
    (tmp_path / "store" / "back").symlink_to(tmp_path / "linked")
    with pytest.raises(UserError, match=r"more/back is a link to a folder that it lies in; remove it"):
        image_files(tmp_path / "linked")


def test_a_pipe_with_the_name_of_an_image_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is no file but a pipe"):
        image_files(tmp_path)
    (tmp_path / "pipe.png").rename(tmp_path / "pipe")  # no image, and no part of the pool
    assert image_files(tmp_path) == []


@pytest.mark.usefixtures("clean")
def test_a_link_that_leads_nowhere_is_named(tmp_path):
    put(tmp_path / "pool" / "1.png", scene())
    (tmp_path / "pool" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"2\.png: missing"):
        load_pool(str(tmp_path / "pool"), size=8, channels=3)


@pytest.mark.usefixtures("clean")
def test_every_type_that_people_have_is_read(tmp_path):
    kinds = {"PNG": "PNG", "jfif": "JPEG", "gif": "GIF", "tif": "TIFF", "ppm": "PPM", "bmp": "BMP", "webp": "WEBP"}
    for ending, kind in kinds.items():
        put(tmp_path / "endings" / f"x.{ending}", scene(), format=kind)
    pool = load_pool(str(tmp_path / "endings"), size=8, channels=3)
    assert (len(pool.images), pool.skipped) == (7, {})
    assert (pool.images[:, :, 0].float().mean((1, 2)) > 230).all()


def test_images_that_are_not_read_are_counted_and_named(folder):
    put(folder / "pool" / "a.png", scene())
    for name in ("b.heic", "c.HEIC", "d.jxl", "e.txt"):
        (folder / "pool" / name).write_bytes(b"x")
    assert load_pool("pool", size=8, channels=3, folder=folder).skipped == {"heic": 2, "jxl": 1}
    message = data.status("pool", folder)[0].message
    assert message.endswith("1 images, and 3 of types that are not read (b.heic, c.HEIC, d.jxl)")


@pytest.mark.usefixtures("clean")
def test_a_pool_is_known_by_its_pixels(tmp_path):
    images = [np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8) for seed in range(3)]
    for index, image in enumerate(images):
        put(tmp_path / "png" / f"{index}.png", image)
        put(tmp_path / "other" / "names" / f"x{index}.bmp", image)
        put(tmp_path / "order" / f"{9 - index}.png", image)
    save(tmp_path / "array.npy", np.stack(images))
    name = content_name(tmp_path / "png")
    assert name == content_name(tmp_path / "other") == content_name(tmp_path / "array.npy")
    assert name != content_name(tmp_path / "order")
    grey = save(tmp_path / "grey.npy", images[0][None, ..., 0])
    put(tmp_path / "greys" / "x.png", images[0][..., 0])
    assert content_name(grey) == content_name(tmp_path / "greys")


@pytest.mark.usefixtures("clean")
def test_files_replaced_by_others_of_equal_size_and_time_are_noticed(tmp_path):
    """Uncompressed files of one size: names, sizes and times stay, and every pixel changes."""

    def write(seed):
        numbers = np.random.default_rng(seed)
        for index in range(8):
            path = put(tmp_path / "pool" / f"{index}.bmp", numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            os.utime(path, (1_700_000_000, 1_700_000_000))
        return content_name(tmp_path / "pool"), load_pool(str(tmp_path / "pool"), size=8, channels=3)

    (one, first), (two, second) = write(0), write(1)
    assert one != two
    assert first.fingerprint != second.fingerprint


# ---- masks -----------------------------------------------------------------------------------------------------------


def grey_png(path, labels, bits):
    """A grey PNG with fewer than 8 bits a pixel, which Pillow does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    flat = [sum((value >> bit & 1) << bit for bit in range(bits)) for value in labels.reshape(-1).tolist()]
    rows = np.array(flat).reshape(labels.shape)
    shifts = np.arange(8 - bits, -1, -bits)
    packed = (rows.reshape(len(rows), -1, 8 // bits) << shifts).sum(2).astype(np.uint8)
    lines = b"".join(b"\0" + row.tobytes() for row in packed)
    size = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size)
    path.write_bytes(head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", ["grey", "palette"])
def test_the_label_is_the_number_that_the_mask_stores(tmp_path, bits, kind):
    labels = np.tile(np.arange(2**bits, dtype=np.uint8), (8, 8))
    if kind == "grey":
        path = grey_png(tmp_path / "mask.png", labels, bits)
    else:
        image = Image.fromarray(labels, "L").convert("P")
        image.putdata(labels.reshape(-1).tolist())
        image.putpalette([7 * value % 256 for value in range(3 * 2**bits)])
        path = put(tmp_path / "mask.png", image, bits=bits)
    assert np.array_equal(trees.mask(path, 2**bits), labels)


def test_palettes_that_differ_within_a_set_are_an_error_that_names_two_files(tmp_path):
    def paletted(name, colours):
        image = Image.new("P", (4, 4), 1)
        image.putpalette(colours)
        return put(tmp_path / name, image)

    palettes = trees.Palettes()
    one = paletted("one.png", [0, 0, 0, 200, 0, 0])
    trees.mask(one, 3, palettes)
    trees.mask(paletted("same.png", [9, 9, 9, 200, 0, 0]), 3, palettes)  # an entry that neither uses
    with pytest.raises(MalformedError, match=r"label 1 has the colour \(0, 200, 0\), and \(200, 0, 0\) in .*one\.png"):
        trees.mask(paletted("two.png", [0, 0, 0, 0, 200, 0]), 3, palettes)

"""Caltech-101: photographs of objects, 101 classes, in torchvision's layout.

``caltech101/101_ObjectCategories`` has a folder a class, with ``image_0001.jpg`` and so on. BACKGROUND_Google is no
class and is left out, as torchvision does; classes are in the order in which Python sorts their names, capitals first.

No split is published, and the papers' is drawn at random in the order in which a disk happens to list its files. So
there is one of our own: of each class, every fifth image in name order is a test image, which makes 1,695 test and
6,982 train images, in nearly the papers' proportion (one fifth of each class).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bench.data import decoded, trees
from bench.data.source import FileStatus, MalformedError, Pair, Source, Tree
from bench.errors import UserError

FOLDER = "101_ObjectCategories"
BACKGROUND = "BACKGROUND_Google"
TEST_EVERY = 5
_COUNTS = """
Faces 435, Faces_easy 435, Leopards 200, Motorbikes 798, accordion 55, airplanes 800, anchor 42, ant 42, barrel 47,
bass 54, beaver 46, binocular 33, bonsai 128, brain 98, brontosaurus 43, buddha 85, butterfly 91, camera 50, cannon 43,
car_side 123, ceiling_fan 47, cellphone 59, chair 62, chandelier 107, cougar_body 47, cougar_face 69, crab 73,
crayfish 70, crocodile 50, crocodile_head 51, cup 57, dalmatian 67, dollar_bill 52, dolphin 65, dragonfly 68,
electric_guitar 75, elephant 64, emu 53, euphonium 64, ewer 85, ferry 67, flamingo 67, flamingo_head 45, garfield 34,
gerenuk 34, gramophone 51, grand_piano 99, hawksbill 100, headphone 42, hedgehog 54, helicopter 88, ibis 80,
inline_skate 31, joshua_tree 64, kangaroo 86, ketch 114, lamp 61, laptop 81, llama 78, lobster 41, lotus 66,
mandolin 43, mayfly 40, menorah 87, metronome 32, minaret 76, nautilus 55, octopus 35, okapi 39, pagoda 47, panda 38,
pigeon 45, pizza 53, platypus 34, pyramid 57, revolver 82, rhino 59, rooster 49, saxophone 40, schooner 63, scissors 39,
scorpion 84, sea_horse 57, snoopy 35, soccer_ball 64, stapler 45, starfish 86, stegosaurus 59, stop_sign 64,
strawberry 35, sunflower 85, tick 49, trilobite 86, umbrella 75, watch 239, water_lilly 37, wheelchair 59, wild_cat 34,
windsor_chair 56, wrench 39, yin_yang 60
"""
COUNTS = {name: int(count) for name, count in (each.split() for each in _COUNTS.split(","))}  # images of each class


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The state of the set as a whole, and of its wrong files: missing and, with ``thorough``, damaged ones."""
    folder = root / FOLDER
    if not folder.is_dir():
        return [trees.wrong(folder, root, "missing", "missing")]
    bad = list(_missing(root))
    altered = []
    if strange := sorted(each for each in trees.names_in(folder) - {*COUNTS, BACKGROUND} if (folder / each).is_dir()):
        altered.append(f"{trees.some(strange)} where no such class is")
    images = {name: _images(folder / name) for name in COUNTS}
    wrong = {name: len(images[name]) for name, count in COUNTS.items() if images[name] and len(images[name]) != count}
    if wrong and not bad:
        differing = [f"{count} images of {name}, officially {COUNTS[name]}" for name, count in wrong.items()]
        altered.append(trees.some(differing))
    paths = [path for each in images.values() for path in each]
    for path in paths if thorough else paths[:1]:
        try:
            trees.picture(path) if thorough else trees.header(path)
        except MalformedError as error:
            bad.append(trees.wrong(path, root, error.state, str(error)))
    classes = sum(bool(each) for each in images.values())
    sentence = f"{len(paths):,} images of {classes} classes"
    return [trees.part(folder, root, altered, sentence), *trees.shortened(bad)]


def read(root: Path, size: int) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, size, size), labels int64 (N,) in 0..100, class by class.

    The shorter side is resized to ``size`` and the middle of the longer one kept. Raises UserError that names the image
    which cannot be used.
    """
    import torch

    found = [(path, index) for index, name in enumerate(COUNTS) for path in _images(root / FOLDER / name)]
    if not found:
        raise UserError(f"{root / FOLDER}: no images")
    labels = torch.tensor([index for _, index in found])
    paths = [path for path, _ in found]
    images = decoded.cached("caltech101", root, paths, size, lambda: {"images": trees.squares(paths, size, 3)})[
        "images"
    ]
    nth_of_class = torch.cat([torch.arange(1, int(count) + 1) for count in labels.bincount()])
    test = nth_of_class % TEST_EVERY == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


def _images(folder: Path) -> list[Path]:
    names = (name for name in trees.names_in(folder) if re.fullmatch(r"image_\d{4}\.jpg", name))
    return [folder / name for name in sorted(names)]


def _missing(root: Path) -> Iterator[FileStatus]:
    """Classes without a folder, and images without which the numbers of their class have a gap."""
    for name in COUNTS:
        folder = root / FOLDER / name
        there = {path.name for path in _images(folder)}
        if not there:
            yield trees.wrong(folder, root, "missing", "missing, or without images")
            continue
        for number in range(1, int(max(there)[6:10])):
            if (image := f"image_{number:04d}.jpg") not in there:
                yield trees.wrong(folder / image, root, "missing", "missing")


SOURCES = (
    Source(
        name="caltech101",
        title="Caltech-101 photographs of objects",
        classes=tuple(COUNTS),
        files=(),
        licence="CC BY 4.0 (CaltechDATA)",
        citation="L. Fei-Fei, R. Fergus, P. Perona: Learning generative visual models from few training examples, "
        "CVPR workshop on generative-model based vision, 2004",
        how_to_place="download https://data.caltech.edu/records/mzrjq-6wc02 and unpack its 101_ObjectCategories.tar.gz "
        "into the folder caltech101 of the data folder",
        tree=Tree(root="caltech101", inspect=inspect, read=read),
    ),
)

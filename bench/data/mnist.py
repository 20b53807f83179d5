"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 pixels in four IDX files.

The layout is torchvision's own, so that a folder made for it can be used as it is. URLs and checksums of the archives
are those that torchvision knows; checksums and sizes of the unpacked files were taken from the archives' contents.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.data import idx
from bench.data.folders import FASHION_MNIST_PACKAGE
from bench.data.source import MalformedError, Pair, Source, SourceFile
from bench.errors import UserError

SIDE = 28  # pixels


def parse(source: Source, file: SourceFile, data: bytes) -> bytes:
    """``data`` as it is: 28x28 images, or labels of the source's classes, of the official size. Else MalformedError."""
    found = idx.shape(data, _dimensions(file), file.size)
    if _dimensions(file) == 1:
        if (largest := max(data[8:])) >= len(source.classes):
            raise MalformedError(
                "corrupted", f"corrupted: label {largest}, but there are {len(source.classes)} classes"
            )
    elif found[1:] != (SIDE, SIDE):
        raise MalformedError("corrupted", f"corrupted: images of {found[1]}x{found[2]} pixels, not {SIDE}x{SIDE}")
    return data


def read(source: Source, contents: Mapping[str, bytes]) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 1, 28, 28), labels int64 (N,), in the files' order."""
    train_images, train_labels, test_images, test_labels = source.files
    return _pair(train_images, train_labels, contents), _pair(test_images, test_labels, contents)


def _pair(images: SourceFile, labels: SourceFile, contents: Mapping[str, bytes]) -> Pair:
    x, y = (idx.tensor(contents[file.name], _dimensions(file)) for file in (images, labels))
    if len(x) != len(y):
        raise UserError(f"{images.name} has {len(x)} images, but {labels.name} has {len(y)} labels")
    return x.unsqueeze(1), y.long()


def _dimensions(file: SourceFile) -> int:
    return 3 if "idx3" in file.name else 1


def _files(root: str, mirrors: tuple[str, ...], facts: tuple[tuple[str, int, str], ...]) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(f"{root}/raw/{name}", size, md5, gz_size, gz_md5, tuple(f"{mirror}{name}.gz" for mirror in mirrors))
        for (name, size), (md5, gz_size, gz_md5) in zip(_NAMES_AND_SIZES, facts, strict=True)
    )


def _how_to_place(root: str) -> str:
    names = ", ".join(name for name, _ in _NAMES_AND_SIZES)
    return (
        f"put {names} (unpacked, or each as .gz) into a folder {root}/raw, "
        f"and name the folder that contains {root} with --data or DFKD_DATA"
    )


_NAMES_AND_SIZES = (
    ("train-images-idx3-ubyte", 47040016),
    ("train-labels-idx1-ubyte", 60008),
    ("t10k-images-idx3-ubyte", 7840016),
    ("t10k-labels-idx1-ubyte", 10008),
)
_MNIST = (  # md5, size and md5 of the .gz
    ("6bbc9ace898e44ae57da46a324031adb", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    ("a25bea736e30d166cdddb491f175f624", 28881, "d53e105ee54ea40749a09fcbcd1e9432"),
    ("2646ac647ad5339dbf082846283269ea", 1648877, "9fb629c4189551a2d022fa330f9573f3"),
    ("27ae3e4e09519cfbb04c329615203637", 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
)
_FASHION_MNIST = (
    ("f4a8712d7a061bf5bd6d2ca38dc4d50a", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    ("9018921c3c673c538a1fc5bad174d6f9", 29515, "25c81989df183df01b3e8a0aad5dffbe"),
    ("8181f5470baa50b63fa0f6fddb340f0a", 4422102, "bef4ecab320f06d8554ea6380940ec79"),
    ("15d484375f8d13e6eb1aabb0c3f46965", 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
)
_CLOTHES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"

SOURCES = (
    Source(
        name="mnist",
        title="MNIST handwritten digits",
        classes=tuple("0123456789"),
        files=_files(
            "MNIST", ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"), _MNIST
        ),
        licence="CC BY-SA 3.0 (as commonly given)",
        citation="Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits, 1998",
        how_to_place=_how_to_place("MNIST"),
        read=read,
        parse=parse,
        test_images=10_000,
    ),
    Source(
        name="fashion_mnist",
        title="Fashion-MNIST clothing",
        classes=tuple(_CLOTHES.split(", ")),
        files=_files("FashionMNIST", ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",), _FASHION_MNIST),
        licence="MIT (Zalando SE)",
        citation="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a novel image dataset for benchmarking machine "
        "learning algorithms, arXiv:1708.07747, 2017",
        how_to_place=f"{_how_to_place('FashionMNIST')}, or install Debian's package dataset-fashion-mnist",
        read=read,
        parse=parse,
        test_images=10_000,
        package=FASHION_MNIST_PACKAGE,
    ),
)

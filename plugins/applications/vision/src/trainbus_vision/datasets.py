"""Known data sets, in memory: read from their original files, downloaded where they are missing."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainbus import UsageError
from trainbus_vision.weights import unreachable

if TYPE_CHECKING:
    from trainbus_data import Data

#: The four files of MNIST and of those that took its format.
_IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_DIGITS = [str(digit) for digit in range(10)]
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def mnist(path: str | Path = "data", batch_size: int = 64, **options: Any) -> Data:
    """Handwritten digits, 28 x 28, grey (LeCun et al., 1998): all 60,000 to train.

    Validation is with the 10,000 of the test files, as is usual; there is no third part.

    Args:
        path: where the files are, in it or in `mnist/`, with or without `.gz`, or as torchvision
            keeps them (`MNIST/raw/`). What is not there is downloaded to it by torchvision.
        batch_size: samples in a batch.
        options: of `Data.from_tensors`.

    Raises:
        UsageError: the files are not there and cannot be fetched: says which, and where to put
            them.
    """
    return _of_idx("mnist", "MNIST", path, _DIGITS, batch_size, options)


def fashion_mnist(path: str | Path = "data", batch_size: int = 64, **options: Any) -> Data:
    """Pieces of clothing, 28 x 28, grey (Xiao et al., 2017); as `mnist`."""
    return _of_idx("fashion_mnist", "FashionMNIST", path, _CLOTHES, batch_size, options)


def kmnist(path: str | Path = "data", batch_size: int = 64, **options: Any) -> Data:
    """Handwritten Japanese signs, 28 x 28, grey (Clanuwat et al., 2018); as `mnist`."""
    return _of_idx("kmnist", "KMNIST", path, _KANA, batch_size, options)


def cifar10(path: str | Path = "data", batch_size: int = 64, **options: Any) -> Data:
    """Photos of ten things, 32 x 32, in colours (Krizhevsky, 2009): 50,000 to train.

    Validation is with the 10,000 of the test files. torchvision reads the files, in `path` or
    `path/cifar10`, after it has compared their checksums.
    """
    return _of_torchvision("cifar10", "CIFAR10", path, batch_size, options)


def cifar100(path: str | Path = "data", batch_size: int = 64, **options: Any) -> Data:
    """Photos of a hundred things, 32 x 32, in colours (Krizhevsky, 2009); as `cifar10`."""
    return _of_torchvision("cifar100", "CIFAR100", path, batch_size, options)


# --- files in the format of MNIST ----------------------------------------------------------------


def _of_idx(
    name: str,
    official: str,
    path: str | Path,
    vocab: Sequence[str],
    batch_size: int,
    options: dict[str, Any],
) -> Data:
    root = Path(path).expanduser()
    places = [root, root / name, root / official / "raw"]
    folder = next((place for place in places if _complete(place)), None)
    if folder is None:
        _download(official, root, [f"{each}.gz" for each in _IDX], places)
        folder = places[-1]
    images, labels, test_images, test_labels = (read_idx(_file(folder, each)) for each in _IDX)
    for x, y, stage in ((images, labels, "train"), (test_images, test_labels, "t10k")):
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
            raise UsageError(
                f"{folder}: the {stage} files hold images of shape {x.shape} and labels of shape "
                f"{y.shape}; they do not belong together"
            )
    options.setdefault("name", name)
    return _in_memory((images, labels), (test_images, test_labels), vocab, batch_size, options)


def _complete(folder: Path) -> bool:
    return all(_file(folder, each).is_file() for each in _IDX)


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def read_idx(path: str | Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of an idx file, packed by gzip or not, in their shape.

    The format is described at the source of MNIST: two zeros, the type (8: unsigned bytes), the
    number of dimensions, their sizes in four bytes each, the values.

    Raises:
        UsageError: it is damaged, or holds something else.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
        if zeros or kind != 8 or values.size != int(np.prod(shape)):
            raise ValueError(f"its head says {shape}, it holds {values.size} bytes")
    except (OSError, EOFError, ValueError, struct.error, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise UsageError(f"{path} is no whole idx file of bytes: {error}; fetch it again") from None
    return values.reshape(shape).copy()


# --- what torchvision reads ----------------------------------------------------------------------


def _of_torchvision(
    name: str, official: str, path: str | Path, batch_size: int, options: dict[str, Any]
) -> Data:
    from torchvision import datasets  # type: ignore[import-untyped]

    kind = getattr(datasets, official)
    root = Path(path).expanduser()
    places = [root, root / name]
    for place in places:
        try:
            train, valid = kind(place, train=True), kind(place, train=False)
            break
        except RuntimeError:  # not there, or of another checksum
            continue
    else:
        _download(official, root, [kind.filename], places)
        train, valid = kind(root, train=True), kind(root, train=False)
    options.setdefault("name", name)
    parts = [(each.data, np.array(each.targets)) for each in (train, valid)]
    return _in_memory(parts[0], parts[1], train.classes, batch_size, options)


def _in_memory(
    train: tuple[Any, Any],
    valid: tuple[Any, Any],
    vocab: Sequence[str],
    batch_size: int,
    options: dict[str, Any],
) -> Data:
    """Data in memory, that bring an image of any size to theirs when one is to be predicted."""
    from trainbus_data import Category, Data
    from trainbus_vision.images import Image
    from trainbus_vision.transforms import Resize

    blocks = (Image(1 if train[0].ndim == 3 else 3), Category(list(vocab)))
    # The tensors have their size; an image of any size that is to be predicted is brought to it.
    options.setdefault("item_transforms", [Resize(train[0].shape[1:3])])
    return Data.from_tensors(train, valid, blocks=blocks, batch_size=batch_size, **options)


def _download(official: str, root: Path, files: Sequence[str], places: Sequence[Path]) -> None:
    """Fetch the files of a data set with torchvision, which compares their checksums.

    Raises:
        UsageError: they cannot be fetched.
    """
    from torchvision import datasets

    kind = getattr(datasets, official)
    url = f"{kind.mirrors[0]}{files[0]}" if hasattr(kind, "mirrors") else kind.url
    problem = unreachable(url)
    if problem is None:
        try:
            kind(root, download=True)
            return
        except (RuntimeError, OSError) as error:
            problem = str(error)
    raise UsageError(
        f"{official} is not here: looked for {', '.join(files)} in "
        f"{', '.join(map(str, places))}, and they cannot be downloaded: {problem}. Place the files "
        f"in one of these folders (from {url.removesuffix(files[0])}), or give the folder that has "
        "them"
    )

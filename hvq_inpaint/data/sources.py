"""Images from a local folder, Parquet or a Hub id, through Hugging Face datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InvalidInputError
from ..images import open_image, upright

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

# A longer and narrower one would have to be enlarged to gigabytes to hold a crop.
MAX_ASPECT_RATIO = 50


_DIGEST = "sha256:"


class UnreadableImageError(InvalidInputError):
    """An image of a dataset can't be used."""


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder and its sub-folders, sorted, but for hidden ones."""
    if not folder.is_dir():
        raise InvalidInputError(f"There is no folder {folder}.")
    files = _list_files(folder, IMAGE_SUFFIXES)
    if not files:
        raise InvalidInputError(f"{folder} and its sub-folders hold no images ({', '.join(IMAGE_SUFFIXES)}).")
    return [Path(file) for file in files]


def _list_files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files with such suffixes in a folder and its sub-folders, sorted, but for hidden ones."""
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]


def load_images(source: str, split: str = "train", streaming: bool = False) -> Any:
    """A Hugging Face dataset with a column `image`.

    Args:
        source: a folder of images, a Parquet file or a folder of them, or the id of a dataset on the Hub.
        split: the split of a dataset on the Hub.
        streaming: read while training, instead of preparing everything first.

    Returns:
        A `datasets.Dataset`, or a `datasets.IterableDataset` if `streaming`.
    """
    import datasets  # imported here: who only fills holes need not have it

    path = Path(source)
    shards = _list_files(path, (".parquet",)) if path.is_dir() else [source] * (path.suffix == ".parquet")
    if path.exists() and not path.is_dir() and not shards:
        raise InvalidInputError(f"{source} is neither a folder nor a Parquet file.")
    if not path.exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise InvalidInputError(f"There is no dataset at {source}.")
    files = list_images(path) if path.is_dir() and not shards else []
    try:
        if not path.exists():
            dataset = datasets.load_dataset(source, split=split, streaming=streaming)
        elif shards:
            dataset = datasets.load_dataset("parquet", data_files=shards, split="train", streaming=streaming)
        else:
            names = {"image": list(map(str, files))}
            dataset = datasets.Dataset.from_dict(names).cast_column("image", datasets.Image())
            if streaming:
                dataset = dataset.to_iterable_dataset(num_shards=min(64, len(files)))
    except (FileNotFoundError, ConnectionError) as error:  # DatasetNotFoundError is a FileNotFoundError
        raise InvalidInputError(
            f"There is no dataset at {source}: neither such a folder here "
            f"nor, as far as can be reached, such an id on the Hub ({type(error).__name__})."
        ) from None
    except (ValueError, datasets.exceptions.DatasetsError) as error:  # a torn file, or a split that is not there
        raise InvalidInputError(f"The dataset {source} can't be read: {str(error).splitlines()[0]}") from None
    columns = dataset.column_names
    if columns is not None and "image" not in columns:
        raise InvalidInputError(f"The dataset {source} has no column 'image', only {', '.join(columns)}.")
    kind = (dataset.features or {}).get("image")
    if isinstance(kind, datasets.Value) and kind.dtype not in ("binary", "large_binary", "string"):
        raise InvalidInputError(f"The column 'image' of the dataset {source} holds {kind.dtype}, not images.")
    if not streaming and len(dataset) == 0:
        raise InvalidInputError(f"The dataset {source} holds no images.")
    # Bytes in a plain Parquet file are decoded as well.
    return dataset.cast_column("image", datasets.Image())


def spread(length: int, number: int) -> list[int]:
    """At most `number` indices, spread evenly over `length` items."""
    number = min(number, length)
    return [position * length // number for position in range(number)]


def undecoded(images: Any) -> Any:
    """The dataset with files in its column `image`, a dictionary of `bytes` and `path`, for `decode_image`."""
    import datasets

    return images.cast_column("image", datasets.Image(decode=False))


def rows_of(images: Any) -> Iterator[dict[str, Any]]:
    """The rows of a dataset that is streamed.

    Raises:
        InvalidInputError: a shard is torn, or can't be reached; `datasets` logs which.
    """
    import datasets

    try:
        yield from images
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # Arrow's are ValueErrors
        raise InvalidInputError(f"A shard of the dataset can't be read: {str(error).splitlines()[0]}") from None


def _is_empty(value: dict[str, Any] | None) -> bool:
    return value is None or (value["path"] is None and value["bytes"] is None)


def image_name(value: dict[str, Any] | None, default: str | None = None) -> str:
    """What to call an image of `undecoded`: its path, or else `default`, or else a digest of its bytes."""
    if _is_empty(value):
        return default or "an empty row"
    return value["path"] or default or _digest_of(value)


def _digest_of(value: dict[str, Any]) -> str:
    return f"{_DIGEST}{hashlib.sha256(value['bytes'] or b'').hexdigest()[:16]}"


def name_of_one(value: dict[str, Any] | None, name: str) -> str:
    """The `name` of an image of `undecoded`, told apart from others that were packed under the same one."""
    if value is None or value["bytes"] is None or name.startswith(_DIGEST):
        return name
    return f"{name} ({_digest_of(value)})"


def decode_image(value: dict[str, Any] | None, name: str) -> Image.Image:
    """An image of `undecoded`, upright, of any mode with 8 bits a channel.

    Raises:
        UnreadableImageError: there is none, or it can't be decoded, or is too long and narrow for a crop.
    """
    if _is_empty(value):
        raise UnreadableImageError(f"{name} holds no image.")
    file: Path | BytesIO = BytesIO(value["bytes"]) if value["bytes"] is not None else Path(value["path"])
    if isinstance(file, BytesIO):
        file.name = name  # what an error calls it
    try:
        image = open_upright(file)
    except InvalidInputError as error:
        raise UnreadableImageError(str(error)) from None
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise UnreadableImageError(
            f"{name} has {image.width} x {image.height} pixels, "
            f"more than {MAX_ASPECT_RATIO} times as many one way as the other.",
        )
    return image


def open_upright(file: Path | BytesIO) -> Image.Image:
    """An image file, turned as its EXIF says.

    Args:
        file: a path, or bytes with a `name`.

    Raises:
        InvalidInputError: it can't be decoded, or has more than 8 bits a channel.
    """
    image = open_image(file)
    if image.mode.startswith(("I", "F")):
        name = file if isinstance(file, Path) else file.name
        raise InvalidInputError(f"{name} has mode {image.mode}, more than 8 bits a channel; convert it to RGB first.")
    return upright(image)

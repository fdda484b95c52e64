"""Images for training and validation: a local folder, Parquet or a Hub id through Hugging Face datasets; crop, flip,
mask.

Everything random about a sample comes from a generator keyed by (seed, epoch, index), so a sample does not depend on
what was made before, nor, unless it is streamed, on which worker or process makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from .errors import InvalidInputError
from .masks import MASK_KINDS, RawRandom, make_mask

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

Sample = dict[str, torch.Tensor]


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder and its sub-folders, sorted, but for hidden ones."""
    if not folder.is_dir():
        raise InvalidInputError(f"There is no folder {folder}.")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not files:
        raise InvalidInputError(f"{folder} and its sub-folders hold no images ({', '.join(IMAGE_SUFFIXES)}).")
    return files


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
    shards = sorted(map(str, path.rglob("*.parquet"))) if path.is_dir() else [source] * (path.suffix == ".parquet")
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
    if not streaming and len(dataset) == 0:
        raise InvalidInputError(f"The dataset {source} holds no images.")
    # Bytes in a plain Parquet file are decoded as well.
    return dataset.cast_column("image", datasets.Image())


def spread(length: int, number: int) -> list[int]:
    """At most `number` indices, spread evenly over `length` items."""
    number = min(number, length)
    return [position * length // number for position in range(number)]


@dataclass(frozen=True)
class SampleOptions:
    """How samples are made of images."""

    crop_size: int = 256
    mask_size: int = 256  # masks are made at this size and cropped: large holes stay large on small crops
    mask_kinds: tuple[str, ...] = MASK_KINDS
    min_ratio: float = 0.1
    max_ratio: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop_size < 8 or self.crop_size % 8:
            raise InvalidInputError(f"The crop size must be a multiple of 8, not {self.crop_size}.")
        if not 0 < self.min_ratio <= self.max_ratio < 1:
            raise InvalidInputError(
                f"The mask ratios must satisfy 0 < min <= max < 1, not {self.min_ratio} and {self.max_ratio}."
            )
        unknown = sorted(set(self.mask_kinds) - set(MASK_KINDS))
        if unknown or not self.mask_kinds:
            raise InvalidInputError(
                f"There is no mask kind {', '.join(unknown) or 'given'}; choose among {', '.join(MASK_KINDS)}."
            )


def make_sample(image: Image.Image, options: SampleOptions, epoch: int, index: int) -> Sample:
    """One training sample: a random crop, flipped half of the time, and a random mask.

    Returns:
        `image` (3, S, S) float32 in [0, 1] and `known` (1, S, S) float32, 1 = known.
    """
    random = RawRandom("sample", options.seed, epoch, index)
    size = options.crop_size
    image = at_least(image.convert("RGB"), size)
    left = random.integer(0, image.width - size)
    top = random.integer(0, image.height - size)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    if random.integer(0, 1):
        pixels = pixels[:, ::-1]
    kind = options.mask_kinds[random.integer(0, len(options.mask_kinds) - 1)]
    canvas = max(size, options.mask_size)
    ratio = random.uniform(options.min_ratio, options.max_ratio)
    mask = make_mask(kind, canvas, canvas, ratio, seed=random.integer(0, 2**62))
    window = np.zeros((size, size), dtype=bool)
    # A crop of the mask may miss the hole, or hold nothing else; look for a better one a few times.
    for _ in range(8):
        top, left = random.integer(0, canvas - size), random.integer(0, canvas - size)
        window = mask[top : top + size, left : left + size]
        if 0.02 <= window.mean() <= 0.9:
            break
    known = torch.from_numpy(~window)[None].float()
    return {"image": torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255, "known": known}


def at_least(image: Image.Image, size: int) -> Image.Image:
    """`image`, enlarged if its short side is below `size` pixels."""
    short = min(image.size)
    if short >= size:
        return image
    return image.resize(
        (max(size, round(image.width * size / short)), max(size, round(image.height * size / short))),
        Image.Resampling.LANCZOS,
    )


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """The central `size` x `size` pixels, (size, size, 3) uint8, of an image that is enlarged first if it is
    smaller.
    """
    image = at_least(image.convert("RGB"), size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


class InpaintingDataset(Dataset):
    """Samples by index, from a dataset that is there as a whole."""

    def __init__(self, images: Any, options: SampleOptions) -> None:
        self.images, self.options, self.epoch = images, options, 0

    def set_epoch(self, epoch: int) -> None:
        """Other crops, flips and masks in every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        try:
            image = self.images[index]["image"]
        except (OSError, SyntaxError) as error:  # Pillow reports a damaged PNG as a SyntaxError
            raise InvalidInputError(f"Image {index} of the dataset can't be decoded: {error}.") from None
        return make_sample(image, self.options, self.epoch, index)


class InpaintingStream(IterableDataset):
    """Samples of a streamed dataset, shuffled in a buffer; its shards are shared out over processes and workers."""

    def __init__(
        self, images: Any, options: SampleOptions, rank: int = 0, world_size: int = 1, buffer_size: int = 1000
    ) -> None:
        from datasets.distributed import split_dataset_by_node

        self.images = split_dataset_by_node(
            images.shuffle(seed=options.seed, buffer_size=buffer_size), rank, world_size
        )
        self.options, self.rank, self.world_size, self.epoch = options, rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Another order, other crops, flips and masks in every epoch."""
        self.epoch = epoch
        self.images.set_epoch(epoch)

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        # No two streams share an index, so no two samples share a generator.
        first, stride = self.rank * workers + number, self.world_size * workers
        for position, row in enumerate(self.images):
            yield make_sample(row["image"], self.options, self.epoch, first + position * stride)


def validation_samples(
    images: Sequence[Any], number: int, size: int, kinds: Sequence[str], seed: int = 0
) -> list[Sample]:
    """Fixed samples for validation.

    `number` images spread over the set, centre crops, masks of 10 to 60 % of each kind in turn.
    """
    indices = spread(len(images), number)
    samples = []
    for position, index in enumerate(indices):
        pixels = center_crop(images[index]["image"], size)
        ratio = 0.1 + 0.5 * (position + 0.5) / len(indices)
        mask = make_mask(kinds[position % len(kinds)], size, size, round(ratio, 6), seed + position)
        samples.append(
            {
                "image": torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255,
                "known": torch.from_numpy(~mask)[None].float(),
            }
        )
    return samples

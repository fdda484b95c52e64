"""A folder of images as Parquet shards with the files' bytes in them, for sets that are streamed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InvalidInputError
from .sources import UnreadableImageError, decode_image, list_images


@dataclass(frozen=True)
class Shard:
    """What was written of one shard.

    Attributes:
        images: how many it holds.
        size: of its file, in bytes.
        unreadable: a sentence for each image that was left out.
    """

    images: int
    size: int
    unreadable: list[str] = field(default_factory=list)


def number_of_shards(images: int, size: int, shard_size: int, multiple_of: int) -> int:
    """The least multiple of `multiple_of` that makes shards of at most about `shard_size` bytes, out of `size` bytes;
    never more than there are images.
    """
    needed = max(1, -(-size // shard_size))
    return min(images, -(-needed // multiple_of) * multiple_of)


def write_shards(
    folder: Path,
    output: Path,
    shards: int | None = None,
    shard_size: int = 256_000_000,
    multiple_of: int = 8,
    seed: int = 0,
    workers: int = 1,
) -> Iterator[Shard]:
    """Write the images of a folder and its sub-folders as Parquet files, in an order drawn from `seed`.

    The shards hold equal numbers of images, or one more. Their files' bytes are kept as they are, under their paths in
    the folder. What can't be used for training is left out. `output` appears when all of them are complete.

    Args:
        output: a folder that does not exist, or is empty.
        shards: how many; None: by `number_of_shards`.
        shard_size: bytes that a shard holds at most, about.
        multiple_of: the processes that will read them, or a number that they divide.
        workers: processes that write.

    Yields:
        Each shard, as soon as it is written.

    Raises:
        InvalidInputError: `output` holds something, there are fewer images than shards, or none can be used.
    """
    files = list_images(folder)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InvalidInputError(f"{output} is there already: choose another folder for the shards.")
    if shards is None:
        shards = number_of_shards(len(files), sum(path.stat().st_size for path in files), shard_size, multiple_of)
    if not 1 <= shards <= len(files):
        raise InvalidInputError(f"{len(files)} images make 1 to {len(files)} shards, not {shards}.")
    random.Random(seed).shuffle(files)
    output.parent.mkdir(parents=True, exist_ok=True)
    found = 0
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        made = Path(temporary, "shards")
        made.mkdir()
        paths = [made / f"train-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
        shares = [files[number::shards] for number in range(shards)]
        # Not forked: this process may have threads by now.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for shard in pool.map(partial(_write_shard, folder), paths, shares):
                found += shard.images
                yield shard
        if not found:
            raise InvalidInputError(f"None of the {len(files)} images in {folder} can be used.")
        if output.exists():
            output.rmdir()
        made.replace(output)


def _write_shard(folder: Path, path: Path, files: list[Path]) -> Shard:
    import datasets

    datasets.disable_progress_bars()  # one for each shard
    rows, unreadable = [], []
    for file in files:
        name = str(file.relative_to(folder))
        value = {"bytes": None, "path": str(file)}
        try:
            decode_image(value, str(file))
            rows.append({"bytes": file.read_bytes(), "path": name})
        except (UnreadableImageError, OSError) as error:
            unreadable.append(str(error))
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(path)
    return Shard(len(rows), path.stat().st_size, unreadable)

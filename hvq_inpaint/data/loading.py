"""Samples of a whole dataset by index, or of one that is read while training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset

from .samples import Sample, SampleOptions, make_sample
from .sources import UnreadableImageError, decode_image, image_name, name_of_one, rows_of, undecoded

# An image's name, and its sample, or why there is none.
NamedSample = tuple[str, Sample | UnreadableImageError]


class InpaintingDataset(Dataset):
    """Samples by index, from a dataset that is there as a whole.

    Args:
        images: what `load_images` gives.
    """

    def __init__(self, images: Any, options: SampleOptions) -> None:
        self.images, self.options, self.epoch = undecoded(images), options, 0

    def set_epoch(self, epoch: int) -> None:
        """Other crops, flips and masks in every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The sample of an image.

        Raises:
            UnreadableImageError: the image can't be decoded.
        """
        _, sample = self.named(index, index)
        if isinstance(sample, UnreadableImageError):
            raise sample
        return sample

    def named(self, index: int, at: int) -> NamedSample:
        """The image at `at`, with the crop, the flip and the mask that belong to `index`."""
        value = self.images[at]["image"]
        name = image_name(value, default=f"row {at}")
        try:
            return name, make_sample(decode_image(value, name), self.options, self.epoch, index)
        except UnreadableImageError as error:
            return name_of_one(value, name), error


@contextmanager
def without_pauses() -> Iterator[None]:
    """Read Parquet without the seconds that `datasets` sleeps each time it has come to an end, lest the interpreter end
    before Arrow's threads: for a process that goes on.
    """
    from datasets import config

    pause, config.SLEEP_TIME_ON_THREADS_SHUTDOWN = config.SLEEP_TIME_ON_THREADS_SHUTDOWN, 0
    try:
        yield
    finally:
        config.SLEEP_TIME_ON_THREADS_SHUTDOWN = pause


def shards_are_shared(shards: int, readers: int) -> bool:
    """Whether each reader gets shards of its own: if that gives all of them as many, or nearly."""
    return shards % readers == 0 or shards >= 4 * readers


class InpaintingStream(IterableDataset):
    """Named samples of one reader's share of a streamed dataset, shuffled in a buffer.

    Readers share out the shards, others in every epoch, where `shards_are_shared`; otherwise each reads all of them and
    skips what belongs to the others. Shares may differ in size. An image that can't be decoded comes as the error that
    says why.

    Args:
        images: what `load_images` gives when streaming.
        reader: the number of this one.
        readers: how many there are, over all processes.
    """

    def __init__(
        self, images: Any, options: SampleOptions, reader: int = 0, readers: int = 1, buffer_size: int = 1000
    ) -> None:
        self.whole, self.options, self.buffer_size = undecoded(images), options, buffer_size
        self.reader, self.readers = reader, readers
        self.passed_over = 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Another order, other crops, flips and masks in every epoch."""
        from datasets.distributed import split_dataset_by_node

        shuffle = {"seed": self.options.seed, "buffer_size": self.buffer_size}
        if shards_are_shared(self.whole.num_shards, self.readers):
            index = (self.reader + epoch) % self.readers
            share = self.whole.shard(num_shards=self.readers, index=index, contiguous=False).shuffle(**shuffle)
        else:
            share = split_dataset_by_node(self.whole.shuffle(**shuffle), self.reader, self.readers)
        share.set_epoch(epoch)
        self.images, self.epoch = share, epoch

    def pass_over(self, rows: int) -> None:
        """Let the first `rows` samples be zeros, which are made faster: for those that are not used."""
        self.passed_over = rows

    def __iter__(self) -> Iterator[NamedSample]:
        for position, row in enumerate(rows_of(self.images)):
            name = image_name(row["image"])
            try:
                image = decode_image(row["image"], name)  # also of those passed over: who knows if it can be
            except UnreadableImageError as error:
                yield name_of_one(row["image"], name), error
                continue
            if position < self.passed_over:
                yield name, self._zeros()
            else:
                # No two readers share an index, so no two samples share a generator.
                yield name, make_sample(image, self.options, self.epoch, self.reader + position * self.readers)

    def _zeros(self) -> Sample:
        size = self.options.crop_size
        return {"image": torch.zeros(3, size, size), "known": torch.zeros(1, size, size)}

"""Samples of a whole dataset by index, or of one that is read while training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from .samples import Sample, SampleOptions, make_sample
from .sources import UnreadableImageError, decode_image, image_name, undecoded

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
            return name, error


class InpaintingStream(IterableDataset):
    """Named samples of a streamed dataset, shuffled in a buffer; its shards are shared out over processes and workers.

    If the number of shards is no multiple of `world_size`, every process reads all of them and skips what belongs to
    the others. Shares may differ in size; an image that can't be decoded comes as the error that says why.

    Args:
        images: what `load_images` gives when streaming.
    """

    def __init__(
        self, images: Any, options: SampleOptions, rank: int = 0, world_size: int = 1, buffer_size: int = 1000
    ) -> None:
        from datasets.distributed import split_dataset_by_node

        self.shards = images.num_shards
        self.images = split_dataset_by_node(
            undecoded(images).shuffle(seed=options.seed, buffer_size=buffer_size), rank, world_size
        )
        self.options, self.rank, self.world_size = options, rank, world_size
        self.epoch, self.passed_over = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Another order, other crops, flips and masks in every epoch."""
        self.epoch = epoch
        self.images.set_epoch(epoch)

    def pass_over(self, rows: int) -> None:
        """Let the first `rows` samples of each worker be zeros, which are made faster: for those that are not used."""
        self.passed_over = rows

    def __iter__(self) -> Iterator[NamedSample]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        # No two streams share an index, so no two samples share a generator.
        first, stride = self.rank * workers + number, self.world_size * workers
        for position, row in enumerate(self.images):
            name = image_name(row["image"])
            try:
                image = decode_image(row["image"], name)  # also of those passed over: who knows if it can be
            except UnreadableImageError as error:
                yield name, error
                continue
            if position < self.passed_over:
                yield name, self._zeros()
            else:
                yield name, make_sample(image, self.options, self.epoch, first + position * stride)

    def _zeros(self) -> Sample:
        size = self.options.crop_size
        return {"image": torch.zeros(3, size, size), "known": torch.zeros(1, size, size)}

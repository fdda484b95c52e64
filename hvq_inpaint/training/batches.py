"""The batches of a run, from where it stands: the same number of them, and all of them whole, on every process."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, islice
from multiprocessing.context import BaseContext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler
from torch.utils.data.distributed import DistributedSampler

from ..data import (
    InpaintingDataset,
    InpaintingStream,
    NamedSample,
    Sample,
    SampleOptions,
    UnreadableImageError,
    load_images,
    shards_are_shared,
    without_pauses,
)
from ..errors import InvalidInputError
from .cache import CachedInputs
from .checkpoints import Progress
from .options import TrainingOptions
from .stopping import leave_signals_to_the_run
from .together import SharedError

# So many images in a row of a whole dataset that can't be decoded end a run: then it is not the images' fault.
_MAX_NEIGHBOURS = 100


@dataclass(frozen=True)
class Samples:
    """Samples that are stacked, possibly none.

    Attributes:
        tensors: each (N, ...), by their names; empty if N is 0.
        names: of the N images.
        unreadable: a sentence for each image that was met and can't be used, by the image's name.
        problem: why no more can be read.
    """

    tensors: Sample = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    problem: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def part(self, start: int, end: int | None = None) -> Samples:
        """Samples `start` to `end` and nothing else."""
        return Samples({name: tensor[start:end] for name, tensor in self.tensors.items()}, self.names[start:end])

    def pin_memory(self) -> Samples:
        """For the loader: tensors that go to a GPU faster."""
        return replace(self, tensors={name: tensor.pin_memory() for name, tensor in self.tensors.items()})

    @staticmethod
    def joined(parts: Sequence[Samples]) -> Samples:
        """All samples of `parts`, in order."""
        filled = [part for part in parts if len(part)]
        unreadable = {name: reason for part in parts for name, reason in part.unreadable.items()}
        problem = next((part.problem for part in parts if part.problem), None)
        if len(filled) == 1:  # the common case: nothing is copied
            return replace(filled[0], unreadable=unreadable, problem=problem)
        names = filled[0].tensors if filled else ()
        return Samples(
            {name: torch.cat([part.tensors[name] for part in filled]) for name in names},
            [name for part in filled for name in part.names],
            unreadable,
            problem,
        )


@dataclass(frozen=True)
class Batch:
    """This process's share of the batch of one step.

    Attributes:
        samples: on the accelerator's device.
        epoch: counted from 0.
        number: of the batch in the epoch, counted from 1.
        left_out: images at the end of the epoch before, over all processes, that were too few for a whole batch; of the
            first batch of an epoch only.
        problem: why this process can't go on; then the samples are nothing but zeros, for all to come to the point at
            which they learn of it.
    """

    samples: Samples
    epoch: int
    number: int
    left_out: int = 0
    problem: str | None = None


class TrainingBatches:
    """The batches of a run of `options`.

    Args:
        cache: the refiner's inputs, if they were made before; None: samples are made of the dataset.

    Attributes:
        per_epoch: batches of an epoch; None as long as it is not known, in the first epoch of a stream.
    """

    per_epoch: int | None = None

    def __init__(self, accelerator: Accelerator, options: TrainingOptions, cache: CachedInputs | None = None) -> None:
        self.accelerator, self.options = accelerator, options
        self.source: InpaintingDataset | CachedInputs | None = cache
        self.streams: list[InpaintingStream] = []  # one for each worker, of a streamed set
        self.global_batch = options.batch_size * accelerator.num_processes
        if self.source is None:
            images = load_images(options.dataset, options.split, options.streaming)
            if options.streaming:
                self.streams = self._share_out(images)
                return
            self.source = InpaintingDataset(images, sample_options(options))
        if len(self.source) < self.global_batch:
            raise InvalidInputError(
                f"The dataset {options.dataset} holds {len(self.source)} images, fewer than one step's "
                f"{self.global_batch}: lower --batch-size."
            )

    def _share_out(self, images: Any) -> list[InpaintingStream]:
        """The streams of this process's workers."""
        processes, workers = self.accelerator.num_processes, max(1, self.options.workers)
        if not shards_are_shared(images.num_shards, workers * processes):
            self.accelerator.print(
                f"The {images.num_shards} shards of {self.options.dataset} can't be shared out evenly over {processes} "
                f"processes with {workers} workers, so each worker reads all of them; "
                "'python -m hvq_inpaint shard' writes as many as you like."
            )
        numbers = [self.accelerator.process_index + worker * processes for worker in range(workers)]
        samples = sample_options(self.options)
        return [InpaintingStream(images, samples, reader, workers * processes) for reader in numbers]

    @property
    def images(self) -> int | None:
        """How many images there are; None of a stream, of which that is not known."""
        return None if self.source is None else len(self.source)

    def start(self, progress: Progress) -> Iterator[Batch]:
        """Batches without end, from where `progress` stands."""
        batches = self._streamed(progress) if self.source is None else self._mapped(self.source, progress)
        return self._on_device(batches)

    def _on_device(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            tensors = {
                name: tensor.to(self.accelerator.device, non_blocking=True)
                for name, tensor in batch.samples.tensors.items()
            }
            yield replace(batch, samples=replace(batch.samples, tensors=tensors))

    def _mapped(self, source: InpaintingDataset | CachedInputs, progress: Progress) -> Iterator[Batch]:
        # One loader for all epochs: its workers go on into the next one while the last batches are trained on.
        sampler = DistributedSampler(
            source,
            self.accelerator.num_processes,
            self.accelerator.process_index,
            seed=self.options.seed,
            drop_last=True,
        )
        self.per_epoch = per_epoch = len(source) // self.global_batch
        left_out = len(source) - per_epoch * self.global_batch
        # Also at the end of an epoch, or of a set that had more images before.
        epoch, number = divmod(progress.epoch * per_epoch + progress.batch, per_epoch)
        loader = self._loader(
            _ByKey(source), batch_sampler=_EndlessKeys(sampler, self.options.batch_size, epoch, number)
        )
        with _ending([iter(loader)]) as [loaded]:
            for samples in loaded:
                number, problem = number + 1, None
                if len(samples) < self.options.batch_size:
                    reason = next(iter(samples.unreadable.values()))
                    problem = f"Hardly any of the images of {self.options.dataset} can be used: {reason}"
                    samples = Samples(self._zeros(), [], samples.unreadable)
                yield Batch(samples, epoch, number, left_out if number == 1 and epoch > 0 else 0, problem)
                if number == per_epoch:
                    epoch, number = epoch + 1, 0

    def _streamed(self, progress: Progress) -> Iterator[Batch]:
        left_out, done, size = 0, progress.batch, self.options.batch_size
        unreadable: dict[str, str] = {}
        # For the batches that are done a process has used the first samples of its own, from its workers in turn: so
        # many rows of each at least.
        passed_over = done // len(self.streams) * size
        # A loader for each worker, for all epochs: one whose share is used up begins the next epoch, and waits with it,
        # while a loader of several asks each of them in turn.
        parts = [_EndlessParts(stream, size, progress.epoch, passed_over) for stream in self.streams]
        with _ending([iter(self._loader(of_one, batch_size=None)) for of_one in parts]) as workers:
            for epoch in count(progress.epoch):
                shared, number = SharedStream(self.accelerator, _in_turn(workers), size), 0
                for samples in shared:
                    number += 1
                    if number > done:
                        samples = replace(samples, unreadable={**unreadable, **samples.unreadable})
                        yield Batch(samples, epoch, number, left_out)
                        left_out, unreadable = 0, {}
                if number == 0:
                    raise SharedError(
                        f"The dataset {self.options.dataset} holds {shared.left_out} images that can be used, fewer "
                        f"than one step's {self.global_batch}: lower --batch-size."
                    )
                self.per_epoch = number
                left_out, unreadable, done = shared.left_out, shared.held.unreadable, 0

    def _zeros(self) -> Sample:
        number, size = self.options.batch_size, self.options.crop_size
        return {"image": torch.zeros(number, 3, size, size), "known": torch.zeros(number, 1, size, size)}

    def _loader(self, source: Dataset, **how: object) -> DataLoader:
        workers, is_stream = self.options.workers, self.source is None
        return DataLoader(
            source,
            num_workers=min(1, workers) if is_stream else workers,
            multiprocessing_context=_start_method() if is_stream and workers else None,
            collate_fn=_unchanged if is_stream else stack,
            pin_memory=self.accelerator.device.type == "cuda",
            worker_init_fn=_begin_to_stream if is_stream else leave_signals_to_the_run,
            **how,
        )


def sample_options(options: TrainingOptions) -> SampleOptions:
    """How a run makes samples of images."""
    return SampleOptions(
        crop_size=options.crop_size, mask_size=options.mask_size, mask_kinds=options.mask_kinds, seed=options.seed
    )


def stack(items: Sequence[NamedSample | list[NamedSample]]) -> Samples:
    """Named samples, or lists of them, as one batch without those that are unreadable."""
    named = [pair for item in items for pair in (item if isinstance(item, list) else [item])]
    good = [(name, sample) for name, sample in named if not isinstance(sample, UnreadableImageError)]
    keys = good[0][1] if good else ()
    return Samples(
        {key: torch.stack([sample[key] for _, sample in good]) for key in keys},
        [name for name, _ in good],
        {name: str(error) for name, error in named if isinstance(error, UnreadableImageError)},
    )


def _unchanged(part: Samples | None) -> Samples | None:
    return part


def _begin_to_stream(worker: int) -> None:
    """For a process that reads a stream."""
    leave_signals_to_the_run(worker)
    # PyTorch's workers end when their parent does; theirs is the fork server, which waits for them.
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    """End this process when the run has ended that started it, were it by a kill."""
    if run := multiprocessing.parent_process():
        run.join()
        os._exit(1)


@contextmanager
def _ending(loaded: list[Iterator[Any]]) -> Iterator[list[Iterator[Any]]]:
    """Iterators of loaders whose workers end with the block, all at once, whatever happens in it.

    Left to the garbage collector they would live as long as the traceback of an error does, and be waited for without
    end when the interpreter ends.
    """
    try:
        yield loaded
    finally:
        with ThreadPoolExecutor(len(loaded)) as pool:
            # PyTorch has no public name for it; without workers there is nothing to end.
            list(pool.map(lambda one: getattr(one, "_shutdown_workers", lambda: None)(), loaded))


def _in_turn(workers: Sequence[Iterator[Samples | None]]) -> Iterator[Samples]:
    """What the workers have of one epoch, one part of each in turn, as long as each has any."""
    going = list(workers)
    while going:
        for worker in list(going):
            part = next(worker)
            if part is None:
                going.remove(worker)
            else:
                yield part


def _start_method() -> BaseContext | None:
    """How to start workers that read Parquet: forked from a process that has not read any, as Arrow's threads do not
    survive a fork and the worker would wait for them for ever. None: as the platform does, where it does not fork.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return None
    context = multiprocessing.get_context("forkserver")
    # Imported once, not for each worker.
    context.set_forkserver_preload([f"{__package__}.fork_server", __name__, "datasets"])
    return context


class _EndlessKeys(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) of this process, every epoch in an order of its own, from one batch of one epoch on."""

    def __init__(self, sampler: DistributedSampler, batch_size: int, epoch: int, batch: int) -> None:
        self.sampler, self.batch_size, self.epoch, self.batch = sampler, batch_size, epoch, batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        done = self.batch
        for epoch in count(self.epoch):
            self.sampler.set_epoch(epoch)
            for number, indices in enumerate(BatchSampler(self.sampler, self.batch_size, drop_last=True)):
                if number >= done:
                    yield [(epoch, index) for index in indices]
            done = 0


class _EndlessParts(IterableDataset):
    """A stream's samples in parts of `size`, epoch after epoch from one on; None says that an epoch is over.

    The part after which nothing more can be read says so.
    """

    def __init__(self, stream: InpaintingStream, size: int, epoch: int, passed_over: int) -> None:
        self.stream, self.size, self.epoch, self.passed_over = stream, size, epoch, passed_over

    def __iter__(self) -> Iterator[Samples | None]:
        self.stream.pass_over(self.passed_over)
        with without_pauses():
            for epoch in count(self.epoch):
                self.stream.set_epoch(epoch)
                named = iter(self.stream)
                try:
                    while part := list(islice(named, self.size)):
                        yield stack(part)
                except InvalidInputError as error:  # raised here it would end this process alone
                    yield Samples(problem=str(error))
                yield None
                self.stream.pass_over(0)


class _ByKey(Dataset):
    """Named samples by (epoch, index): the epoch reaches the workers with each key."""

    def __init__(self, source: InpaintingDataset | CachedInputs) -> None:
        self.source = source

    def __getitem__(self, key: tuple[int, int]) -> list[NamedSample]:
        """The sample; for an image that can't be decoded the reason, and the next one in its place, if there is any."""
        epoch, index = key
        self.source.set_epoch(epoch)
        if isinstance(self.source, CachedInputs):
            return [(f"row {index}", self.source[index])]
        found: list[NamedSample] = []
        for further in range(min(len(self.source), _MAX_NEIGHBOURS)):
            found.append(self.source.named(index, (index + further) % len(self.source)))
            if not isinstance(found[-1][1], UnreadableImageError):
                break
        return found


class SharedStream:
    """Whole batches for all processes, as many for each, out of streams that differ in length; iterated once.

    All processes raise what any of them can't read.

    A process whose stream has ended is given what others have left. At most one incomplete batch, over all processes,
    is left out at the end.

    Args:
        parts: what this process reads, in parts of any size.
        size: of a batch, for each process.

    Attributes:
        held: what was read and not yet given out; after the end, this process's part of what is left out.
        left_out: after the end, how many samples over all processes.
    """

    def __init__(self, accelerator: Accelerator, parts: Iterable[Samples], size: int) -> None:
        self.accelerator, self.parts, self.size = accelerator, iter(parts), size
        self.held, self.ended, self.left_out = Samples(), False, 0

    def __iter__(self) -> Iterator[Samples]:
        rank, size = self.accelerator.process_index, self.size
        wanted = size
        while True:
            self._pull(wanted)
            counts, ended = self._of_all()
            missing = sum(max(0, size - number) for number in counts)
            surplus = sum(max(0, number - size) for number in counts)
            if missing > surplus:
                streams = ended.count(False)
                if streams == 0:
                    self.left_out = sum(counts)
                    return
                # Beyond a batch of its own, for those that have nothing more.
                wanted = max(size, len(self.held)) + -(-(missing - surplus) // streams)
                continue
            if missing:
                self._even_out(counts, rank)
            yield replace(self.held.part(0, size), unreadable=self.held.unreadable)
            self.held = self.held.part(size)
            wanted = size

    def _pull(self, number: int) -> None:
        """Hold `number` samples, or as many as there are."""
        parts = [self.held]
        held = len(self.held)
        while held < number and not self.ended:
            part = next(self.parts, None)
            if part is None:
                self.ended = True
            else:
                parts.append(part)
                held += len(part)
        self.held = Samples.joined(parts)

    def _of_all(self) -> tuple[list[int], list[bool]]:
        """How many samples each process holds, and whether its stream has ended."""
        here = [[len(self.held), self.ended, self.held.problem is not None]]
        everyone = self.accelerator.gather(torch.tensor(here, device=self.accelerator.device)).tolist()
        counts, ended, has_problem = zip(*everyone, strict=True)
        if any(has_problem):
            raise SharedError(next(filter(None, gather_object([self.held.problem]))))
        return list(counts), [bool(value) for value in ended]

    def _even_out(self, counts: list[int], rank: int) -> None:
        """Move samples from those that hold more than a batch to those that hold less, both in the order of ranks."""
        size = self.size
        missing = [max(0, size - number) for number in counts]
        given: list[int] = []
        for number in counts:
            given.append(min(max(0, number - size), sum(missing) - sum(given)))
        end = len(self.held) - given[rank]
        surplus = self.held.part(end)
        copied = {name: tensor.clone() for name, tensor in surplus.tensors.items()}  # a view would travel as a whole
        pool = Samples.joined(gather_object([replace(surplus, tensors=copied)]))
        taken = sum(missing[:rank])
        kept = replace(self.held.part(0, end), unreadable=self.held.unreadable)
        self.held = Samples.joined([kept, pool.part(taken, taken + missing[rank])])

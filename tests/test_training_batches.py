"""The batches of a run: every sample once in an epoch, the same wherever a run goes on, as many on each process."""

from __future__ import annotations

import re
import shutil
import threading
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from conftest import make_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvq_inpaint import InvalidInputError
from hvq_inpaint.data import InpaintingDataset, UnreadableImageError, load_images
from hvq_inpaint.data.shards import write_shards
from hvq_inpaint.training import batches
from hvq_inpaint.training.batches import Batch, Samples, SharedStream, TrainingBatches, sample_options, stack
from hvq_inpaint.training.checkpoints import Progress
from hvq_inpaint.training.options import TrainingOptions
from hvq_inpaint.training.together import SharedError

IMAGES = 11


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(IMAGES):
        Image.fromarray(make_pixels(32, 40, number)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def shards(photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shards"
    list(write_shards(photographs, folder, shards=4))
    return folder


def options_of(dataset: Path, **changes) -> TrainingOptions:
    values = {"batch_size": 2, "crop_size": 32, "mask_size": 32, "workers": 0, "seed": 5, **changes}
    return TrainingOptions(stage="encoder", dataset=str(dataset), output="none", **values)


def process(rank: int = 0, processes: int = 1) -> SimpleNamespace:
    """What the batches need of an accelerator."""
    return SimpleNamespace(
        process_index=rank,
        num_processes=processes,
        device=torch.device("cpu"),
        gather=lambda tensor: tensor,
        print=print,
    )


def first_batches(options: TrainingOptions, number: int, progress: Progress | None = None, **which) -> list[Batch]:
    return list(islice(TrainingBatches(process(**which), options).start(progress or Progress()), number))


def names_of(some: list[Batch]) -> list[str]:
    return [name for batch in some for name in batch.samples.names]


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    for a, b in zip(some, others, strict=True):
        assert (a.epoch, a.number, a.samples.names) == (b.epoch, b.number, b.samples.names)
        assert all(torch.equal(a.samples.tensors[name], b.samples.tensors[name]) for name in a.samples.tensors)


def test_every_epoch_has_another_order_and_leaves_out_no_more_than_a_batch(photographs):
    found = first_batches(options_of(photographs), 15)
    assert [(batch.epoch, batch.number) for batch in found] == [(e, n) for e in range(3) for n in range(1, 6)]
    orders = [names_of(found[start : start + 5]) for start in (0, 5, 10)]
    assert all(len(set(order)) == 10 for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert [batch.left_out for batch in found] == [0] * 5 + [1] + [0] * 4 + [1] + [0] * 4


@pytest.mark.parametrize("streaming", [False, True])
def test_another_seed_has_another_order(photographs, streaming):
    orders = [names_of(first_batches(options_of(photographs, streaming=streaming, seed=seed), 5)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_those_of_their_epoch_and_index(photographs, workers):
    options = options_of(photographs, workers=workers)
    dataset = InpaintingDataset(load_images(str(photographs)), sample_options(options))
    for batch in first_batches(options, 12):
        dataset.set_epoch(batch.epoch)
        for position, name in enumerate(batch.samples.names):
            sample = dataset[int(Path(name).stem)]
            assert all(torch.equal(batch.samples.tensors[key][position], sample[key]) for key in sample)


def test_processes_share_the_global_batches_of_one(photographs):
    alone = first_batches(options_of(photographs, batch_size=4), 5)
    shares = [first_batches(options_of(photographs), 5, rank=rank, processes=2) for rank in range(2)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert sorted(whole.samples.names) == sorted(name for part in parts for name in part.samples.names)
        assert {(part.epoch, part.number, part.left_out) for part in parts} == {
            (whole.epoch, whole.number, whole.left_out)
        }


@pytest.mark.parametrize(
    ("source", "workers"),
    [("folder", 0), ("folder", 2), ("streamed folder", 0), ("streamed folder", 2), ("streamed shards", 0)],
)
@pytest.mark.parametrize("done", [1, 3, 5, 7, 10])  # within an epoch and at its end
def test_a_run_goes_on_with_the_batches_that_it_would_have_had(photographs, shards, source, workers, done):
    options = options_of(
        shards if source.endswith("shards") else photographs, workers=workers, streaming=source != "folder"
    )
    whole = first_batches(options, 13)
    last = whole[done - 1]
    progress = Progress(step=done, epoch=last.epoch, batch=last.number)
    again = first_batches(options, 13 - done, progress)
    assert_same(whole[done:], again)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_gives_every_image_once_in_an_epoch(photographs, shards, workers):
    found = first_batches(options_of(photographs if workers else shards, streaming=True, workers=workers), 11)
    assert [(batch.epoch, batch.number) for batch in found[:6]] == [*((0, n) for n in range(1, 6)), (1, 1)]
    assert {Path(name).name for name in names_of(found[:5])} < {path.name for path in photographs.iterdir()}
    assert len(set(names_of(found[:5]))) == 10
    assert [batch.left_out for batch in found] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert names_of(found[:5]) != names_of(found[5:10])


def test_too_few_shards_are_told(shards, capsys):
    for processes, workers in [(3, 0), (2, 3)]:
        TrainingBatches(process(processes=processes), options_of(shards, streaming=True, workers=workers))
        output = capsys.readouterr().out
        assert f"The 4 shards of {shards} can't be shared out evenly over {processes} processes" in output
    TrainingBatches(process(processes=2), options_of(shards, streaming=True, workers=2))
    assert capsys.readouterr().out == ""


def test_no_one_sleeps_between_epochs(monkeypatch, shards):
    slept = []
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 5)
    monkeypatch.setattr(datasets.iterable_dataset.time, "sleep", slept.append)
    first_batches(options_of(shards, streaming=True, workers=0), 12)
    assert set(slept) == {0}
    assert datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN == 5  # for others


def test_a_worker_whose_epoch_is_over_waits_for_the_others():
    first = iter(["a", None, "next epoch"])
    second = iter(["b", "c", "d", None])
    assert list(batches._in_turn([first, second])) == ["a", "b", "c", "d"]
    assert next(first) == "next epoch"


def test_a_set_with_fewer_images_than_a_batch_is_refused(photographs, shards):
    with pytest.raises(InvalidInputError, match="11 images, fewer than one step's 12: lower --batch-size"):
        TrainingBatches(process(), options_of(photographs, batch_size=12))
    with pytest.raises(InvalidInputError, match="11 images that can be used, fewer than one step's 12"):
        first_batches(options_of(shards, batch_size=12, streaming=True), 1)


def cut(folder: Path, *numbers: int) -> list[str]:
    """Truncate images; returns their paths."""
    paths = [folder / f"{number:02d}.png" for number in numbers]
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    return [str(path) for path in paths]


@pytest.fixture
def damaged(tmp_path) -> tuple[Path, list[str]]:
    for number in range(IMAGES):
        Image.fromarray(make_pixels(32, 40, number)).save(tmp_path / f"{number:02d}.png")
    return tmp_path, cut(tmp_path, 4, 5, 10)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_can_t_be_decoded_gives_way_to_the_next_image(damaged, workers):
    folder, names = damaged
    found = first_batches(options_of(folder, batch_size=11, workers=workers), 1)[0].samples
    assert Counter(Path(name).name for name in found.names) == Counter(
        ["00.png", "00.png", "01.png", "02.png", "03.png", "06.png", "06.png", "06.png", "07.png", "08.png", "09.png"]
    )
    assert sorted(found.unreadable) == names
    assert all("can't be decoded" in reason for reason in found.unreadable.values())
    # Another crop and mask of the image that stands in.
    known = [mask for mask, name in zip(found.tensors["known"], found.names, strict=True) if name.endswith("06.png")]
    assert not torch.equal(known[0], known[1]) and not torch.equal(known[0], known[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_without_what_can_t_be_decoded(damaged, workers):
    folder, names = damaged
    found = first_batches(options_of(folder, batch_size=3, workers=workers, streaming=True), 3)
    assert len(set(names_of(found[:2]))) == 6 and not set(names_of(found[:2])) & set(names)
    met = {name for batch in found for name in batch.samples.unreadable}
    assert met == set(names)  # those met after the last whole batch come with the next one
    assert found[2].left_out == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_of_nothing_but_broken_images_is_told_with_a_batch_for_all_to_learn_of_it(tmp_path, workers):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"")
    options = options_of(tmp_path, workers=workers)
    [batch] = first_batches(options, 1)
    assert re.match(r"Hardly any of the images of .* can be used: .*is not an image.*\.$", batch.problem)
    size = (options.batch_size, 3, options.crop_size, options.crop_size)
    assert batch.samples.tensors["image"].shape == size and not batch.samples.names
    assert set(batch.samples.unreadable) == {str(path) for path in tmp_path.iterdir()}


class Ranks:
    """Processes as threads, that gather as those of accelerate do."""

    def __init__(self, number: int) -> None:
        self.number, self.barrier, self.given = number, threading.Barrier(number), [None] * number
        self.rank = threading.local()

    def exchange(self, value):
        self.given[self.rank.value] = value
        self.barrier.wait(timeout=30)
        everyone = list(self.given)
        self.barrier.wait(timeout=30)
        return everyone

    def gather_object(self, objects: list) -> list:
        return [one for of_rank in self.exchange(objects) for one in of_rank]

    def run(self, function) -> list:
        results = [None] * self.number

        def work(rank: int) -> None:
            self.rank.value = rank
            accelerator = process(rank, self.number)
            accelerator.gather = lambda tensor: torch.cat(self.exchange(tensor))
            results[rank] = function(accelerator)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(self.number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_what_one_process_can_t_read_ends_all(monkeypatch):
    ranks = Ranks(3)
    monkeypatch.setattr(batches, "gather_object", ranks.gather_object)

    def iterate(accelerator):
        end = Samples(problem="A shard is torn.") if accelerator.process_index == 1 else part_of([7, 8, 9])
        with pytest.raises(SharedError, match=r"^A shard is torn\.$"):
            list(SharedStream(accelerator, [part_of([0, 1, 2, 3]), end], 2))
        return True

    assert ranks.run(iterate) == [True] * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_torn_shard_is_a_sentence(tmp_path, shards, workers):
    for shard in shards.iterdir():
        shutil.copy(shard, tmp_path)
    last = sorted(tmp_path.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.raises(InvalidInputError, match=r"^A shard of the dataset can't be read: .*Parquet magic bytes"):
        first_batches(options_of(tmp_path, streaming=True, workers=workers), 50)


def part_of(numbers: list[int]) -> Samples:
    """Samples that know their numbers; every seventh can't be decoded."""
    return stack(
        [
            (str(number), UnreadableImageError("torn") if number % 7 == 6 else {"image": torch.tensor([number])})
            for number in numbers
        ]
    )


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 23), min_size=1, max_size=5),
    size=st.integers(1, 5),
    cuts=st.integers(1, 6),
)
def test_streams_of_any_lengths_make_as_many_batches_as_there_are(lengths, size, cuts):
    starts = [sum(lengths[:rank]) for rank in range(len(lengths))]
    streams = [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)]
    ranks = Ranks(len(lengths))

    def iterate(accelerator):
        mine = streams[accelerator.process_index]
        parts = [part_of(mine[start : start + cuts]) for start in range(0, len(mine), cuts)]
        shared = SharedStream(accelerator, parts, size)
        return list(shared), shared

    before = batches.gather_object
    batches.gather_object = ranks.gather_object
    try:
        results = ranks.run(iterate)
    finally:
        batches.gather_object = before
    good = [number for number in range(sum(lengths)) if number % 7 != 6]
    steps = len(good) // (size * len(lengths))
    assert [len(found) for found, _ in results] == [steps] * len(lengths)
    used = [int(name) for found, _ in results for samples in found for name in samples.names]
    assert all(len(samples) == size for found, _ in results for samples in found)
    left = [int(name) for _, shared in results for name in shared.held.names]
    assert sorted(used + left) == good
    assert {shared.left_out for _, shared in results} == {len(left)}
    for found, _ in results:
        for samples in found:
            assert samples.tensors["image"].flatten().tolist() == [int(name) for name in samples.names]
    torn = {int(n) for found, shared in results for part in [*found, shared.held] for n in part.unreadable}
    assert torn == {number for number in range(sum(lengths)) if number % 7 == 6}

"""What a run does with data that is streamed, or can't be read."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import datasets
import pytest
import torch
from accelerate import Accelerator
from conftest import make_model, make_pixels
from PIL import Image
from safetensors.torch import load_file

from hvq_inpaint import InvalidInputError
from hvq_inpaint.data import InpaintingDataset, InpaintingStream, SampleOptions, load_images
from hvq_inpaint.training import trainer
from hvq_inpaint.training.checkpoints import Progress, read_progress
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.resume import enter_whole_epoch
from hvq_inpaint.training.unreadable import UnreadableImages

IMAGES = 9
STEPS = 7


@pytest.fixture
def photographs(tmp_path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(IMAGES):
        Image.fromarray(make_pixels(32, 40, number)).save(folder / f"{number}.png")
    return folder


def train(photographs: Path, output: Path, *more: str) -> dict[str, torch.Tensor]:
    """Train EncoderB1, four steps of two images an epoch, from where the run stands; returns the weights."""
    if not (output / "autoencoder").is_dir():
        make_model().save_pretrained(output / "autoencoder" / "model")
    common = "--stage encoder --preset tiny --batch-size 2 --crop-size 32 --mask-size 32 --workers 0 --log-every 1"
    common += f" --steps {STEPS} --checkpoint-every 2 --mixed-precision no --log-with none --resume"
    trainer.run(parse_options(["--dataset", str(photographs), "--output", str(output), *common.split(), *more]))
    return load_file(output / "encoder" / "model" / "model.safetensors")


def rows_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "encoder" / "metrics.jsonl").read_text().splitlines()]


def break_off(photographs: Path, output: Path, monkeypatch: pytest.MonkeyPatch, step: int, *more: str) -> None:
    """Train until something fails after `step`, which is no multiple of two steps."""
    save = trainer.save_checkpoint

    def fail(accelerator, folder, progress, *rest):
        if progress.step > step:
            raise RuntimeError("pulled plug")
        save(accelerator, folder, progress, *rest)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="pulled plug"):
        patch.setattr(trainer, "save_checkpoint", fail)
        train(photographs, output, *more)


@pytest.mark.parametrize("step", [3, 5])  # of the first epoch and of the second
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_streamed_run_goes_on_to_the_same_weights(photographs, tmp_path, monkeypatch, step, workers):
    more = ["--streaming", "--workers", workers]
    whole = train(photographs, tmp_path / "whole", *more)
    break_off(photographs, tmp_path / "broken", monkeypatch, step, *more)
    again = train(photographs, tmp_path / "broken", *more)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert [row["loss"] for row in rows_of(tmp_path / "broken")] == [row["loss"] for row in rows_of(tmp_path / "whole")]


def test_another_number_of_workers_goes_on_with_the_next_epoch_and_says_so(photographs, tmp_path, monkeypatch, capsys):
    break_off(photographs, tmp_path, monkeypatch, 3, "--streaming")
    progress = read_progress(tmp_path / "encoder" / "checkpoints" / "step-00000002")
    assert (progress.step, progress.epoch, progress.batch, progress.workers) == (2, 0, 2, 0)
    train(photographs, tmp_path, "--streaming", "--workers", "2")
    assert (
        "The stream was read by 1 processes with 1 workers each, and is by 1 with 2 now: what is left of epoch 0 is "
        "passed over, and the next one begins."
    ) in capsys.readouterr().out
    last = read_progress(tmp_path / "encoder" / "checkpoints" / f"step-{STEPS:08d}")
    assert (last.epoch, last.batch) == (2, 1)  # 2 steps of epoch 0, 4 of epoch 1, 1 of epoch 2


def test_shares_matter_to_streams_within_an_epoch_only():
    streamed = parse_options(
        ["--stage", "encoder", "--dataset", "x", "--output", "y", "--streaming", "--workers", "3"]
    )[0]
    mapped = parse_options(["--stage", "encoder", "--dataset", "x", "--output", "y", "--workers", "3"])[0]
    progress = Progress(step=9, epoch=2, batch=4, processes=2, workers=3)
    assert enter_whole_epoch(mapped, progress, 5) == (progress, None)
    assert enter_whole_epoch(streamed, progress, 2) == (progress, None)
    alone = replace(streamed, workers=0), Progress(step=9, epoch=2, batch=4, processes=1, workers=1)
    assert enter_whole_epoch(*alone, 1) == (alone[1], None)
    begun = Progress(step=9, epoch=2, batch=0, processes=2, workers=3)
    assert enter_whole_epoch(streamed, begun, 1) == (begun, None)
    other, remark = enter_whole_epoch(streamed, progress, 1)
    assert (other.step, other.epoch, other.batch) == (9, 3, 0)
    assert "2 processes with 3 workers each, and is by 1 with 3 now" in remark


@pytest.mark.parametrize("streaming", ["--streaming", "--no-streaming"])
def test_images_that_can_t_be_used_are_told_once_and_counted(photographs, tmp_path, capsys, streaming):
    for number in (2, 3):
        (photographs / f"{number}.png").write_bytes(b"no image")
    train(photographs, tmp_path, streaming)
    printed = capsys.readouterr().out
    told = (tmp_path / "encoder" / "unreadable.txt").read_text()
    for number in (2, 3):
        path = photographs / f"{number}.png"
        assert printed.count(f"An image is left out: {path} is not an image") == 1
        assert told.count(f"{path}\t{path} is not an image") == 1
    counts = [row["data/unreadable"] for row in rows_of(tmp_path) if "data/unreadable" in row]
    assert counts == sorted(counts) and counts[-1] == 2


@pytest.mark.parametrize("streaming", ["--streaming", "--no-streaming"])
def test_too_many_of_them_end_a_run_and_are_remembered(photographs, tmp_path, streaming):
    for number in (2, 3):
        (photographs / f"{number}.png").write_bytes(b"no image")
    message = (
        r"2 images can't be used \(.*unreadable\.txt names them\), more than --unreadable-limit 1: .*--resume auto"
    )
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=message):
            train(photographs, tmp_path, "--unreadable-limit", "1", streaming)
    assert len((tmp_path / "encoder" / "unreadable.txt").read_text().splitlines()) == 2
    train(photographs, tmp_path, "--unreadable-limit", "2", streaming)


def test_a_stream_is_calibrated_on_images_of_several_shards(tmp_path, monkeypatch):
    for shard, grey in enumerate((0, 255)):
        file = BytesIO()
        Image.new("RGB", (32, 32), (grey, grey, grey)).save(file, format="PNG")
        rows = [{"bytes": file.getvalue(), "path": f"{shard}-{row}.png"} for row in range(8)]
        datasets.Dataset.from_dict({"image": rows}).to_parquet(tmp_path / f"train-{shard}.parquet")
    monkeypatch.setattr(trainer, "CALIBRATION_IMAGES", 6)
    more = "--stage encoder --output x --crop-size 32 --mask-size 32 --streaming"
    [options] = parse_options(["--dataset", str(tmp_path), *more.split()])
    images = trainer._calibration_images(Accelerator(), options)
    assert len(images) == 6 and set(images.unique().tolist()) == {0.0, 1.0}


def test_images_of_one_name_are_told_apart_when_they_are_torn(tmp_path):
    rows = [{"bytes": bytes([number]), "path": "a\tb.png"} for number in (1, 2, 2)]
    datasets.Dataset.from_dict({"image": rows}).to_parquet(tmp_path / "train-0.parquet")
    for streaming in (True, False):
        images, samples = load_images(str(tmp_path), streaming=streaming), SampleOptions(crop_size=32, mask_size=32)
        whole = InpaintingDataset(images, samples) if not streaming else None
        named = [whole.named(index, index) for index in range(3)] if whole else list(InpaintingStream(images, samples))
        unreadable = UnreadableImages(Accelerator(), tmp_path, 1)
        assert unreadable.note({name: str(error) for name, error in named}) == 2
        assert unreadable.problem()
        lines = (tmp_path / "unreadable.txt").read_text().splitlines()
        assert len(lines) == 2 and all(line.startswith("a b.png (sha256:") for line in lines)
        assert all(line.count("\t") == 1 for line in lines)

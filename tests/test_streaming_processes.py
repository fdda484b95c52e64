"""Two processes, started by `accelerate launch`, read Parquet shards of unequal lengths with two workers each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import datasets
import pytest
from conftest import make_model, make_pixels
from PIL import Image

from hvq_inpaint.training.command_line import parse_options

ROOT = Path(__file__).parent.parent
SHARES = (10, 1, 3, 1)  # of the first process 13 images, of the second 2

# Reads an epoch and one batch more, then trains on as many.
SCRIPT = """
import json
import sys
from itertools import islice

if __name__ == "__main__":
    from hvq_inpaint.training import trainer
    from hvq_inpaint.training.batches import TrainingBatches
    from hvq_inpaint.training.checkpoints import Progress
    from hvq_inpaint.training.command_line import parse_options

    [options] = parse_options(sys.argv[2:])
    accelerator = trainer.make_accelerator(options)
    batches = TrainingBatches(accelerator, options)
    read = [
        {
            "epoch": batch.epoch,
            "number": batch.number,
            "names": batch.samples.names,
            "unreadable": sorted(batch.samples.unreadable),
            "left_out": batch.left_out,
        }
        for batch in islice(batches.start(Progress()), 4)
    ]
    with open(f"{sys.argv[1]}-{accelerator.process_index}.json", "w") as file:
        json.dump({"processes": accelerator.num_processes, "read": read}, file)
    trainer.run([options])
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, number = tmp_path_factory.mktemp("shards"), 0
    for shard, length in enumerate(SHARES):
        rows = []
        for _ in range(length):
            file = BytesIO()
            Image.fromarray(make_pixels(32, 40, number)).save(file, format="PNG")
            whole = file.getvalue()
            rows.append({"bytes": whole[:100] if number == 4 else whole, "path": f"{number:02d}.png"})
            number += 1
        datasets.Dataset.from_dict({"image": rows}).to_parquet(folder / f"train-{shard}.parquet")
    return folder


def arguments(shards: Path, output: Path) -> list[str]:
    common = "--stage encoder --preset tiny --steps 4 --batch-size 2 --crop-size 32 --mask-size 32 --workers 2"
    common += " --log-every 1 --mixed-precision no --log-with none --streaming"
    return ["--dataset", str(shards), "--output", str(output), *common.split()]


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], Path, str]:
    """What each process read, the folder of the training, what it printed."""
    folder = tmp_path_factory.mktemp("run")
    make_model().save_pretrained(folder / "output" / "autoencoder" / "model")
    (folder / "script.py").write_text(SCRIPT)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    done = subprocess.run(
        [
            sys.executable,
            *launch,
            str(folder / "script.py"),
            str(folder / "read"),
            *arguments(shards, folder / "output"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=240,  # workers that hang, as those forked from a process that has read Parquet
    )
    assert done.returncode == 0, done.stderr[-3000:]
    read = [json.loads((folder / f"read-{rank}.json").read_text()) for rank in range(2)]
    assert [of_rank["processes"] for of_rank in read] == [2, 2]
    return [of_rank["read"] for of_rank in read], folder / "output" / "encoder", done.stdout


def test_every_image_is_read_once_in_an_epoch(run):
    read, _, _ = run
    everyone = {f"{number:02d}.png" for number in range(sum(SHARES)) if number != 4}
    names = [name for of_rank in read for batch in of_rank[:3] for name in batch["names"]]
    # Of 14 images that can be used, three global batches of four.
    assert len(names) == len(set(names)) == 12 and set(names) < everyone


def test_both_processes_have_as_many_whole_batches(run):
    read, _, _ = run
    for of_rank in read:
        assert [(batch["epoch"], batch["number"]) for batch in of_rank] == [(0, 1), (0, 2), (0, 3), (1, 1)]
        assert all(len(batch["names"]) == 2 for batch in of_rank)
        assert [batch["left_out"] for batch in of_rank] == [0, 0, 0, 2]


def test_what_can_t_be_decoded_is_told_once(run):
    read, folder, printed = run
    met = [name for of_rank in read for batch in of_rank for name in batch["unreadable"]]
    assert len(set(met)) == 1 and met[0].startswith("04.png (sha256:")
    assert printed.count("An image is left out: 04.png can't be decoded") == 1
    assert len((folder / "unreadable.txt").read_text().splitlines()) == 1


def test_the_training_counts_what_it_leaves_out(run):
    _, folder, _ = run
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"]: row["data/left_out"] for row in rows if "data/left_out" in row} == {4: 2}
    assert {row["data/unreadable"] for row in rows if "data/unreadable" in row} == {1}
    assert parse_options(["--config", str(folder / "config.yaml")])[0].streaming

"""What others do to a run: signals to all of its processes, a second run, files and options that are broken."""

from __future__ import annotations

import json
import multiprocessing.forkserver
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from accelerate import Accelerator
from conftest import make_model, make_pixels
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from hvq_inpaint import InvalidInputError
from hvq_inpaint.training import batches, stopping, trainer
from hvq_inpaint.training.checkpoints import Progress, checkpoint_folders, way_back
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.log import read_rows
from hvq_inpaint.training.micro_batches import MicroBatches
from hvq_inpaint.training.stopping import StopRequest, TrainingStopped

ROOT = Path(__file__).parent.parent


@pytest.fixture
def photographs(tmp_path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(8):
        Image.fromarray(make_pixels(32, 40, number)).save(folder / f"{number}.png")
    return folder


def arguments(photographs: Path, output: Path, *more: str) -> list[str]:
    common = "--stage encoder --preset tiny --batch-size 2 --crop-size 32 --mask-size 32 --workers 0 --log-every 1"
    common += " --steps 6 --checkpoint-every 2 --mixed-precision no --log-with none --resume"
    if not (output / "autoencoder").is_dir():
        make_model().save_pretrained(output / "autoencoder" / "model")
    return ["--dataset", str(photographs), "--output", str(output), *common.split(), *more]


def train(photographs: Path, output: Path, *more: str) -> None:
    trainer.run(parse_options(arguments(photographs, output, *more)))


def checkpoints_of(output: Path) -> list[str]:
    return [path.name for path in checkpoint_folders(output / "encoder" / "checkpoints")]


@pytest.mark.parametrize("streaming", ["--streaming", "--no-streaming"])
def test_a_signal_to_all_processes_of_a_run_costs_no_step(photographs, tmp_path, streaming):
    more = ["--workers", "2", "--steps", "100000", "--checkpoint-every", "100000", streaming]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train_accelerate.py"), *arguments(photographs, tmp_path / "run", *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    metrics = tmp_path / "run" / "encoder" / "metrics.jsonl"
    while len(read_rows(metrics)) < 3 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "Stopped by SIGTERM after step" in told and "Traceback" not in told
    assert len(checkpoints_of(tmp_path / "run")) == 1


def test_workers_end_at_the_second_signal(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stopping.leave_signals_to_the_run(0)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_end_of_the_launcher_is_a_signal(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    launched = StopRequest()
    assert launched.signal_number == 0
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    by_hand = StopRequest()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert launched.signal_number == signal.SIGTERM
    assert by_hand.signal_number == 0


def test_a_signal_while_a_stage_ends_stops_before_the_next_one(photographs, tmp_path, monkeypatch):
    write = trainer.save_summary

    def signalled(*details):
        write(*details)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, "save_summary", signalled)
    with pytest.raises(TrainingStopped, match=r"Stopped by SIGTERM after stage encoder\. Continue with --resume"):
        train(photographs, tmp_path, "--stage", "encoder", "refiner", "--loss", "l1")
    assert (tmp_path / "encoder" / "model").is_dir() and not (tmp_path / "refiner").exists()


def test_the_fork_server_leaves_its_end_to_the_run():
    code = "import os, signal, hvq_inpaint.training.fork_server; os.kill(os.getpid(), signal.SIGTERM); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "alive"
    batches._start_method()
    assert multiprocessing.forkserver._forkserver._preload_modules[0] == "hvq_inpaint.training.fork_server"


def test_a_worker_that_is_killed_while_a_checkpoint_is_written_is_no_full_disk(photographs, tmp_path, monkeypatch):
    def killed(*_):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(Accelerator, "save_state", killed)
    with pytest.raises(InvalidInputError, match="loads data was killed"):
        train(photographs, tmp_path)


def test_a_worker_that_is_killed_is_a_sentence(photographs, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(trainer, "_of_all", killed)
    with pytest.raises(InvalidInputError, match=r"loads data was killed, .*\(pid 7\).*lower --workers"):
        train(photographs, tmp_path)


def test_a_continued_run_remembers_how_low_the_loss_was(photographs, tmp_path):
    more = ["--divergence-factor", "2", "--steps", "60"]
    train(photographs, tmp_path, *more)
    level = trainer.read_progress(tmp_path / "encoder" / "checkpoints" / "step-00000060").loss_level
    assert level.steps == 60 and 0 < level.lowest <= level.average
    shutil.rmtree(tmp_path / "encoder" / "model")
    progress = tmp_path / "encoder" / "checkpoints" / "step-00000060" / "progress.json"
    values = json.loads(progress.read_text())
    progress.write_text(json.dumps({**values, "loss_level": {**values["loss_level"], "lowest": level.average / 9}}))
    with pytest.raises(InvalidInputError, match=r"The loss of step 61 .* times its lowest"):
        train(photographs, tmp_path, *more[:2], "--steps", "70")


def test_two_runs_do_not_share_a_folder(photographs, tmp_path):
    command = arguments(photographs, tmp_path)
    (tmp_path / "encoder").mkdir()
    with FileLock(tmp_path / "encoder" / ".lock"), pytest.raises(InvalidInputError, match="Another run is writing to"):
        trainer.run(parse_options(command))
    trainer.run(parse_options(command))


def test_damaged_checkpoints_do_not_push_out_good_ones(photographs, tmp_path, capsys):
    train(photographs, tmp_path, "--keep-checkpoints", "2")
    shutil.rmtree(tmp_path / "encoder" / "model")
    checkpoints = tmp_path / "encoder" / "checkpoints"
    assert checkpoints_of(tmp_path) == ["step-00000004", "step-00000006"]
    damaged = checkpoints / "step-00000006" / "optimizer.bin"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    more = ["--keep-checkpoints", "1", "--checkpoint-every", "1", "--steps", "5"]
    train(photographs, tmp_path, *more)
    assert "step-00000006 is kept as damaged-step-00000006" in capsys.readouterr().out
    assert checkpoints_of(tmp_path) == ["step-00000005"]
    assert "step-00000005. Continue with --resume auto" in way_back(checkpoints, Progress(step=5))


def test_a_torn_config_is_a_sentence(photographs, tmp_path):
    train(photographs, tmp_path)
    shutil.rmtree(tmp_path / "encoder" / "model")
    for text in ("", "{"):
        (tmp_path / "encoder" / "config.yaml").write_text(text)
        with pytest.raises(InvalidInputError, match=r"config\.yaml is torn: delete it"):
            train(photographs, tmp_path)


def test_images_that_were_mended_count_no_more(photographs, tmp_path):
    contents = {path: path.read_bytes() for path in sorted(photographs.iterdir())[:3]}
    for path in contents:
        path.write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"images can't be used .*--unreadable-limit 0"):
        train(photographs, tmp_path, "--unreadable-limit", "0", "--streaming")
    for path, content in contents.items():
        path.write_bytes(content)
    train(photographs, tmp_path, "--unreadable-limit", "0", "--streaming")
    assert not (tmp_path / "encoder" / "unreadable.txt").exists()


def test_the_limit_leaves_a_checkpoint_from_which_nothing_is_done_twice(photographs, tmp_path):
    sorted(photographs.iterdir())[3].write_bytes(b"no image")
    # The codebooks learn in the midst of a step, from the third one on.
    more = ["--stage", "autoencoder", "--quantization-warmup", "2", "--steps", "9", "--checkpoint-every", "100"]
    limits = [["--unreadable-limit", limit] for limit in ("0", "1")]
    outputs = [tmp_path / "stopped", tmp_path / "whole"]
    for output in outputs:
        output.mkdir()
        (output / "autoencoder").mkdir()  # which keeps `arguments` from making the model of that stage
    with pytest.raises(InvalidInputError, match=r"1 images can't be used .*--unreadable-limit 0"):
        train(photographs, outputs[0], *more, *limits[0], "--seed", "2")
    [reached] = checkpoint_folders(outputs[0] / "autoencoder" / "checkpoints")
    assert trainer.read_progress(reached).step > 2
    weights = []
    for output in outputs:
        train(photographs, output, *more, *limits[1], "--seed", "2")
        weights.append(load_file(output / "autoencoder" / "model" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_torn_validation_image_is_told_as_such(photographs, tmp_path):
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    (held_out / "a.png").write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"^--validation must hold nothing but images: .*a\.png"):
        train(photographs, tmp_path / "run", "--validation", str(held_out))


def test_a_set_that_has_fewer_images_goes_on_where_it_says(photographs, tmp_path, capsys):
    train(photographs, tmp_path)
    shutil.rmtree(tmp_path / "encoder" / "model")
    for path in sorted(photographs.iterdir())[:4]:
        path.unlink()
    train(photographs, tmp_path, "--steps", "8")
    assert "has 4 images in place of 8" in capsys.readouterr().out
    # Batch 2 of the second epoch is the end of the second epoch now.
    progress = trainer.read_progress(tmp_path / "encoder" / "checkpoints" / "step-00000008")
    assert (progress.epoch, progress.batch, progress.images) == (2, 2, 4)


def test_a_checkpoint_by_its_name_is_one_of_the_first_unfinished_stage(photographs, tmp_path):
    train(photographs, tmp_path)
    with pytest.raises(InvalidInputError, match=r"All stages are done: to go on from step-00000004, remove"):
        train(photographs, tmp_path, "--resume", "step-00000004")
    shutil.rmtree(tmp_path / "encoder" / "model")
    more = ["--stage", "encoder", "refiner", "--loss", "l1", "--resume", "step-00000004"]
    train(photographs, tmp_path, *more)
    assert (tmp_path / "refiner" / "model").is_dir()


def test_a_report_that_a_kill_left_out_is_made_later(photographs, tmp_path):
    train(photographs, tmp_path)
    (tmp_path / "training_report.md").unlink()
    train(photographs, tmp_path)
    assert "Stage 2" in (tmp_path / "training_report.md").read_text()


def test_checkpoints_do_not_count_in_images_a_second(photographs, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    save = trainer.save_checkpoint

    def slow(*details):
        clock.now += 1000
        save(*details)

    def tick() -> float:
        clock.now += 0.001
        return clock.now

    monkeypatch.setattr(trainer, "save_checkpoint", slow)
    monkeypatch.setattr(time, "perf_counter", tick)
    train(photographs, tmp_path, "--checkpoint-every", "1")
    speeds = [row["images_per_second"] for row in read_rows(tmp_path / "encoder" / "metrics.jsonl")[1:]]
    assert len(speeds) == 5 and min(speeds) > 10


def test_memory_for_not_even_one_image_is_a_sentence_on_several_processes(monkeypatch):
    def exhausted(**_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    stage = torch.nn.Linear(2, 2)
    stage.forward = exhausted
    two = SimpleNamespace(num_processes=2, autocast=torch.enable_grad)
    with pytest.raises(InvalidInputError, match=r"exhausted with 1 image at a time: .*--crop-size or --preset"):
        MicroBatches(two, stage, stage, 0).fit({"image": torch.rand(4, 3, 8, 8)})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed", "-1"], "--seed must lie between"),
        (["--seed", "99999999999"], "--seed must lie between"),
        (["--mask-size", "-5"], "--mask-size must be at least 8"),
        (["--final-learning-rate", "-3"], r"--final-learning-rate must lie in \[0, 1\]"),
        (["--max-gradient-norm", "nan"], "--max-gradient-norm must be finite"),
        (["--learning-rate", "inf"], "--learning-rate must be finite"),
        (["--loss", "l3"], r"'l3' is none of .*: did you mean l1\?"),
        (["--config", str(ROOT)], "There is no file"),
    ],
)
def test_values_that_would_ruin_a_run_are_refused(more, message):
    with pytest.raises(InvalidInputError, match=message):
        parse_options(["--stage", "encoder", "--dataset", "x", "--output", "y", *more])


def test_an_output_that_can_t_be_a_folder_is_a_sentence(photographs, tmp_path):
    (tmp_path / "file").touch()
    options = parse_options(
        ["--stage", "autoencoder", "--dataset", str(photographs), "--output", f"{tmp_path}/file/run"]
    )
    with pytest.raises(InvalidInputError, match="can't be written: Not a directory"):
        trainer.run(options)


def test_columns_of_numbers_are_no_images(tmp_path):
    datasets.Dataset.from_dict({"image": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match="holds int64, not images"):
        train(tmp_path, tmp_path / "run")

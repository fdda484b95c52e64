"""A run that is stopped, killed or ruined loses nothing that was saved, and says how to go on."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_model, make_pixels
from PIL import Image
from safetensors.torch import load_file

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.training import trainer
from hvq_inpaint.training.checkpoints import checkpoint_folders, read_progress
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.log import TrainingLog
from hvq_inpaint.training.stopping import DivergenceWatch, StopRequest, TrainingStopped

ROOT = Path(__file__).parent.parent
STEPS = 17


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(10):
        Image.fromarray(make_pixels(48, 56, number)).save(folder / f"{number}.png")
    return folder


def arguments(photographs: Path, output: Path, *more: str) -> list[str]:
    """Five steps an epoch; the codebooks start at step 6 and are restarted at steps 9, 12 and 15."""
    common = (
        f"--stage autoencoder --preset tiny --steps {STEPS} --batch-size 2 --crop-size 32 --mask-size 32 --workers 0"
    )
    common += " --quantization-warmup 6 --restart-every 3 --learning-rate 3e-3 --learning-rate-warmup 3 --log-every 1"
    common += " --checkpoint-every 3 --mixed-precision no --resume"
    return ["--dataset", str(photographs), "--output", str(output), *common.split(), *more]


def train(photographs: Path, output: Path, *more: str) -> dict[str, torch.Tensor]:
    """Train from where the run stands; returns the weights."""
    trainer.run(parse_options(arguments(photographs, output, *more)))
    return load_file(output / "autoencoder" / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """The weights and the log of a run that was never stopped."""
    output = tmp_path_factory.mktemp("whole")
    return train(photographs, output), rows_of(output)


def rows_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "autoencoder" / "metrics.jsonl").read_text().splitlines()]


def checkpoints_of(output: Path) -> list[Path]:
    return checkpoint_folders(output / "autoencoder" / "checkpoints")


def assert_same(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def do_after_step(monkeypatch: pytest.MonkeyPatch, step: int, deed) -> None:
    """Call `deed` once, in the midst of the loop's step `step`."""
    log_step = TrainingLog.step

    def observed(self, done, *values):
        log_step(self, done, *values)
        if done == step:
            monkeypatch.setattr(TrainingLog, "step", log_step)
            deed()

    monkeypatch.setattr(TrainingLog, "step", observed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [7, 10])  # inside an epoch and at its end
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on_as_if_nothing_had_been(
    photographs, whole, tmp_path, monkeypatch, number, step
):
    do_after_step(monkeypatch, step - 1, lambda: os.kill(os.getpid(), number))
    with pytest.raises(
        TrainingStopped, match=rf"Stopped by {number.name} after step {step}\. .*step-0+{step}\. .*--resume"
    ):
        train(photographs, tmp_path)
    assert checkpoints_of(tmp_path)[-1].name == f"step-{step:08d}"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    weights, rows = whole
    assert_same(weights, train(photographs, tmp_path))
    assert [row["loss"] for row in rows_of(tmp_path)] == [row["loss"] for row in rows]


def test_a_second_interrupt_does_not_wait():
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def kill_at_random(photographs: Path, output: Path, random: random.Random) -> int:
    """Start the command, kill it after a random step and a random while; returns the steps that were logged."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train_accelerate.py"), *arguments(photographs, output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    metrics = output / "autoencoder" / "metrics.jsonl"
    before = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    target = random.randint(1, 5)
    while not has_ended(process, 0.02):
        logged = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        # What the last run had logged beyond its checkpoint goes first.
        if logged != before and logged >= min(before, STEPS - 8) + target - 3:
            break
    if not has_ended(process, random.uniform(0, 0.05)):
        process.send_signal(signal.SIGKILL)
    return process.wait()


def has_ended(process: subprocess.Popen, seconds: float) -> bool:
    """Whether the process ends within so many seconds."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killing_at_random_moments_ends_in_the_same_weights(photographs, whole, tmp_path, kills):
    chance = random.Random(kills)
    killed = 0
    while killed < kills and not (tmp_path / "autoencoder" / "model").is_dir():
        killed += kill_at_random(photographs, tmp_path, chance) == -signal.SIGKILL
    assert killed == kills
    assert_same(whole[0], train(photographs, tmp_path))
    assert [row["loss"] for row in rows_of(tmp_path)] == [row["loss"] for row in whole[1]]


def stop_after(photographs: Path, output: Path, monkeypatch: pytest.MonkeyPatch, step: int, *more: str) -> None:
    do_after_step(monkeypatch, step - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingStopped, match=f"after step {step}"):
        train(photographs, output, *more)


def test_a_damaged_checkpoint_is_left_out_and_said(photographs, whole, tmp_path, monkeypatch, capsys):
    stop_after(photographs, tmp_path, monkeypatch, 11, "--keep-checkpoints", "9")
    # At steps 3, 6, 9 and 11.
    *_, sixth, ninth, eleventh = checkpoints_of(tmp_path)
    (eleventh / "optimizer.bin").write_bytes((eleventh / "optimizer.bin").read_bytes()[:-100])
    (ninth / "model.safetensors").unlink()
    capsys.readouterr()
    weights = train(photographs, tmp_path, "--keep-checkpoints", "9")
    output = capsys.readouterr().out
    assert f"The checkpoint {eleventh} is left out: optimizer.bin is not what was written." in output
    assert f"The checkpoint {ninth} is left out: model.safetensors is missing." in output
    assert f"Continuing after step 6, from {sixth}." in output
    assert_same(whole[0], weights)
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(1, STEPS + 1))  # 7 to 11 are not there twice


def test_with_nothing_but_damaged_checkpoints_a_run_does_not_silently_start_anew(photographs, tmp_path, monkeypatch):
    stop_after(photographs, tmp_path, monkeypatch, 3)
    for checkpoint in checkpoints_of(tmp_path):
        (checkpoint / "progress.json").write_text("{")
    with pytest.raises(
        InvalidInputError, match=r"None of the checkpoints .* is intact \(progress\.json is missing or torn\)"
    ):
        train(photographs, tmp_path)


def test_a_run_can_go_on_from_an_older_checkpoint(photographs, whole, tmp_path, monkeypatch):
    stop_after(photographs, tmp_path, monkeypatch, 11, "--keep-checkpoints", "9")
    with pytest.raises(InvalidInputError, match="--seed"):
        train(photographs, tmp_path, "--resume", "step-00000006", "--seed", "1")
    assert checkpoints_of(tmp_path)[-1].name == "step-00000011"  # what is refused changes nothing
    stop_after(photographs, tmp_path, monkeypatch, 8, "--resume", "step-00000006")
    assert [path.name for path in checkpoints_of(tmp_path)] == ["step-00000006", "step-00000008"]
    assert (tmp_path / "autoencoder" / "checkpoints" / "abandoned-step-00000011").is_dir()
    assert_same(whole[0], train(photographs, tmp_path))
    shutil.rmtree(tmp_path / "autoencoder" / "model")
    with pytest.raises(
        InvalidInputError, match=r"no checkpoint step-00000001 .* there are: step-00000015, step-00000017\."
    ):
        train(photographs, tmp_path, "--resume", "step-00000001")


def test_a_full_disk_ends_a_run_with_a_sentence_and_leaves_no_half_checkpoint(
    photographs, whole, tmp_path, monkeypatch
):
    saved = trainer.save_checkpoint
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_a_full_disk(accelerator, folder, progress, *more):
        if progress.step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # bytes; files can't grow beyond
        try:
            saved(accelerator, folder, progress, *more)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(trainer, "save_checkpoint", on_a_full_disk)
    with pytest.raises(
        InvalidInputError, match=r"checkpoint of step 6 can't be written \(.*\): make room\. .*step-00000003\. Continue"
    ):
        train(photographs, tmp_path)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "autoencoder" / "checkpoints").iterdir()] == ["step-00000003"]
    assert_same(whole[0], train(photographs, tmp_path))


@pytest.mark.parametrize("victim", ["model", "metrics"])
def test_a_disk_that_is_full_elsewhere_is_a_sentence_too(photographs, whole, tmp_path, monkeypatch, victim):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limited = {"model": (HVQInpainter, "save_pretrained", 4096), "metrics": (TrainingLog, "_write", 1)}[victim]
    kind, name, limit = limited
    write = getattr(kind, name)

    def on_a_full_disk(*details, **more):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            return write(*details, **more)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(kind, name, on_a_full_disk)
    with pytest.raises(
        InvalidInputError, match=r"(disk is full|weights can't be written) .*[Mm]ake room\b.*[cC]ontinue"
    ):
        train(photographs, tmp_path, "--log-with", "none")
    monkeypatch.undo()
    assert not (tmp_path / "autoencoder" / "model").exists()
    assert_same(whole[0], train(photographs, tmp_path))


def test_a_signal_in_the_last_step_stops_before_the_next_stage(photographs, whole, tmp_path, monkeypatch):
    stop_after(photographs, tmp_path, monkeypatch, STEPS)
    assert checkpoints_of(tmp_path)[-1].name == f"step-{STEPS:08d}"
    assert_same(whole[0], train(photographs, tmp_path))


def test_changed_options_are_refused_or_told(photographs, tmp_path, monkeypatch, capsys):
    stop_after(photographs, tmp_path, monkeypatch, 4)
    make_model().save_pretrained(tmp_path / "model")
    for more, message in [
        (["--init", str(tmp_path / "model"), "--fine-tune"], "a run with --no-fine-tune, not --fine-tune"),
        (["--seed", "1"], "a run with --seed 0, not --seed 1: continue it with that"),
        (["--crop-size", "40"], "a run with --crop-size 32, not --crop-size 40"),
        (["--batch-size", "4"], "2 images a step .* make 4: give --batch-size 2"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            train(photographs, tmp_path, *more)
    train(photographs, tmp_path, "--learning-rate", "1e-3", "--log-every", "2")
    output = capsys.readouterr().out
    assert "Continuing with --learning-rate 0.001 in place of --learning-rate 0.003." in output
    assert "log-every" not in output


def test_the_best_on_other_images_is_forgotten(photographs, tmp_path, monkeypatch, capsys):
    values = iter([30.0, 20.0, 10.0, 15.0, 5.0])
    monkeypatch.setattr(trainer, "validate", lambda *_: {"validation/oracle_whole_psnr": next(values)})
    more = ["--validation", str(photographs), "--validation-size", "32", "--validation-every", "4"]
    stop_after(photographs, tmp_path, monkeypatch, 9, *more, "--validation-images", "2")
    assert read_progress(checkpoints_of(tmp_path)[-1]).best_step == 4
    train(photographs, tmp_path, *more, "--validation-images", "3")
    assert "Continuing with --validation-images 3 in place of --validation-images 2." in capsys.readouterr().out
    progress = read_progress(checkpoints_of(tmp_path)[-1])
    assert (progress.best_step, progress.best_value) == (16, 15.0)


@pytest.mark.parametrize(
    ("rate", "problem"), [("1e30", "is not finite"), ("0.5", r"is on average .* times its lowest")]
)
def test_a_ruined_run_stops_with_step_batch_and_last_good_checkpoint(photographs, tmp_path, monkeypatch, rate, problem):
    monkeypatch.setattr(trainer, "DivergenceWatch", lambda *how: DivergenceWatch(*how, window=3))
    more = [
        "--learning-rate",
        rate,
        "--learning-rate-warmup",
        "9",
        "--max-gradient-norm",
        "0",
        "--quantization-warmup",
        "16",
    ]
    with pytest.raises(
        InvalidInputError,
        match=rf"The loss of step \d+ \(epoch \d, batch \d: \S+\.png, \S+\.png\) .*{problem}.* Continue with --resume",
    ):
        train(photographs, tmp_path, *more, "--divergence-factor", "3", "--checkpoint-every", "1")
    assert not (tmp_path / "autoencoder" / "model").exists()
    for weights in (load_file(path / "model.safetensors") for path in checkpoints_of(tmp_path)):
        assert all(tensor.isfinite().all() for tensor in weights.values())


def test_the_checkpoint_from_before_a_rise_is_kept_and_named(photographs, tmp_path, monkeypatch):
    losses = iter([5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 99.0])

    class Scripted(DivergenceWatch):
        def problem(self, loss, gradient_norm):
            return super().problem(next(losses), gradient_norm)

    monkeypatch.setattr(trainer, "DivergenceWatch", lambda *how: Scripted(*how, window=2))
    more = ["--quantization-warmup", "16", "--checkpoint-every", "1"]
    with pytest.raises(InvalidInputError, match=r"step 12 .* on average") as raised:
        train(photographs, tmp_path, *more)
    # The mean of two was lowest after step 6, or a little after it, as it is a moving one.
    before, *newest = checkpoints_of(tmp_path)
    assert before.name == "step-00000007" and [path.name for path in newest] == ["step-00000010", "step-00000011"]
    told = f"The last good checkpoint, from before the loss rose, is {before}. Continue with --resume {before.name} and"
    assert told in str(raised.value)
    monkeypatch.undo()
    train(photographs, tmp_path, "--resume", before.name, *more)


def test_divergence_is_judged_by_the_mean_and_anew_for_another_loss():
    watch = DivergenceWatch(factor=2, window=4)
    assert [watch.problem(loss, 1.0) for loss in (9, 1, 1, 1, 1, 1, 3, 1, 1)] == [None] * 9
    problems = [watch.problem(10.0, 1.0) for _ in range(3)]
    assert problems[-1] and "times its lowest" in problems[-1]
    watch.restart()
    assert [watch.problem(10.0, 1.0) for _ in range(9)] == [None] * 9
    assert watch.problem(float("nan"), 1.0) == "is not finite"
    watch = DivergenceWatch(factor=2, skipped=2)
    infinite = float("inf")
    assert [watch.problem(1.0, norm) for norm in (infinite, infinite, 1.0, infinite, infinite)] == [None] * 5
    assert watch.problem(1.0, infinite) == "has a gradient that is not finite, as those of the 2 steps before it"
    never = DivergenceWatch(factor=0, window=2)
    assert [never.problem(10.0**power, 1.0) for power in range(9)] == [None] * 9


def test_a_loss_that_rises_because_it_is_another_one_stops_nothing(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "DivergenceWatch", lambda *how: DivergenceWatch(*how, window=2))
    train(photographs, tmp_path, "--divergence-factor", "2")
    losses = [row["loss"] for row in rows_of(tmp_path)]
    assert losses[5] + losses[6] > 2 * (losses[4] + losses[5])  # where the codebooks start


def test_the_best_checkpoint_is_kept_beside_the_newest(photographs, tmp_path, monkeypatch):
    values = iter([20.0, 30.0, 25.0, 22.0, 21.0, 20.0, 10.0])
    monkeypatch.setattr(trainer, "validate", lambda *_: {"validation/oracle_whole_psnr": next(values)})
    more = [
        "--validation",
        str(photographs),
        "--validation-size",
        "32",
        "--validation-every",
        "2",
        "--checkpoint-every",
        "5",
    ]
    stop_after(photographs, tmp_path, monkeypatch, 13, *more, "--keep-checkpoints", "1")
    assert [path.name for path in checkpoints_of(tmp_path)] == ["step-00000004", "step-00000013"]
    progress = json.loads((checkpoints_of(tmp_path)[-1] / "progress.json").read_text())
    assert (progress["best_step"], progress["best_value"]) == (4, 30.0)
    train(
        photographs,
        tmp_path,
        *more[:4],
        "--validation-every",
        "100",
        "--checkpoint-every",
        "5",
        "--keep-checkpoints",
        "1",
    )
    assert [path.name for path in checkpoints_of(tmp_path)] == ["step-00000004", "step-00000017"]


def test_no_weights_are_pickled(photographs, tmp_path, monkeypatch):
    stop_after(photographs, tmp_path, monkeypatch, 4, "--ema-decay", "0.9")
    checkpoint = checkpoints_of(tmp_path)[-1]
    assert {path.name for path in checkpoint.iterdir() if path.suffix in (".pkl", ".bin", ".pt")} == {
        "optimizer.bin",
        "custom_checkpoint_0.pkl",
        "random_states_0.pkl",
    }
    schedule = torch.load(checkpoint / "custom_checkpoint_0.pkl", weights_only=True)
    assert "last_epoch" in schedule and not any(isinstance(value, torch.Tensor) for value in schedule.values())
    assert (checkpoint / "average.safetensors").is_file()

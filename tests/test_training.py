"""Each stage learns, trains its own part only, survives a kill; bad options are told before anything starts."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import random_alexnet
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hvq_inpaint import HVQConfig, HVQInpainter, InvalidInputError
from hvq_inpaint.metrics import LPIPS
from hvq_inpaint.training import trainer
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.stages import EncoderStage, RefinerStage
from hvq_inpaint.training.validation import validate

ROOT = Path(__file__).parent.parent


def arguments(folder: Path, output: Path, *more: str) -> list[str]:
    common = "--preset tiny --batch-size 4 --crop-size 32 --mask-size 32 --workers 0 --quantization-warmup 6"
    common += " --restart-every 5 --learning-rate 3e-3 --learning-rate-warmup 3 --log-every 1 --mixed-precision no"
    return ["--dataset", str(folder), "--output", str(output), *common.split(), *more]


def losses_of(output: Path, stage: str) -> list[float]:
    rows = [json.loads(line) for line in (output / stage / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All three stages of 30 steps, in one command."""
    from conftest import make_pixels
    from PIL import Image

    folder, output = tmp_path_factory.mktemp("photographs"), tmp_path_factory.mktemp("run")
    for number in range(8):
        Image.fromarray(make_pixels(48, 56, number)).save(folder / f"{number}.png")
    more = [
        "--stage",
        "all",
        "--steps",
        "30",
        "--validation",
        str(folder),
        "--validation-images",
        "4",
        "--validation-size",
        "32",
        "--validation-every",
        "15",
    ]
    trainer.run(parse_options(arguments(folder, output, *more)))
    return folder, output


@pytest.mark.parametrize("stage", ["autoencoder", "encoder", "refiner"])
def test_thirty_steps_lower_the_loss(trained, stage):
    losses = losses_of(trained[1], stage)
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.8 * sum(losses[:3]) / 3 * 5


def test_each_stage_changes_its_own_part_only(trained):
    _, output = trained
    states = [
        load_file(output / stage / "model" / "model.safetensors") for stage in ("autoencoder", "encoder", "refiner")
    ]

    def changed(before, after):
        return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}

    assert changed(states[0], states[1]) == {"encoder_b1"}
    assert changed(states[1], states[2]) == {"refiner"}


def test_the_credibility_map_is_calibrated(trained):
    model = HVQInpainter.from_pretrained(trained[1] / "refiner" / "model")
    quantiles = model.credibility_map.quantiles
    assert quantiles[-1] > 0 and (quantiles.diff() >= 0).all()


def test_a_run_leaves_what_one_needs_to_follow_it(trained):
    _, output = trained
    rows = [json.loads(line) for line in (output / "autoencoder" / "metrics.jsonl").read_text().splitlines()]
    names = set().union(*rows)
    assert {
        "codebook/global_usage",
        "codebook/local_perplexity",
        "codebook/global_restarts",
        "images_per_second",
        "gradient_norm",
    } <= names
    assert {f"validation/{name}_psnr" for name in ("oracle", "coarse", "blended", "refined")} <= names
    assert "credibility/low_share" in (output / "encoder" / "metrics.jsonl").read_text()
    assert len(list((output / "refiner" / "samples").glob("*.png"))) == 2
    assert list((output / "refiner" / "logs").rglob("events.out.tfevents*"))


def test_validation_changes_nothing(model):
    model.set_training_stage("autoencoder")
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    samples = [{"image": torch.rand(3, 32, 32), "known": (torch.rand(1, 32, 32) > 0.5).float()} for _ in range(3)]
    validate(model, samples, torch.device("cpu"))
    assert model.vqvae.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("stage", "special", "killed_at_checkpoint", "ends_with"),
    [
        ("autoencoder", [], 2, "autoencoder"),
        ("autoencoder", ["--streaming"], 2, "autoencoder"),
        ("refiner", [], 2, "refiner"),
        ("autoencoder", ["--ema-decay", "0.8"], 2, "autoencoder"),
        ("all", [], 7, "refiner"),  # in the second stage
    ],
)
def test_a_killed_run_ends_in_the_same_weights(
    trained, tmp_path, monkeypatch, stage, special, killed_at_checkpoint, ends_with
):
    folder, output = trained
    # Four steps an epoch: checkpoints fall inside an epoch and at its end.
    more = ["--stage", stage, "--steps", "13", "--batch-size", "2", "--checkpoint-every", "3", *special]
    if stage == "refiner":
        more += ["--init", str(output / "encoder" / "model")]
    trainer.run(parse_options(arguments(folder, tmp_path / "whole", *more)))

    saved = trainer.save_checkpoint
    calls = []

    def killed(accelerator, checkpoints, *details):
        saved(accelerator, checkpoints, *details)
        calls.append(checkpoints)
        if len(calls) == killed_at_checkpoint:
            (checkpoints / "partial-00000012").mkdir()  # what a kill while saving leaves
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(parse_options(arguments(folder, tmp_path / "killed", *more)))
    monkeypatch.undo()
    trainer.run(parse_options(arguments(folder, tmp_path / "killed", *more, "--resume")))

    runs = [tmp_path / run / ends_with for run in ("whole", "killed")]
    whole, resumed = (load_file(run / "model" / "model.safetensors") for run in runs)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    left = sorted(path.name for path in calls[-1].iterdir())
    assert left == ["step-00000012", "step-00000013"]


@pytest.fixture
def another_precision():
    """Accelerate keeps the precision of a process; forget it before and after the test."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.parametrize("stage", ["autoencoder", "encoder", "refiner"])
def test_bfloat16_trains_every_stage(trained, tmp_path, another_precision, stage):
    more = ["--stage", stage, "--steps", "8", "--mixed-precision", "bf16"]
    if stage != "autoencoder":
        more += ["--init", str(trained[1] / "encoder" / "model")]
    trainer.run(parse_options(arguments(trained[0], tmp_path, *more)))
    losses = losses_of(tmp_path, stage)
    assert len(losses) == 8 and all(math.isfinite(loss) for loss in losses)
    state = load_file(tmp_path / stage / "model" / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


@pytest.mark.parametrize("stage", ["autoencoder", "encoder", "refiner"])
def test_compiled_networks_learn_the_same(trained, tmp_path, monkeypatch, stage):
    # Traced and differentiated as ever, but not made into machine code, which takes a minute for each stage.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    weights = []
    for more in ([], ["--compile"]):
        output = tmp_path / f"{len(more)}"
        if stage != "autoencoder":
            before = {"encoder": "autoencoder", "refiner": "encoder"}[stage]
            shutil.copytree(trained[1] / before / "model", output / before / "model")
        trainer.run(parse_options(arguments(trained[0], output, "--stage", stage, "--steps", "8", *more)))
        weights.append(load_file(output / stage / "model" / "model.safetensors"))
    plain, compiled = weights
    assert plain.keys() == compiled.keys()
    for name in plain:
        assert torch.allclose(plain[name], compiled[name], atol=2e-3), name


def test_tensorboard_has_values_and_pictures(trained):
    folder = trained[1] / "autoencoder" / "logs" / "hvq-inpaint"
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    assert {"loss", "gradient_norm", "codebook/global_usage", "validation/coarse_psnr"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 31))
    assert [event.step for event in events.Images(tags["images"][0])] == [15, 30]


def test_a_report_of_all_stages_is_left(trained):
    text = (trained[1] / "training_report.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("### Stage")] == [
        "### Stage 1: the hierarchical VQ-VAE on intact images",
        "### Stage 2: EncoderB1 with vector credibility",
        "### Stage 3: the multi-dilation refiner",
    ]
    linked = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(linked) == 6 and all((trained[1] / path).is_file() for path in linked)


def test_streaming_trains_too(trained, tmp_path):
    trainer.run(parse_options(arguments(trained[0], tmp_path, "--stage", "autoencoder", "--steps", "8", "--streaming")))
    assert (tmp_path / "autoencoder" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stage", "encoder", "--steps", "1"], "train --stage autoencoder first"),
        (["--stage", "autoencoder", "--steps", "9", "--batch-size", "64"], "fewer than one step's 64"),
        (
            ["--stage", "refiner", "--steps", "1", "--loss", "paper", "--vgg-weights", "nowhere.safetensors"],
            "nowhere.safetensors",
        ),
        (["--stage", "all", "--steps", "9", "10"], "one for each of the 3 stages"),
        (["--stage", "autoencoder", "--steps", "6"], "leaves none of the 6 steps to the codebooks"),
        (
            ["--stage", "autoencoder", "--steps", "9", "--validation-size", "100"],
            "--validation-size must be a multiple",
        ),
        (["--stage", "all", "--steps", "9", "--credibility-quantile", "0"], "--credibility-quantile"),
        (["--stage", "all", "--steps", "9", "--checkpoint-every", "0"], "--checkpoint-every must be at least 1"),
        (["--stage", "all", "--steps", "9", "--ema-decay", "1"], "--ema-decay"),
        (["--stage", "all", "--steps", "9", "--coarse-weight", "nan"], "--coarse-weight must be at least 0"),
        (["--stage", "refiner", "--steps", "1", "--loss", "lpips"], "--crop-size must be at least 40"),
    ],
)
def test_a_run_that_cannot_start_says_so_and_writes_nothing(trained, tmp_path, more, message):
    with pytest.raises(InvalidInputError, match=message):
        trainer.run(parse_options(arguments(trained[0], tmp_path / "run", *more)))
    assert not (tmp_path / "run").exists()


def test_a_model_of_another_preset_is_refused(trained, tmp_path):
    HVQInpainter(HVQConfig.from_dict({**HVQConfig.preset("tiny").to_dict(), "num_codes": 8})).save_pretrained(
        tmp_path / "other"
    )
    with pytest.raises(InvalidInputError, match="another configuration than preset tiny"):
        trainer.run(
            parse_options(
                arguments(
                    trained[0],
                    tmp_path / "run",
                    "--stage",
                    "encoder",
                    "--steps",
                    "1",
                    "--init",
                    str(tmp_path / "other"),
                )
            )
        )


def test_a_second_run_in_the_same_folder_needs_resume_and_the_same_preset(trained, tmp_path):
    more = ["--stage", "autoencoder", "--steps", "8"]
    trainer.run(parse_options(arguments(trained[0], tmp_path, *more)))
    with pytest.raises(InvalidInputError, match="--resume"):
        trainer.run(parse_options(arguments(trained[0], tmp_path, *more)))
    shutil.rmtree(tmp_path / "autoencoder" / "model")
    with pytest.raises(InvalidInputError, match="a run with --preset tiny, not --preset small"):
        trainer.run(parse_options(arguments(trained[0], tmp_path, *more, "--resume", "--preset", "small")))


def test_init_is_for_the_first_stage_only(trained):
    options = parse_options(arguments(*trained, "--stage", "all", "--steps", "9", "--init", "user/model"))
    assert [stage.init for stage in options] == ["user/model", None, None]


def test_saved_is_the_moving_average_with_codebooks_as_they_are(trained, tmp_path, monkeypatch):
    common = ["--stage", "autoencoder", "--steps", "9", "--checkpoint-every", "1", "--keep-checkpoints", "9"]
    trainer.run(parse_options(arguments(trained[0], tmp_path / "plain", *common)))
    trainer.run(parse_options(arguments(trained[0], tmp_path / "averaged", *common, "--ema-decay", "0.7")))
    checkpoints = sorted((tmp_path / "plain" / "autoencoder" / "checkpoints").iterdir())
    weights = [load_file(folder / "model.safetensors") for folder in checkpoints]
    last = load_file(tmp_path / "plain" / "autoencoder" / "model" / "model.safetensors")
    saved = load_file(tmp_path / "averaged" / "autoencoder" / "model" / "model.safetensors")
    for name in ("vqvae.encoder_a1.to_mid.0.weight", "vqvae.encoder_a1.to_mid.2.bias"):
        expected = weights[0][f"model.{name}"]
        for step in (state[f"model.{name}"] for state in weights[1:]):
            expected = 0.7 * expected + 0.3 * step
        assert torch.allclose(saved[name], expected, atol=1e-6)
        assert not torch.allclose(saved[name], last[name], atol=1e-6)
    for level in ("global", "local"):
        for buffer in ("codebook", "counts", "sums"):
            name = f"vqvae.{level}_quantizer.{buffer}"
            assert torch.equal(saved[name], last[name])


def test_lpips_trains_the_refiner_and_looks_at_other_pixels_in_each_step(trained, tmp_path, monkeypatch):
    save_file(random_alexnet(), tmp_path / "alexnet.safetensors")
    sizes = []
    distance = LPIPS.forward

    def observed(self, output, target):
        sizes.append(tuple(output.shape[-2:]))
        return distance(self, output, target)

    monkeypatch.setattr(LPIPS, "forward", observed)
    more = ["--stage", "refiner", "--steps", "17", "--init", str(trained[1] / "encoder" / "model"), "--loss", "lpips"]
    more += ["--lpips-weights", str(tmp_path / "alexnet.safetensors"), "--crop-size", "48", "--mask-size", "48"]
    trainer.run(parse_options(arguments(trained[0], tmp_path / "run", *more)))
    rows = [json.loads(line) for line in (tmp_path / "run" / "refiner" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["loss/lpips"] < 10 for row in rows)
    assert sizes == [(48 - step % 4, 48 - step // 4 % 4) for step in range(17)]
    state = load_file(tmp_path / "run" / "refiner" / "model" / "model.safetensors")
    assert not any("lpips" in name for name in state)


def test_a_run_without_an_average_is_not_continued_with_one(trained, tmp_path):
    more = ["--stage", "autoencoder", "--steps", "8"]
    trainer.run(parse_options(arguments(trained[0], tmp_path, *more)))
    shutil.rmtree(tmp_path / "autoencoder" / "model")
    with pytest.raises(InvalidInputError, match=r"with --ema-decay 0\.0"):
        trainer.run(parse_options(arguments(trained[0], tmp_path, *more, "--resume", "--ema-decay", "0.9")))


def test_the_command_reports_an_error_in_one_line(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "train_accelerate.py"),
        "--stage",
        "autoencoder",
        "--dataset",
        str(tmp_path / "none"),
        "--output",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: There is no dataset at")
    assert not (tmp_path / "run").exists()


def test_fine_tuning_goes_on_with_the_encoder_of_init(trained, tmp_path):
    init = trained[1] / "encoder" / "model"
    starts = {}
    for name, more in (("anew", []), ("fine-tuned", ["--fine-tune"])):
        common = ["--stage", "encoder", "--steps", "1", "--learning-rate", "1e-9", "--init", str(init)]
        trainer.run(parse_options(arguments(trained[0], tmp_path / name, *common, *more)))
        starts[name] = load_file(tmp_path / name / "encoder" / "model" / "model.safetensors")
    before = load_file(init / "model.safetensors")
    encoder = [name for name in before if name.startswith("encoder_b1")]
    assert all(torch.allclose(starts["fine-tuned"][name], before[name], atol=1e-6) for name in encoder)
    assert not all(torch.allclose(starts["anew"][name], before[name], atol=1e-6) for name in encoder)
    with pytest.raises(InvalidInputError, match="--init"):
        parse_options(arguments(trained[0], tmp_path, "--stage", "encoder", "--fine-tune"))


def test_the_coarse_picture_trains_the_encoder_alone(trained, tmp_path):
    init = trained[1] / "encoder" / "model"
    more = ["--stage", "encoder", "--steps", "12", "--init", str(init), "--coarse-weight", "5"]
    trainer.run(parse_options(arguments(trained[0], tmp_path, *more)))
    rows = [json.loads(line) for line in (tmp_path / "encoder" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["loss"] == pytest.approx(
            row["loss/mid"] + row["loss/credibility"] + 5 * row["loss/coarse"], rel=1e-5
        )
    before, after = (
        load_file(init / "model.safetensors"),
        load_file(tmp_path / "encoder" / "model" / "model.safetensors"),
    )
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"encoder_b1"}


def test_the_coarse_picture_of_training_is_that_of_inference(model):
    options = parse_options(["--stage", "encoder", "--dataset", "x", "--output", "x", "--coarse-weight", "1"])[0]
    stage = EncoderStage(model, options).train()
    image, known = torch.rand(2, 3, 32, 32), (torch.rand(2, 1, 32, 32) > 0.3).float()
    loss, logs = stage(image, known)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.encoder_b1.parameters())
    output = model.eval()(image * known, known)
    with torch.no_grad():
        coarse = model.vqvae.decoder_a(output.global_quantized, output.local_quantized)
    expected = ((coarse - image).abs() * (known + 6 * (1 - known))).mean()
    assert logs["loss/coarse"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_local_codes_that_are_learned_are_those_of_the_intact_image(model):
    """The cross-entropy of the one cell that misses a pixel, written out."""
    options = parse_options(["--stage", "encoder", "--dataset", "x", "--output", "x", "--code-weight", "2"])[0]
    stage = EncoderStage(model, options).train()
    image = torch.rand(2, 3, 32, 32)
    stage.start(image)
    known = torch.ones(2, 1, 32, 32)
    known[:, :, 13, 14] = 0
    loss, logs = stage(image, known)
    loss.backward()
    assert loss.item() == pytest.approx(
        sum(logs[f"loss/{name}"] * weight for name, weight in (("mid", 1), ("credibility", 1), ("codes", 2))).item(),
        rel=1e-5,
    )
    output, vqvae = model.vqvae.eval()(image), model.vqvae
    with torch.no_grad():
        mid, latents = model.encoder_b1(image * known, known)
        local = vqvae.encoder_a2(vqvae.global_quantizer.quantize(latents)[0], mid)[:, :, 3, 3]
        squared = torch.cdist(local, vqvae.local_quantizer.codebook).square()
        scale = (output.local_latents - output.local_quantized).square().sum(dim=1).mean()
        expected = torch.nn.functional.cross_entropy(-squared / scale, output.local_codes[:, 3, 3])
    assert logs["loss/codes"].item() == pytest.approx(expected.item(), rel=1e-3)
    assert model.encoder_b1.convolutions.to_mid[0].weight.grad.abs().sum() > 0


def test_features_are_taken_of_a_window_that_moves_and_is_the_same_again(model):
    more = ["--stage", "refiner", "--dataset", "x", "--output", "x", "--loss", "unit_features"]
    options = parse_options([*more, "--crop-size", "64", "--feature-window", "32"])[0]
    image, known = torch.rand(2, 3, 64, 64), (torch.rand(2, 1, 64, 64) > 0.3).float()
    seen = []

    def features(pixels):
        seen.append(pixels.detach().clone())
        return [pixels]

    def windows(steps):
        stage = RefinerStage(model, options, features).train()
        for step in steps:
            seen.clear()
            stage.before_step(step, {"image": image, "known": known})
            stage(image, known)
            of_output, of_target = seen
            assert of_output.shape == of_target.shape == (2, 3, 32, 32)
            matches = (
                (image.unfold(2, 32, 1).unfold(3, 32, 1) == of_target[:, :, None, None]).all(-1).all(-1).all(1).all(0)
            )
            yield matches.nonzero().tolist()[0]

    first = list(windows(range(8)))
    assert len({tuple(corner) for corner in first}) > 4
    assert list(windows(range(5, 8))) == first[5:]
    for size in ("8", "65"):
        with pytest.raises(InvalidInputError, match="feature-window"):
            parse_options([*more, "--crop-size", "64", "--feature-window", size])


def test_a_model_is_trained_on_in_all_its_parts_with_the_sizes_it_has(trained, tmp_path):
    init, output = trained[1] / "refiner" / "model", tmp_path / "run"
    more = arguments(trained[0], output, "--stage", "all", "--init", str(init), "--fine-tune", "--steps", "2")
    preset = more.index("--preset")
    trainer.run(parse_options([*more[:preset], *more[preset + 2 :], "--learning-rate", "1e-9"]))
    before = load_file(init / "model.safetensors")
    after = load_file(output / "refiner" / "model" / "model.safetensors")
    # Nothing began anew, neither the codebooks, which move at the pace of Eq. (3), nor EncoderB1.
    for name in before:
        if not name.endswith(("counts", "sums", "quantiles")):
            assert torch.allclose(before[name], after[name], atol=0.05), name
    codebook = "vqvae.global_quantizer.codebook"
    assert not torch.equal(before[codebook], after[codebook])


def test_stages_are_trained_in_their_order(trained, tmp_path):
    for more in (["refiner", "encoder"], ["all", "encoder"], ["encoder", "encoder"]):
        with pytest.raises(InvalidInputError, match="in the order autoencoder, encoder, refiner"):
            parse_options(arguments(trained[0], tmp_path, "--stage", *more))
    options = parse_options(arguments(trained[0], tmp_path, "--stage", "encoder", "refiner", "--steps", "7", "9"))
    assert [(stage.stage, stage.steps) for stage in options] == [("encoder", 7), ("refiner", 9)]


def test_fp16_without_a_gpu_is_refused(trained, tmp_path, another_precision):
    with pytest.raises(InvalidInputError, match="fp16 needs a GPU"):
        trainer.run(
            parse_options(arguments(trained[0], tmp_path, "--stage", "autoencoder", "--mixed-precision", "fp16"))
        )

"""fp16 with its gradient scaler: on a processor here, where Accelerate has none of it, and PyTorch all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from conftest import make_model
from safetensors.torch import load_file

from hvq_inpaint.training import trainer
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.log import read_rows
from hvq_inpaint.training.options import TrainingOptions
from hvq_inpaint.training.stopping import TrainingStopped


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Accelerate keeps the precision for the process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def options_of(images: Path, output: Path, stage: str) -> TrainingOptions:
    common = "--preset tiny --batch-size 2 --crop-size 32 --mask-size 32 --workers 0 --log-every 1 --steps 8"
    common += " --quantization-warmup 3 --learning-rate 1e-3 --learning-rate-warmup 2 --checkpoint-every 50"
    common += " --mixed-precision no --log-with none --resume"
    [options] = parse_options(["--stage", stage, "--dataset", str(images), "--output", str(output), *common.split()])
    return options


def in_fp16(options: TrainingOptions) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = trainer.make_accelerator(options)
    accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)  # too large: the first steps are skipped
    return accelerator


@pytest.mark.parametrize("stage", ["autoencoder", "encoder", "refiner"])
def test_every_stage_learns_in_fp16(image_folder, tmp_path, stage):
    options = options_of(image_folder, tmp_path, stage)
    accelerator = in_fp16(options)
    trainer.train_stage(accelerator, options, model=make_model())
    rows = read_rows(tmp_path / stage / "metrics.jsonl")
    skipped = [row["step"] for row in rows if "scaler/skipped_steps" in row]
    assert skipped and skipped[0] == 1 and len(skipped) < len(rows) == 8
    assert [row["step"] for row in rows if "gradient_norm" not in row] == skipped
    assert accelerator.scaler.get_scale() == 2.0 ** (20 - len(skipped))
    assert f"scaler/skipped_steps: {len(skipped)} in all." in (tmp_path / "training_report.md").read_text()
    fresh, weights = make_model().state_dict(), load_file(tmp_path / stage / "model" / "model.safetensors")
    assert any(not torch.equal(tensor, fresh[name]) for name, tensor in weights.items())


def test_a_run_goes_on_with_the_scale_that_it_had(image_folder, tmp_path):
    weights = []
    for name in ("whole", "stopped"):
        options = options_of(image_folder, tmp_path / name, "autoencoder")
        if name == "stopped":
            request = SimpleNamespace(signal_number=15)
            with pytest.raises(TrainingStopped, match="after step 1"):
                trainer.train_stage(in_fp16(options), options, model=make_model(), request=request)
        trainer.train_stage(in_fp16(options), options, model=make_model())
        weights.append(load_file(tmp_path / name / "autoencoder" / "model" / "model.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())

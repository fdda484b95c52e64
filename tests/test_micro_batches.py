"""A batch in parts gives what the batch gives, and memory that runs out makes the parts smaller."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from conftest import make_model

from hvq_inpaint import InvalidInputError
from hvq_inpaint.losses import code_loss
from hvq_inpaint.training import stages
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.micro_batches import MicroBatches
from hvq_inpaint.training.stages import AutoencoderStage, EncoderStage, RefinerStage, TrainingStage

STAGES = {"autoencoder": AutoencoderStage, "encoder": EncoderStage, "refiner": RefinerStage}


def make_stage(name: str) -> TrainingStage:
    options = parse_options(["--stage", name, "--dataset", "x", "--output", "x", "--crop-size", "32"])[0]
    stage = STAGES[name](make_model(), options).train()
    stage.before_step(600, {"image": torch.rand(1, 3, 32, 32), "known": torch.ones(1, 1, 32, 32)})  # beyond the warm-up
    return stage


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {"image": torch.rand(6, 3, 32, 32), "known": (torch.rand(6, 1, 32, 32) > 0.3).float()}


def run(
    stage: TrainingStage, batch: dict[str, torch.Tensor], size: int
) -> tuple[dict[str, torch.Tensor], MicroBatches]:
    """Gradients, state, loss and values of one batch."""
    micro_batches = MicroBatches(Accelerator(), stage, stage, size)
    loss, values = micro_batches.backward(batch, stage.zero_grad)
    gradients = {name: parameter.grad for name, parameter in stage.named_parameters() if parameter.grad is not None}
    return {**gradients, **stage.model.state_dict(), **values, "loss": loss}, micro_batches


@pytest.mark.parametrize("size", [4, 1])  # 4 + 2, and each image alone
@pytest.mark.parametrize("name", ["autoencoder", "refiner"])
def test_parts_give_the_gradient_and_the_codebook_of_the_whole(name, size, batch):
    whole, _ = run(make_stage(name), batch, 0)
    parts, _ = run(make_stage(name), batch, size)
    assert whole.keys() == parts.keys() and "loss" in whole
    for key in whole:
        assert torch.allclose(whole[key], parts[key], atol=1e-6, rtol=1e-4), key


def test_the_threshold_of_credibility_is_that_of_each_part(batch):
    stage = make_stage("encoder")
    halves = [{key: tensor[at : at + 3] for key, tensor in batch.items()} for at in (0, 3)]
    expected = [stage(**half)[1] for half in halves]
    parts, _ = run(make_stage("encoder"), batch, 3)
    for key in ("credibility/max_dist", "credibility/low_share", "loss/mid"):
        assert parts[key].item() == pytest.approx(sum(values[key].item() for values in expected) / 2, rel=1e-5)


def run_out_of_memory_above(limit: int, monkeypatch: pytest.MonkeyPatch, kind: type[TrainingStage]) -> list[int]:
    """Let `kind` fail with more than `limit` images, after its work; returns how many it was given."""
    forward, given = kind.forward, []

    def short(self, image, known):
        given.append(len(image))
        results = forward(self, image, known)
        if len(image) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return results

    monkeypatch.setattr(kind, "forward", short)
    return given


def test_exhausted_memory_makes_the_parts_smaller_and_nothing_else(batch, monkeypatch, capsys):
    expected, _ = run(make_stage("autoencoder"), batch, 1)
    given = run_out_of_memory_above(1, monkeypatch, AutoencoderStage)
    parts, micro_batches = run(make_stage("autoencoder"), batch, 0)
    assert given == [6, 3, *[1] * 6]
    assert all(torch.equal(parts[key], expected[key]) for key in expected)
    assert "micro-batches of 1 from here on, of the 6 images of a step" in capsys.readouterr().out
    given.clear()
    micro_batches.backward(batch, lambda: None)
    assert given == [1] * 6  # it stays so


def test_what_was_added_before_the_memory_ran_out_does_not_count_twice(batch, monkeypatch):
    expected, _ = run(make_stage("autoencoder"), batch, 2)
    forward, given = AutoencoderStage.forward, []

    def short_once(self, image, known):
        given.append(len(image))
        if len(given) == 2:  # the first part's gradient is there
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, image, known)

    monkeypatch.setattr(AutoencoderStage, "forward", short_once)
    parts, _ = run(make_stage("autoencoder"), batch, 4)
    assert given == [4, 2, 2, 2, 2]
    assert all(torch.equal(parts[key], expected[key]) for key in expected)


def test_one_image_that_does_not_fit_is_a_sentence(batch, monkeypatch):
    run_out_of_memory_above(0, monkeypatch, RefinerStage)
    with pytest.raises(InvalidInputError, match=r"exhausted with 1 images at a time: .* a smaller --crop-size"):
        run(make_stage("refiner"), batch, 0)


def test_with_several_processes_the_first_step_s_other_memory_is_tried_too(batch, monkeypatch):
    stage, made = make_stage("encoder"), []
    empty_like = torch.empty_like

    def noted(tensor, **how):
        if any(tensor is part for part in stage.parameters()):
            made.append(tensor.numel())
            if len(made) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return empty_like(tensor, **how)

    monkeypatch.setattr(torch, "empty_like", noted)
    two = SimpleNamespace(
        num_processes=2, device=torch.device("cpu"), autocast=nullcontext, gather=lambda found: found, print=print
    )
    micro_batches = MicroBatches(two, stage, stage, 0)
    micro_batches.fit(batch)
    assert micro_batches.size == 3  # of 6
    trained = [part.numel() for part in stage.parameters() if part.requires_grad]
    assert sum(made) - made[0] == 3 * sum(trained)


def test_other_errors_pass(batch, monkeypatch):
    def broken(self, image, known):
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(RefinerStage, "forward", broken)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        run(make_stage("refiner"), batch, 0)


def test_the_codes_loss_is_a_mean_over_the_missing_cells_of_the_whole_batch(monkeypatch):
    arguments = "--stage encoder --dataset x --output x --crop-size 32 --code-weight 1"
    stage = EncoderStage(make_model(), parse_options(arguments.split())[0]).train()
    known = torch.ones(2, 1, 32, 32)
    known[0, :, :16, :16] = 0
    known[1, :, :4, :4] = 0  # 16 and 1 of 64 cells
    given = []

    def observed(*details):
        given.append(details[-1])
        return code_loss(*details)

    monkeypatch.setattr(stages, "code_loss", observed)
    batch = {"image": torch.rand(2, 3, 32, 32), "known": known}
    stage.before_step(0, batch)
    MicroBatches(Accelerator(), stage, stage, 1).backward(batch, stage.zero_grad)
    assert [float(share) for share in given] == [17 / 128] * 2

"""Two processes over gloo give what one process gives for the same global batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import make_model
from pytest import MonkeyPatch

from hvq_inpaint.credibility import CredibilityMap, credibility_weights
from hvq_inpaint.distributed import all_gather_rows, all_reduce_mean, apart
from hvq_inpaint.losses import code_loss
from hvq_inpaint.quantizer import EMAQuantizer
from hvq_inpaint.training import stages
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.stages import AutoencoderStage, EncoderStage

PROCESSES = 2


def make_quantizer() -> EMAQuantizer:
    torch.manual_seed(0)
    return EMAQuantizer(num_codes=24, dim=4).train()


def make_latents() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 4, 8, 8, generator=generator), 1.5 * torch.randn(4, 4, 8, 8, generator=generator)


def compute(quantizer: EMAQuantizer, clean: torch.Tensor, damaged: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything that belongs to the global batch, from this process's part of it."""
    results = {}
    quantizer.start_from(clean, torch.Generator().manual_seed(2))
    results["started"] = quantizer.codebook.clone()
    quantizer.load_state_dict(make_quantizer().state_dict())
    for _ in range(3):
        quantizer(clean)
    results.update({name: tensor.clone() for name, tensor in quantizer.state_dict().items()})
    results["weights"], results["max_dist"] = credibility_weights(clean, damaged, quantizer.codebook, quantile=0.95)
    _, results["paper_max_dist"] = credibility_weights(clean, damaged, quantizer.codebook)
    quantizer.load_state_dict(make_quantizer().state_dict())
    with quantizer.one_batch():
        for part in clean.split(1):
            quantizer(part)
    results["of_parts"], results["batch_counts"] = quantizer.codebook.clone(), quantizer.batch_counts.clone()
    with apart():
        results["own_rows"] = torch.tensor(len(all_gather_rows(clean)))
    credibility = CredibilityMap()
    credibility.calibrate(clean.abs().reshape(-1))
    results["quantiles"] = credibility.quantiles.clone()
    results["mean"] = all_reduce_mean(clean.mean())
    with torch.no_grad():
        quantizer.counts[:5] = 0
    results["restarted_number"] = torch.tensor(
        quantizer.restart_dead_codes(clean, generator=torch.Generator().manual_seed(2))
    )
    results["restarted"] = quantizer.codebook.clone()
    return results


def of_code_weight(clean: torch.Tensor, rank: int) -> dict[str, torch.Tensor]:
    """What the loss of the codes takes from the global batch, and a stage's calibration, with other images in each."""
    options = parse_options(
        ["--stage", "encoder", "--dataset", "x", "--output", "x", "--crop-size", "32", "--code-weight", "1"]
    )[0]
    model = make_model()
    stage = EncoderStage(model, options).train()
    image = clean.reshape(2, 1, 16, 16).repeat(1, 3, 2, 2).sigmoid()
    known = torch.ones(2, 1, 32, 32)
    known[:, :, : 8 * (rank + 1)] = 0
    given = []
    with MonkeyPatch.context() as patch:
        patch.setattr(stages, "code_loss", lambda *details: given.extend(details[-2:]) or code_loss(*details))
        stage.before_step(0, {"image": image, "known": known})
        stage(image, known)
    AutoencoderStage(model, options).finish(image)
    return {"scale": given[0], "missing_share": given[1], "calibrated": model.credibility_map.quantiles}


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES)
    clean, damaged = (latents.chunk(PROCESSES)[rank] for latents in make_latents())
    results = compute(make_quantizer(), clean, damaged)
    results.update(of_code_weight(clean, rank))
    results["gathered"] = all_gather_rows(torch.full((rank + 1, 2), float(rank)))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(worker, args=(str(folder),), nprocs=PROCESSES)
    together = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
    return compute(make_quantizer(), *make_latents()), together


@pytest.mark.parametrize(
    "name",
    ["codebook", "counts", "sums", "max_dist", "paper_max_dist", "quantiles", "mean", "of_parts", "batch_counts"],
)
def test_two_processes_equal_one(results, name):
    alone, (first, second) = results
    assert torch.equal(first[name], second[name])
    assert torch.allclose(first[name], alone[name], atol=1e-6, rtol=1e-6)


def test_the_credibility_weights_are_those_of_the_global_batch(results):
    alone, together = results
    assert torch.equal(torch.cat([part["weights"] for part in together]), alone["weights"])
    assert 0 < alone["weights"].mean() < 1


@pytest.mark.parametrize("name", ["started", "restarted", "restarted_number"])
def test_processes_agree_on_what_is_drawn(results, name):
    _, (first, second) = results
    assert torch.equal(first[name], second[name])


def test_restarts_use_latents_of_the_batch(results):
    _, (first, _) = results
    assert first["restarted_number"] == 5
    vectors = make_latents()[0].permute(0, 2, 3, 1).reshape(-1, 4)
    assert all((vectors == code).all(dim=1).any() for code in first["restarted"][:5])


def test_rows_of_different_number_are_gathered(results):
    _, (first, second) = results
    expected = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert torch.equal(first["gathered"], expected) and torch.equal(second["gathered"], expected)


def test_a_process_that_acts_apart_asks_no_other(results):
    _, together = results
    assert [int(part["own_rows"]) for part in together] == [2, 2]


def test_the_loss_of_the_codes_is_that_of_the_global_batch(results):
    _, (first, second) = results
    assert torch.equal(first["scale"], second["scale"])
    assert first["missing_share"] == second["missing_share"] == (1 / 4 + 1 / 2) / 2


def test_a_stage_is_calibrated_by_each_process_for_itself(results):
    _, (first, second) = results  # on the same images but in this test
    assert not torch.equal(first["calibrated"], second["calibrated"])

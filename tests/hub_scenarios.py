"""What the tests of the Hub have a client's process do; `hub_client` says why it is in a module of its own."""

from __future__ import annotations

import hashlib
import os
import resource
from pathlib import Path
from typing import Any

import torch

from hvq_inpaint import HVQConfig, HVQInpainter
from hvq_inpaint.pretrained import PretrainedModel
from hvq_inpaint.refiner import MultiDilationRefiner
from hvq_inpaint.vqvae import HierarchicalVQVAE

CLASSES = {model.architecture: model for model in (HVQInpainter, HierarchicalVQVAE, MultiDilationRefiner)}


def make(architecture: str = "HVQInpainter", seed: int = 0) -> PretrainedModel:
    """A tiny network with random weights."""
    torch.manual_seed(seed)
    return CLASSES[architecture](HVQConfig.preset("tiny"))


def digest(model: PretrainedModel) -> str:
    """Of all that is saved of a network."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def push(repo_id: str, architecture: str = "HVQInpainter", seed: int = 0, samples: bool = False, **options: Any) -> str:
    """Push a network, without a picture of what it does unless that is asked for; the address that it got."""
    if not samples:
        options["model_card_kwargs"] = {"samples": None, **options.get("model_card_kwargs", {})}
    return make(architecture, seed).push_to_hub(repo_id, **options)


def save(folder: str, seed: int = 0, **options: Any) -> str:
    """Save a network; its digest."""
    model = make(seed=seed)
    model.save_pretrained(folder, **options)
    return digest(model)


def load(name: str | None, architecture: str = "HVQInpainter", **options: Any) -> str:
    """The digest of a network that is loaded."""
    model = CLASSES[architecture].from_pretrained(name, **options)
    assert not model.training
    return digest(model)


def copy(name: str, repo_id: str) -> str:
    """Load a model from the Hub and push it under another name."""
    return HVQInpainter.from_pretrained(name).push_to_hub(repo_id)


def save_copy(name: str, folder: str, **options: Any) -> None:
    """Load a model from the Hub and save it."""
    HVQInpainter.from_pretrained(name).save_pretrained(folder, **options)


def save_part(name: str, folder: str) -> None:
    """The same of its refiner."""
    HVQInpainter.from_pretrained(name).refiner.save_pretrained(folder)


def with_full_disk(size: int, name: str, *arguments: Any, **options: Any) -> Any:
    """Call one of these functions where no file may grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        return globals()[name](*arguments, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def rows(name: str, **options: Any) -> list[dict[str, Any]]:
    """The rows of the split `test` of a dataset on the Hub."""
    import datasets

    return list(datasets.load_dataset(name, split="test", **options))


def card_data(path: str) -> dict[str, Any]:
    """What a card says to the Hub."""
    from huggingface_hub import ModelCard

    return ModelCard(Path(path).read_text(encoding="utf-8")).data.to_dict()


def run_code(program: str, folder: str) -> None:
    """Run a piece of code of a document in a folder, where it may write."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(program, "snippet", "exec"), {"__name__": "snippet"})
    finally:
        os.chdir(before)

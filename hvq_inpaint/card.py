"""The model card: what is known of a model, as its repository on the Hub shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, constants

from .config import PRESETS, HVQConfig
from .errors import InvalidInputError

CARD_FILE = constants.REPOCARD_NAME  # README.md
SAMPLES_FILE = "samples.jpg"
LIBRARY_NAME = "hvq-inpaint"

_TEMPLATES = Path(__file__).parent / "templates"
# Said by fields of `CardFacts`, or made anew.
_OWN_METADATA = {
    "library_name",
    "pipeline_tag",
    "license",
    "license_name",
    "license_link",
    "base_model",
    "datasets",
    "model-index",
}
# Of the template, by their headings.
_SECTIONS = ("Use", "Architecture", "Training", "Results", "Limits", "Citation")
# In a card whose model is not on the Hub yet.
_NO_NAME = "FOLDER_OR_HUB_ID"
_NO_TITLE = f"{LIBRARY_NAME} model"
_NO_TRAINING = "Not recorded."
_NO_RESULTS = "Not measured."

# By what is in the repository: what the card says it is, and what the Hub files it under.
_INTRODUCTIONS = {
    "HVQInpainter": "A model that fills the masked part of a photograph and shows every step on the way.",
    "HierarchicalVQVAE": "A tokenizer of images: a VQ-VAE with two codebooks, which turns 256 x 256 pixels into 32 x "
    "32 global and 64 x 64 local codes and back.",
    "MultiDilationRefiner": "A network that refines a first guess in the hole of a photograph: convolutions with "
    "several dilation rates side by side.",
}
_TAGS = {
    "HVQInpainter": ["image-inpainting", "inpainting", "vq-vae"],
    "HierarchicalVQVAE": ["image-tokenizer", "vector-quantization", "vq-vae"],
    "MultiDilationRefiner": ["image-inpainting", "inpainting"],
}
_LIMITS = {
    "HVQInpainter": "The model must be told what to fill by a mask. Large holes are filled smoothly: it restores "
    "structure and colour better than texture, and it invents no objects. What it fills is a guess, not evidence of "
    "what was there.",
    "HierarchicalVQVAE": "Codes lose what is smaller than a few pixels: fine texture and small print do not come back. "
    "A local code follows from the global codes and the image together; the codes of one image are not meant to be "
    "mixed with those of another.",
    "MultiDilationRefiner": "It refines a guess, and makes none: what it gets in the hole must be right in the large.",
}


@dataclass(frozen=True)
class CardFacts:
    """What is known of a model beside its configuration, for its card; what is not known is left out, or said so.

    Attributes:
        model_id: of the repository, such as `user/name`, for the snippet.
        title: of the page; None: the model_id.
        architecture: a text in place of the one made of the configuration.
        training: Markdown: on what it was trained, how, and with what licence of the data.
        datasets: ids of datasets on the Hub that it learned from.
        license: an identifier such as `cc-by-4.0`; `other` with `license_name`, and `license_link`.
        base_model: the id of the model that it was fine-tuned from.
        results: Markdown: how good it is.
        eval_results: the same for programs, the card's `model-index`.
        samples: the name of a picture beside the card.
        samples_caption: what it shows, and whose the photographs are.
        limits: Markdown, in place of the general ones.
        others: further sections, with their headings.
        metadata: what else the Hub is told, such as `language`.
    """

    model_id: str | None = None
    title: str | None = None
    architecture: str | None = None
    training: str | None = None
    datasets: Sequence[str] = ()
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    results: str | None = None
    eval_results: Sequence[EvalResult] = field(default=())
    samples: str | None = None
    samples_caption: str = "Samples"
    limits: str | None = None
    others: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def make_card(architecture: str, config: HVQConfig, parameters: int, facts: CardFacts) -> ModelCard:
    """The card of a model.

    Args:
        architecture: the name of its class.
        parameters: how many weights it has.
    """
    name, others = facts.model_id or _NO_NAME, dict(facts.metadata)
    data = ModelCardData(
        library_name=LIBRARY_NAME,
        pipeline_tag="image-feature-extraction" if architecture == "HierarchicalVQVAE" else "image-to-image",
        tags=sorted(
            {*_TAGS[architecture], "model_hub_mixin", "pytorch_model_hub_mixin", *(others.pop("tags", ()) or ())}
        ),
        license=facts.license,
        license_name=facts.license_name,
        license_link=facts.license_link,
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        model_name=(facts.title or name.rpartition("/")[2]) if facts.eval_results else None,
        eval_results=list(facts.eval_results) or None,
        **others,
    )
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATES / "model_card.md"),
        title=facts.title or (name.rpartition("/")[2] if facts.model_id else _NO_TITLE),
        introduction=_INTRODUCTIONS[architecture],
        usage=usage(architecture, name),
        architecture=facts.architecture or architecture_text(architecture, config, parameters),
        training=facts.training or _NO_TRAINING,
        results=facts.results or _NO_RESULTS,
        samples=facts.samples,
        samples_caption=facts.samples_caption.rstrip("."),
        limits=facts.limits or _LIMITS[architecture],
        others=facts.others,
    )


def usage(architecture: str, name: str) -> str:
    """A program that loads the model `name` and uses it, as it stands."""
    program = (_TEMPLATES / "usage" / f"{architecture}.py").read_text(encoding="utf-8").strip()
    return program.replace('"MODEL"', f'"{name}"')


def with_model_id(card: str, model_id: str) -> str:
    """The text of a card whose snippets load the model from the Hub as `model_id`."""
    ours = "|".join(_INTRODUCTIONS)
    return re.sub(
        rf'\b({ours})\.from_pretrained\("[^"\n]*"', lambda found: f'{found[1]}.from_pretrained("{model_id}"', card
    )


def architecture_text(architecture: str, config: HVQConfig, parameters: int) -> str:
    """What the configuration says, in words."""
    preset = next((f"Preset `{name}`" for name, other in PRESETS.items() if other == config), "Sizes of its own")
    sentences = [f"{preset}, {parameters / 1e6:.1f} M parameters; every size is in [config.json](config.json)."]
    if architecture in ("HVQInpainter", "HierarchicalVQVAE"):
        sentences.append(
            f"A hierarchical VQ-VAE with two codebooks of {config.num_codes} vectors of {config.code_dim} numbers: "
            "global codes at an eighth, local codes at a quarter of the image's height and width."
        )
    if architecture == "HVQInpainter":
        sentences.append(
            "An encoder of the damaged image, the VQ-VAE's convolutions followed by "
            f"{config.transformer_blocks} transformer blocks, predicts the latents of the intact one."
        )
        if config.harmonic_input:
            sentences.append("It sees the solution of Laplace's equation in the hole.")
        if config.transformer_feedback:
            sentences.append("The transformer's output is fed back into F_mid.")
    if architecture in ("HVQInpainter", "MultiDilationRefiner"):
        rates = ", ".join(map(str, config.dilation_rates))
        sentences.append(
            f"The refiner has {config.refiner_blocks} blocks of convolutions with dilation rates {rates} and "
            f"{', '.join(map(str, config.refiner_channels))} channels at full, half and quarter size."
        )
        if config.refiner_skips:
            sentences.append("Skip connections lead from its encoder to its decoder.")
        if config.refiner_residual:
            sentences.append("What it makes is added to its input.")
        if config.poisson_composite:
            sentences.append(
                "It gets the VQ stage's result blended into the known pixels (Poisson image editing, Pérez et al. "
                "2003)."
            )
    if architecture == "HVQInpainter" and config != PRESETS["paper"]:
        additions = [
            config.harmonic_input,
            config.transformer_feedback,
            config.refiner_skips,
            config.refiner_residual,
            config.poisson_composite,
        ]
        if any(additions):
            sentences.append("The paper's own networks (preset `paper`) have none of these additions.")
    return " ".join(sentences)


def read_metadata(path: Path) -> dict[str, Any]:
    """What any card tells the Hub, such as its licence.

    Raises:
        InvalidInputError: the card can't be read.
    """
    return _load(path).data.to_dict()


def _load(path: Path) -> ModelCard:
    try:
        return ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise InvalidInputError(
            f"The card {path} can't be read ({' '.join(str(error).split())[:200]}): mend it, or move it away."
        ) from None


def read_card(path: Path) -> CardFacts:
    """The facts that a card of `make_card` tells, also after somebody wrote more into it.

    Its architecture and its program, which are made anew, are not among them.

    Raises:
        InvalidInputError: the card can't be read, or `make_card` did not write it.
    """
    card = _load(path)
    data = card.data.to_dict()
    datasets = data.get("datasets") or ()
    metadata = {name: value for name, value in data.items() if name not in _OWN_METADATA}
    lead, sections = _split(card.text)
    names = [name for name, _ in sections]
    if not all(name in names for name in _SECTIONS):
        raise InvalidInputError(
            f"The card {path} was not written by hvq-inpaint, and would be lost: move it away first."
        )
    told = dict(reversed(sections))  # of two of one name the first
    others = [f"## {name}\n\n{text}" for index, (name, text) in enumerate(sections) if _is_other(index, names)]
    title = re.search(r"^# ([^\n]+)", lead, flags=re.MULTILINE)
    picture = re.search(r"!\[([^\]]*)\]\(([^)\s]+)\)", lead)
    return CardFacts(
        title=title[1] if title and title[1] != _NO_TITLE else None,
        training=told["Training"] if told["Training"] not in ("", _NO_TRAINING) else None,
        datasets=(datasets,) if isinstance(datasets, str) else tuple(datasets if isinstance(datasets, list) else ()),
        license=data.get("license"),
        license_name=data.get("license_name"),
        license_link=data.get("license_link"),
        base_model=data.get("base_model"),
        results=told["Results"] if told["Results"] not in ("", _NO_RESULTS) else None,
        eval_results=tuple(card.data.eval_results or ()),
        samples=picture[2] if picture else None,
        samples_caption=picture[1] if picture else CardFacts.samples_caption,
        limits=told["Limits"] if told["Limits"] not in ("", *_LIMITS.values()) else None,
        others="\n\n".join(others) or None,
        metadata=metadata,
    )


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the first heading of the second level, and each section; not so in a block of code."""
    lead: list[str] = []
    sections: list[tuple[str, list[str]]] = []
    is_code = False
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        if line.startswith("## ") and not is_code:
            sections.append((line[3:].strip(), []))
        else:
            (sections[-1][1] if sections else lead).append(line)
    return "\n".join(lead), [(name, "\n".join(lines).strip()) for name, lines in sections]


def _is_other(index: int, names: list[str]) -> bool:
    """Whether a section is none of the template's, or the second of its name."""
    return names[index] not in _SECTIONS or names[index] in names[:index]

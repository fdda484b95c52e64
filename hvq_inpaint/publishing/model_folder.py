"""A model's folder: its card, and what of it goes to the Hub."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..card import CARD_FILE, SAMPLES_FILE, CardFacts, read_card, with_model_id
from ..errors import InvalidInputError
from ..evaluation.model_card import EVALUATION_FILE, read_evaluation
from ..files import all_or_nothing
from ..hub import Upload
from ..inpainter import HVQInpainter
from ..pretrained import CONFIG_FILE, REPLACED_FILES, PretrainedModel
from ..refiner import MultiDilationRefiner
from ..vqvae import HierarchicalVQVAE
from ..weights import INDEX_FILE, SINGLE_FILE, read_json, weight_files

_CLASSES: dict[str, type[PretrainedModel]] = {
    model.architecture: model for model in (HVQInpainter, HierarchicalVQVAE, MultiDilationRefiner)
}


def load_folder(folder: Path) -> PretrainedModel:
    """The network in a folder, whichever of them it is.

    Raises:
        InvalidInputError: the folder holds none that can be loaded.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise InvalidInputError(f"{folder} has no {CONFIG_FILE}: it is no model saved by hvq_inpaint.")
    architecture = read_json(folder / CONFIG_FILE, str(folder)).get("architecture")
    known = architecture if isinstance(architecture, str) and architecture in _CLASSES else HVQInpainter.architecture
    return _CLASSES[known].from_pretrained(folder)


def write_card(folder: Path, evaluation: Path | None = None, samples: bool = True, **facts: Any) -> Path:
    """Write the card of the model in `folder`, with what its present card tells and with what is said here.

    Args:
        evaluation: the folder that `evaluate` wrote; its figures go onto the card, and `evaluation.json` beside it.
        samples: make a picture of what the model does with the photographs of the package, if it makes pictures.
        facts: by the names of `CardFacts`.

    Returns:
        The path of the card.

    Raises:
        InvalidInputError: the folder, its card or the evaluation can't be used.
    """
    model = load_folder(folder)
    path = folder / CARD_FILE
    told = read_card(path) if path.is_file() else CardFacts()
    document = None
    if evaluation is not None:
        if model.architecture != HVQInpainter.architecture:
            raise InvalidInputError(
                f"{folder} holds {model.architecture}, which is no part of an evaluation: leave it out."
            )
        document, figures = read_evaluation(evaluation)
        facts |= figures
    elif facts.get("results") is not None:
        told = dataclasses.replace(told, eval_results=())  # which were those of other figures
    if facts.get("license") is not None:
        told = dataclasses.replace(told, license_name=None, license_link=None)
    sample = model.sample_picture() if samples else None
    if sample is not None:
        facts |= {"samples": SAMPLES_FILE, "samples_caption": sample[1]}
    given = {name: value for name, value in facts.items() if value not in (None, ())}
    known = {**vars(told), **given}
    with all_or_nothing() as partial:
        if sample is not None:
            sample[0].save(partial(folder / SAMPLES_FILE), format="JPEG", quality=90)
        if document is not None:
            text = json.dumps(document, indent=2) + "\n"
            partial(folder / EVALUATION_FILE).write_text(text, encoding="utf-8")
        model.generate_model_card(**known).save(partial(path))
    return path


def stage_model(folder: Path, staged: Path, repo_id: str) -> list[str]:
    """Copy what of a model's folder goes to the Hub into `staged`: what loads it, the card and what the card shows.

    Returns:
        The names of the other files, which stay.

    Raises:
        InvalidInputError: the folder holds no model that can be loaded.
    """
    model = load_folder(folder)
    names = {CONFIG_FILE, *(path.name for path in weight_files(folder))}
    if SINGLE_FILE not in names:
        names.add(INDEX_FILE)
    for name in sorted(names):
        shutil.copyfile(folder / name, staged / name)
    if (folder / CARD_FILE).is_file():
        try:
            text = (folder / CARD_FILE).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InvalidInputError(
                f"The card {folder / CARD_FILE} is no text in UTF-8: mend it, or remove it."
            ) from None
        for path in _shown(text, folder):
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, staged / path)
        (staged / CARD_FILE).write_text(with_model_id(text, repo_id), encoding="utf-8")
    else:
        model.generate_model_card(model_id=repo_id).save(staged / CARD_FILE)
    return sorted(path.name for path in folder.iterdir() if not (staged / path.name).exists())


def _shown(card: str, folder: Path) -> list[Path]:
    """The files of the folder that its card leads to, by their paths in it; what lies elsewhere is not looked at."""
    root, found = folder.resolve(), []
    for pointed, plain in re.findall(r"\]\((?:<([^>\n]*)>|([^)\s]*))", card):
        link = unquote((pointed or plain).partition("#")[0])
        if not link or re.match(r"[A-Za-z][\w+.-]*:|/", link) or len(link) > 255:
            continue
        path = (root / link).resolve()
        if path.is_relative_to(root) and path.is_file():
            found.append(path.relative_to(root))
    return found


def model_upload(staged: Path, repo_id: str, **options: Any) -> Upload:
    """Everything in `staged`, as a model repository; `options` as of `Upload`."""
    return Upload(repo_id, files_in(staged), replaced=REPLACED_FILES, **options)


def files_in(folder: Path) -> dict[str, Path]:
    """All files of a folder by their paths in it, as the Hub writes them."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }

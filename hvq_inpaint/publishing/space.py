"""The Space: the page of `app.py` as the Hub runs it, with the package and a model in it."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ..card import CARD_FILE, read_metadata
from ..errors import InvalidInputError
from ..hub import Upload
from .model_folder import files_in, load_folder, stage_model

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).resolve().parents[1]
_TEMPLATE = ROOT / "hub" / "space" / "README.md"

# Of the Space's repository; what an earlier push left there beyond these files goes.
_REPLACED = ("hvq_inpaint/*", "hub/model/*")


def pinned_requirements(requirements: str) -> str:
    """The lines of a requirements.txt, each at the version that is installed here, with which the tests passed."""
    names = [re.match(r"[\w.-]+", line) for line in requirements.splitlines() if line.strip()]
    # Builds for one kind of processor or GPU, such as 2.9.1+cpu, are none that everybody has.
    return "".join(f"{name[0]}=={version(name[0]).partition('+')[0]}\n" for name in names if name is not None)


def stage_space(staged: Path, model: Path, repo_id: str, title: str | None = None) -> None:
    """Write the Space's files: `app.py`, the package with its examples, a model, pinned requirements and a card.

    Args:
        staged: an empty folder.
        model: the folder of the model that visitors use.
        repo_id: of the Space.
        title: on top of it; None: a general one.

    Raises:
        InvalidInputError: the package was installed without `app.py`, or `model` holds no whole model.
    """
    if not (ROOT / "app.py").is_file():
        raise InvalidInputError(
            "The Space is made of app.py, which an installed package does not have: give the command in a clone of the "
            "project."
        )
    network = load_folder(model)
    if network.architecture != "HVQInpainter":
        raise InvalidInputError(
            f"{model} holds {network.architecture}, which fills nothing: the Space needs a whole model."
        )
    shutil.copyfile(ROOT / "app.py", staged / "app.py")
    shutil.copyfile(ROOT / "LICENSE", staged / "LICENSE")
    shutil.copytree(PACKAGE, staged / "hvq_inpaint", ignore=shutil.ignore_patterns("__pycache__", "*.partial"))
    (staged / "hub" / "model").mkdir(parents=True)
    stage_model(model, staged / "hub" / "model", "hub/model")
    requirements = pinned_requirements((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    (staged / "requirements.txt").write_text(requirements, encoding="utf-8")
    (staged / CARD_FILE).write_text(_card(model, repo_id, title), encoding="utf-8")


def _card(model: Path, repo_id: str, title: str | None) -> str:
    """The Space's README.md: what the Hub has to know on top of the text of the template."""
    card = model / CARD_FILE
    licence = read_metadata(card).get("license") if card.is_file() else None
    data = {
        "title": title or "Image inpainting, step by step",
        "emoji": "🖌️",
        "colorFrom": "purple",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "license": licence or "apache-2.0",
        "short_description": "Paint over a photograph, see how it is filled",
        "tags": ["image-inpainting", "inpainting", "vq-vae"],
    }
    text = _TEMPLATE.read_text(encoding="utf-8").replace("REPO_ID", repo_id)
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n\n{text}"


def space_upload(staged: Path, repo_id: str, **options: Any) -> Upload:
    """Everything in `staged`, as a Space; `options` as of `Upload`."""
    return Upload(repo_id, files_in(staged), repo_type="space", replaced=_REPLACED, **options)

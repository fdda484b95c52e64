"""A set of masks as a dataset: Parquet with the masks' seeds in it, and a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ..card import CARD_FILE
from ..errors import InvalidInputError
from ..hub import Upload
from ..mask_set import SETTINGS_FILE, MaskSetOptions, mask_path, mask_seed
from .model_folder import files_in

# One file: the 10,200 masks take 31 MB.
PARQUET_FILE = "data/test-00000-of-00001.parquet"
_TEMPLATE = Path(__file__).resolve().parents[1] / "templates" / "mask_dataset_card.md"


def read_mask_set(folder: Path) -> MaskSetOptions:
    """What masks a folder holds that `python -m hvq_inpaint masks` wrote.

    Raises:
        InvalidInputError: it holds no complete set.
    """
    path = folder / SETTINGS_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        fields = MaskSetOptions.__dataclass_fields__
        if wrong := [name for name, field in fields.items() if type(values[name]) is not type(field.default)]:
            raise TypeError(f"{wrong[0]} can't be {values[wrong[0]]!r}")
        return MaskSetOptions(**{name: values[name] for name in fields})
    except FileNotFoundError:
        raise InvalidInputError(
            f"{folder} holds no complete set of masks: write one with 'python -m hvq_inpaint masks --out {folder}'."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} can't be used ({type(error).__name__}: {error}).") from None


def stage_masks(staged: Path, folder: Path, repo_id: str) -> int:
    """Write the Parquet file and the card of the set in `folder`.

    Args:
        staged: an empty folder.

    Returns:
        The number of masks.

    Raises:
        InvalidInputError: `folder` holds no complete set.
    """
    import datasets  # slow to import

    datasets.disable_progress_bars()  # it takes a moment
    options = read_mask_set(folder)
    columns: dict[str, list[Any]] = {name: [] for name in ("image", "kind", "percent", "number", "seed")}
    for percent in range(options.min_percent, options.max_percent + 1):
        for number in range(options.per_ratio):
            path = mask_path(options.kind, percent, number)
            try:
                contents = (folder / path).read_bytes()
            except FileNotFoundError:
                raise InvalidInputError(f"{folder} lacks {path}: write the set again, with --overwrite.") from None
            columns["image"].append({"bytes": contents, "path": path.as_posix()})
            columns["kind"].append(options.kind)
            columns["percent"].append(percent)
            columns["number"].append(number)
            columns["seed"].append(mask_seed(options.seed, number))
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "kind": datasets.Value("string"),
            "percent": datasets.Value("int32"),
            "number": datasets.Value("int32"),
            "seed": datasets.Value("int64"),
        }
    )
    target = staged / PARQUET_FILE
    target.parent.mkdir(parents=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(target)
    (staged / CARD_FILE).write_text(_card(options, repo_id), encoding="utf-8")
    return options.number_of_masks


def _card(options: MaskSetOptions, repo_id: str) -> str:
    data = {
        "license": "apache-2.0",
        "pretty_name": f"Inpainting masks: {options.kind.replace('_', ' ')}",
        "task_categories": ["image-to-image"],
        "tags": ["image-inpainting", "inpainting", "masks"],
        "size_categories": [_size_category(options.number_of_masks)],
        "configs": [{"config_name": "default", "data_files": [{"split": "test", "path": "data/test-*.parquet"}]}],
    }
    is_paper_s = options == MaskSetOptions(seed=options.seed)
    paper = (
        " It is the set that *Hierarchical Vector-Quantized Variational Autoencoder and Vector Credibility Mechanism "
        "for High-Quality Image Inpainting* (Li, Xu, Chen, Electronics 2024, 13, 1852, Section 4.1) describes, made "
        "anew: not the authors' files."
    )
    given = [
        f"--{name.replace('_', '-')} {getattr(options, name)}"
        for name in MaskSetOptions.__dataclass_fields__
        if getattr(options, name) != MaskSetOptions.__dataclass_fields__[name].default
    ]
    text = _TEMPLATE.read_text(encoding="utf-8").format(
        title=data["pretty_name"],
        repo_id=repo_id,
        paper=paper if is_paper_s else "",
        number_of_masks=options.number_of_masks,
        last_number=options.per_ratio - 1,
        options=" ".join(given),
        **{name: getattr(options, name) for name in ("kind", "size", "per_ratio", "min_percent", "max_percent")},
    )
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n\n{text.replace(' `.', '`.')}"


def _size_category(number: int) -> str:
    """As the Hub files datasets by their number of rows."""
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in bounds.items() if number < bound), "1M<n<10M")


def masks_upload(staged: Path, repo_id: str, **options: Any) -> Upload:
    """Everything in `staged`, as a dataset; `options` as of `Upload`."""
    return Upload(repo_id, files_in(staged), repo_type="dataset", replaced=("data/*.parquet",), **options)

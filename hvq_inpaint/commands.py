"""What the sub-commands of `python -m hvq_inpaint` do.

What is slow to import is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidInputError

if TYPE_CHECKING:
    from .hub import Upload
    from .inpaint_files import Report, Task
    from .inpainter import HVQInpainter

# Of --stages without a folder: beside the results.
BESIDE = object()

_LOSSY_NOTE = "note: JPEG re-encodes the whole picture, so known pixels change a little; a .png keeps them exactly"
_BARE_NOTE = "note: BMP has no place for a colour profile or EXIF, so these are left out; a .png keeps them"

# In a source checkout the bundled model lies beside the package.
BUNDLED_MODEL = Path(__file__).resolve().parents[1] / "hub" / "model"


def path_argument(text: str) -> Path:
    """A path on the command line, as `type` of an option."""
    if not text:  # of a shell variable that is not set; as a path it would be the current folder
        raise argparse.ArgumentTypeError("an empty name")
    return Path(text)


def inpaint(arguments: argparse.Namespace) -> int:
    """Fill the holes of one photograph or of a folder; the exit status."""
    # All that can be refused is refused before the model is loaded.
    from .files import SAVE_OPTIONS
    from .filling import FillOptions
    from .inpaint_files import load, tasks_of_folder, write
    from .sampling import check_seed

    names = ("num_results", "strategy", "working_size", "dilate", "feather", "precision")
    options = {name: getattr(arguments, name) for name in names}
    FillOptions(**options, batch_size=arguments.batch_size)
    check_seed(arguments.seed)
    options["seed"] = arguments.seed
    stages = _stage_folder(arguments)
    for path in (arguments.image, arguments.masks):
        if path is not None and not path.exists():
            raise InvalidInputError(f"There is no file or folder {path}.")
    if arguments.image.is_dir():
        if arguments.out.is_file() or arguments.out.suffix.lower() in SAVE_OPTIONS:
            raise InvalidInputError(f"{arguments.out} names a file; the results for a folder go into a folder.")
        tasks, report = tasks_of_folder(
            arguments.image, arguments.masks, arguments.out, stages, arguments.keep_format, arguments.num_results
        )
        return _inpaint_folder(arguments, tasks, report, options)
    task = _single_task(arguments, stages)
    photograph, missing = load(task, arguments.num_results, arguments.overwrite)
    model = load_model(arguments.model, arguments.device)
    # Without a mask the model takes the transparency, and makes what it fills opaque.
    result = model.inpaint(photograph, None if task.mask is None else missing, **options)
    outputs = write(task, result, photograph.mode)
    for path in outputs:
        print(f"wrote {path}")
    if stages is not None:
        print(f"wrote the stages to {stages}")
    _print_notes(outputs)
    return 0


def _stage_folder(arguments: argparse.Namespace) -> Path | None:
    """Where the stages go: as said, or beside the results."""
    if arguments.stages is not BESIDE:
        return arguments.stages
    out = arguments.out if arguments.out.name not in ("", "..") else arguments.out.resolve()
    return out.with_name(f"{out.stem}-stages")


def _single_task(arguments: argparse.Namespace, stages: Path | None) -> Task:
    from .files import SAVE_OPTIONS
    from .inpaint_files import Task

    out, mask = arguments.out, arguments.masks
    if mask is not None and mask.is_dir():
        raise InvalidInputError(f"{mask} is a folder; one photograph needs the file of one mask.")
    if out.suffix.lower() in SAVE_OPTIONS:
        return Task(arguments.image, mask, out.with_suffix(""), stages, suffix=out.suffix)
    if out.is_dir():
        return Task(arguments.image, mask, out / arguments.image.stem, stages, arguments.keep_format)
    raise InvalidInputError(f"{out} must end in one of {', '.join(SAVE_OPTIONS)}, or be a folder that exists.")


def _inpaint_folder(arguments: argparse.Namespace, tasks: list[Task], report: Report, options: dict[str, Any]) -> int:
    """Fill many photographs, shared out over the processes of `accelerate launch`; the exit status."""
    from tqdm import tqdm

    from .inpaint_files import inpaint_files

    accelerator = None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import Accelerator, InitProcessGroupKwargs

        if arguments.device != "auto":
            raise InvalidInputError("Several processes have a device each: leave --device out.")
        # Until the last process has filled its share: the default is half an hour.
        accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))])
    is_main = accelerator is None or accelerator.is_main_process
    device = arguments.device if accelerator is None else str(accelerator.device)
    model = load_model(arguments.model, device)
    if accelerator is not None:
        tasks = tasks[accelerator.process_index :: accelerator.num_processes]
    with tqdm(total=len(tasks), unit="photo", disable=None if is_main else True) as bar:
        done = inpaint_files(
            model,
            tasks,
            overwrite=arguments.overwrite,
            batch_size=arguments.batch_size,
            progress=bar,
            **options,
        )
    parts = [done]
    if accelerator is not None:
        from accelerate.utils import gather_object

        parts = gather_object(parts)
    for part in parts:
        report.add(part)
    if is_main:
        _print_report(report, arguments.out)
    return 1 if report.problems else 0


def _print_report(report: Report, out: Path) -> None:
    print(f"wrote {len(report.written)} file{'' if len(report.written) == 1 else 's'} to {out}")
    if report.skipped:
        print(f"left {len(report.skipped)} alone that had been filled before; --overwrite fills them again")
    _print_notes(report.written)
    for path, sentence in sorted(report.problems):
        print(f"error: {path} was not filled: {sentence}", file=sys.stderr)


def _print_notes(written: list[Path]) -> None:
    """What the formats of the results cost."""
    from .files import is_lossy

    if any(is_lossy(path) for path in written):
        print(_LOSSY_NOTE)
    if any(path.suffix.lower() == ".bmp" for path in written):
        print(_BARE_NOTE)


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a model on a dataset; with `accelerate launch` in several processes, which give the same figures."""
    outputs = [arguments.out / name for name in ("evaluation.json", "evaluation.md", "grid.png")]
    buckets = tuple(_bucket(text) for text in arguments.buckets)
    folder = arguments.out / "records"
    masks, export = arguments.masks, arguments.export
    kinds = arguments.mask_kind or (["files"] if masks else ["random_walk", "brush", "box"])

    from accelerate import Accelerator, InitProcessGroupKwargs

    from .evaluation.baselines import load_opencv
    from .evaluation.evaluate import batches_of, measure_records, settings_of, summarise
    from .evaluation.grid import picture_grid
    from .evaluation.methods import method_names
    from .evaluation.networks import load_networks
    from .evaluation.options import PIXEL_METRICS, EvaluationOptions
    from .evaluation.records import SETTINGS_FILE, RecordFolder, check_own_folder, discard_records
    from .evaluation.report import METRIC_TITLES, summary, to_json, to_markdown
    from .evaluation.samples import DatasetFiles
    from .files import all_or_nothing, check_targets

    # Records are of a run that replaces these files, if there were any, by its own --overwrite.
    unfinished = (folder / SETTINGS_FILE).is_file()
    check_targets(outputs, arguments.overwrite or unfinished)
    check_own_folder(folder)
    if export is not None and not (arguments.overwrite or unfinished) and export.exists() and any(export.iterdir()):
        raise InvalidInputError(f"{export} is not empty; choose another folder, or --overwrite to write into it.")
    options = EvaluationOptions(
        mask_kinds=tuple(kinds),
        mask_folder=str(masks) if masks else None,
        buckets=buckets,
        size=arguments.size,
        seed=arguments.seed,
        limit=arguments.limit,
        batch_size=arguments.batch_size,
        opencv=not arguments.no_opencv,
        outputs=tuple(map(str, arguments.outputs)),
        metrics=tuple(arguments.metrics or PIXEL_METRICS),
    )
    if options.opencv:
        load_opencv()
    images = DatasetFiles(arguments.dataset, arguments.split)
    # Until the last process has measured its share: the default is half an hour.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))])
    several = accelerator.num_processes > 1
    if several and arguments.device != "auto":
        raise InvalidInputError("Several processes have a device each: leave --device out.")
    model = load_model(arguments.model, str(accelerator.device) if several else arguments.device)
    method_names(model, options)
    device = next(model.parameters()).device
    with accelerator.main_process_first():  # which downloads, if anything has to be
        networks = load_networks(arguments.metrics, arguments.lpips_weights, device)
    if arguments.metrics is None:
        options = replace(options, metrics=networks.metrics_on(sum(map(len, batches_of(len(images), options)))))
    if accelerator.is_main_process:
        for metric, reason in networks.left_out.items():
            print(f"note: {METRIC_TITLES[metric]} is left out: {reason}", file=sys.stderr)
    named = {
        "split": arguments.split,
        "lpips_weights": arguments.lpips_weights,
        "export": str(export) if export else None,
    }
    settings = settings_of(model, images, options, networks, dataset=arguments.dataset, device=device.type, **named)
    if arguments.overwrite and accelerator.is_main_process:
        discard_records(folder)
    accelerator.wait_for_everyone()
    records = RecordFolder(folder, settings)
    measure_records(
        model, images, options, records, networks, export, accelerator.process_index, accelerator.num_processes
    )
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    evaluation = summarise(model, records, len(images), options, networks)
    names = (arguments.model, arguments.dataset, device.type)
    with all_or_nothing() as partial:
        partial(outputs[0]).write_text(to_json(evaluation, *names, **named), encoding="utf-8")
        partial(outputs[1]).write_text(to_markdown(evaluation, *names), encoding="utf-8")
        picture_grid(model, images, options).save(partial(outputs[2]), format="PNG")
    discard_records(folder)
    print(f"Means over the buckets, {evaluation.number_of_images} images:\n\n{summary(evaluation)}\n")
    for path in outputs:
        print(f"wrote {path}")


def ablate(arguments: argparse.Namespace) -> None:
    """Train and measure the variants of an ablation."""
    from .evaluation.ablations import Budget, run_ablation

    budget = Budget(
        dataset=arguments.dataset,
        validation=arguments.validation,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        crop_size=arguments.crop_size,
        learning_rate=arguments.learning_rate,
        mixed_precision=arguments.mixed_precision,
        refiner_channels=tuple(arguments.refiner_channels),
        refiner_residual=arguments.refiner_residual,
        seed=arguments.seed,
        workers=arguments.workers,
        limit=arguments.limit,
    )
    name = arguments.model or "the bundled model"
    report = run_ablation(
        arguments.ablation,
        load_model(arguments.model, "cpu"),
        name,
        budget,
        arguments.out / arguments.ablation,
        arguments.metrics,
        arguments.vgg_weights,
        arguments.lpips_weights,
    )
    print(report.read_text(encoding="utf-8"))
    print(f"wrote {report}")


def masks(arguments: argparse.Namespace) -> None:
    """Write the paper's mask set."""
    from .mask_set import MaskSetOptions, write_mask_set

    options = MaskSetOptions(
        kind=arguments.kind,
        size=arguments.size,
        per_ratio=arguments.per_ratio,
        min_percent=arguments.min_percent,
        max_percent=arguments.max_percent,
        seed=arguments.seed,
    )
    write_mask_set(arguments.out, options, arguments.workers, arguments.overwrite)
    print(f"wrote {options.number_of_masks} masks to {arguments.out}")


def shard(arguments: argparse.Namespace) -> int:
    """Pack a folder of images into Parquet shards; the exit status."""
    from tqdm import tqdm

    from .data.shards import write_shards
    from .mask_set import available_cores

    for name in ("shard_size", "multiple_of", "workers"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InvalidInputError(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
    shards = write_shards(
        arguments.images,
        arguments.out,
        arguments.shards,
        arguments.shard_size * 10**6,
        arguments.multiple_of,
        arguments.seed,
        arguments.workers or available_cores(),
    )
    images, written, unreadable = 0, [], []
    for done in tqdm(shards, unit="shard", disable=None):
        images += done.images
        written.append(done.size)
        unreadable += done.unreadable
    for sentence in unreadable:
        print(f"left out: {sentence}")
    print(
        f"wrote {images} images to {len(written)} shards of {min(written) / 1e6:.1f} to {max(written) / 1e6:.1f} MB in "
        f"{arguments.out}; {len(unreadable)} left out"
    )
    return 1 if unreadable else 0


def export(arguments: argparse.Namespace) -> None:
    """Write the networks for programs without PyTorch."""
    from .export import INPUTS, OUTPUTS, check_target, export_onnx

    check_target(arguments.out, arguments.overwrite)
    model = load_model(arguments.model, "cpu")
    report = export_onnx(model, arguments.out, arguments.overwrite)
    print(f"wrote {report.path}: {report.size / 2**20:.0f} MiB, {', '.join(INPUTS)} -> {', '.join(OUTPUTS)}")
    print(f"run by onnxruntime it differs from PyTorch by at most {report.largest_difference:.1g}")


def card(arguments: argparse.Namespace) -> None:
    """Write the card of a model's folder."""
    from .publishing.model_folder import write_card

    facts = {
        name: getattr(arguments, name) for name in ("title", "license", "license_name", "license_link", "base_model")
    }
    for name in ("training", "results"):
        if (file := getattr(arguments, name)) is not None:
            try:
                facts[name] = file.read_text(encoding="utf-8").strip()
            except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
                raise InvalidInputError(f"{file} is no file of text ({type(error).__name__}).") from None
    facts["datasets"] = tuple(arguments.dataset)
    path = write_card(arguments.model, arguments.evaluation, arguments.samples, **facts)
    print(f"wrote {path}")


def push_model(arguments: argparse.Namespace) -> int:
    """Send a model's folder to the Hub, or show what would be sent; the exit status."""
    from .publishing.model_folder import model_upload, stage_model

    folder = arguments.model or BUNDLED_MODEL
    if not folder.is_dir():
        raise InvalidInputError(f"There is no model folder {folder}: name one with --model.")

    def stage(staged: Path) -> Upload:
        others = stage_model(folder, staged, arguments.repo)
        if others:
            print(f"not sent: {', '.join(others)}")
        return model_upload(staged, arguments.repo, **_upload_options(arguments, "Push a model by hvq-inpaint"))

    return _push(arguments, stage)


def push_space(arguments: argparse.Namespace) -> int:
    """Send the page as a Space to the Hub, or show what would be sent; the exit status."""
    from .publishing.space import space_upload, stage_space

    def stage(staged: Path) -> Upload:
        stage_space(staged, arguments.model or BUNDLED_MODEL, arguments.repo, arguments.title)
        return space_upload(staged, arguments.repo, **_upload_options(arguments, "Push the page of hvq-inpaint"))

    return _push(arguments, stage)


def push_masks(arguments: argparse.Namespace) -> int:
    """Send a set of masks as a dataset to the Hub, or show what would be sent; the exit status."""
    from .publishing.mask_dataset import masks_upload, stage_masks

    def stage(staged: Path) -> Upload:
        number = stage_masks(staged, arguments.masks, arguments.repo)
        return masks_upload(
            staged, arguments.repo, **_upload_options(arguments, f"Push {number:,} masks by hvq-inpaint")
        )

    return _push(arguments, stage)


def _upload_options(arguments: argparse.Namespace, message: str) -> dict[str, Any]:
    return {
        "message": arguments.message or message,
        "branch": arguments.branch,
        "keeps_card": not arguments.replace_card,
        "private": True if arguments.private else None,
        "create_pr": arguments.pull_request,
        "tag": arguments.tag,
    }


def _check_repo_id(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        is_whole = all(name.partition("/"))
    except HFValidationError:
        is_whole = False
    if not is_whole:
        raise InvalidInputError(f"The repository must be user/name, not {name[:80]!r}.")


def _push(arguments: argparse.Namespace, stage: Callable[[Path], Upload]) -> int:
    """Make the files, show what sending them would do, and with --send do it."""
    from tempfile import TemporaryDirectory

    from .hub import UnreachableError, compare, describe, send

    _check_repo_id(arguments.repo)
    folder = arguments.save
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(f"{folder} is there already: choose another folder for the files.")
    with TemporaryDirectory() as temporary:
        staged = Path(temporary)
        upload = stage(staged)
        if folder is not None:
            shutil.copytree(staged, folder, dirs_exist_ok=True)
            print(f"wrote the files to {folder}")
        if arguments.send:
            print(describe(upload, compare(upload)))
            print(f"sent: {send(upload)}")
            return 0
        comparison = None
        try:
            comparison = compare(upload)
        except UnreachableError as error:
            print(f"note: what is there already is not known: {error}", file=sys.stderr)
        print(describe(upload, comparison))
        print("Nothing was sent: this was a dry run, --send sends it.")
    return 0


def load_model(name: str | None, device: str) -> HVQInpainter:
    """The model of a folder or a Hub repository, in eval mode on a device.

    Args:
        name: a folder or an id; None: the bundled model, or where the package was installed without it, the project's
            own on the Hub.
        device: `auto`, `cpu`, `cuda`, `cuda:1` ... or `mps`.

    Raises:
        InvalidInputError: there is no such model or device.
    """
    from .inpainter import HVQInpainter

    if name is None and (BUNDLED_MODEL / "config.json").is_file():
        name = str(BUNDLED_MODEL)
    try:
        return HVQInpainter.from_pretrained(name, device=device)
    except InvalidInputError as error:
        if name is not None:
            raise
        raise InvalidInputError(f"{error} It is named with --model.") from None


def _bucket(text: str) -> tuple[float, float]:
    """`10-20` as (0.1, 0.2)."""
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal()):
        raise InvalidInputError(f"A bucket is two whole percentages, such as 10-20, not {text!r}.")
    return int(low) / 100, int(high) / 100

"""The training loop, the same for all stages."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..config import HVQConfig
from ..data import (
    InpaintingDataset,
    InpaintingStream,
    Sample,
    SampleOptions,
    load_images,
    make_sample,
    spread,
    validation_samples,
)
from ..errors import InvalidInputError
from ..features import VGG19Features, load_vgg19
from ..inpainter import TRAINING_STAGES, HVQInpainter
from ..losses import LOSS_PRESETS
from ..metrics import LPIPS, load_lpips
from .cache import CachedInputs
from .checkpoints import Progress, checkpoint_folders, load_checkpoint, save_checkpoint
from .options import TrainingOptions
from .stages import AutoencoderStage, EncoderStage, RefinerStage, TrainingStage
from .validation import sample_grid, validate

CALIBRATION_IMAGES = 256

OPTIONS_FILE = "options.json"


def run(stages: list[TrainingOptions]) -> HVQInpainter:
    """Train the stages one after the other; returns the model after the last."""
    # First, so that a missing feature network is told before hours of training, not after.
    networks = [load_loss_networks(options) for options in stages]
    for options, of_stage in zip(stages, networks, strict=True):
        # A new one for each stage: it checkpoints all that was ever prepared with it.
        accelerator = make_accelerator(options)
        model = train_stage(accelerator, options, of_stage)
    accelerator.end_training()
    return model


@dataclass(frozen=True)
class LossNetworks:
    """The feature networks that a stage's loss needs."""

    vgg19: VGG19Features | None = None
    lpips: LPIPS | None = None


def load_loss_networks(options: TrainingOptions) -> LossNetworks:
    """The networks for a stage's loss; none for the stages before the refiner."""
    if options.stage != "refiner":
        return LossNetworks()
    weights = LOSS_PRESETS[options.loss]
    return LossNetworks(
        load_vgg19(options.vgg_weights) if weights.needs_features else None,
        load_lpips(options.lpips_weights) if weights.lpips > 0 else None,
    )


def make_accelerator(options: TrainingOptions) -> Accelerator:
    has_tensorboard = find_spec("tensorboard") is not None
    accelerator = Accelerator(
        mixed_precision=options.mixed_precision,
        log_with="tensorboard" if has_tensorboard else None,
        project_dir=options.output,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
        # The codebooks are all-reduced by the quantizers themselves.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if not has_tensorboard:
        accelerator.print("TensorBoard is not installed: values go to metrics.jsonl only ('pip install tensorboard').")
    return accelerator


def train_stage(
    accelerator: Accelerator,
    options: TrainingOptions,
    networks: LossNetworks | None = None,
    model: HVQInpainter | None = None,
    cache: CachedInputs | None = None,
) -> HVQInpainter:
    """Train one stage, from its start or from its last checkpoint, and save the model it ends with.

    Args:
        networks: what `load_loss_networks` gives for these options.
        model: start from this one, whatever the preset; None: from --init, the last stage's, or a fresh one.
        cache: the refiner's inputs, if they were made before; None: they are made of the dataset.
    """
    networks = networks or LossNetworks()
    folder = Path(options.output) / options.stage
    checkpoints = folder / "checkpoints"
    if options.resume and (folder / "model").is_dir():
        accelerator.print(f"Stage {options.stage} is done: {folder / 'model'}.")
        return (HVQInpainter if model is None else type(model)).from_pretrained(folder / "model")
    if not options.resume and (checkpoint_folders(checkpoints) or (folder / "model").is_dir()):
        raise InvalidInputError(f"{folder} holds another run: continue it with --resume, or choose another --output.")

    set_seed(options.seed)
    model = model or _initial_model(options)
    if networks.vgg19 is not None:
        networks.vgg19.to(accelerator.device).calibrate(_calibration_images(accelerator, options))
    if networks.lpips is not None:
        networks.lpips.to(accelerator.device)
    stage = _make_stage(model, options, networks)
    loader = _data_loader(accelerator, options, cache)
    held_out = []
    if options.validation:
        held_out = validation_samples(
            load_images(options.validation, options.validation_split),
            options.validation_images,
            options.validation_size,
            options.mask_kinds,
            options.seed,
        )

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, betas=options.adam_betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, options))
    stage.to(memory_format=torch.channels_last)
    wrapped, optimizer = accelerator.prepare(torch.compile(stage) if options.compile else stage, optimizer)
    # Not prepared: accelerate would step it once for each process.
    accelerator.register_for_checkpointing(schedule)
    average = None
    if options.ema_decay:
        # Buffers, and so the codebooks, are copied and not averaged.
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay))
        average.eval()
        accelerator.register_for_checkpointing(average)

    if options.resume:
        _check_same_sizes(folder, options)
    progress = load_checkpoint(accelerator, checkpoints) if options.resume else None
    if progress is None:
        progress = Progress()
        stage.start(_calibration_images(accelerator, options))
    log = _Log(accelerator, folder, options)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / OPTIONS_FILE).write_text(json.dumps(vars(options), indent=2), encoding="utf-8")

    stage.train()
    bar = tqdm(
        total=options.steps,
        initial=progress.step,
        desc=options.stage,
        unit="step",
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
    )
    for batch, epoch, position in _batches(accelerator, loader, options, progress):
        step = progress.step
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
        logs = stage.before_step(step, batch["image"])
        loss, values = wrapped(**batch)
        if not torch.isfinite(loss.detach()):
            raise InvalidInputError(_diverged("loss", step, checkpoints))
        accelerator.backward(loss)
        if options.max_gradient_norm:
            values["gradient_norm"] = accelerator.clip_grad_norm_(parameters, options.max_gradient_norm)
            # Under fp16 the scaler skips such a step by itself and tries a smaller scale.
            if accelerator.mixed_precision != "fp16" and not torch.isfinite(values["gradient_norm"]):
                raise InvalidInputError(_diverged("gradient", step, checkpoints))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if average is not None:
            average.update_parameters(model)

        progress = Progress(step + 1, epoch, position)
        bar.update()
        log.step(progress.step, {"loss": loss.detach(), **values}, schedule.get_last_lr()[0], bar, events=logs)
        if (
            held_out
            and (progress.step % options.validation_every == 0 or progress.step == options.steps)
            and accelerator.is_main_process
        ):
            shown = model if average is None else average.module
            log.validation(
                progress.step,
                validate(shown, held_out, accelerator.device),
                sample_grid(shown, held_out[:6], accelerator.device),
            )
        if progress.step % options.checkpoint_every == 0 and progress.step < options.steps:
            save_checkpoint(accelerator, checkpoints, progress, options.keep_checkpoints)
    bar.close()
    log.close()

    if average is not None:
        model.load_state_dict(average.module.state_dict())
    stage.eval()
    stage.finish(_calibration_images(accelerator, options))
    model.set_training_stage(None)
    model.eval()
    if accelerator.is_main_process:
        partial = folder / "partial-model"
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        partial.rename(folder / "model")
    accelerator.wait_for_everyone()
    accelerator.print(f"Stage {options.stage} is done: {folder / 'model'}.")
    return model


def _initial_model(options: TrainingOptions) -> HVQInpainter:
    """The model that a stage starts from: --init, the last stage's, or for the first stage a fresh one."""
    if options.init:
        model = HVQInpainter.from_pretrained(options.init)
    elif options.stage == TRAINING_STAGES[0]:
        return HVQInpainter(HVQConfig.preset(options.preset))
    else:
        before = TRAINING_STAGES[TRAINING_STAGES.index(options.stage) - 1]
        folder = Path(options.output) / before / "model"
        if not folder.is_dir():
            raise InvalidInputError(
                f"Stage {options.stage} starts from {folder}, which does not exist: "
                f"train --stage {before} first, or give a model with --init."
            )
        model = HVQInpainter.from_pretrained(folder)
    if model.config != HVQConfig.preset(options.preset):
        raise InvalidInputError(
            f"The model that stage {options.stage} starts from has another configuration than preset {options.preset}: "
            "give the preset that it was made with."
        )
    return model


def _diverged(what: str, step: int, checkpoints: Path) -> str:
    return (
        f"The {what} of step {step} is not finite: continue from {checkpoints} with --resume and a lower "
        "--learning-rate."
    )


def _check_same_sizes(folder: Path, options: TrainingOptions) -> None:
    """Refuse to continue a run whose checkpoints would not fit: of another preset, or without the average."""
    path = folder / OPTIONS_FILE
    if not path.is_file():
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if before["preset"] != options.preset:
        raise InvalidInputError(
            f"{folder} holds a run of preset {before['preset']}, not {options.preset}: "
            f"continue it with --preset {before['preset']}, or choose another --output."
        )
    if bool(decay := before.get("ema_decay", 0.0)) != bool(options.ema_decay):
        raise InvalidInputError(
            f"{folder} holds a run with --ema-decay {decay}: continue it with that, or choose another --output."
        )


def _make_stage(model: HVQInpainter, options: TrainingOptions, networks: LossNetworks) -> TrainingStage:
    if options.stage == "autoencoder":
        return AutoencoderStage(model, options)
    if options.stage == "encoder":
        return EncoderStage(model, options)
    return RefinerStage(model, options, networks.vgg19, networks.lpips)


def sample_options(options: TrainingOptions) -> SampleOptions:
    """How a run makes samples of images."""
    return SampleOptions(
        crop_size=options.crop_size, mask_size=options.mask_size, mask_kinds=options.mask_kinds, seed=options.seed
    )


def _data_loader(accelerator: Accelerator, options: TrainingOptions, cache: CachedInputs | None) -> DataLoader:
    samples = sample_options(options)
    common = {"batch_size": options.batch_size, "num_workers": options.workers, "drop_last": True}
    if cache is not None:
        return accelerator.prepare(DataLoader(cache, shuffle=True, **common))
    images = load_images(options.dataset, options.split, options.streaming)
    if options.streaming:
        # Already split over the processes by shards; accelerate would read everything on the first one.
        return DataLoader(
            InpaintingStream(images, samples, accelerator.process_index, accelerator.num_processes), **common
        )
    needed = options.batch_size * accelerator.num_processes
    if len(images) < needed:
        raise InvalidInputError(
            f"The dataset {options.dataset} holds {len(images)} images, fewer than one step's {needed}: "
            "lower --batch-size."
        )
    return accelerator.prepare(DataLoader(InpaintingDataset(images, samples), shuffle=True, **common))


def _batches(
    accelerator: Accelerator, loader: DataLoader, options: TrainingOptions, progress: Progress
) -> Iterator[tuple[Sample, int, int]]:
    """Batches on the device from where `progress` stands up to the last step, each with its epoch and number in it."""
    epoch, position, step = progress.epoch, progress.batch, progress.step
    while step < options.steps:
        loader.dataset.set_epoch(epoch)  # accelerate passes it on with one process only
        if not options.streaming:
            loader.set_epoch(epoch)  # of the sampler
        batches = loader
        if position:
            batches = accelerator.skip_first_batches(loader, position)
            batches.iteration = epoch  # some versions of accelerate start to count anew
        found = False
        for batch in batches:
            found = True
            position += 1
            step += 1
            yield (
                {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in batch.items()},
                epoch,
                position,
            )
            if step == options.steps:
                return
        if not found and not position:
            raise InvalidInputError(
                f"The dataset {options.dataset} holds fewer images than one batch of {options.batch_size}."
            )
        epoch, position = epoch + 1, 0


def _learning_rate_factor(step: int, options: TrainingOptions) -> float:
    """Linear warm-up, then a cosine from 1 to `final_learning_rate` at the last step."""
    warmup = options.learning_rate_warmup
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, options.steps - warmup))
    return options.final_learning_rate + (1 - options.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * done))


def _calibration_images(accelerator: Accelerator, options: TrainingOptions) -> torch.Tensor:
    """Intact training crops, the same on every process: (N, 3, S, S), N at most `CALIBRATION_IMAGES`."""
    images = load_images(options.dataset, options.split, options.streaming)
    if options.streaming:
        rows = images.take(CALIBRATION_IMAGES)
    else:
        rows = (images[index] for index in spread(len(images), CALIBRATION_IMAGES))
    samples = sample_options(options)
    pixels = [make_sample(row["image"], samples, 0, index)["image"] for index, row in enumerate(rows)]
    return torch.stack(pixels).to(accelerator.device)


class _Log:
    """Values to TensorBoard, to metrics.jsonl and to the progress bar; grids to TensorBoard and as files."""

    def __init__(self, accelerator: Accelerator, folder: Path, options: TrainingOptions) -> None:
        self.accelerator, self.folder, self.options = accelerator, folder, options
        if accelerator.log_with:
            accelerator.init_trackers(f"{options.stage}/logs")
        self.since, self.since_step = time.perf_counter(), None

    def step(
        self,
        step: int,
        values: dict[str, torch.Tensor],
        learning_rate: float,
        bar: tqdm,
        events: dict[str, torch.Tensor],
    ) -> None:
        """Log `values` every so many steps, and `events`, such as restarts of codes, whenever there are any."""
        if self.since_step is None:  # the first step is not timed: it may compile
            self.since, self.since_step = time.perf_counter(), step
        row = {name: float(value) for name, value in events.items()}
        if step % self.options.log_every == 0 or step == self.options.steps:
            now = time.perf_counter()
            images = (step - self.since_step) * self.options.batch_size * self.accelerator.num_processes
            row.update({name: float(value) for name, value in values.items()}, learning_rate=learning_rate)
            if images:
                row["images_per_second"] = images / (now - self.since)
            self.since, self.since_step = now, step
            bar.set_postfix({"loss": f"{row['loss']:.4f}", "img/s": f"{row.get('images_per_second', 0):.1f}"})
        if row:
            self._write(step, row)

    def validation(self, step: int, values: dict[str, float], grid) -> None:
        self._write(step, values)
        folder = self.folder / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        grid.save(folder / f"step-{step:08d}.png")
        if self.accelerator.log_with:
            self.accelerator.get_tracker("tensorboard").log_images(
                {"samples": np.asarray(grid)[None]}, step=step, dataformats="NHWC"
            )
        self.accelerator.print(
            "  ".join(f"{name.removeprefix('validation/')} {value:.2f}" for name, value in values.items())
        )
        self.since_step = None  # the time of a validation is no training time

    def _write(self, step: int, row: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        if self.accelerator.log_with:
            self.accelerator.log(row, step=step)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")

    def close(self) -> None:
        for tracker in self.accelerator.trackers:
            tracker.finish()

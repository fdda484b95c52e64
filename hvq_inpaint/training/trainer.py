"""The training loop, the same for all stages."""

from __future__ import annotations

import dataclasses
import math
import shutil
import signal
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, ProjectConfiguration, gather_object, set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import HVQConfig
from ..data import (
    Sample,
    UnreadableImageError,
    decode_image,
    image_name,
    load_images,
    make_sample,
    rows_of,
    spread,
    undecoded,
    validation_samples,
    without_pauses,
)
from ..errors import InvalidInputError
from ..execution import device_name
from ..features import VGG19Features, load_vgg19
from ..inpainter import TRAINING_STAGES, HVQInpainter
from ..losses import LOSS_PRESETS
from ..metrics import LPIPS, load_lpips
from .batches import Batch, TrainingBatches, sample_options
from .cache import CachedInputs
from .checkpoints import (
    Progress,
    abandon_later,
    checkpoint_folders,
    find_checkpoint,
    is_of_a_worker,
    load_checkpoint,
    read_progress,
    save_checkpoint,
    way_back,
)
from .log import TrainingLog
from .micro_batches import MicroBatches
from .options import TrainingOptions
from .pushing import Pushes
from .report import card_facts, save_summary, summarise, summary_text, write_report
from .resume import OF_VALIDATION, alone_in, check_batch, check_options, enter_whole_epoch, save_options
from .stages import AutoencoderStage, EncoderStage, RefinerStage, TrainingStage
from .stopping import DivergenceWatch, StopRequest, TrainingStopped
from .together import SharedError, processes, tell_all, together
from .unreadable import UnreadableImages
from .validation import sample_grid, validate

CALIBRATION_IMAGES = 256


def run(stages: list[TrainingOptions]) -> HVQInpainter:
    """Train the stages one after the other; returns the model after the last."""
    with together():
        stages = _resume_unfinished(stages)
        # First, so that a missing feature network is told before hours of training, not after.
        networks = [load_loss_networks(options) for options in stages]
    with ExitStack() as stack:
        with together():
            pushes = None
            if stages[-1].push_to_hub and processes().is_main_process:
                pushes = stack.enter_context(Pushes(stages[-1]))
        accelerator, model = _train_stages(stages, networks, pushes)
        with together():
            if pushes is not None:
                print(f"Pushed: {pushes.final(Path(stages[-1].output) / stages[-1].stage / 'model')}")
    accelerator.end_training()
    return model


def _train_stages(
    stages: list[TrainingOptions], networks: list[LossNetworks], pushes: Pushes | None
) -> tuple[Accelerator, HVQInpainter]:
    """Train the stages one after the other; returns what the last of them used, and the model that it ended with."""
    try:
        with StopRequest() as request:
            for options, of_stage in zip(stages, networks, strict=True):
                # A new one for each stage: it checkpoints all that was ever prepared with it.
                accelerator = make_accelerator(options)
                model = train_stage(accelerator, options, of_stage, request=request, pushes=pushes)
                if options is not stages[-1]:
                    _stop_between_stages(accelerator, options, request)
    except RuntimeError as error:
        if not is_of_a_worker(error):
            raise
        raise InvalidInputError(
            f"A process that loads data was killed, perhaps for want of memory ({' '.join(str(error).split())}): lower "
            "--workers, and continue with --resume auto."
        ) from None
    return accelerator, model


def _resume_unfinished(stages: list[TrainingOptions]) -> list[TrainingOptions]:
    """A checkpoint that is asked for by its name is one of the first stage that is not done."""
    named = stages[0].resume not in (None, "auto")
    if not named:
        return stages
    unfinished = [options.stage for options in stages if not (Path(options.output) / options.stage / "model").is_dir()]
    if not unfinished:
        raise InvalidInputError(
            f"All stages are done: to go on from {stages[0].resume}, remove the folder model of its stage first."
        )
    return [
        options if options.stage == unfinished[0] else dataclasses.replace(options, resume="auto") for options in stages
    ]


def _stop_between_stages(accelerator: Accelerator, options: TrainingOptions, request: StopRequest) -> None:
    received = torch.tensor([float(request.signal_number)], device=accelerator.device)
    if signal_number := int(accelerator.gather(received).max()):
        raise TrainingStopped(
            f"Stopped by {signal.Signals(signal_number).name} after stage {options.stage}. "
            "Continue with --resume auto.",
            signal_number,
        )


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
    wanted = [tracker for tracker in options.log_with if tracker != "none"]
    missing = [tracker for tracker in wanted if LoggerType(tracker) not in get_available_trackers()]
    if set(missing) - {"tensorboard"}:
        raise InvalidInputError(f"--log-with {missing[0]} needs its package: pip install {missing[0]}.")
    accelerator = Accelerator(
        mixed_precision=options.mixed_precision,
        log_with=[tracker for tracker in wanted if tracker not in missing] or None,
        project_config=ProjectConfiguration(
            options.output, logging_dir=str(Path(options.output) / options.stage / "logs")
        ),
        # The codebooks are all-reduced by the quantizers themselves.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        # Accelerate would train in float32 without a word.
        raise InvalidInputError("fp16 needs a GPU: train with --mixed-precision bf16 or no.")
    if missing:
        accelerator.print("TensorBoard is not installed: values go to metrics.jsonl only ('pip install tensorboard').")
    return accelerator


def train_stage(
    accelerator: Accelerator,
    options: TrainingOptions,
    networks: LossNetworks | None = None,
    model: HVQInpainter | None = None,
    cache: CachedInputs | None = None,
    request: StopRequest | None = None,
    pushes: Pushes | None = None,
) -> HVQInpainter:
    """Train one stage, from its start or from its last checkpoint, and save the model it ends with.

    Args:
        networks: what `load_loss_networks` gives for these options.
        model: start from this one, whatever the preset; None: from --init, the last stage's, or a fresh one.
        cache: the refiner's inputs, if they were made before; None: they are made of the dataset.
        request: to stop; None: one for this stage only.
        pushes: of the main process; None: the model is not pushed.
    """
    with ExitStack() as stack:
        with together():
            if accelerator.is_main_process:
                stack.enter_context(alone_in(Path(options.output) / options.stage))
        request = request or stack.enter_context(StopRequest())
        return _train_stage(accelerator, options, networks or LossNetworks(), model, cache, request, pushes)


def _train_stage(
    accelerator: Accelerator,
    options: TrainingOptions,
    networks: LossNetworks,
    model: HVQInpainter | None,
    cache: CachedInputs | None,
    request: StopRequest,
    pushes: Pushes | None,
) -> HVQInpainter:
    folder = Path(options.output) / options.stage
    checkpoints = folder / "checkpoints"
    if options.resume and (folder / "model").is_dir():
        accelerator.print(f"Stage {options.stage} is done: {folder / 'model'}.")
        with together():
            if accelerator.is_main_process:
                write_report(Path(options.output))  # which a kill may have left out
        return (HVQInpainter if model is None else type(model)).from_pretrained(folder / "model")
    if not options.resume and (checkpoint_folders(checkpoints) or (folder / "model").is_dir()):
        raise SharedError(f"{folder} holds another run: continue it with --resume, or choose another --output.")

    set_seed(options.seed)
    with together():
        model = model or _initial_model(options)
        if networks.vgg19 is not None:
            networks.vgg19.to(accelerator.device).calibrate(_calibration_images(accelerator, options))
        if networks.lpips is not None:
            networks.lpips.to(accelerator.device)
        stage = _make_stage(model, options, networks)
        batches = TrainingBatches(accelerator, options, cache)
        held_out = _held_out_samples(options)

    torch.backends.cudnn.allow_tf32 = options.tf32  # of convolutions; matrix products, the codebooks' too, stay exact
    model.refiner.gradient_checkpointing = options.gradient_checkpointing
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(
        parameters,
        lr=options.learning_rate,
        betas=options.adam_betas,
        fused=accelerator.device.type in ("cpu", "cuda"),
    )
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

    progress = Progress()
    checkpoint = find_checkpoint(accelerator, checkpoints, options.resume) if options.resume else None
    if checkpoint is not None:
        with together():
            differences = check_options(folder, options)
            check_batch(folder, options, read_progress(checkpoint), accelerator.num_processes)
        for sentence in differences.values():
            accelerator.print(sentence)
        with together():
            if accelerator.is_main_process:
                abandon_later(checkpoints, checkpoint)
        progress = load_checkpoint(accelerator, checkpoint, average)
        if differences.keys() & OF_VALIDATION:  # values on other images are not to be compared
            progress = dataclasses.replace(progress, best_step=None, best_value=None)
        accelerator.print(f"Continuing after step {progress.step}, from {checkpoint}.")
        progress, remark = enter_whole_epoch(options, progress, accelerator.num_processes)
        if remark:
            accelerator.print(remark)
        if progress.images not in (None, batches.images):
            accelerator.print(
                f"{options.dataset} has {batches.images} images in place of {progress.images}: "
                "they come in another order."
            )
    else:
        with together():
            images = _calibration_images(accelerator, options)
        stage.start(images)
    log = TrainingLog(accelerator, folder, options, progress.step)
    with together():
        if accelerator.is_main_process:
            save_options(folder, options)

    stage.train()
    micro_batches = MicroBatches(accelerator, stage, wrapped, options.micro_batch_size)
    # Under fp16 the scaler begins with a scale of 2^16, and halves it at each gradient that is not finite.
    watch = DivergenceWatch(options.divergence_factor, 40 if accelerator.mixed_precision == "fp16" else 0)
    watch.seen = progress.loss_level  # a run that is continued in the midst of a rise takes no heart from it
    unreadables = UnreadableImages(accelerator, folder, options.unreadable_limit)

    def save(reached: Progress) -> None:
        with log.clock_stopped():
            save_checkpoint(accelerator, checkpoints, reached, options.keep_checkpoints, average)

    first_step = progress.step
    # Closed, whatever happens: the workers that make batches end with it.
    with closing(batches.start(progress)) as coming:
        while progress.step < options.steps:
            waiting_since = time.perf_counter()
            batch = next(coming)
            waited = time.perf_counter() - waiting_since
            tensors = batch.samples.tensors
            step, saved = progress.step, False
            events = stage.before_step(step, tensors)
            if batch.left_out:
                events["data/left_out"] = torch.tensor(float(batch.left_out))
            if stage.has_another_loss(step):
                watch.restart()
            if step == first_step or stage.has_another_loss(step):
                micro_batches.fit(tensors)
            loss, values = micro_batches.backward(tensors, optimizer.zero_grad)
            norm = accelerator.clip_grad_norm_(parameters, options.max_gradient_norm or math.inf)
            # All processes learn the same, and so stop together.
            loss, signal_number, unreadable, problems = _of_all(accelerator, loss, request, batch)
            if problems:
                log.close()
                tell_all(batch.problem)
            if unreadable:
                events["data/unreadable"] = torch.tensor(float(unreadables.note(batch.samples.unreadable)))
            too_many = unreadables.problem()
            problem = watch.problem(loss, float(norm))
            if problem:
                log.close()
                raise SharedError(
                    f"The loss of step {step + 1} (epoch {batch.epoch}, batch {batch.number}: "
                    f"{_listed(gather_object(batch.samples.names))}) {problem}. "
                    f"{way_back(checkpoints, progress, watch.has_risen)} and a lower --learning-rate."
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            if average is not None:
                average.update_parameters(model)

            progress = dataclasses.replace(
                progress,
                step=step + 1,
                epoch=batch.epoch,
                batch=batch.number,
                processes=accelerator.num_processes,
                workers=options.workers,
                global_batch=options.batch_size * accelerator.num_processes,
                images=batches.images,
                loss_level=watch.seen,
            )
            same = {"loss": loss, "learning_rate": schedule.get_last_lr()[0]}
            if torch.isfinite(norm):
                same["gradient_norm"] = float(norm)
            else:  # under fp16 only; JSON has no infinity
                events["scaler/skipped_steps"] = torch.tensor(1.0)
            if log.is_due(progress.step):
                same.update({name: float(value) for name, value in stage.step_logs().items()})
            log.step(progress.step, values, same, events, waited)
            is_last = progress.step == options.steps
            if held_out and (progress.step % options.validation_every == 0 or is_last):
                shown = model if average is None else average.module
                share = held_out[accelerator.process_index :: accelerator.num_processes]
                with log.clock_stopped():
                    results = validate(shown, share, accelerator.device)
                    grid = sample_grid(shown, held_out[:6], accelerator.device) if accelerator.is_main_process else None
                    log.validation(progress.step, results, grid)
                if progress.best_value is None or results[stage.decisive] > progress.best_value:
                    progress = dataclasses.replace(
                        progress, best_step=progress.step, best_value=results[stage.decisive]
                    )
                    save(progress)
                    saved = True
                    if pushes is not None:
                        figure = f"{stage.decisive.removeprefix('validation/').replace('_', ' ')} "
                        with log.clock_stopped():
                            pushes.best(shown, options.stage, progress.step, f"{figure}{progress.best_value:.2f} dB")
            if not saved and (signal_number or too_many or is_last or progress.step % options.checkpoint_every == 0):
                save(progress)
            if too_many:  # not before its step is done, of which the codebooks know already
                log.close()
                raise SharedError(too_many)
            if signal_number:
                log.close()
                raise TrainingStopped(
                    f"Stopped by {signal.Signals(signal_number).name} after step {progress.step}. "
                    f"{way_back(checkpoints, progress)}.",
                    signal_number,
                )
    log.close()

    if average is not None:
        model.load_state_dict(average.module.state_dict())
    stage.eval()
    with together():
        images = _calibration_images(accelerator, options)
    stage.finish(images)
    model.set_training_stage(None)
    model.eval()
    with together():
        if accelerator.is_main_process:
            partial = folder / "partial-model"
            shutil.rmtree(partial, ignore_errors=True)
            summary = summarise(
                folder, options, progress, batches.per_epoch, device_name(accelerator.device), torch.__version__
            )
            save_summary(summary, folder)
            try:
                model.save_pretrained(partial, model_card_kwargs=card_facts(Path(options.output), options))
            except InvalidInputError as error:
                raise InvalidInputError(f"{error} Make room. {way_back(checkpoints, progress)}.") from None
            partial.rename(folder / "model")
            print(f"{summary_text(summary)}\nReport: {write_report(Path(options.output))}")
    accelerator.print(f"Stage {options.stage} is done: {folder / 'model'}.")
    return model


def _held_out_samples(options: TrainingOptions) -> list[Sample]:
    """What is validated on; nothing without --validation."""
    if not options.validation:
        return []
    try:
        return validation_samples(
            load_images(options.validation, options.validation_split),
            options.validation_images,
            options.validation_size,
            options.mask_kinds,
            options.seed,
        )
    except UnreadableImageError as error:
        raise InvalidInputError(f"--validation must hold nothing but images: {error}") from None


def _initial_model(options: TrainingOptions) -> HVQInpainter:
    """The model that a stage starts from: --init, the last stage's, or for the first stage a fresh one."""
    if options.init:
        model = HVQInpainter.from_pretrained(options.init)
    elif options.stage == TRAINING_STAGES[0]:
        return HVQInpainter(HVQConfig.preset(options.preset or "paper"))
    else:
        before = TRAINING_STAGES[TRAINING_STAGES.index(options.stage) - 1]
        folder = Path(options.output) / before / "model"
        if not folder.is_dir():
            raise InvalidInputError(
                f"Stage {options.stage} starts from {folder}, which does not exist: "
                f"train --stage {before} first, or give a model with --init."
            )
        model = HVQInpainter.from_pretrained(folder)
    if options.preset is not None and model.config != HVQConfig.preset(options.preset):
        raise InvalidInputError(
            f"The model that stage {options.stage} starts from has another configuration than preset {options.preset}: "
            "give the preset that it was made with, or none to train it as it is."
        )
    return model


def _of_all(
    accelerator: Accelerator, loss: torch.Tensor, request: StopRequest, batch: Batch
) -> tuple[float, int, int, int]:
    """The mean loss of all processes, the signal that asked any of them to stop, or 0, how many images could not be
    used, and how many processes can't go on; the same on all.
    """
    here = (request.signal_number, len(batch.samples.unreadable), batch.problem is not None)
    said = torch.stack([loss.float(), *(loss.new_tensor(float(number)) for number in here)])
    everyone = accelerator.gather(said[None])  # (processes, 4)
    _, _, unreadable, problems = everyone.sum(dim=0).tolist()
    return float(everyone[:, 0].mean()), int(everyone[:, 1].max()), int(unreadable), int(problems)


def _listed(names: list[str], number: int = 8) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:number]) + (f" and {len(names) - number} more" if len(names) > number else "")


def _make_stage(model: HVQInpainter, options: TrainingOptions, networks: LossNetworks) -> TrainingStage:
    if options.stage == "autoencoder":
        return AutoencoderStage(model, options)
    if options.stage == "encoder":
        return EncoderStage(model, options)
    return RefinerStage(model, options, networks.vgg19, networks.lpips)


def _learning_rate_factor(step: int, options: TrainingOptions) -> float:
    """Linear warm-up, then a cosine from 1 to `final_learning_rate` at the last step."""
    warmup = options.learning_rate_warmup
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, options.steps - warmup))
    return options.final_learning_rate + (1 - options.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * done))


def _calibration_images(accelerator: Accelerator, options: TrainingOptions) -> torch.Tensor:
    """Intact training crops, the same on every process: (N, 3, S, S), N at most `CALIBRATION_IMAGES`."""
    images = undecoded(load_images(options.dataset, options.split, options.streaming))
    if options.streaming:
        # The first ones may be all alike; shuffled, they come from several shards.
        rows = rows_of(images.shuffle(seed=options.seed, buffer_size=4 * CALIBRATION_IMAGES).take(CALIBRATION_IMAGES))
    else:
        rows = (images[index] for index in spread(len(images), CALIBRATION_IMAGES))
    samples, pixels = sample_options(options), []
    with without_pauses():
        for index, row in enumerate(rows):
            try:
                image = decode_image(row["image"], image_name(row["image"]))
            except UnreadableImageError:
                continue  # told when a step meets it
            pixels.append(make_sample(image, samples, 0, index)["image"])
    if not pixels:
        raise InvalidInputError(f"None of the first images of {options.dataset} can be used.")
    return torch.stack(pixels).to(accelerator.device)

"""The three stages: each a module whose `forward` turns a batch into a loss and the values to log.

Being modules, they can be wrapped by DistributedDataParallel and compiled as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..credibility import code_distances, credibility_weights
from ..data import Sample
from ..distributed import all_reduce_mean, apart
from ..inpainter import HVQInpainter
from ..losses import (
    LOSS_PRESETS,
    FeatureFunction,
    ImageDistance,
    code_loss,
    credibility_loss,
    mid_loss,
    pool_known,
    refiner_loss,
    vqvae_loss,
)
from ..masks import RawRandom
from ..quantizer import to_vectors, usage_of_counts
from .options import TrainingOptions

Logs = dict[str, torch.Tensor]


class TrainingStage(nn.Module):
    """What the trainer needs of a stage."""

    name: str
    decisive: str  # the value of a validation that says which checkpoint is the best

    def __init__(self, model: HVQInpainter, options: TrainingOptions) -> None:
        super().__init__()
        self.model, self.options = model, options
        model.set_training_stage(self.name)

    def start(self, images: torch.Tensor) -> None:
        """Prepare the model on intact `images` (N, 3, S, S) at the very start; not called when a run is resumed."""

    def before_step(self, step: int, batch: Sample) -> Logs:
        """Work that is no gradient step, done before step `step` (counted from 0) on this process's batch."""
        return {}

    def has_another_loss(self, step: int) -> bool:
        """Whether the loss of step `step` is not to be compared with those before it."""
        return False

    @contextmanager
    def one_batch(self) -> Iterator[None]:
        """Within it all calls of `forward` count as one batch for the codebooks."""
        yield

    def step_logs(self) -> Logs:
        """What there is to log of the last step as a whole, the same on all processes."""
        return {}

    def finish(self, images: torch.Tensor) -> None:
        """Calibrate the model on intact `images` (B, 3, H, W) once the last step is done."""


class AutoencoderStage(TrainingStage):
    """Stage 1: EncoderA1, EncoderA2, DecoderA and both codebooks on intact images, Eq. (2)."""

    name = "autoencoder"
    decisive = "validation/oracle_whole_psnr"

    def __init__(self, model: HVQInpainter, options: TrainingOptions) -> None:
        super().__init__(model, options)
        # A model that is trained on has its codebooks.
        self.warmup = 0 if options.fine_tune else options.quantization_warmup
        self.warming_up = self.warmup > 0

    def before_step(self, step: int, batch: Sample) -> Logs:
        vqvae, options, image = self.model.vqvae, self.options, batch["image"]
        self.warming_up = step < self.warmup
        if self.warming_up:
            return {}
        # Keyed by the step, so that a resumed run draws the same.
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        since = step - self.warmup
        if since == 0 and not options.fine_tune:
            with torch.no_grad():
                mid, global_latents = vqvae.encoder_a1(image)
                vqvae.global_quantizer.start_from(global_latents, generator)
                global_quantized, _ = vqvae.global_quantizer.quantize(global_latents)
                vqvae.local_quantizer.start_from(vqvae.encoder_a2(global_quantized, mid), generator)
        elif since and options.restart_every and since % options.restart_every == 0:
            with torch.no_grad():
                mid, global_latents = vqvae.encoder_a1(image)
                restarted = {
                    "codebook/global_restarts": vqvae.global_quantizer.restart_dead_codes(
                        global_latents, generator=generator
                    )
                }
                global_quantized, _ = vqvae.global_quantizer.quantize(global_latents)
                local_latents = vqvae.encoder_a2(global_quantized, mid)
                restarted["codebook/local_restarts"] = vqvae.local_quantizer.restart_dead_codes(
                    local_latents, generator=generator
                )
            return {name: torch.tensor(float(number)) for name, number in restarted.items()}
        return {}

    def forward(self, image: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, Logs]:
        vqvae = self.model.vqvae
        if self.warming_up:
            reconstruction, _, _ = vqvae.forward_continuous(image)
            loss = vqvae_loss(reconstruction, image, torch.zeros((), device=image.device))
            return loss, {"loss/reconstruction": loss.detach()}
        output = vqvae(image)
        loss = vqvae_loss(output.reconstruction, image, output.commitment)
        return loss, {
            "loss/commitment": output.commitment.detach(),
            "loss/reconstruction": (loss - 0.25 * output.commitment).detach(),
        }

    def has_another_loss(self, step: int) -> bool:
        return step == self.warmup

    @contextmanager
    def one_batch(self) -> Iterator[None]:
        if self.warming_up:
            yield
            return
        with self.model.vqvae.global_quantizer.one_batch(), self.model.vqvae.local_quantizer.one_batch():
            yield

    def step_logs(self) -> Logs:
        logs = {}
        if not self.warming_up:
            vqvae = self.model.vqvae
            for level, quantizer in (("global", vqvae.global_quantizer), ("local", vqvae.local_quantizer)):
                usage, perplexity = usage_of_counts(quantizer.batch_counts)
                logs[f"codebook/{level}_usage"] = torch.tensor(usage)
                logs[f"codebook/{level}_perplexity"] = torch.tensor(perplexity)
        return logs

    @torch.no_grad()
    def finish(self, images: torch.Tensor) -> None:
        vqvae = self.model.vqvae
        latents = [to_vectors(vqvae.encoder_a1(part)[1]) for part in images.split(16)]
        distances, _ = code_distances(torch.cat(latents), vqvae.global_quantizer.codebook)
        with apart():  # all processes have the same images
            self.model.credibility_map.calibrate(distances)


class EncoderStage(TrainingStage):
    """Stage 2: EncoderB1 learns to predict the intact image's latents from the damaged one, Eq. (6) and (10).

    Two additions to the paper, off unless they are weighed: with `coarse_weight` it also learns from what the frozen
    decoder makes of its codes, by Eq. (11) and (12) as in the loss preset l1; with `code_weight`, the cross-entropy of
    the intact image's local codes. The gradient passes straight through the quantizers.
    """

    name = "encoder"
    decisive = "validation/coarse_psnr"

    def __init__(self, model: HVQInpainter, options: TrainingOptions) -> None:
        super().__init__(model, options)
        self.missing_share: torch.Tensor | None = None

    def before_step(self, step: int, batch: Sample) -> Logs:
        if self.options.code_weight:
            known = batch["known"]
            size = (known.shape[-2] // 4, known.shape[-1] // 4)  # that of the local codes
            # Of the global batch, which a micro-batch does not know.
            self.missing_share = all_reduce_mean((1 - pool_known(known, size)).mean())
        return {}

    def start(self, images: torch.Tensor) -> None:
        if not self.options.fine_tune:
            self.model.encoder_b1.start_from(self.model.vqvae.encoder_a1, images)

    def forward(self, image: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, Logs]:
        model, options = self.model, self.options
        with torch.no_grad():
            clean_mid, clean_latents = model.vqvae.encoder_a1(image)
        damaged_mid, damaged_latents = model.encoder_b1(image * known, known)
        weights, max_dist = credibility_weights(
            clean_latents.float(),
            damaged_latents.float(),
            model.vqvae.global_quantizer.codebook,
            options.credibility_quantile,
        )
        of_mid = mid_loss(clean_mid, damaged_mid, known)
        of_latents = credibility_loss(clean_latents, damaged_latents, weights, options.low_credibility_weight)
        logs = {
            "loss/mid": of_mid.detach(),
            "loss/credibility": of_latents.detach(),
            "credibility/max_dist": max_dist,
            "credibility/low_share": weights.mean(),
        }
        loss = of_mid + of_latents
        if options.code_weight:
            of_codes = self.local_code_loss(clean_mid, clean_latents, damaged_mid, damaged_latents, known)
            logs["loss/codes"] = of_codes.detach()
            loss = loss + options.code_weight * of_codes
        if options.coarse_weight:
            global_quantized, _ = model.vqvae.global_quantizer.quantize(damaged_latents)
            _, _, coarse = model.vqvae.decode_with_mid(global_quantized, damaged_mid)
            of_pixels, _ = refiner_loss(coarse, image, known, LOSS_PRESETS["l1"])
            logs["loss/coarse"] = of_pixels.detach()
            loss = loss + options.coarse_weight * of_pixels
        return loss, logs

    def local_code_loss(
        self,
        clean_mid: torch.Tensor,
        clean_latents: torch.Tensor,
        damaged_mid: torch.Tensor,
        damaged_latents: torch.Tensor,
        known: torch.Tensor,
    ) -> torch.Tensor:
        """`losses.code_loss` of the local codes, on the scale of the clean images' distances to them: those of the
        micro-batch over all processes, as with the threshold of Eq. (8).
        """
        vqvae = self.model.vqvae
        with torch.no_grad():
            clean_quantized, _ = vqvae.global_quantizer.quantize(clean_latents)
            clean_local = vqvae.encoder_a2(clean_quantized, clean_mid)
            local_quantized, codes = vqvae.local_quantizer.quantize(clean_local)
            scale = all_reduce_mean((clean_local.float() - local_quantized).square().sum(dim=1).mean())
        damaged_quantized, _ = vqvae.global_quantizer.quantize(damaged_latents)
        damaged_local = vqvae.encoder_a2(damaged_quantized, damaged_mid)
        codebook = vqvae.local_quantizer.codebook
        return code_loss(damaged_local, codes, codebook, known, scale.clamp_min(1e-12), self.missing_share)


class RefinerStage(TrainingStage):
    """Stage 3: the multi-dilation refiner on the frozen VQ stage's result, Eq. (17)."""

    name = "refiner"
    decisive = "validation/refined_psnr"

    def __init__(
        self,
        model: HVQInpainter,
        options: TrainingOptions,
        features: FeatureFunction | None = None,
        lpips: ImageDistance | None = None,
    ) -> None:
        super().__init__(model, options)
        self.loss_weights = LOSS_PRESETS[options.loss]
        # Not sub-modules: the feature networks are no part of what is trained, saved or wrapped.
        self.__dict__["features"], self.__dict__["lpips"] = features, lpips
        self.shift = (0, 0)
        self.window = (slice(None), slice(None))

    def before_step(self, step: int, batch: Sample) -> Logs:
        # LPIPS looks at every fourth pixel: were it always the same ones, a pattern of that width could please it.
        self.shift = (step % 4, step // 4 % 4)
        if size := self.options.feature_window:
            # Keyed by the step, so that a resumed run draws the same.
            random = RawRandom("feature window", self.options.seed, step)
            corner = [random.integer(0, length - size) for length in batch["image"].shape[-2:]]
            self.window = tuple(slice(start, start + size) for start in corner)
        return {}

    def windowed_features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps of this step's window."""
        return self.features(image[(..., *self.window)])

    @torch.compiler.disable  # which would compile anew for each of the 16 sizes
    def shifted_lpips(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """LPIPS without the first 0 to 3 rows and columns, others in each of 16 steps."""
        top, left = self.shift
        return self.lpips(output[..., top:, left:], target[..., top:, left:])

    def forward(
        self, image: torch.Tensor, known: torch.Tensor, coarse: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Logs]:
        """`coarse` is the VQ stage's result (B, 3, S, S), where it was made before."""
        if coarse is None:
            refined = self.model(image, known).refined
        else:
            refined = self.model.refine(coarse, image * known, known)
        features = self.windowed_features if self.features is not None else None
        lpips = self.shifted_lpips if self.lpips is not None else None
        loss, terms = refiner_loss(refined, image, known, self.loss_weights, features, lpips)
        return loss, {f"loss/{name}": term for name, term in terms.items()}

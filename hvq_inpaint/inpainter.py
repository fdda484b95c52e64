"""The networks joined: `forward` on tensors, `inpaint` on photographs, loading and saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from .blending import poisson_composite
from .config import SIZE_MULTIPLE, HVQConfig
from .credibility import CredibilityMap
from .encoder import EncoderB1
from .errors import InvalidInputError
from .examples import EXAMPLES, load_example
from .execution import check_weights
from .filling import FillOptions, FillStep, InpaintResult, fill, fill_steps
from .hole import load_mask, mask_of_alpha
from .images import ImageLike, is_several, load_photograph
from .losses import composite
from .pretrained import WHOLE, PretrainedModel
from .refiner import MultiDilationRefiner
from .sampling import make_generators
from .visualize import labelled_grid, stage_pictures
from .vqvae import HierarchicalVQVAE

TRAINING_STAGES = ("autoencoder", "encoder", "refiner")

SAMPLE_SIDE = 256  # of the pictures on a card, in pixels


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards, also after an error, the mode that there was before."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@dataclass
class InpaintOutput:
    """Every intermediate of the pipeline, for an image (B, 3, H, W)."""

    mid: torch.Tensor  # F_mid2 (B, 128, H/4, W/4)
    global_latents: torch.Tensor  # E1F2 (B, 64, H/8, W/8)
    global_quantized: torch.Tensor  # Q1 (B, 64, H/8, W/8)
    global_codes: torch.Tensor  # (B, H/8, W/8) int64
    local_quantized: torch.Tensor  # Q2 (B, 64, H/4, W/4)
    local_codes: torch.Tensor  # (B, H/4, W/4) int64
    coarse: torch.Tensor  # the VQ stage's result (B, 3, H, W) in [0, 1]
    refined: torch.Tensor  # I_out (B, 3, H, W); in [0, 1] in eval mode
    composite: torch.Tensor  # I_comp (B, 3, H, W): the input's known pixels, bit for bit, and `refined` in the hole
    credibility: torch.Tensor  # (B, 1, H/8, W/8) in [0, 1], 1 = credible


@dataclass
class Encoded:
    """What the pipeline knows of an image (B, 3, H, W) before anything is decoded."""

    mid: torch.Tensor  # F_mid2 (B, 128, H/4, W/4)
    global_latents: torch.Tensor  # E1F2 (B, 64, H/8, W/8)
    global_quantized: torch.Tensor  # Q1 (B, 64, H/8, W/8)
    global_codes: torch.Tensor  # (B, H/8, W/8) int64


class HVQInpainter(PretrainedModel):
    """Hierarchical VQ-VAE image inpainting with vector credibility (Li, Xu, Chen, Electronics 2024, 13, 1852).

    Args:
        config: an `HVQConfig`, or its fields as a dict; the preset `paper` if not given.
    """

    architecture = WHOLE

    def __init__(self, config: HVQConfig | dict[str, Any] | None = None) -> None:
        super().__init__(config)
        self.vqvae = HierarchicalVQVAE(self.config)
        self.encoder_b1 = EncoderB1(self.config)
        self.credibility_map = CredibilityMap()
        self.refiner = MultiDilationRefiner(self.config)
        self.training_stage: str | None = None

    # ---------------------------------------------------------------- training

    def set_training_stage(self, stage: str | None) -> None:
        """Make one part trainable and freeze all others: `autoencoder`, `encoder` or `refiner`; None frees all.

        Frozen parts get no gradient, and stay in eval mode when `train()` is called on the whole model.
        """
        parts = {"autoencoder": self.vqvae, "encoder": self.encoder_b1, "refiner": self.refiner}
        if stage is not None and stage not in parts:
            raise InvalidInputError(
                f"There is no training stage {stage!r}; choose one of {', '.join(TRAINING_STAGES)}."
            )
        self.training_stage = stage
        for name, part in parts.items():
            part.requires_grad_(stage is None or name == stage)
        self.train(self.training)

    def train(self, mode: bool = True) -> HVQInpainter:
        super().train(mode)
        if self.training_stage is not None:
            self.vqvae.train(mode and self.training_stage == "autoencoder")
            self.encoder_b1.train(mode and self.training_stage == "encoder")
            self.refiner.train(mode and self.training_stage == "refiner")
        return self

    # ---------------------------------------------------------------- tensors

    def forward(self, damaged: torch.Tensor, known: torch.Tensor) -> InpaintOutput:
        """The whole pipeline; never updates a codebook, whatever the mode.

        Args:
            damaged: (B, 3, H, W) in [0, 1]; what it holds where `known` is 0 is ignored. H and W multiples of 8.
            known: (B, 1, H, W), 1 = known, 0 = missing.
        """
        encoded = self.encode(damaged, known)
        local_quantized, local_codes, coarse = self.vqvae.decode_with_mid(encoded.global_quantized, encoded.mid)
        coarse = coarse.float().clamp(0, 1)
        refined = self.refine(coarse, damaged, known)
        return InpaintOutput(
            **vars(encoded),
            local_quantized=local_quantized,
            local_codes=local_codes,
            coarse=coarse,
            refined=refined,
            composite=composite(refined, damaged, known),
            credibility=self.credibility_map(encoded.global_latents, self.vqvae.global_quantizer.codebook),
        )

    def encode(self, damaged: torch.Tensor, known: torch.Tensor) -> Encoded:
        """The first part of `forward`; arguments as there."""
        self._check_tensors(damaged, known)
        mid, global_latents = self.encoder_b1(torch.where(known > 0.5, damaged, 0), known)
        return Encoded(mid, global_latents, *self.vqvae.global_quantizer.quantize(global_latents))

    def vq_stage(self, damaged: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All of `forward` before the refiner, for those who need none; arguments as there.

        Returns:
            `mid` (B, 128, H/4, W/4), `global_latents` (B, 64, H/8, W/8) and `coarse` (B, 3, H, W) in [0, 1].
        """
        encoded = self.encode(damaged, known)
        _, _, coarse = self.vqvae.decode_with_mid(encoded.global_quantized, encoded.mid)
        return encoded.mid, encoded.global_latents, coarse.float().clamp(0, 1)

    def coarse_composite(self, coarse: torch.Tensor, damaged: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """What the refiner gets: the known pixels and, in the hole, the VQ stage's result (B, 3, H, W).

        Pasted, or with the configuration's `poisson_composite` blended.
        """
        if self.config.poisson_composite:
            return poisson_composite(coarse, damaged, known)
        return composite(coarse, damaged, known)

    def refine(self, coarse: torch.Tensor, damaged: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """The second half of `forward`: I_out (B, 3, H, W), in [0, 1] in eval mode, from the VQ stage's result."""
        return self.refiner(self.coarse_composite(coarse, damaged, known), known).float()

    @staticmethod
    def _check_tensors(damaged: torch.Tensor, known: torch.Tensor) -> None:
        if damaged.ndim != 4 or damaged.shape[1] != 3:
            raise InvalidInputError(f"damaged must be (B, 3, H, W), not {tuple(damaged.shape)}.")
        batch, _, height, width = damaged.shape
        if known.shape != (batch, 1, height, width):
            raise InvalidInputError(
                f"known must be {(batch, 1, height, width)} to fit damaged, not {tuple(known.shape)}."
            )
        if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE or not height or not width:
            raise InvalidInputError(
                f"Height and width must be multiples of {SIZE_MULTIPLE}, not {height} x {width}; "
                "`inpaint` takes any size."
            )

    @torch.no_grad()
    def reconstruct(self, image: torch.Tensor) -> torch.Tensor:
        """The oracle: the true codes of an intact image (B, 3, H, W) through the decoder, in [0, 1].

        Updates nothing.
        """
        with evaluating(self.vqvae):
            return self.vqvae(image).reconstruction.float().clamp(0, 1)

    # ---------------------------------------------------------------- photographs

    @torch.no_grad()
    def inpaint(
        self,
        image: ImageLike | Sequence[ImageLike],
        mask: ImageLike | Sequence[ImageLike] | None = None,
        seed: int = 0,
        num_results: int = 1,
        *,
        strategy: str = "auto",
        working_size: int = 512,
        dilate: int = 0,
        feather: int = 0,
        output_type: str = "pil",
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int = 1,
        precision: str = "auto",
        callback: Callable[[int, int], Any] | None = None,
    ) -> InpaintResult | list[InpaintResult]:
        """Fill the masked part of a photograph, or of several.

        Nothing of the model is changed, so several threads may call it at a time.

        Args:
            image: a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W), uint8 or floats in [0, 1]; any size.
                A list of them, or an array or tensor with a batch in front, gives a list of results.
            mask: the same forms, of the image's size; white / True / 1 = repaint; grey is cut at half. None: what is
                transparent in the image is repainted, and opaque afterwards. For a list of images, a list or one
                mask for all.
            seed: for the results after the first, which are drawn at random; from 0 to 2^63 - 1.
            num_results: how many different fills; the first is always the most probable one. The others take codes near
                the predicted ones, at random, where credibility is low.
            strategy: `original`: the whole photograph in one pass; memory grows with it. `resize`: the whole
                photograph, reduced to the working size. `crop`: around each hole at the photograph's own scale, and
                large holes at a reduced scale, then refined. `auto`: `original` if the photograph fits the working
                size, else `crop`.
            working_size: longest side inside the network, in pixels; a multiple of 8, at least 64.
            dilate: the mask grows by so many pixels, against remains of what is to vanish.
            feather: the mask grows by so many pixels more, over which the fill fades into the photograph.
            output_type: of `images`: `pil`, size and mode of the input; `numpy`, (H, W, 3) RGB, uint8 or the float type
                that was given; `torch`, (3, H, W) RGB, float in [0, 1], on the processor.
            generator: draws in place of `seed`; for a list of images, the seed of each, or a list of generators.
            batch_size: crops of one size that go through the networks together, for lists of images on a GPU. Another
                batch size may change a result a little, by rounding.
            precision: number format of the networks: `float32`, `bfloat16`, or `auto`, the faster one on the model's
                device. In bfloat16 a fill differs in the hole by less than a grey level on average.
            callback: called as `callback(done, total)` after each step. If it returns False, `Cancelled` is raised.

        Returns:
            An `InpaintResult`, or a list of them. Outside the mask (grown by `dilate` and `feather`) the pixels are
            those of `image`, bit for bit; as `numpy` and `torch`, those of `image` as RGB.

        Raises:
            InvalidInputError: image, mask or an option can't be used; the message says why.
            Cancelled: the callback said so.
        """
        check_weights(self)
        if callback is not None and not callable(callback):
            raise InvalidInputError(f"callback must be a function, not {callback!r}.")
        options = FillOptions(num_results, strategy, working_size, dilate, feather, output_type, batch_size, precision)
        several = is_several(image)
        images = list(image) if several else [image]
        # (B, H, W), one mask for each image of a batch, has one dimension less than a batch of images.
        flat = several and isinstance(mask, (np.ndarray, torch.Tensor)) and mask.ndim == 3 and len(mask) == len(images)
        masks = list(mask) if flat or is_several(mask) else [mask] * len(images)
        if not images or len(masks) != len(images):
            raise InvalidInputError(
                f"There are {len(images)} images and {len(masks)} masks: give one mask for each image, or one for all."
            )
        photographs = [load_photograph(single) for single in images]
        missing = [
            mask_of_alpha(photograph) if single is None else load_mask(single, photograph.size)
            for single, photograph in zip(masks, photographs, strict=True)
        ]
        # One for each photograph, so that a result does not depend on the others of its list.
        generators = make_generators(seed, generator, len(images) if several else None)
        opaque = [single is None for single in masks]
        results = fill(self, photographs, missing, generators, options, opaque, callback)
        return results if several else results[0]

    def inpaint_steps(
        self,
        image: ImageLike,
        mask: ImageLike | None = None,
        seed: int = 0,
        num_results: int = 1,
        *,
        strategy: str = "auto",
        working_size: int = 512,
        dilate: int = 0,
        feather: int = 0,
        output_type: str = "pil",
        generator: torch.Generator | None = None,
        precision: str = "auto",
    ) -> Iterator[FillStep]:
        """`inpaint` of one photograph, step by step, for those who show every stage as soon as it is computed.

        Args: as for `inpaint`.

        Returns:
            An iterator of steps. Each names the `part` of the network that is done, `encoder`, `decoder` or `refiner`
            (or `tile`, a part of a large region's `refiner`), and its `result()` is what there is by then; the last
            one's is that of `inpaint`. Dropping the iterator cancels the fill.

        Raises:
            InvalidInputError: image, mask or an option can't be used; at once, not at the first step.
        """
        check_weights(self)
        options = FillOptions(num_results, strategy, working_size, dilate, feather, output_type, 1, precision)
        photograph = load_photograph(image)
        missing = mask_of_alpha(photograph) if mask is None else load_mask(mask, photograph.size)
        (only,) = make_generators(seed, generator, None)
        return fill_steps(self, photograph, missing, only, options, opaque=mask is None)

    def sample_picture(self) -> tuple[Image.Image, str]:
        """A row for each of the photographs that come with the package: damaged, every stage, the original."""
        titles = {
            "damaged": "damaged",
            "credibility": "credibility",
            "coarse": "VQ result",
            "composite": "result",
            "original": "original",
        }
        rows = {}
        for example in EXAMPLES[:3]:
            photograph, mask = load_example(example.name, SAMPLE_SIDE)
            result = self.inpaint(photograph, mask)
            pictures = {**stage_pictures(result.stages, self.config.num_codes), "original": photograph}
            rows[example.mask_kind.replace("_", " ")] = [
                pictures[stage].resize(photograph.size, Image.Resampling.NEAREST) for stage in titles
            ]
        credits = "; ".join(example.caption for example in EXAMPLES[:3])
        return labelled_grid(rows, list(titles.values())), f"Three kinds of masks on photographs: {credits}"

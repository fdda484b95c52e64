"""Every stage of a fill as a picture, with a sentence that says what it is and, where it can be measured, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..filling import InpaintResult
from ..images import load_photograph, to_tensor
from ..visualize import MOST_ERROR, code_picture, credibility_picture, error_picture, ramp

LONGEST_SIDE = 1024  # of a stage's picture in pixels; the result itself is never reduced
SSIM_MEGAPIXELS = 3  # on which it is computed at most: it takes two seconds of a processor for each and stage


@dataclass(frozen=True)
class Stage:
    """What is shown of a stage."""

    name: str  # as in `InpaintResult.stages`
    title: str
    symbol: str  # the paper's, as HTML
    sentence: str
    legend: tuple[str, str] | None = None  # what the two ends of the colour ramp mean


STAGES = (
    Stage(
        "damaged",
        "Damaged input",
        "F<sub>2</sub>",
        "The photograph without what you marked, which is black here. The model gets to see no more than this.",
    ),
    Stage(
        "global_codes",
        "Global codes",
        "Q<sub>1</sub>",
        "The layout, guessed: for each square of 8 x 8 pixels the encoder and its transformer choose one word of a "
        "dictionary that was learned from intact photographs. A colour is a word.",
    ),
    Stage(
        "credibility",
        "Credibility",
        "VW",
        "How near each guess lies to its word, next to how near intact photographs lie to theirs. Far ones are not "
        "credible; in training they weigh most. It does not tell right from wrong.",
        ("far: not credible", "near: credible"),
    ),
    Stage(
        "local_codes",
        "Local codes",
        "Q<sub>2</sub>",
        "The texture on top of the layout: one word of a second dictionary for each square of 4 x 4 pixels.",
    ),
    Stage(
        "coarse",
        "VQ result",
        "D<sub>A</sub>(Q<sub>1</sub>, Q<sub>2</sub>)",
        "Both maps of words, decoded to pixels by DecoderA: shapes without fine detail. Known parts are redrawn too.",
    ),
    Stage(
        "refined",
        "Refined",
        "I<sub>out</sub>",
        "The VQ result, fitted into the known pixels and redrawn by a network that looks near and far at once.",
    ),
    Stage(
        "composite",
        "Composite",
        "I<sub>comp</sub>",
        "The result: the refined picture where you marked, the photograph, bit for bit, everywhere else.",
    ),
    Stage(
        "error",
        "Error",
        "|I<sub>comp</sub> - I<sub>gt</sub>|",
        "How far the result is from the intact photograph, taken to be the photograph before the damage.",
        ("equal", f"{MOST_ERROR} grey levels or more"),
    ),
)

# What can be shown once a part of the network is done.
STAGES_OF_PART = {
    "encoder": ("damaged", "global_codes", "credibility"),
    "decoder": ("local_codes", "coarse"),
    "refiner": ("refined", "composite"),
}

# Pictures of the photograph's size, which can be compared with the intact one.
MEASURED = ("damaged", "coarse", "refined", "composite")

FIGURES_EXPLAINED = (
    "Figures: PSNR and L1 over the missing pixels only, colours in [0, 1]; SSIM over the whole picture, Gaussian "
    f"window of 11 pixels, sigma 1.5, mean over red, green and blue; none where more than {SSIM_MEGAPIXELS} megapixels "
    "differ."
)


@dataclass(frozen=True)
class Figures:
    """How near a picture is to the intact photograph."""

    psnr: float  # dB in the hole, peak 1; infinite if equal
    ssim: float | None  # of the whole picture; None where that is narrower than the window, or too much differs
    l1: float  # mean in the hole, in [0, 1]

    def __str__(self) -> str:
        similarity = "" if self.ssim is None else f"SSIM {self.ssim:.3f}, "
        return f"PSNR {self.psnr:.2f} dB, {similarity}L1 {self.l1:.4f}"


def stage_picture(name: str, result: InpaintResult, num_codes: int) -> Image.Image:
    """One of `STAGES` but the error, at no more than `LONGEST_SIDE`; credibility lies over the part worked on.

    Args:
        result: the whole one, or one so far that has this stage.
        num_codes: K, the size of the codebooks.
    """
    value = result.stages[name]
    if name in ("global_codes", "local_codes"):
        return code_picture(value, num_codes)
    if name == "credibility":
        part = result.stages["damaged"].crop(result.main_crop.box)
        return credibility_picture(value, photograph=_reduced(part))
    return _reduced(value if value.mode in ("L", "RGB", "RGBA") else Image.fromarray(rgb(value)))


def codes_in_use(codes: np.ndarray, num_codes: int) -> str:
    """How many different codes a map (h, w) is made of, as a sentence."""
    return f"{len(np.unique(codes))} of {num_codes} words in use, in {codes.shape[1]} x {codes.shape[0]} squares."


def shown_part(result: InpaintResult) -> str:
    """Which part of the photograph the maps cover, as a sentence; nothing if it is all of it."""
    left, top, right, bottom = result.main_crop.box
    width, height = result.stages["damaged"].size
    if (left, top, right, bottom) == (0, 0, width, height):
        return ""
    others = len(result.crops) - 1
    more = f"; {others} more {'part was' if others == 1 else 'parts were'} worked on" if others else ""
    return f"Shown: {right - left} x {bottom - top} pixels around the largest hole{more}."


def measured(result: InpaintResult, original: np.ndarray, missing: np.ndarray) -> dict[str, Figures]:
    """The figures of every stage in `MEASURED`.

    Args:
        original: the intact photograph, (H, W, 3) uint8 RGB.
        missing: (H, W) bool, the hole.
    """
    from ..metrics import mean_l1, psnr  # slow to import

    target = to_tensor(original[missing][None])  # only the hole: (1, 3, 1, N)
    figures = {}
    for name in MEASURED:
        pixels = rgb(result.stages[name])
        output = to_tensor(pixels[missing][None])
        figures[name] = Figures(
            psnr=psnr(output, target).item(), ssim=_ssim(pixels, original), l1=mean_l1(output, target).item()
        )
    return figures


def error_of(result: InpaintResult, original: np.ndarray) -> Image.Image:
    """The picture of the stage `error`; `original` as for `measured`."""
    return _reduced(error_picture(rgb(result.stages["composite"]), original))


def rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8."""
    return load_photograph(image).pixels().copy()  # PyTorch takes no read-only ones


def as_words(figures: Mapping[str, Figures]) -> dict[str, str]:
    """Figures as text by stage."""
    return {name: str(figure) for name, figure in figures.items()}


def legend(stage: Stage) -> str:
    """The colour ramp as HTML, with what its ends mean; nothing for a stage that has none."""
    if stage.legend is None:
        return ""
    low, high = stage.legend
    colours = ", ".join(f"rgb{colour}" for colour in ramp())
    return (
        f'<div class="legend"><i aria-hidden="true" style="background: linear-gradient(to right, {colours})"></i>'
        f"<span>{low}</span><span>{high}</span></div>"
    )


def _reduced(picture: Image.Image) -> Image.Image:
    """`picture` at no more than `LONGEST_SIDE`."""
    if max(picture.size) <= LONGEST_SIDE:
        return picture
    picture = picture.copy()
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture


def _ssim(output: np.ndarray, original: np.ndarray, rows: int = 256) -> float | None:
    """SSIM of two pictures (H, W, 3) uint8; None where it does not exist or would take too long.

    It is computed where they differ, as it is 1 elsewhere, and in strips: the same mean, in the memory of one strip.
    """
    from ..metrics import SSIM_WINDOW, ssim  # slow to import

    overlap = SSIM_WINDOW - 1
    windows = (output.shape[0] - overlap) * (output.shape[1] - overlap)
    if min(output.shape[:2]) < SSIM_WINDOW:
        return None
    differs = (output != original).any(axis=2)
    if not differs.any():
        return 1.0
    # Every window that reaches a pixel that differs begins in here.
    reached = tuple(
        slice(max(0, places[0] - overlap), places[-1] + overlap + 1)
        for places in (np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0)))
    )
    output, original = output[reached], original[reached]
    height, width = output.shape[:2]
    if height * width > SSIM_MEGAPIXELS * 1e6:
        return None
    missed = 0.0
    for first, last in _strips(height - overlap, rows):
        here = slice(first, last + overlap)
        similarity = ssim(to_tensor(output[here]), to_tensor(original[here])).item()
        missed += (1 - similarity) * (last - first) * (width - overlap)
    return 1 - missed / windows


def _strips(length: int, rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, length, rows):
        yield first, min(length, first + rows)

"""What programs call: the endpoints `/inpaint` and `/damage`, whose controls are on no page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import InvalidInputError
from ..hole import load_mask, mask_of_alpha
from ..images import Photograph, load_photograph
from ..masks import MASK_KINDS, make_mask
from .fills import Filler, Options, Progress, hole_of
from .layout import chosen_options, option_controls, seed_control, whole_seed
from .photographs import (
    check_picture,
    checked_first,
    folder_for_visitor,
    refusal,
    save_picture,
    save_results,
)
from .stages import STAGES, error_of, measured, rgb, stage_picture

# What the page says of the endpoints under "Use via API".
INPAINT = """Fill the masked part of a photograph. image: the photograph, of any size and mode; known pixels come back \
bit for bit, with alpha, ICC profile and EXIF. mask: a picture of its size, white = fill; null: what is transparent \
is filled. num_results: how many different fills; the first is the most probable one. seed: another seed gives other \
fills after the first. dilate: pixels by which the mask grows. feather: further pixels over which the fill fades into \
the photograph. compare: the photograph is intact under the mask, so report PSNR, SSIM and L1 of each stage. \
Returns results: the fills as files without loss; stages: a picture of each; report: seconds, width, height, filled \
(share of the pixels), codes in use and, to compare, the figures by stage: psnr (dB) and l1 over the missing pixels, \
colours in [0, 1], ssim over the whole picture; null where a figure does not exist. While it works, results and stages \
are null and report has done and total, in steps."""
DAMAGE = """Make a mask that damages a photograph. image: the photograph, of which only the size counts. kind: \
random_walk, as in the paper, brush or box. ratio: share of the pixels that go missing. seed: another seed damages \
other places. Returns a PNG of the photograph's size, white where it is damaged."""


def add_api(filler: Filler, run: Callable[..., Iterator[Progress]]) -> None:
    """The endpoints `/inpaint` and `/damage`, whose controls are on no page."""
    image = gr.File(label="image", visible=False)
    mask = gr.File(label="mask", visible=False)
    options = option_controls(filler, visible=False)
    compare = gr.Checkbox(False, label="compare", visible=False)
    images = gr.File(label="results", file_count="multiple", visible=False)
    stages = gr.Gallery(label="stages", format="png", visible=False)
    report = gr.JSON(label="report", visible=False)

    # Not gr.File's own, which leaves an empty file behind at every call.
    image.preprocess = mask.preprocess = lambda file: None if file is None else file.path
    for component in (image, mask):
        checked_first(component, partial(check_picture, limits=filler.limits))

    def inpaint(
        image: str,
        mask: str | None,
        model: str,
        num_results: int,
        seed: int,
        dilate: int,
        feather: int,
        strategy: str,
        compare: bool,
    ) -> Iterator[tuple[Any, ...]]:
        """See `INPAINT`."""
        try:
            chosen = chosen_options((model, num_results, seed, dilate, feather, strategy))
            photograph = _given(image)
            height, width = photograph.size
            filler.limits.check_strategy(strategy, width, height)
            missing = None if mask is None else load_mask(mask, photograph.size)
            for progress in run(photograph.image, missing, chosen):
                if not progress.finished:
                    # Also so that a call can be given up between two steps.
                    yield None, None, {"done": progress.done, "total": progress.total}
            hole = hole_of(mask_of_alpha(photograph) if missing is None else missing, chosen)
            yield _answer(progress, rgb(photograph.image), chosen, filler, compare, hole, image)
        except InvalidInputError as error:
            raise refusal(error) from None

    def damage(image: str, kind: str, ratio: float, seed: int) -> str:
        """See `DAMAGE`."""
        try:
            height, width = _given(image).size
            mask = make_mask(kind, height, width, ratio, whole_seed(seed))
        except InvalidInputError as error:
            raise refusal(error) from None
        return save_picture(Image.fromarray(mask).convert("L"), folder_for_visitor(), "mask")

    trigger = gr.Button("inpaint", visible=False)
    trigger.click(
        inpaint,
        [image, mask, *options, compare],
        [images, stages, report],
        api_name="inpaint",
        api_description=INPAINT,
        concurrency_id="model",
        concurrency_limit=1,
    )
    kind = gr.Dropdown(list(MASK_KINDS), value=MASK_KINDS[0], label="kind", visible=False)
    ratio = gr.Slider(0.01, 0.9, value=0.2, label="ratio", visible=False)
    seed = seed_control("seed", visible=False)
    made = gr.File(label="mask", visible=False)
    trigger = gr.Button("damage", visible=False)
    trigger.click(damage, [image, kind, ratio, seed], made, api_name="damage", api_description=DAMAGE)


def _given(image: str | None) -> Photograph:
    """The photograph of a file that the API was given."""
    if image is None:
        raise InvalidInputError("There is no photograph: send one as image.")
    return load_photograph(image)


def _answer(
    last: Progress,
    original: np.ndarray,
    options: Options,
    filler: Filler,
    compare: bool,
    missing: np.ndarray,
    name: str,
) -> tuple[Any, ...]:
    """What the endpoint `/inpaint` returns."""
    folder = folder_for_visitor()
    result, num_codes = last.result, filler.num_codes(options.model)
    pictures = [
        (save_picture(stage_picture(stage.name, result, num_codes), folder, stage.name), stage.name)
        for stage in STAGES
        if stage.name in result.stages
    ]
    height, width = original.shape[:2]
    report = {
        "seconds": round(last.seconds, 2),
        "width": width,
        "height": height,
        "filled": round(float(missing.mean()), 4),
        "global_codes_in_use": len(np.unique(result.stages["global_codes"])),
        "local_codes_in_use": len(np.unique(result.stages["local_codes"])),
    }
    if compare:
        report["figures"] = {
            stage: {name: _for_json(value) for name, value in asdict(figures).items()}
            for stage, figures in measured(result, original, missing).items()
        }
        pictures.append((save_picture(error_of(result, original), folder, "error"), "error"))
    return save_results(result.images, Path(name).name, folder), pictures, report


def _for_json(value: float | None) -> float | None:
    """A figure; JSON has no infinity, which the PSNR of equal pictures is."""
    return None if value is None or not math.isfinite(value) else round(value, 4)

"""Every stage as a picture with a sentence and figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_pixels
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hvq_inpaint import HVQInpainter, InpaintResult
from hvq_inpaint.demo.stages import (
    FIGURES_EXPLAINED,
    LONGEST_SIDE,
    MEASURED,
    STAGES,
    STAGES_OF_PART,
    as_words,
    codes_in_use,
    error_of,
    legend,
    measured,
    shown_part,
    stage_picture,
)
from hvq_inpaint.filling import STEP_PARTS
from hvq_inpaint.metrics import SSIM_WINDOW
from hvq_inpaint.visualize import STAGE_NAMES, code_picture, ramp

NUM_CODES = 32


@pytest.fixture
def pixels() -> np.ndarray:
    return make_pixels(64, 300)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((64, 300), dtype=bool)
    mask[20:40, 100:130] = True
    return mask


@pytest.fixture
def result(model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray) -> InpaintResult:
    return model.inpaint(pixels, mask)


def test_every_stage_has_a_card_with_a_symbol_and_a_sentence() -> None:
    names = [stage.name for stage in STAGES]
    assert sorted(names) == sorted([*STAGE_NAMES, "error"]) and names[-1] == "error"
    assert all(stage.title and stage.symbol and stage.sentence.endswith(".") for stage in STAGES)


def test_a_part_of_the_network_brings_the_stages_that_it_is_said_to_bring(
    model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray
) -> None:
    assert tuple(STAGES_OF_PART) == STEP_PARTS
    had: set[str] = set()
    for step in model.inpaint_steps(pixels, mask):
        now = set(step.result().stages)
        assert now - had == set(STAGES_OF_PART[step.part])
        had = now


def test_every_stage_has_a_picture(result: InpaintResult, pixels: np.ndarray) -> None:
    codes = result.stages["global_codes"]
    assert np.array_equal(stage_picture("global_codes", result, NUM_CODES), code_picture(codes, NUM_CODES))
    for name in MEASURED:
        assert np.array_equal(stage_picture(name, result, NUM_CODES), result.stages[name])
    overlay = np.asarray(stage_picture("credibility", result, NUM_CODES)).astype(int)
    assert overlay.shape == pixels.shape
    # 0.6 of a colour of the ramp over 0.4 of the photograph.
    colours = (overlay - 0.4 * np.asarray(result.stages["damaged"]).astype(int)) / 0.6
    assert colours.min() > -3 and colours.max() < 258


def test_the_overlay_covers_the_part_that_was_worked_on(
    model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray
) -> None:
    result = model.inpaint(pixels, mask, strategy="crop", working_size=64)
    left, top, right, bottom = result.main_crop.box
    assert (right - left, bottom - top) != (300, 64)
    assert stage_picture("credibility", result, NUM_CODES).size == (right - left, bottom - top)
    assert shown_part(result) == f"Shown: {right - left} x {bottom - top} pixels around the largest hole."
    again = replace(result, crops=[*result.crops, *result.crops, *result.crops])
    assert shown_part(again).endswith("around the largest hole; 2 more parts were worked on.")


def test_nothing_is_said_of_a_part_that_is_the_whole(result: InpaintResult) -> None:
    assert shown_part(result) == ""


def test_large_pictures_are_reduced(model: HVQInpainter) -> None:
    pixels = make_pixels(40, 1500)
    mask = np.zeros((40, 1500), dtype=bool)
    mask[10:20, 700:720] = True
    result = model.inpaint(pixels, mask)
    for name in ("damaged", "composite"):
        assert max(stage_picture(name, result, NUM_CODES).size) == LONGEST_SIDE
    assert max(error_of(result, pixels).size) == LONGEST_SIDE
    assert result.image.size == (1500, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16"])
def test_the_composite_is_shown_in_a_mode_that_browsers_have(
    model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray, mode: str
) -> None:
    image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 256)
    picture = stage_picture("composite", model.inpaint(image, mask), NUM_CODES)
    assert picture.mode in ("L", "RGB", "RGBA")
    grey = np.asarray(image.convert("L") if mode != "I;16" else Image.fromarray((np.asarray(image) >> 8).astype("u1")))
    assert np.abs(np.asarray(picture.convert("L"))[~mask].astype(int) - grey[~mask]).max() <= 2


def test_codes_in_use_are_counted() -> None:
    assert codes_in_use(np.array([[3, 3, 5], [3, 7, 7]]), 16) == "3 of 16 words in use, in 3 x 2 squares."


def test_figures_are_those_of_scikit_image(result: InpaintResult, pixels: np.ndarray, mask: np.ndarray) -> None:
    figures = measured(result, pixels, mask)
    assert tuple(figures) == MEASURED
    for name, figure in figures.items():
        output = np.asarray(result.stages[name])
        assert figure.psnr == pytest.approx(peak_signal_noise_ratio(pixels[mask], output[mask]), abs=1e-3)
        assert figure.l1 == pytest.approx(np.abs(output[mask].astype(float) - pixels[mask]).mean() / 255, abs=1e-5)
        similarity = structural_similarity(
            pixels,
            output,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=2,
        )
        # scikit-image leaves out the windows that reach over the border, and so does this one.
        assert figure.ssim == pytest.approx(similarity, abs=1e-4)
        assert as_words(figures)[name] == f"PSNR {figure.psnr:.2f} dB, SSIM {figure.ssim:.3f}, L1 {figure.l1:.4f}"


def test_the_settings_of_the_figures_are_said() -> None:
    assert f"window of {SSIM_WINDOW} pixels, sigma 1.5" in FIGURES_EXPLAINED


def test_ssim_in_strips_is_that_of_the_whole(pixels: np.ndarray) -> None:
    from hvq_inpaint.demo.stages import _ssim

    other = make_pixels(64, 300, seed=1)
    whole = _ssim(pixels, other, rows=1000)
    assert all(_ssim(pixels, other, rows=rows) == pytest.approx(whole, abs=1e-6) for rows in (1, 7, 54, 60))


def test_pictures_narrower_than_the_window_have_no_ssim(model: HVQInpainter) -> None:
    pixels = make_pixels(10, 60)
    mask = np.zeros((10, 60), dtype=bool)
    mask[2:6, 20:30] = True
    figure = measured(model.inpaint(pixels, mask), pixels, mask)["composite"]
    assert figure.ssim is None and "SSIM" not in str(figure)


def test_the_error_is_that_of_the_composite(result: InpaintResult, pixels: np.ndarray, mask: np.ndarray) -> None:
    picture = np.asarray(error_of(result, pixels))
    assert (picture[~mask] == ramp()[0]).all() and (picture[mask] != ramp()[0]).any()


def test_a_legend_says_what_the_ends_of_the_ramp_mean() -> None:
    by_name = {stage.name: stage for stage in STAGES}
    for name in ("credibility", "error"):
        text = legend(by_name[name])
        assert all(end in text for end in by_name[name].legend)
        assert all(f"rgb{colour}" in text for colour in ramp())
        assert text.index(f"rgb{ramp()[0]}") < text.index(f"rgb{ramp()[-1]}")
    assert legend(by_name["damaged"]) == ""

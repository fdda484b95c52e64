"""Every stage as a picture with a sentence and figures, also of a part of a large photograph and of a tiny one."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import in_mode, make_holes, make_pixels
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hvq_inpaint import HVQInpainter, InpaintResult
from hvq_inpaint.demo.stages import (
    FIGURES_EXPLAINED,
    LONGEST_SIDE,
    MEASURED,
    STAGES,
    STAGES_OF_PART,
    Figures,
    _ssim,
    as_words,
    codes_in_use,
    error_of,
    legend,
    measured,
    rgb,
    shown_part,
    stage_picture,
)
from hvq_inpaint.filling import STEP_PARTS
from hvq_inpaint.metrics import SSIM_WINDOW
from hvq_inpaint.visualize import (
    MOST_ERROR,
    STAGE_NAMES,
    code_palette,
    code_picture,
    credibility_colours,
    error_picture,
    ramp,
)

NUM_CODES = 32


def filled(
    model: HVQInpainter, height: int, width: int, *holes: tuple[slice, slice], **options: object
) -> tuple[InpaintResult, np.ndarray, np.ndarray]:
    """A fill of a photograph, the photograph and its holes."""
    pixels, mask = make_pixels(height, width), make_holes(height, width, *holes)
    return model.inpaint(pixels, mask, **options), pixels, mask


def similarity_of(output: Image.Image, original: np.ndarray) -> float:
    """SSIM of scikit-image, which leaves out the windows that reach over the border, as the page's does."""
    return structural_similarity(
        original,
        np.asarray(output),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
    )


# ---------------------------------------------------------------- the stages


def test_every_stage_has_a_card_with_a_symbol_and_a_sentence() -> None:
    names = [stage.name for stage in STAGES]
    assert sorted(names) == sorted([*STAGE_NAMES, "error"]) and names[-1] == "error"
    assert all(stage.title and stage.symbol and stage.sentence.endswith(".") for stage in STAGES)


def test_a_part_of_the_network_brings_the_stages_that_it_is_said_to_bring(model: HVQInpainter) -> None:
    assert tuple(STAGES_OF_PART) == STEP_PARTS
    assert sorted(name for names in STAGES_OF_PART.values() for name in names) == sorted(STAGE_NAMES)
    had: set[str] = set()
    for step in model.inpaint_steps(make_pixels(32, 40), make_holes(32, 40, np.s_[8:16, 8:20])):
        now = set(step.result().stages)
        assert now - had == set(STAGES_OF_PART[step.part])
        had = now


def test_only_maps_on_the_ramp_have_a_legend() -> None:
    assert [stage.name for stage in STAGES if legend(stage)] == ["credibility", "error"]


@pytest.mark.parametrize(
    ("name", "darkest", "brightest"),
    [
        ("credibility", "far: not credible", "near: credible"),
        ("error", "equal", f"{MOST_ERROR} grey levels or more"),
    ],
)
def test_a_legend_names_the_ends_in_the_order_of_its_colours(name: str, darkest: str, brightest: str) -> None:
    (text,) = (legend(stage) for stage in STAGES if stage.name == name)
    colours = [tuple(map(int, colour)) for colour in re.findall(r"rgb\((\d+), (\d+), (\d+)\)", text)]
    assert colours == ramp() and "to right" in text
    assert re.findall(r"<span>(.*?)</span>", text) == [darkest, brightest]


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", ["global_codes", "local_codes"])
def test_each_map_is_shown_with_its_own_codes(model: HVQInpainter, name: str) -> None:
    result, *_ = filled(model, 64, 64, np.s_[16:32, 16:32])
    codes = result.stages[name]
    picture = stage_picture(name, result, NUM_CODES)
    assert np.array_equal(picture, code_picture(codes, NUM_CODES))
    cell = picture.width // codes.shape[1]
    centres = np.asarray(picture)[cell // 2 :: cell, cell // 2 :: cell]
    assert np.array_equal(centres, code_palette(NUM_CODES)[codes])


def test_small_pictures_of_the_photographs_size_are_shown_as_they_are(model: HVQInpainter) -> None:
    result, *_ = filled(model, 32, 40, np.s_[8:16, 8:20])
    assert {name for name, value in result.stages.items() if isinstance(value, Image.Image)} == set(MEASURED)
    for name in MEASURED:
        assert np.array_equal(stage_picture(name, result, NUM_CODES), result.stages[name])


def test_credibility_lies_over_its_own_part_of_the_damaged_photograph(model: HVQInpainter) -> None:
    result, pixels, mask = filled(model, 64, 300, np.s_[20:40, 150:180], strategy="crop", working_size=64)
    left, top, right, bottom = result.main_crop.box
    assert left > 0 and right < 300
    damaged = np.where(mask[..., None], 0, pixels)[top:bottom, left:right]
    cells = credibility_colours(result.stages["credibility"])
    colours = cells.repeat(8, axis=0).repeat(8, axis=1).astype(float)
    picture = np.asarray(stage_picture("credibility", result, NUM_CODES))
    assert picture.shape == damaged.shape == colours.shape
    assert np.abs(picture - (0.4 * damaged + 0.6 * colours)).max() < 1.01  # Pillow cuts off


def test_credibility_over_a_large_part_is_reduced(model: HVQInpainter) -> None:
    result, *_ = filled(model, 24, 1400, np.s_[8:16, 1100:1200], strategy="crop", working_size=1200)
    left, top, right, bottom = result.main_crop.box
    assert LONGEST_SIDE < right - left < 1400
    width, height = stage_picture("credibility", result, NUM_CODES).size
    assert width == LONGEST_SIDE and height == round((bottom - top) * LONGEST_SIDE / (right - left))


@pytest.mark.parametrize("size", [(24, 1400), (1400, 24)])
def test_reduced_pictures_keep_their_shape_and_the_result_its_size(model: HVQInpainter, size: tuple[int, int]) -> None:
    result, pixels, _ = filled(model, *size, np.s_[8:16, 8:16])
    before = {name: np.array(result.stages[name]) for name in MEASURED}
    for picture in [*(stage_picture(name, result, NUM_CODES) for name in MEASURED), error_of(result, pixels)]:
        assert max(picture.size) == LONGEST_SIDE and min(picture.size) == round(24 * LONGEST_SIDE / 1400)
    stage_picture("credibility", result, NUM_CODES)
    assert all(np.array_equal(result.stages[name], pixels) for name, pixels in before.items())
    assert result.image.size == size[::-1]


def test_a_picture_of_just_the_longest_side_stays_as_it_is(model: HVQInpainter) -> None:
    result, pixels, _ = filled(model, 16, LONGEST_SIDE, np.s_[4:8, 4:8])
    assert np.array_equal(stage_picture("composite", result, NUM_CODES), result.image)
    assert np.array_equal(error_of(result, pixels), error_picture(np.asarray(result.image), pixels))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_composite_that_browsers_can_show_keeps_its_mode(model: HVQInpainter, mode: str) -> None:
    result = model.inpaint(in_mode(mode, 32, 40), make_holes(32, 40, np.s_[8:16, 8:20]))
    picture = stage_picture("composite", result, NUM_CODES)
    assert picture.mode == mode and np.array_equal(picture, result.image)


@pytest.mark.parametrize("mode", ["1", "LA", "P", "CMYK", "I;16"])
def test_any_other_composite_is_shown_in_a_mode_that_they_can_show(model: HVQInpainter, mode: str) -> None:
    image, mask = in_mode(mode, 32, 40), make_holes(32, 40, np.s_[8:16, 8:20])
    picture = stage_picture("composite", model.inpaint(image, mask), NUM_CODES)
    assert picture.mode in ("L", "RGB", "RGBA")
    expected = make_pixels(32, 40)[..., :1] if mode == "I;16" else np.asarray(image.convert("RGB"))
    assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - expected)[~mask].max() <= 2


def test_the_error_is_that_of_the_result_not_of_the_network(model: HVQInpainter) -> None:
    result, pixels, mask = filled(model, 32, 40, np.s_[8:16, 8:20])
    difference = np.abs(np.asarray(result.image).astype(float) - pixels).mean(axis=2)
    assert not difference[~mask].any() and difference.max() >= MOST_ERROR
    picture = np.asarray(error_of(result, pixels)).astype(int)
    assert np.array_equal((picture == ramp()[0]).all(axis=2), difference < 0.2)
    assert (picture[difference >= MOST_ERROR] == ramp()[-1]).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_pixels_of_a_picture_are_colours_that_can_be_written_to(mode: str) -> None:
    pixels = rgb(in_mode(mode, 8, 9))
    assert pixels.shape == (8, 9, 3) and pixels.dtype == np.uint8 and pixels.flags.writeable


# ---------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (np.zeros((1, 1), dtype=np.int64), "1 of 8 words in use, in 1 x 1 squares."),
        (np.arange(8).reshape(2, 4), "8 of 8 words in use, in 4 x 2 squares."),
        (np.array([[7, 7], [0, 7], [0, 7]]), "2 of 8 words in use, in 2 x 3 squares."),
    ],
)
def test_words_in_use_are_the_different_ones(codes: np.ndarray, said: str) -> None:
    assert codes_in_use(codes, 8) == said


@pytest.mark.parametrize(("hole", "width"), [(np.s_[4:20, 10:20], 64), (np.s_[2:22, 220:280], 120)])
def test_the_part_that_is_shown_is_that_of_the_largest_hole(
    model: HVQInpainter, hole: tuple[slice, slice], width: int
) -> None:
    """At the left border; and towards the right, where a hole that is too large for the working size gets more room."""
    holes = np.s_[8:16, 130:140], hole
    result, *_ = filled(model, 24, 300, *holes, strategy="crop", working_size=64)
    assert len(result.crops) == 2
    said = f"Shown: {width} x 24 pixels around the largest hole"
    assert shown_part(result) == f"{said}; 1 more part was worked on."
    assert shown_part(replace(result, crops=result.crops[1:])) == f"{said}."
    assert shown_part(replace(result, crops=result.crops[:1] * 3)) == f"{said}; 2 more parts were worked on."


def test_nothing_is_said_of_a_part_that_is_the_whole(model: HVQInpainter) -> None:
    result, *_ = filled(model, 32, 40, np.s_[8:16, 8:20])
    assert shown_part(result) == ""


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("height", "width", "hole"), [(64, 300, np.s_[20:40, 100:130]), (600, 24, np.s_[250:280, 8:16])]
)
def test_figures_are_those_of_scikit_image(
    model: HVQInpainter, height: int, width: int, hole: tuple[slice, slice]
) -> None:
    """Similarity is measured in strips, of which the tall photograph has several."""
    result, pixels, mask = filled(model, height, width, hole)
    figures = measured(result, pixels, mask)
    assert tuple(figures) == MEASURED
    for name, figure in figures.items():
        output = np.asarray(result.stages[name])
        assert figure.psnr == pytest.approx(peak_signal_noise_ratio(pixels[mask], output[mask]), abs=1e-3)
        assert figure.l1 == pytest.approx(np.abs(output[mask].astype(float) - pixels[mask]).mean() / 255, abs=1e-6)
        assert figure.ssim == pytest.approx(similarity_of(result.stages[name], pixels), abs=1e-4)


def test_only_the_hole_counts_for_psnr_and_l1(model: HVQInpainter) -> None:
    result, pixels, mask = filled(model, 32, 40, np.s_[8:16, 8:20])
    elsewhere = np.where(mask[..., None], pixels, 255 - pixels)
    figures, others = measured(result, pixels, mask), measured(result, elsewhere, mask)
    for name in MEASURED:
        assert (figures[name].psnr, figures[name].l1) == (others[name].psnr, others[name].l1)


@pytest.mark.parametrize("size", [(11, 11), (11, 40), (40, 11), (10, 40), (40, 10), (8, 8)])
def test_similarity_needs_a_window_each_way(model: HVQInpainter, size: tuple[int, int]) -> None:
    result, pixels, mask = filled(model, *size, np.s_[3:6, 3:6])
    figure = measured(result, pixels, mask)["composite"]
    if min(size) < 11:
        assert figure.ssim is None
    else:
        assert figure.ssim == pytest.approx(similarity_of(result.image, pixels), abs=1e-4)


@pytest.mark.parametrize("rows", [1, 7, 54, 60])
def test_similarity_in_strips_is_that_of_the_whole(rows: int) -> None:
    pictures = make_pixels(64, 300), make_pixels(64, 300, seed=1)
    assert _ssim(*pictures, rows=rows) == pytest.approx(_ssim(*pictures, rows=1000), abs=1e-6)


def test_similarity_is_computed_where_pictures_differ_and_left_out_where_that_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = make_pixels(90, 120)
    for where in (np.s_[40:44, 70:90], np.s_[:1, :1], np.s_[89:, 119:], np.s_[30:, :5], np.s_[:, :]):
        output = original.copy()
        output[where] //= 2
        assert _ssim(output, original) == pytest.approx(similarity_of(output, original), abs=1e-5)
    monkeypatch.setattr("hvq_inpaint.demo.stages.SSIM_MEGAPIXELS", 0.001)
    assert _ssim(output, original) is None
    output = original.copy()
    output[40:44, 70:74] = 0
    assert _ssim(output, original) == pytest.approx(similarity_of(output, original), abs=1e-5)


def test_a_perfect_fill_has_figures_too(model: HVQInpainter) -> None:
    result, _, mask = filled(model, 32, 40, np.s_[8:16, 8:20])
    figure = measured(result, np.asarray(result.image).copy(), mask)["composite"]
    assert figure.psnr == float("inf") and figure.l1 == 0 and figure.ssim == pytest.approx(1)
    assert str(figure) == "PSNR inf dB, SSIM 1.000, L1 0.0000"


def test_figures_as_text() -> None:
    figures = {
        "coarse": Figures(psnr=20.1234, ssim=0.98765, l1=0.04321),
        "refined": Figures(psnr=9.876, ssim=0.0, l1=0.5),
        "composite": Figures(psnr=20.1234, ssim=None, l1=0.04321),
    }
    assert as_words(figures) == {
        "coarse": "PSNR 20.12 dB, SSIM 0.988, L1 0.0432",
        "refined": "PSNR 9.88 dB, SSIM 0.000, L1 0.5000",
        "composite": "PSNR 20.12 dB, L1 0.0432",
    }


def test_the_settings_of_the_figures_are_said() -> None:
    assert f"window of {SSIM_WINDOW} pixels, sigma 1.5" in FIGURES_EXPLAINED

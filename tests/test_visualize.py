from __future__ import annotations

import numpy as np
import pytest
from conftest import make_pixels
from PIL import Image

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.visualize import (
    MOST_ERROR,
    STAGE_NAMES,
    code_palette,
    code_picture,
    credibility_colours,
    credibility_picture,
    error_picture,
    labelled_grid,
    oklab,
    ramp,
    stage_pictures,
)


def test_palette_has_as_many_different_colours_as_codes() -> None:
    palette = code_palette(512)
    assert palette.shape == (512, 3) and palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == 512
    assert np.array_equal(palette[:32], code_palette(32))


def test_palette_colours_can_be_told_apart() -> None:
    positions = oklab(code_palette(512))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 0.02  # about the least difference that an eye sees side by side
    assert positions[:, 0].min() > 0.25  # none is taken for the black of a hole


def test_palette_is_fixed() -> None:
    assert code_palette(4).tolist() == [[255, 0, 228], [0, 255, 0], [0, 67, 0], [27, 0, 255]]
    with pytest.raises(ValueError):
        code_palette(8)[0] = 0


@pytest.mark.parametrize("number", [0, -1, 10**6])
def test_palette_refuses_an_impossible_number(number: int) -> None:
    with pytest.raises(InvalidInputError, match="colours"):
        code_palette(number)


def test_oklab_of_known_colours() -> None:
    assert oklab(np.array([255, 255, 255])) == pytest.approx([1, 0, 0], abs=1e-4)
    assert oklab(np.array([0, 0, 0])) == pytest.approx([0, 0, 0], abs=1e-9)
    assert oklab(np.array([255, 0, 0])) == pytest.approx([0.628, 0.225, 0.126], abs=1e-3)


def test_code_picture_enlarges_each_cell_to_a_square_of_its_colour() -> None:
    codes = np.arange(12).reshape(3, 4)
    picture = np.asarray(code_picture(codes, num_codes=16, longest_side=40))
    assert picture.shape == (30, 40, 3)
    assert np.array_equal(picture, code_palette(16)[codes].repeat(10, axis=0).repeat(10, axis=1))


def test_code_picture_keeps_the_aspect_ratio_and_never_shrinks() -> None:
    assert code_picture(np.zeros((10, 64), dtype=np.int64), 1).size == (512, 80)
    assert code_picture(np.zeros((10, 64), dtype=np.int64), 1, longest_side=8).size == (64, 10)


@pytest.mark.parametrize(
    "codes",
    [np.array([[0, 8]]), np.array([[-1, 0]]), np.zeros((2, 2)), np.zeros(4, dtype=int), np.zeros((0, 2), dtype=int)],
)
def test_code_picture_refuses_what_is_no_code_map(codes: np.ndarray) -> None:
    with pytest.raises(InvalidInputError):
        code_picture(codes, num_codes=8)


def test_credibility_ramp_grows_lighter_evenly() -> None:
    colours = credibility_colours(np.linspace(0, 1, 101)[None])
    assert colours.shape == (1, 101, 3) and colours.dtype == np.uint8
    assert colours[0, 0].tolist() == [68, 1, 84] and colours[0, -1].tolist() == [253, 231, 37]
    steps = np.diff(oklab(colours)[0, :, 0])
    assert steps.min() > 0 and steps.max() < 4 * steps.mean()


def test_credibility_picture_over_a_photograph() -> None:
    photograph = Image.new("RGB", (33, 20), (10, 20, 30))
    credibility = np.array([[0.0, 1.0]], dtype=np.float32)
    assert credibility_picture(credibility, longest_side=64).size == (64, 32)
    assert np.array_equal(credibility_picture(credibility, photograph=photograph, opacity=0.0), photograph)
    opaque = np.asarray(credibility_picture(credibility, photograph=photograph, opacity=1.0))
    assert opaque.shape == (20, 33, 3)
    assert opaque[0, 0].tolist() == [68, 1, 84] and opaque[-1, -1].tolist() == [253, 231, 37]


@pytest.mark.parametrize(
    "credibility",
    [
        np.array([[1.1]]),
        np.array([[-0.1]]),
        np.array([[np.nan]]),
        np.zeros((1, 1), dtype=int),
        np.zeros(3),
        np.zeros((0, 1)),
    ],
)
def test_credibility_refuses_what_is_no_credibility_map(credibility: np.ndarray) -> None:
    with pytest.raises(InvalidInputError):
        credibility_colours(credibility)


def test_credibility_picture_refuses_an_impossible_opacity() -> None:
    with pytest.raises(InvalidInputError, match="opacity"):
        credibility_picture(np.ones((1, 1)), opacity=1.5)


def test_stage_pictures_of_a_result(model: HVQInpainter) -> None:
    mask = np.zeros((40, 56), dtype=bool)
    mask[10:20, 10:30] = True
    result = model.inpaint(make_pixels(40, 56), mask)
    pictures = stage_pictures(result.stages, model.config.num_codes)
    assert tuple(pictures) == STAGE_NAMES
    assert (
        pictures["damaged"].size
        == pictures["coarse"].size
        == pictures["refined"].size
        == pictures["composite"].size
        == (56, 40)
    )
    # The maps are 7 x 5 and 14 x 10 cells.
    assert pictures["global_codes"].size == pictures["local_codes"].size == pictures["credibility"].size == (512, 366)


def test_labelled_grid_places_pictures_under_titles() -> None:
    rows = {
        "first": [Image.fromarray(make_pixels(20, 30, number)) for number in range(3)],
        "second": [Image.fromarray(make_pixels(20, 30, number)) for number in range(3, 6)],
    }
    sheet = np.asarray(labelled_grid(rows, ["a", "b", "c"]))
    assert sheet.shape == (22 + 20 + 4 + 20, 22 + 3 * 30 + 2 * 4, 3)
    for row, pictures in enumerate(rows.values()):
        for column, picture in enumerate(pictures):
            y, x = 22 + 24 * row, 22 + 34 * column
            assert np.array_equal(sheet[y : y + 20, x : x + 30], np.asarray(picture))
        assert (sheet[22 + 24 * row : 42 + 24 * row, :22] < 128).any()  # the row's title
    assert (sheet[:22, 22:52] < 128).any()  # a column's


@pytest.mark.parametrize("rows", [{}, {"first": []}, {"first": [Image.new("RGB", (8, 8))] * 3}])
def test_a_grid_without_a_picture_for_each_title_is_refused(rows: dict[str, list[Image.Image]]) -> None:
    with pytest.raises(InvalidInputError, match="a picture for every title"):
        labelled_grid(rows, ["a", "b"])


def test_ramp_is_what_credibility_is_coloured_with() -> None:
    colours = ramp()
    assert colours[0] == (68, 1, 84) and colours[-1] == (253, 231, 37)
    assert np.array_equal(credibility_colours(np.linspace(0, 1, len(colours))[None])[0], colours)
    assert all(type(value) is int for colour in colours for value in colour)  # for CSS, where np.uint8(68) is no number


def test_error_picture_runs_from_equal_to_the_most() -> None:
    original = np.full((2, 3, 3), 100, dtype=np.uint8)
    output = original.copy()
    output[0, 1] += MOST_ERROR - 1
    output[0, 2] += MOST_ERROR
    output[1, 0] += MOST_ERROR + 1
    output[1, 1] = 255
    output[1, 2] -= MOST_ERROR
    picture = error_picture(output, original)
    assert picture.mode == "RGB" and picture.size == (3, 2)
    colours = np.asarray(picture)
    darkest, brightest = ramp()[0], ramp()[-1]
    assert np.argwhere((colours == darkest).all(axis=2)).tolist() == [[0, 0]]
    assert np.argwhere((colours == brightest).all(axis=2)).tolist() == [[0, 2], [1, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("most", [10, MOST_ERROR, 200])
def test_error_picture_shows_the_mean_difference_of_the_channels(most: int) -> None:
    output, original = make_pixels(20, 30), make_pixels(20, 30, seed=1)
    difference = np.abs(output.astype(float) - original.astype(float)).mean(axis=2)
    steps = np.linspace(0, most, len(ramp()))
    expected = np.stack([np.interp(difference, steps, channel) for channel in zip(*ramp(), strict=True)], axis=-1)
    picture = error_picture(output, original, most)
    assert np.abs(np.asarray(picture) - expected).max() < 0.51  # rounded
    assert np.array_equal(picture, error_picture(original, output, most))


def test_error_picture_of_a_large_photograph_is_that_of_its_parts() -> None:
    original = np.zeros((2100, 2048, 3), dtype=np.uint8)  # more pixels than are worked on at once
    output = original.copy()
    output[2000:] = make_pixels(100, 2048)
    picture = np.asarray(error_picture(output, original))
    assert picture.shape == original.shape
    assert (picture[:2000] == ramp()[0]).all()
    assert np.array_equal(picture[2000:], error_picture(output[2000:], original[2000:]))


@pytest.mark.parametrize("shape", [(20, 31, 3), (21, 30, 3), (30, 20, 3), (1, 1, 3), (20, 30, 1)])
def test_error_picture_refuses_pictures_of_two_sizes(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInputError, match="can't be compared"):
        error_picture(np.zeros((20, 30, 3), dtype=np.uint8), np.zeros(shape, dtype=np.uint8))

"""What one visitor may ask for."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hvq_inpaint import InvalidInputError
from hvq_inpaint.demo.limits import Limits
from hvq_inpaint.regions import STRATEGIES

# ---------------------------------------------------------------- limits themselves


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (-1, "-1"), (-0.5, "-0.5"), (-0.0, "-0"), (float("nan"), "nan"), (float("inf"), "inf")],
)
@pytest.mark.parametrize("name", ["megapixels", "seconds", "queue"])
def test_a_limit_of_nothing_or_without_end_is_refused(name: str, value: float, said: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Limits(**{name: value})
    assert str(refused.value) == f"The limit {name} must be a finite number above 0, not {said}."


def test_however_little_is_a_limit() -> None:
    limits = Limits(megapixels=1e-6, seconds=1e-9, queue=1)
    limits.check_size(1, 1)
    with pytest.raises(InvalidInputError):
        limits.check_size(2, 1)


# ---------------------------------------------------------------- photographs


@pytest.mark.parametrize(("width", "height"), [(5000, 5000), (25_000_000, 1), (1, 25_000_000)])
def test_a_size_is_the_number_of_its_pixels(width: int, height: int) -> None:
    Limits().check_size(width, height)
    with pytest.raises(InvalidInputError):
        Limits().check_size(width + 1, height + 1)


def test_a_large_photograph_is_told_what_to_do() -> None:
    with pytest.raises(InvalidInputError) as refused:
        Limits(megapixels=2.5).check_size(3000, 2000)
    assert str(refused.value) == (
        "The picture has 6.0 megapixels, and this page takes up to 2.5: reduce it, or fill it on the command line."
    )


def test_what_is_too_large_by_a_pixel_does_not_look_as_if_it_were_not() -> None:
    with pytest.raises(InvalidInputError, match=r"^The picture has 25\.1 megapixels, and this page takes up to 25:"):
        Limits().check_size(5001, 5000)


def test_only_the_dear_strategy_is_refused() -> None:
    limits = Limits()
    for strategy in STRATEGIES:
        limits.check_strategy(strategy, 2000, 1000)
        if strategy != "original":
            limits.check_strategy(strategy, 5000, 5000)
    for width, height, megapixels in ((2000, 1001, "2.1"), (3000, 1000, "3.0")):
        with pytest.raises(InvalidInputError) as refused:
            limits.check_strategy("original", width, height)
        assert str(refused.value) == (
            "The strategy original takes photographs of up to 2 megapixels here, and this one has "
            f"{megapixels}: choose auto, crop or resize."
        )


# ---------------------------------------------------------------- uploads


@pytest.mark.parametrize(("width", "height"), [(100, 100), (1, 10_000), (10_000, 1)])
def test_every_photograph_within_the_limit_fits_the_upload(width: int, height: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=0)
    assert file.tell() <= Limits(megapixels=0.01).file_bytes


@pytest.mark.parametrize(("megapixels", "most"), [(3, 4.5), (25, 4.2), (100, 4.2), (1000, 4.2)])
def test_the_upload_is_hardly_larger_than_the_pixels(megapixels: float, most: float) -> None:
    assert 4.01 <= Limits(megapixels=megapixels).file_bytes / (megapixels * 1e6) <= most

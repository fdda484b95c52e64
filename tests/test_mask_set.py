"""The mask set as files: how many, which ratios, which seeds, and what a broken-off or repeated run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvq_inpaint import mask_set
from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.mask_set import MaskSetOptions, mask_path, mask_seed, write_mask_set
from hvq_inpaint.masks import MASK_KINDS, make_mask, random_walk_mask


def read(path: Path) -> np.ndarray:
    """A mask file as bool (H, W), True = white."""
    with Image.open(path) as image:
        return np.array(image.convert("L")) > 127


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_defaults_are_the_papers():
    assert MaskSetOptions().number_of_masks == 10_200


def test_every_file_is_there_with_its_exact_ratio(tmp_path):
    options = MaskSetOptions(size=40, per_ratio=3)
    write_mask_set(tmp_path / "set", options, workers=1)
    files = sorted((tmp_path / "set").rglob("*.png"))
    assert len(files) == options.number_of_masks == 153
    for percent in range(10, 61):
        for number in range(3):
            mask = read(tmp_path / "set" / "random_walk" / str(percent) / f"{number:04d}.png")
            assert mask.shape == (40, 40)
            assert np.count_nonzero(mask) == round(percent / 100 * 1600)
    assert len({path.read_bytes() for path in files}) == len(files)


def test_a_file_is_the_mask_of_the_documented_seed(tmp_path):
    write_mask_set(tmp_path, MaskSetOptions(size=32, per_ratio=2, min_percent=37, max_percent=38, seed=5), workers=1)
    assert np.array_equal(read(tmp_path / "random_walk/37/0001.png"), random_walk_mask(32, 32, 0.37, 5_000_001))
    description = json.loads((tmp_path / "masks.json").read_text())
    assert description["mask_seed"] == "1000000 * seed + number"
    assert (description["seed"], description["number_of_masks"], description["polarity"]) == (5, 4, "white = repaint")


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_json_is_enough_to_make_any_mask_again(tmp_path, kind):
    write_mask_set(
        tmp_path, MaskSetOptions(kind=kind, size=24, per_ratio=2, min_percent=9, max_percent=11, seed=1), workers=1
    )
    said = json.loads((tmp_path / "masks.json").read_text())
    for percent in range(said["min_percent"], said["max_percent"] + 1):
        for number in range(said["per_ratio"]):
            file = said["file"].split(",")[0].format(kind=said["kind"], percent=percent, number=number)
            expected = make_mask(
                said["kind"], said["size"], said["size"], percent / 100, mask_seed(said["seed"], number)
            )
            assert np.array_equal(read(tmp_path / file), expected)


def test_processes_write_the_same_bytes_as_one(tmp_path, monkeypatch):
    options = MaskSetOptions(size=16, per_ratio=30, min_percent=20, max_percent=21)
    write_mask_set(tmp_path / "one", options, workers=1)
    write_mask_set(tmp_path / "two", options, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "one")) == 61


def test_sets_of_other_seeds_share_no_mask(tmp_path):
    for seed in (0, 1):
        write_mask_set(
            tmp_path / str(seed),
            MaskSetOptions(size=32, per_ratio=20, min_percent=30, max_percent=30, seed=seed),
            workers=1,
        )
    first, second = (set(contents(tmp_path / str(seed) / "random_walk").values()) for seed in (0, 1))
    assert len(first | second) == 40


def test_a_run_broken_off_while_a_file_is_written_leaves_no_truncated_mask(tmp_path, monkeypatch):
    options = MaskSetOptions(size=32, per_ratio=4, min_percent=30, max_percent=30)
    save, calls = Image.Image.save, []

    def save_half(image: Image.Image, path: Path, **options: object) -> None:
        save(image, path, **options)
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(path.read_bytes()[:40])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save_half)
        with pytest.raises(KeyboardInterrupt):
            write_mask_set(tmp_path, options, workers=1)
    finished = sorted(tmp_path.rglob("*.png"))
    assert [path.name for path in finished] == ["0000.png", "0001.png"]
    assert all(read(path).shape == (32, 32) for path in finished)
    assert not (tmp_path / "masks.json").exists()
    # A second run that may overwrite ends with the whole set and nothing else.
    write_mask_set(tmp_path, options, workers=1, overwrite=True)
    write_mask_set(tmp_path.with_name("fresh"), options, workers=1)
    assert contents(tmp_path) == contents(tmp_path.with_name("fresh"))


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="is not empty"):
        write_mask_set(tmp_path, MaskSetOptions(size=16, per_ratio=1), workers=1)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_overwrite_replaces_the_set_and_keeps_other_files(tmp_path):
    write_mask_set(
        tmp_path, MaskSetOptions(kind="box", size=16, per_ratio=2, min_percent=20, max_percent=22), workers=1
    )
    (tmp_path / "box" / "20" / "mine.png").write_bytes(b"a picture")
    (tmp_path / "notes.txt").write_text("mine")
    write_mask_set(
        tmp_path, MaskSetOptions(size=16, per_ratio=1, min_percent=30, max_percent=30), workers=1, overwrite=True
    )
    assert set(contents(tmp_path)) == {"masks.json", "notes.txt", "box/20/mine.png", "random_walk/30/0000.png"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "stripes"}, "no mask kind"),
        ({"size": 0}, "at least 1 pixel"),
        ({"per_ratio": 0}, "masks for each ratio"),
        ({"min_percent": 0}, "percentages"),
        ({"max_percent": 100}, "percentages"),
        ({"min_percent": 40, "max_percent": 30}, "percentages"),
        ({"seed": -1}, "negative"),
    ],
)
def test_options_out_of_range_are_refused(values, words):
    with pytest.raises(InvalidInputError, match=words):
        MaskSetOptions(**values)


def test_path_and_seed_of_a_mask():
    assert mask_path("brush", 7, 12) == Path("brush/07/0012.png")
    assert mask_seed(0, 199) == 199
    assert mask_seed(2, 0) == 2 * mask_set.SEEDS_PER_SET

"""Folders of images as Parquet shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from datasets import load_dataset

from hvq_inpaint import InvalidInputError
from hvq_inpaint.__main__ import main
from hvq_inpaint.data import load_images
from hvq_inpaint.data.shards import number_of_shards, write_shards


def rows_of(folder: Path) -> dict[str, bytes]:
    """The bytes of all images by their paths, read without the package."""
    rows = [row for path in folder.iterdir() for row in pyarrow.parquet.read_table(path)["image"].to_pylist()]
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row["bytes"] for row in rows}


def test_shards_hold_the_files_as_they_are_in_equal_numbers(image_folder, tmp_path, capsys):
    assert main(["shard", str(image_folder), "--out", str(tmp_path / "shards"), "--shards", "3", "--workers", "2"]) == 0
    files = {str(path.relative_to(image_folder)): path.read_bytes() for path in image_folder.rglob("*.png")}
    shards = tmp_path / "shards"
    assert {path.name for path in shards.iterdir()} == {f"train-0000{number}-of-00003.parquet" for number in range(3)}
    assert rows_of(shards) == files
    assert sorted(pyarrow.parquet.read_metadata(path).num_rows for path in shards.iterdir()) == [2, 3, 3]
    assert "wrote 8 images to 3 shards" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path != image_folder] == ["shards"]


def test_they_are_loaded_here_and_by_datasets_alone(image_folder, tmp_path):
    list(write_shards(image_folder, tmp_path / "shards", shards=2))
    streamed = load_images(str(tmp_path / "shards"), streaming=True)
    assert streamed.num_shards == 2
    alone = load_dataset(str(tmp_path / "shards"), split="train", cache_dir=str(tmp_path / "cache"))
    pixels = {np.asarray(row["image"]).tobytes() for row in load_images(str(image_folder))}
    assert {np.asarray(row["image"]).tobytes() for row in streamed} == pixels
    assert {np.asarray(row["image"]).tobytes() for row in alone} == pixels


def test_the_order_is_that_of_the_seed(image_folder, tmp_path):
    orders = []
    for number, seed in enumerate((1, 1, 2)):
        list(write_shards(image_folder, tmp_path / f"{number}", shards=1, seed=seed))
        orders.append(list(rows_of(tmp_path / f"{number}")))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize(
    ("images", "size", "expected"),
    [(1000, 10, 8), (1000, 1000, 16), (1000, 801, 16), (1000, 800, 8), (5, 10, 5)],  # shards of 100, a multiple of 8
)
def test_their_number_is_a_multiple_that_keeps_them_small(images, size, expected):
    assert number_of_shards(images, size, 100, 8) == expected


def test_what_can_t_be_decoded_is_named_and_left_out(image_folder, tmp_path, capsys):
    cut = sorted(image_folder.rglob("*.png"))[3]
    cut.write_bytes(cut.read_bytes()[:200])
    assert main(["shard", str(image_folder), "--out", str(tmp_path / "shards"), "--workers", "1"]) == 1
    assert str(cut.relative_to(image_folder)) not in rows_of(tmp_path / "shards")
    assert len(rows_of(tmp_path / "shards")) == 7  # of 8 shards one is empty
    output = capsys.readouterr().out
    assert f"left out: {cut} can't be decoded" in output and "7 images to 8 shards" in output
    assert len(list(load_images(str(tmp_path / "shards"), streaming=True))) == 7


def test_what_makes_no_shards_is_refused_and_leaves_nothing(image_folder, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for more, message in [
        (["--out", str(out), "--shards", "9"], "8 images make 1 to 8 shards, not 9"),
        (["--out", str(out), "--workers", "0"], "--workers must be at least 1"),
        (["--out", str(tmp_path / "full")], "is there already"),
    ]:
        assert main(["shard", str(image_folder), *more]) == 1
        assert message in capsys.readouterr().err
    for path in image_folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match="None of the 8 images"):
        list(write_shards(image_folder, out, shards=2))
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir() if path != image_folder} == {"full"}

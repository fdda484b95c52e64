"""Datasets in every accepted form; samples that depend on nothing but (seed, epoch, index)."""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO

import datasets
import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from conftest import make_pixels
from PIL import Image
from torch.utils.data import DataLoader

from hvq_inpaint import InvalidInputError
from hvq_inpaint.data import (
    InpaintingDataset,
    InpaintingStream,
    SampleOptions,
    UnreadableImageError,
    center_crop,
    decode_image,
    image_name,
    list_images,
    load_images,
    make_sample,
    shards_are_shared,
    validation_samples,
)

OPTIONS = SampleOptions(crop_size=32, mask_size=64, seed=3)


def test_a_folder_and_parquet_give_the_same_images(image_folder, tmp_path):
    from_folder = load_images(str(image_folder))
    assert len(from_folder) == 8
    rows = [{"image": {"bytes": path.read_bytes(), "path": None}} for path in sorted(image_folder.rglob("*.png"))]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "shard.parquet")
    from_file, streamed = (
        load_images(str(tmp_path / "shard.parquet")),
        load_images(str(tmp_path / "shard.parquet"), streaming=True),
    )
    for a, b, c in zip(from_folder, from_file, streamed, strict=True):
        assert np.array_equal(np.array(a["image"]), np.array(b["image"])) and np.array_equal(
            np.array(a["image"]), np.array(c["image"])
        )


def test_what_is_no_dataset_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text("no images")
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "text.parquet")
    for source, message in [
        (tmp_path / "none", "no dataset at"),
        (tmp_path / "empty", "no images"),
        (tmp_path / "words.txt", "neither a folder nor a Parquet"),
        (tmp_path / "text.parquet", "no column 'image', only text"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            load_images(str(source))
    (tmp_path / "text.parquet").unlink()
    with pytest.raises(InvalidInputError, match="no images"):
        load_images(str(tmp_path))


def test_a_hub_id_without_a_network_is_one_sentence():
    with pytest.raises(InvalidInputError, match="nobody/nothing"):
        load_images("nobody/nothing")


def test_hidden_shards_are_none(tmp_path, image_folder):
    rows = [{"image": {"bytes": path.read_bytes(), "path": None}} for path in sorted(image_folder.rglob("*.png"))]
    (tmp_path / "set" / ".cut-off").mkdir(parents=True)
    for name in ("a.parquet", ".cut-off/b.parquet"):
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "set" / name)
    assert len(load_images(str(tmp_path / "set"))) == len(rows)


def test_hidden_files_are_no_photographs(tmp_path):
    for name in ("a.png", ".b.png", "._a.png", ".thumbnails/c.png", "sub/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)] == ["a.png", "sub/d.png"]


def test_a_sample_depends_on_seed_epoch_and_index_only():
    image = Image.fromarray(make_pixels(80, 96))
    first = make_sample(image, OPTIONS, epoch=1, index=5)
    assert first["image"].shape == (3, 32, 32) and first["known"].shape == (1, 32, 32)
    assert set(first["known"].unique().tolist()) == {0.0, 1.0}
    set_seed(99)
    again = make_sample(image, OPTIONS, epoch=1, index=5)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for epoch, index in [(2, 5), (1, 6)]:
        other = make_sample(image, OPTIONS, epoch, index)
        assert not torch.equal(first["known"], other["known"])


def test_crops_are_flipped_half_of_the_time_and_come_from_the_image():
    pixels = make_pixels(32, 32)
    image = Image.fromarray(pixels)
    plain = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    flipped = [torch.equal(make_sample(image, OPTIONS, 0, index)["image"], plain.flip(2)) for index in range(200)]
    kept = [torch.equal(make_sample(image, OPTIONS, 0, index)["image"], plain) for index in range(200)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 70 < sum(flipped) < 130


def test_small_images_are_enlarged():
    sample = make_sample(Image.fromarray(make_pixels(10, 50)), OPTIONS, 0, 0)
    assert sample["image"].shape == (3, 32, 32)
    assert center_crop(Image.fromarray(make_pixels(10, 50)), 32).shape == (32, 32, 3)


def test_workers_make_the_same_samples(image_folder):
    dataset = InpaintingDataset(load_images(str(image_folder)), OPTIONS)
    dataset.set_epoch(4)
    alone = list(DataLoader(dataset, batch_size=4, num_workers=0))
    shared = list(DataLoader(dataset, batch_size=4, num_workers=2))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(alone, shared, strict=True) for name in a)


def test_an_image_that_can_t_be_decoded_is_named(image_folder, tmp_path):
    cut = sorted(image_folder.rglob("*.png"))[3]
    cut.write_bytes(cut.read_bytes()[:200])
    dataset = InpaintingDataset(load_images(str(image_folder)), OPTIONS)
    with pytest.raises(UnreadableImageError, match=rf"{cut.name} can't be decoded, it may be truncated"):
        dataset[3]
    name, error = dataset.named(3, 3)
    assert name == str(cut) and isinstance(error, UnreadableImageError)
    with pytest.raises(UnreadableImageError, match=cut.name):
        validation_samples(load_images(str(image_folder)), 8, 32, ("box",))


def test_what_is_no_photograph_is_unreadable():
    def encoded(image: Image.Image) -> dict:
        file = BytesIO()
        image.save(file, format="PNG")
        return {"bytes": file.getvalue(), "path": None}

    for value, reason in [
        (None, "x holds no image"),
        ({"bytes": None, "path": None}, "x holds no image"),
        ({"bytes": b"", "path": None}, "X is not an image"),
        ({"bytes": None, "path": "/none.png"}, "There is no file"),
        (encoded(Image.new("L", (1, 60))), "X has 1 x 60 pixels, more than 50 times"),
        (encoded(Image.fromarray(np.zeros((9, 9), dtype=np.uint16))), "X has mode I;16, more than 8 bits"),
    ]:
        with pytest.raises(UnreadableImageError, match=f"(?i)^{reason}"):
            decode_image(value, "x")
    assert decode_image(encoded(Image.new("L", (1, 50))), "x").size == (1, 50)


def test_a_row_without_a_path_has_a_name_all_the_same():
    assert image_name({"bytes": b"a", "path": "a.png"}, "row 3") == "a.png"
    assert image_name({"bytes": b"a", "path": None}, "row 3") == "row 3"
    assert image_name({"bytes": b"a", "path": None}) == f"sha256:{sha256(b'a').hexdigest()[:16]}"


def test_a_stream_says_what_can_t_be_decoded_and_goes_on(image_folder):
    cut = sorted(image_folder.rglob("*.png"))[3]
    cut.write_bytes(cut.read_bytes()[:200])
    samples = dict(InpaintingStream(load_images(str(image_folder), streaming=True), OPTIONS))
    assert len(samples) == 8
    assert [name for name, sample in samples.items() if isinstance(sample, UnreadableImageError)] == [str(cut)]


@pytest.mark.parametrize("readers", [1, 2, 3, 5])  # of 8 shards: each its own, or all
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_stream_is_shared_out_without_overlap_or_loss(image_folder, readers, epoch):
    names = []
    for reader in range(readers):
        stream = InpaintingStream(load_images(str(image_folder), streaming=True), OPTIONS, reader, readers, 4)
        stream.set_epoch(epoch)
        names += [name for name, _ in stream]
    assert sorted(names) == sorted(map(str, image_folder.rglob("*.png")))


def test_shards_of_ones_own_change_with_the_epoch(image_folder):
    stream = InpaintingStream(load_images(str(image_folder), streaming=True), OPTIONS, 0, 4)
    shares = []
    for epoch in range(5):
        stream.set_epoch(epoch)
        shares.append({name for name, _ in stream})
    assert shares[0] == shares[4] and len(set.union(*shares)) == 8
    assert not any(shares[a] & shares[b] for a in range(4) for b in range(a))


@pytest.mark.parametrize(
    ("shards", "readers", "shared"), [(8, 8, True), (8, 3, False), (12, 3, True), (13, 3, True), (7, 8, False)]
)
def test_shards_are_shared_where_all_get_nearly_as_many(shards, readers, shared):
    assert shards_are_shared(shards, readers) == shared


def test_no_two_streams_make_the_same_crops_and_masks(image_folder):
    masks = []
    for rank in range(2):
        stream = InpaintingStream(load_images(str(image_folder), streaming=True), OPTIONS, rank, 2)
        masks += [sample["known"] for _, sample in stream]
    assert not any(torch.equal(masks[a], masks[b]) for a in range(8) for b in range(a))


def test_a_stream_changes_with_the_epoch(image_folder):
    stream = InpaintingStream(load_images(str(image_folder), streaming=True), OPTIONS)
    (_, first), *_ = stream
    (_, again), *_ = stream
    assert torch.equal(first["image"], again["image"])
    stream.set_epoch(1)
    (_, other), *_ = stream
    assert not torch.equal(first["image"], other["image"])


def test_samples_that_are_passed_over_change_nothing_for_those_that_follow(image_folder):
    stream = InpaintingStream(load_images(str(image_folder), streaming=True), OPTIONS)
    whole = list(stream)
    stream.pass_over(3)
    passed = list(stream)
    assert [name for name, _ in passed] == [name for name, _ in whole]
    assert not any(sample["known"].any() or sample["image"].any() for _, sample in passed[:3])
    for (_, a), (_, b) in zip(passed[3:], whole[3:], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_validation_samples_are_fixed_and_cover_all_kinds(image_folder):
    images = load_images(str(image_folder))
    samples = validation_samples(images, 6, 64, ("random_walk", "brush", "box"))
    again = validation_samples(images, 6, 64, ("random_walk", "brush", "box"))
    assert len(samples) == 6
    assert all(torch.equal(a[name], b[name]) for a, b in zip(samples, again, strict=True) for name in a)
    shares = [1 - sample["known"].mean().item() for sample in samples]
    assert shares == sorted(shares) and shares[0] < 0.2 and shares[-1] > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_size": 30}, "multiple of 8"),
        ({"min_ratio": 0.7}, "ratios"),
        ({"mask_kinds": ("blob",)}, "blob"),
        ({"mask_kinds": ()}, "mask kind"),
    ],
)
def test_options_that_make_no_sample_are_refused(change, message):
    with pytest.raises(InvalidInputError, match=message):
        SampleOptions(**change)

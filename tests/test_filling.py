"""Photographs filled: nothing else changed, every intermediate, several answers, lists, threads, cancelling."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import combinations
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest
import torch
from conftest import make_model, make_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from hvq_inpaint import Cancelled, HVQInpainter, InpaintResult, InvalidInputError
from hvq_inpaint.filling import Stages
from hvq_inpaint.hole import grow
from hvq_inpaint.images import load_photograph
from hvq_inpaint.masks import box_mask, brush_mask, random_walk_mask
from hvq_inpaint.regions import STRATEGIES

STAGES = {"damaged", "coarse", "refined", "composite", "global_codes", "local_codes", "credibility"}
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")


@pytest.fixture(scope="module")
def model() -> HVQInpainter:
    return make_model()


def as_mode(pixels: np.ndarray, mode: str) -> Image.Image:
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    image = image.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(pixels[..., 2]))
    return image


# ---------------------------------------------------------------- known pixels


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_size_mode_and_known_pixels_are_those_of_the_input(model, data):
    size = data.draw(st.tuples(st.integers(1, 150), st.integers(1, 150)), "size")
    mask = data.draw(arrays(bool, size, elements=st.booleans(), fill=st.booleans()), "mask")
    mode = data.draw(st.sampled_from(MODES), "mode")
    image = as_mode(make_pixels(*size), mode)
    grown = {name: data.draw(st.sampled_from((0, 1, 4)), name) for name in ("dilate", "feather")}
    options = {"strategy": data.draw(st.sampled_from(STRATEGIES), "strategy"), "working_size": 64, **grown}
    try:
        result = model.inpaint(image, mask, **options)
    except InvalidInputError:
        assert not mask.any() or grow(mask.copy(), 0).all() or _grown_is_full(mask, sum(grown.values()))
        return
    assert (result.image.mode, result.image.size) == (image.mode, image.size)
    known = ~grow(mask, sum(grown.values()))
    assert np.array_equal(np.array(result.image)[known], np.array(image)[known])
    assert all(result.stages[name].size == image.size for name in ("damaged", "coarse", "refined", "composite"))


def _grown_is_full(mask: np.ndarray, radius: int) -> bool:
    try:
        grow(mask, radius)
    except InvalidInputError:
        return True
    return mask.all()


def test_ten_edits_in_a_row_leave_untouched_pixels_untouched(model):
    image, touched = Image.fromarray(make_pixels(90, 120)), np.zeros((90, 120), bool)
    original = np.array(image)
    for seed in range(10):
        mask = brush_mask(90, 120, 0.08, seed)
        image = model.inpaint(image, mask, working_size=64).image
        touched |= mask
    assert np.array_equal(np.array(image)[~touched], original[~touched])
    assert not np.array_equal(np.array(image)[touched], original[touched])


def test_only_the_ring_is_blended(model):
    pixels, mask = make_pixels(64, 64), np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    hard = np.array(model.inpaint(pixels, mask, dilate=5 + 4).image).astype(int)
    soft = np.array(model.inpaint(pixels, mask, dilate=5, feather=4).image).astype(int)
    inner, outer = grow(mask, 5), grow(mask, 9)
    assert np.array_equal(soft[inner], hard[inner])
    assert np.array_equal(soft[~outer], pixels[~outer])
    ring = outer & ~inner
    low, high = np.minimum(hard, pixels)[ring], np.maximum(hard, pixels)[ring]
    assert ((soft[ring] >= low - 1) & (soft[ring] <= high + 1)).all()
    assert not np.array_equal(soft[ring], hard[ring])


def test_what_the_mask_hides_has_no_influence_at_any_size(model):
    pixels, mask = make_pixels(200, 260), np.zeros((200, 260), bool)
    mask[30:150, 40:200] = True
    mask[180:184, :] = True
    other = np.where(mask[..., None], 255 - pixels, pixels)
    for strategy in STRATEGIES:
        one, two = (model.inpaint(image, mask, strategy=strategy, working_size=64) for image in (pixels, other))
        assert np.array_equal(np.array(one.image), np.array(two.image))


# ---------------------------------------------------------------- transparency


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_the_transparent_part_is_filled_and_opaque(model, mode):
    image, mask = as_mode(make_pixels(48, 64), mode), brush_mask(48, 64, 0.2, 1)
    alpha = np.where(mask, 0, 200).astype(np.uint8)
    image.putalpha(Image.fromarray(alpha))
    filled = np.array(model.inpaint(image).image)
    assert (filled[mask][:, -1] == 255).all()
    assert np.array_equal(filled[~mask], np.array(image)[~mask])
    assert np.array_equal(np.array(model.inpaint(image, mask).image)[..., -1], alpha)  # with a mask it stays as it was


# ---------------------------------------------------------------- stages


def test_stages_are_the_intermediates_of_forward(model):
    pixels, mask = make_pixels(64, 48), box_mask(64, 48, 0.3, 1)
    result = model.inpaint(pixels, mask, precision="float32")
    damaged = torch.from_numpy(np.where(mask[..., None], 0, pixels)).permute(2, 0, 1)[None].float() / 255
    output = model(damaged, torch.from_numpy(~mask)[None, None].float())
    assert np.array_equal(result.stages["global_codes"], output.global_codes[0].numpy())
    assert np.array_equal(result.stages["local_codes"], output.local_codes[0].numpy())
    assert np.allclose(result.stages["credibility"], output.credibility[0, 0].numpy())
    for name in ("coarse", "refined", "composite"):
        picture = (getattr(output, name)[0] * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(np.array(result.stages[name]), picture), name
    assert np.array_equal(np.array(result.stages["damaged"]), np.where(mask[..., None], 0, pixels))
    assert result.stages["composite"] is result.image


def test_stages_are_a_dict_in_every_way(model):
    stages = model.inpaint(make_pixels(16, 16), box_mask(16, 16, 0.3, 1)).stages
    assert isinstance(stages, dict) and set(stages) == stages.keys() == STAGES and len(stages) == 7
    assert stages["coarse"] is stages["coarse"] is stages.get("coarse")
    assert all(value is not None for value in dict(stages).values())
    assert all(value is not None for value in {**stages}.values())
    assert dict(stages.items()).keys() == STAGES
    assert stages.get("nothing") is None and "nothing" not in stages
    with pytest.raises(KeyError):
        stages["nothing"]


def test_stages_that_were_not_asked_for_are_copied_taken_and_replaced(model):
    def stages():
        return model.inpaint(make_pixels(16, 16), box_mask(16, 16, 0.3, 1)).stages

    copied = pickle.loads(pickle.dumps(stages()))
    assert not different(copied["coarse"], stages()["coarse"]) and copied.keys() == STAGES
    taken = stages()
    assert not different(taken.pop("coarse"), copied["coarse"]) and "coarse" not in taken
    assert taken.pop("coarse", "none") == "none"
    with pytest.raises(KeyError):
        taken.pop("coarse")
    assert taken.setdefault("coarse", "new") == taken["coarse"] == "new"
    assert taken.setdefault("damaged", None) is not None
    del taken["composite"]
    assert taken.get("composite") is None and "composite" not in taken
    taken["refined"] = "mine"
    assert taken["refined"] == "mine"


def test_threads_that_ask_for_a_stage_at_once_all_get_it():
    started = Barrier(4)

    def make() -> str:
        with suppress(BrokenBarrierError):  # until all of them ask
            started.wait(timeout=5)
        return "picture"

    stages = Stages({}, {"coarse": make})
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: stages["coarse"], range(4))) == ["picture"] * 4


def test_every_worked_crop_tells_its_place(model):
    pixels, mask = make_pixels(300, 400), np.zeros((300, 400), bool)
    mask[10:20, 10:20] = mask[200:290, 250:390] = True
    result = model.inpaint(pixels, mask, working_size=64)
    assert [crop.box for crop in result.crops] == [(0, 0, 64, 64), (120, 20, 400, 300)]
    assert [crop.working_size for crop in result.crops] == [(64, 64), (64, 64)]
    for crop in result.crops:
        assert crop.global_codes.shape == crop.credibility.shape == (8, 8) and crop.local_codes.shape == (16, 16)
    assert result.stages["global_codes"] is result.crops[1].global_codes  # those of the larger hole
    known = ~mask
    assert np.array_equal(np.array(result.image)[known], pixels[known])
    assert not np.array_equal(np.array(result.image)[10:20, 10:20], pixels[10:20, 10:20])


def test_later_parts_continue_what_earlier_ones_filled(model):
    """The refiner of the second part of a scratch sees the first part as known."""
    pixels, mask = make_pixels(64, 256), np.zeros((64, 256), bool)
    mask[30:34, :] = True
    seen = []
    handle = model.refiner.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1].clone()))
    result = model.inpaint(pixels, mask, strategy="crop", working_size=64)
    handle.remove()
    assert len(result.crops) == len(seen) > 2
    missing = sum(int((1 - known).sum()) for known in seen)
    assert missing < 4 * 64 * len(seen)  # without it, each window would have a whole line of holes
    assert np.array_equal(np.array(result.image)[~mask], pixels[~mask])


# ---------------------------------------------------------------- several answers


def different(one: Image.Image, other: Image.Image) -> bool:
    return not np.array_equal(np.array(one), np.array(other))


@pytest.mark.parametrize("credible", [False, True])
def test_several_results_are_seeded_distinct_and_start_with_the_plain_one(credible):
    model = make_model()
    model.credibility_map.quantiles.copy_(torch.linspace(5, 6, 257) if credible else torch.linspace(0, 0.1, 257))
    pixels, mask = make_pixels(64, 64), box_mask(64, 64, 0.4, 1)
    first, again = (model.inpaint(pixels, mask, seed=3, num_results=3) for _ in range(2))
    assert len(first.images) == 3
    assert not any(different(a, b) for a, b in zip(first.images, again.images, strict=True))
    assert not different(first.image, model.inpaint(pixels, mask).image)
    assert different(first.images[0], first.images[1])
    assert different(first.images[0], first.images[2]) and different(first.images[1], first.images[2])
    if not credible:  # otherwise nothing is drawn
        assert different(first.images[1], model.inpaint(pixels, mask, seed=4, num_results=2).images[1])
    assert all(np.array_equal(np.array(image)[~mask], pixels[~mask]) for image in first.images)


@pytest.mark.parametrize("side", (1, 2, 4, 8))
def test_answers_to_a_small_hole_differ_where_the_doubt_is_outside_it(model, monkeypatch, side):
    monkeypatch.setattr(model.credibility_map, "forward", lambda latents, codebook: 1 - known_share(latents))
    mask = np.zeros((64, 64), dtype=bool)
    mask[20 : 20 + side, 33 : 33 + side] = True

    def known_share(latents: torch.Tensor) -> torch.Tensor:  # what is known is not credible, the hole is
        known = torch.from_numpy(~mask)[None, None].float()
        return torch.nn.functional.avg_pool2d(known, 8).floor()

    codes = []  # the local ones' vectors, of each answer
    handle = model.vqvae.decoder_a.register_forward_hook(lambda _, inputs, __: codes.append(inputs[1][0].clone()))
    model.inpaint(make_pixels(64, 64), mask, num_results=3)
    handle.remove()
    for one, other in combinations(codes, 2):
        rows, columns = (one != other).any(dim=0).nonzero(as_tuple=True)
        assert {4, 5} <= set(rows.tolist()) <= {4, 5, 6, 7} and {8, 9} <= set(columns.tolist()) <= {8, 9, 10, 11}


def test_a_further_result_costs_no_further_encoder(model):
    counts = dict.fromkeys(("encoder_b1", "refiner"), 0)
    handles = [
        getattr(model, name).register_forward_hook(lambda *_, name=name: counts.update({name: counts[name] + 1}))
        for name in counts
    ]
    model.inpaint(make_pixels(48, 48), box_mask(48, 48, 0.3, 0), num_results=4)
    for handle in handles:
        handle.remove()
    assert counts == {"encoder_b1": 1, "refiner": 4}


def test_a_generator_draws_in_place_of_the_seed(model):
    pixels, mask = make_pixels(48, 48), box_mask(48, 48, 0.4, 0)
    by_seed = model.inpaint(pixels, mask, seed=7, num_results=2)
    by_generator = model.inpaint(pixels, mask, generator=torch.Generator().manual_seed(7), num_results=2)
    assert not different(by_seed.images[1], by_generator.images[1])


# ---------------------------------------------------------------- forms


def test_lists_and_batches_give_what_each_gives_alone(model):
    pixels = [make_pixels(40, 56, seed) for seed in range(3)]
    masks = [random_walk_mask(40, 56, 0.2, seed) for seed in range(3)]
    alone = [model.inpaint(*pair, precision="float32").image for pair in zip(pixels, masks, strict=True)]
    tensors = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    stacked = np.stack(masks)
    for images, holes in (
        (pixels, masks),
        (np.stack(pixels), stacked),
        (tensors, torch.from_numpy(stacked)[:, None]),
        (tensors.float() / 255, stacked),
        ([Image.fromarray(single) for single in pixels], [Image.fromarray(single) for single in masks]),
    ):
        for batch_size in (1, 2):
            results = model.inpaint(images, holes, batch_size=batch_size, precision="float32")
            assert len(results) == 3 and all(isinstance(result, InpaintResult) for result in results)
            for result, expected in zip(results, alone, strict=True):
                # A batch may round the last digit another way.
                assert np.abs(np.array(result.image).astype(int) - np.array(expected)).max() <= 1
    one_mask = model.inpaint(pixels, masks[0], precision="float32")
    assert not different(one_mask[0].image, alone[0])


def test_further_answers_do_not_depend_on_the_others_of_a_list(model):
    images = [make_pixels(48, 48), 255 - make_pixels(48, 48, 1) // 8, make_pixels(48, 48, 2)]
    masks = [box_mask(48, 48, 0.3, seed) for seed in range(3)]
    for start in ({"seed": 3}, {"generator": 3}):
        results = []
        for batch_size in (1, 3):
            if "generator" in start:
                start["generator"] = torch.Generator().manual_seed(3)
            results.append(
                model.inpaint(images, masks, num_results=3, batch_size=batch_size, precision="float32", **start)
            )
        for one, other in zip(*results, strict=True):
            for image, same in zip(one.images, other.images, strict=True):
                assert np.abs(np.array(image).astype(int) - np.array(same)).max() <= 1
    given = model.inpaint(images, masks, num_results=2, generator=torch.Generator().manual_seed(4))
    assert different(given[0].images[1], results[1][0].images[1])


def test_a_list_of_generators_is_one_for_each_image(model):
    images, mask = [make_pixels(48, 48), make_pixels(48, 48, 1)], box_mask(48, 48, 0.3, 0)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    together = model.inpaint(images, mask, num_results=2, generator=generators)
    for image, seed, result in zip(images, (5, 6), together, strict=True):
        assert not different(model.inpaint(image, mask, seed=seed, num_results=2).images[1], result.images[1])


def test_a_model_of_half_precision_is_refused_with_the_way_out():
    with pytest.raises(InvalidInputError, match="must be in float32"):
        make_model().half().inpaint(make_pixels(16, 16), box_mask(16, 16, 0.3, 0))


def test_lists_of_other_lengths_are_refused(model):
    for images, masks in (([make_pixels(8, 8)] * 2, [box_mask(8, 8, 0.3, 0)] * 3), ([], [])):
        with pytest.raises(InvalidInputError, match="one mask for each"):
            model.inpaint(images, masks)


def test_tensors_can_be_trained_on_and_changed(model):
    image = model.inpaint(make_pixels(16, 16), box_mask(16, 16, 0.3, 0), output_type="torch", num_results=2).images[1]
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (image * weight).sum().backward()
    assert weight.grad is not None
    image.mul_(2)


@pytest.mark.parametrize("output_type", ("pil", "numpy", "torch"))
@pytest.mark.parametrize("mode", ("L", "P", "RGB", "RGBA"))
def test_what_is_transparent_is_filled_in_every_output(model, tmp_path, mode, output_type):
    mask = box_mask(24, 32, 0.3, 0)
    image = Image.fromarray(make_pixels(24, 32)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)))
        image.save(tmp_path / "image.png")
    else:
        image = image.quantize(15) if mode == "P" else image
        key = {"L": 80, "P": 15, "RGB": (1, 2, 3)}[mode]
        image.putpalette([*image.getpalette()[:45], 1, 2, 3]) if mode == "P" else None
        image.paste(key, mask=Image.fromarray(mask))
        image.save(tmp_path / "image.png", transparency=key)
    result = model.inpaint(tmp_path / "image.png", output_type=output_type).image
    pixels = result.permute(1, 2, 0).numpy() * 255 if output_type == "torch" else np.array(result)
    if output_type == "pil":
        assert load_photograph(result).alpha() is None or load_photograph(result).alpha().min() == 255
        pixels = load_photograph(result).pixels()
    hidden = {"L": (80,) * 3, "P": (1, 2, 3), "RGB": (1, 2, 3), "RGBA": None}[mode]
    assert hidden is None or (np.round(pixels)[mask] != hidden).any(axis=1).all()


def test_a_feathered_hole_may_fill_the_window_that_its_weights_are_made_in(model):
    mask = np.zeros((60, 1200), dtype=bool)
    mask[2:58, 100:700] = True
    pixels = make_pixels(60, 1200)
    result = model.inpaint(pixels, mask, dilate=4, feather=2, output_type="numpy")
    assert np.array_equal(result.image[:, 710:], pixels[:, 710:])


def test_output_types(model):
    pixels, mask = make_pixels(24, 32), box_mask(24, 32, 0.3, 0)
    array = model.inpaint(pixels, mask, output_type="numpy").image
    assert array.dtype == np.uint8 and np.array_equal(array[~mask], pixels[~mask])
    tensor = model.inpaint(pixels, mask, output_type="torch").image
    assert tensor.shape == (3, 24, 32) and torch.equal(
        (tensor * 255).round().byte(), torch.from_numpy(array).permute(2, 0, 1)
    )
    floats = np.random.default_rng(0).random((24, 32, 3))
    exact = model.inpaint(floats, mask, output_type="numpy").image
    assert exact.dtype == floats.dtype and np.array_equal(exact[~mask], floats[~mask])
    given_tensor = torch.from_numpy(floats).permute(2, 0, 1).float()
    exact = model.inpaint(given_tensor, mask, output_type="torch").image
    known = torch.from_numpy(~mask).expand(3, -1, -1)
    assert exact.dtype == torch.float32 and torch.equal(exact[known], given_tensor[known])
    result = model.inpaint(pixels, mask, output_type="torch", num_results=2)
    assert len(result.images) == 2 and isinstance(result.stages["composite"], Image.Image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_results": 0}, "num_results must be at least 1"),
        ({"num_results": 2.0}, "num_results must be a whole number"),
        ({"dilate": float("nan")}, "dilate must be a whole number"),
        ({"working_size": "512"}, "working_size must be a whole number"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": 2**64}, "seed must be a whole number"),
        ({"generator": 5}, "generator must be a torch.Generator"),
        ({"generator": [torch.Generator()] * 2}, "2 generators for 1 images"),
        ({"callback": 5}, "callback must be a function"),
        ({"dilate": -1}, "dilate must be at least 0"),
        ({"feather": -1}, "feather must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"output_type": "jpeg"}, "one of pil, numpy, torch"),
        ({"precision": "int8"}, "one of auto, float32, bfloat16"),
        ({"strategy": "fast"}, "auto, original, resize, crop"),
        ({"working_size": 30}, "at least 64"),
        ({"dilate": 99}, "grown by 99 pixels"),
    ],
)
def test_options_that_cannot_be_used_are_refused(model, options, message):
    with pytest.raises(InvalidInputError, match=message):
        model.inpaint(make_pixels(32, 32), box_mask(32, 32, 0.3, 0), **options)


# ---------------------------------------------------------------- progress and threads


def test_the_callback_counts_and_can_cancel(model):
    pixels, mask = make_pixels(48, 48), box_mask(48, 48, 0.3, 0)
    steps = []
    model.inpaint(pixels, mask, num_results=3, callback=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(Cancelled, match="after 2 of 3"):
        model.inpaint(pixels, mask, num_results=3, callback=lambda done, total: done < 2)


def test_several_threads_and_a_model_in_train_mode(model):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tasks = [(make_pixels(48, 56, seed), brush_mask(48, 56, 0.2, seed)) for seed in range(6)]
    expected = [model.inpaint(*task, num_results=2) for task in tasks]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda task: model.inpaint(*task, num_results=2), tasks))
    for one, other in zip(expected, results, strict=True):
        assert not any(different(a, b) for a, b in zip(one.images, other.images, strict=True))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.eval()

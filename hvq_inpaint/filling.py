"""From photographs and masks to filled photographs: regions through the networks, and back into the whole."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import product, zip_longest
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .config import SIZE_MULTIPLE
from .errors import InvalidInputError
from .execution import PRECISIONS, running_in, weights_dtype
from .hole import distance_to, feather_weights, grow, grown
from .images import Patch, Photograph, to_pixels, to_tensor
from .regions import Region, check_options, pad_to_multiple, plan, shrink
from .sampling import another_coarse

if TYPE_CHECKING:
    from .inpainter import HVQInpainter

OUTPUT_TYPES = ("pil", "numpy", "torch")

# The parts of the network in the order in which a region goes through them: `encoder` gives global codes and
# credibility, `decoder` local codes and the coarse picture, `refiner` the refined one and the composite.
STEP_PARTS = ("encoder", "decoder", "refiner")
# Between decoder and refiner of a region that is refined in tiles: one more tile is done.
TILE = "tile"

# A fill from a reduced scale is refined in tiles of this side, of which so much overlaps the next.
_TILE, _OVERLAP = 512, 96
# It is refined so near to the known pixels; deeper in, over as many pixels again, less and less: there the refiner,
# which has only seen holes at the scale at which it was trained, draws streaks.
_REFINED_MARGIN = 32


class Cancelled(RuntimeError):
    """The callback asked to stop."""


@dataclass(frozen=True)
class FillOptions:
    """How a photograph is filled; `HVQInpainter.inpaint` says what each means."""

    num_results: int = 1
    strategy: str = "auto"
    working_size: int = 512
    dilate: int = 0
    feather: int = 0
    output_type: str = "pil"
    batch_size: int = 1
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name, least in (("num_results", 1), ("batch_size", 1), ("dilate", 0), ("feather", 0), ("working_size", 0)):
            if not isinstance(getattr(self, name), Integral):
                raise InvalidInputError(f"{name} must be a whole number, not {getattr(self, name)!r}.")
            if getattr(self, name) < least:
                raise InvalidInputError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        for name, choices in (("output_type", OUTPUT_TYPES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise InvalidInputError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}.")
        check_options(self.strategy, self.working_size)


@dataclass(frozen=True)
class WorkedCrop:
    """What the networks made of one region of a photograph."""

    box: tuple[int, int, int, int]  # left, top, right, bottom in the photograph, as Pillow gives boxes
    working_size: tuple[int, int]  # height and width inside the network, padding left out
    global_codes: np.ndarray  # (ceil(h / 8), ceil(w / 8)) int64
    local_codes: np.ndarray | None  # (ceil(h / 4), ceil(w / 4)) int64; None only in a `FillStep` before the decoder
    credibility: np.ndarray  # (ceil(h / 8), ceil(w / 8)) float32 in [0, 1], 1 = credible


class Stages(dict[str, Any]):
    """A dict of which some values are made when they are first asked for: pictures of a whole large photograph."""

    def __init__(self, values: dict[str, Any], makers: dict[str, Callable[[], Any]]) -> None:
        super().__init__({**dict.fromkeys(makers), **values})
        self._makers = makers

    def __getitem__(self, name: str) -> Any:
        maker = self._makers.get(name)
        if maker is not None:
            super().__setitem__(name, maker())
            self._makers.pop(name, None)  # not before: another thread may ask
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._makers.pop(name, None)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._makers.pop(name, None)

    def __reduce__(self) -> tuple[Any, ...]:  # copies and pickles are plain dicts with all values
        return dict, (dict(self),)

    def __iter__(self) -> Iterator[str]:  # overridden, so that dict(stages) asks for the values
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def pop(self, name: str, *default: Any) -> Any:
        if name not in self:
            return super().pop(name, *default)
        value = self[name]
        del self[name]
        return value

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def values(self) -> list[Any]:
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self]


@dataclass
class InpaintResult:
    """What `HVQInpainter.inpaint` returns for a photograph."""

    images: list[Any]  # as many as asked for; PIL images of size and mode of the input, or as `output_type` says
    stages: dict[str, Any]  # damaged, coarse, refined, composite (PIL); global_codes, local_codes, credibility (arrays)
    crops: list[WorkedCrop]  # every region that was worked
    main_crop: WorkedCrop | None  # that of the largest hole, whose arrays are in `stages`

    @property
    def image(self) -> Any:
        """The first result."""
        return self.images[0]


@dataclass
class FillStep:
    """A step of a fill: one part of the network is done with one region, or with a tile of it."""

    part: str  # of `STEP_PARTS`; or `TILE`, after which there is nothing new yet and `done` is as before
    number: int  # which result it belongs to, from 0; the stages are those of result 0
    done: int  # steps so far
    total: int
    _job: _Job = field(repr=False)
    _options: FillOptions = field(repr=False)

    def result(self) -> InpaintResult:
        """What there is by now: of `stages` those that are computed, of `images` those that are finished.

        To be asked for before the next step is taken.
        """
        return _result(self._job, self._options)


@dataclass
class _Maps:
    """What the VQ stage made of a region."""

    global_codes: np.ndarray
    credibility: np.ndarray
    local_codes: np.ndarray | None = None  # once they are decoded
    coarse: np.ndarray | None = None  # (h, w, 3) uint8 in the photograph's scale


@dataclass
class _Job:
    """A photograph on its way."""

    photograph: Photograph
    mask: np.ndarray  # (H, W) bool, as given: here the fill is seen alone
    missing: np.ndarray  # (H, W) bool, dilated and feathered: what the networks do not see
    generator: torch.Generator
    opaque: bool
    regions: list[Region]
    filled: list[list[tuple[Region, torch.Tensor]]] = field(default_factory=list)  # by result: refined (3, h, w)
    maps: list[_Maps] = field(default_factory=list)  # of the first result, by region

    def window(self, region: Region) -> tuple[torch.Tensor, torch.Tensor]:
        """The photograph (1, 3, h, w) of a region, and what is known of it (1, 1, h, w)."""
        known = torch.from_numpy(~self.missing[region.slices])[None, None].float()
        return to_tensor(self.photograph.colours(*region.slices)), known

    def window_so_far(self, region: Region, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, with what result `number` has filled of it by now as known pixels."""
        image, known = self.window(region)
        for earlier, refined in self.filled[number]:
            top, left = max(earlier.hole[0].start, region.top), max(earlier.hole[1].start, region.left)
            bottom, right = min(earlier.hole[0].stop, region.bottom), min(earlier.hole[1].stop, region.right)
            if top >= bottom or left >= right:
                continue
            here = (..., slice(top - region.top, bottom - region.top), slice(left - region.left, right - region.left))
            part = refined[:, top - earlier.top : bottom - earlier.top, left - earlier.left : right - earlier.left]
            image[here] = torch.where(known[here] > 0.5, image[here], part)
            known[here] = 1
        return image, known

    def patches(self, number: int, dilate: int, feather: int) -> list[Patch]:
        """What is to be painted for result `number`."""
        patches = []
        for region, refined in self.filled[number]:
            rows, columns = region.hole
            inside = refined[:, rows.start - region.top : rows.stop - region.top]
            inside = inside[:, :, columns.start - region.left : columns.stop - region.left]
            weights = None
            if feather:
                # The hole's own distances: those of a neighbouring hole count as well.
                margin = feather + dilate
                around = (
                    slice(max(0, rows.start - margin), rows.stop + margin),
                    slice(max(0, columns.start - margin), columns.stop + margin),
                )
                whole = feather_weights(grown(self.mask[around], dilate) if dilate else self.mask[around], feather)
                weights = whole[rows.start - around[0].start :, columns.start - around[1].start :]
                weights = weights[: rows.stop - rows.start, : columns.stop - columns.start]
            colours = inside.permute(1, 2, 0).numpy()
            patches.append(Patch(rows.start, columns.start, self.missing[rows, columns], colours, weights))
        return patches


def fill(
    model: HVQInpainter,
    photographs: Sequence[Photograph],
    masks: Sequence[np.ndarray],
    generators: Sequence[torch.Generator],
    options: FillOptions,
    opaque: Sequence[bool],
    callback: Callable[[int, int], Any] | None = None,
) -> list[InpaintResult]:
    """Fill `masks` (H, W) of `photographs`; `opaque`: whether what is filled loses its transparency.

    Regions of one size are worked `batch_size` at a time, over all photographs.
    """
    jobs = [_job(*given, options) for given in zip(photographs, masks, generators, opaque, strict=True)]
    total = options.num_results * sum(len(job.regions) for job in jobs)
    done = 0
    # The n-th regions of all photographs together: those of one photograph build on each other.
    for wave in zip_longest(*([(job, region) for region in job.regions] for job in jobs)):
        for batch in _batches([work for work in wave if work is not None], options.batch_size):
            for part, _ in _work(model, batch, options):
                if part != "refiner":
                    continue
                done += len(batch)
                if callback is not None and callback(done, total) is False:
                    raise Cancelled(f"Stopped after {done} of {total} steps, as the callback asked.")
    return [_result(job, options) for job in jobs]


@torch.no_grad()
def fill_steps(
    model: HVQInpainter,
    photograph: Photograph,
    mask: np.ndarray,
    generator: torch.Generator,
    options: FillOptions,
    opaque: bool,
) -> Iterator[FillStep]:
    """`fill` of one photograph, step by step: the last step's result is that of `fill`."""
    job = _job(photograph, mask, generator, opaque, options)
    total = len(job.regions) * (1 + 2 * options.num_results)
    done = 0
    for region in job.regions:
        for part, number in _work(model, [(job, region)], options):
            done += part != TILE
            yield FillStep(part, number, done, total, job, options)


def _job(
    photograph: Photograph, mask: np.ndarray, generator: torch.Generator, opaque: bool, options: FillOptions
) -> _Job:
    missing = grow(mask, options.dilate + options.feather)
    regions = plan(missing, options.strategy, options.working_size)
    return _Job(photograph, mask, missing, generator, opaque, regions, [[] for _ in range(options.num_results)])


def _batches(works: list[tuple[_Job, Region]], batch_size: int) -> Iterator[list[tuple[_Job, Region]]]:
    """Works whose padded sizes are equal, at most `batch_size` together."""
    by_size: dict[tuple[int, ...], list[tuple[_Job, Region]]] = {}
    for job, region in works:
        padded = tuple(-(-length // SIZE_MULTIPLE) for length in region.working_size)
        by_size.setdefault(padded, []).append((job, region))
    for alike in by_size.values():
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]


def _running(model: HVQInpainter, precision: str) -> AbstractContextManager[None]:
    """A block in which the networks of `model` run in `precision`, and for inference only."""
    return running_in(precision, model.vqvae.global_quantizer.codebook.device, weights_dtype(model))


def _work(model: HVQInpainter, batch: list[tuple[_Job, Region]], options: FillOptions) -> Iterator[tuple[str, int]]:
    """One region of each of some photographs; yields the part of the network that is done, and for which result.

    The encoder runs once for all results, decoder and refiner for each. `TILE` comes after each tile of the refiner.
    """
    device = model.vqvae.global_quantizer.codebook.device

    def brought_to_scale(windows: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        images, knowns = zip(
            *(shrink(*window, region.working_size) for window, (_, region) in zip(windows, batch, strict=True)),
            strict=True,
        )
        stacked = (torch.cat([pad_to_multiple(part, SIZE_MULTIPLE) for part in parts]) for parts in (images, knowns))
        return tuple(part.to(device) for part in stacked)

    _, known = scaled = brought_to_scale([job.window(region) for job, region in batch])
    with _running(model, options.precision):
        encoded = model.encode(*scaled)
    quantiles = model.credibility_map.quantiles  # of the distances of intact images to their codes
    credibility = model.credibility_map(encoded.global_latents, model.vqvae.global_quantizer.codebook)
    for index, (job, region) in enumerate(batch):
        global_codes, credible = (
            _without_padding(maps[index], region) for maps in (encoded.global_codes, credibility[:, 0])
        )
        job.maps.append(_Maps(global_codes, credible))
    yield "encoder", 0
    for number in range(options.num_results):
        windows = [job.window_so_far(region, number) for job, region in batch]
        with _running(model, options.precision):  # not around the yield: what the caller does is not ours
            if number == 0:
                _, local_codes, coarse = model.vqvae.decode_with_mid(encoded.global_quantized, encoded.mid)
            else:
                coarse = another_coarse(
                    model.vqvae,
                    encoded.global_latents,
                    encoded.global_codes,
                    encoded.mid,
                    credibility,
                    quantiles[len(quantiles) // 2],
                    known,
                    number,
                    [job.generator for job, _ in batch],
                )
            coarse = coarse.float().clamp(0, 1)
        if number == 0:
            for index, (job, region) in enumerate(batch):
                job.maps[-1].local_codes = _without_padding(local_codes[index], region)
                job.maps[-1].coarse = to_pixels(_to_photograph_scale(coarse[index : index + 1], region)[0])
        yield "decoder", number
        with _running(model, options.precision):
            refined = model.refine(coarse, *brought_to_scale(windows)).clamp(0, 1)
        wholes = [_to_photograph_scale(refined[i : i + 1], region) for i, (_, region) in enumerate(batch)]
        for index, ((_, region), window) in enumerate(zip(batch, windows, strict=True)):
            if region.refine:
                window = [tensor.to(device) for tensor in window]
                wholes[index] = yield from _refine_in_tiles(
                    model, wholes[index], *window, options.precision, (TILE, number)
                )
        for index, (job, region) in enumerate(batch):
            job.filled[number].append((region, wholes[index][0].cpu()))
        yield "refiner", number


def _refine_in_tiles(
    model: HVQInpainter,
    picture: torch.Tensor,
    image: torch.Tensor,
    known: torch.Tensor,
    precision: str,
    step: tuple[str, int],
) -> Generator[tuple[str, int], None, torch.Tensor]:
    """The refiner at the photograph's scale, on a fill that was made at a reduced one; yields `step` after each tile.

    The whole fill is blended into the known pixels at once; then tile after tile that has a border is refined, and
    neighbours fade into each other where they overlap.

    Args:
        picture: the fill (1, 3, H, W) in [0, 1], everywhere.
        image: (1, 3, H, W) in [0, 1]; `known`: (1, 1, H, W).

    Returns:
        (1, 3, H, W) in [0, 1].
    """
    with _running(model, precision):
        blended = model.coarse_composite(picture, image, known)
        total, weight = torch.zeros_like(blended), torch.zeros_like(known)
        depth = torch.from_numpy(distance_to(known[0, 0].cpu().numpy() > 0.5)).float().to(known.device)
        share = (2 - depth / _REFINED_MARGIN).clamp(0, 1)[None, None]  # of the refiner
    for top, left in product(_tile_starts(image.shape[2]), _tile_starts(image.shape[3])):
        here = (..., slice(top, top + _TILE), slice(left, left + _TILE))
        if not ((share[here] > 0) & (known[here] < 0.5)).any():
            continue
        height, width = known[here].shape[-2:]
        with _running(model, precision):
            padded = (pad_to_multiple(tensor[here], SIZE_MULTIPLE) for tensor in (blended, known))
            refined = model.refiner(*padded).float().clamp(0, 1)[:, :, :height, :width]
            ramp = _ramp(height, known.device)[:, None] * _ramp(width, known.device)
            total[here] += ramp * refined
            weight[here] += ramp
        yield step
    with _running(model, precision):
        refined = torch.where(weight > 0, total / weight.clamp_min(1e-6), blended)
        return blended + share * (refined - blended)


def _tile_starts(length: int) -> list[int]:
    """Where tiles begin along `length` pixels: evenly spread, overlapping by `_OVERLAP` at least."""
    if length <= _TILE:
        return [0]
    number = -(-(length - _OVERLAP) // (_TILE - _OVERLAP))
    return [round(index * (length - _TILE) / (number - 1)) for index in range(number)]


def _ramp(length: int, device: torch.device) -> torch.Tensor:
    """Weights (length,) in (0, 1] that fall towards both ends of a tile."""
    distance = torch.arange(length, device=device) + 1.0
    return (torch.minimum(distance, distance.flip(0)) / _OVERLAP).clamp(max=1)


def _to_photograph_scale(tensor: torch.Tensor, region: Region) -> torch.Tensor:
    """A network's picture (1, 3, h, w) without its padding, at the photograph's scale."""
    tensor = tensor[:, :, : region.working_size[0], : region.working_size[1]].float()
    if tuple(tensor.shape[-2:]) == region.size:
        return tensor
    return F.interpolate(tensor, region.size, mode="bicubic", align_corners=False).clamp(0, 1)


def _without_padding(cells: torch.Tensor, region: Region) -> np.ndarray:
    """A map (h, w) of the network, in cells of 8 or 4 pixels, without the cells that only padding lies in."""
    pixels = SIZE_MULTIPLE * -(-region.working_size[0] // SIZE_MULTIPLE) // cells.shape[0]
    height, width = (-(-length // pixels) for length in region.working_size)
    return cells[:height, :width].cpu().numpy()


def _result(job: _Job, options: FillOptions) -> InpaintResult:
    """What there is by now; once all steps are done, all."""
    photograph = job.photograph
    by_result = [job.patches(number, options.dilate, options.feather) for number in range(options.num_results)]
    finished = [
        patches for patches, filled in zip(by_result, job.filled, strict=True) if len(filled) == len(job.regions)
    ]
    if options.output_type == "pil":
        images = [photograph.painted(patches, job.opaque) for patches in finished]
    else:
        images = [photograph.painted_array(patches, job.opaque) for patches in finished]
        if options.output_type == "torch":
            images = [to_tensor(image)[0] if image.dtype == np.uint8 else _as_tensor(image) for image in images]

    def whole(windows: list[tuple[Region, np.ndarray]]) -> Image.Image:
        pixels = photograph.pixels().copy()
        for region, window in windows:
            pixels[region.slices] = window
        return Image.fromarray(pixels)

    refined = [(region, to_pixels(window)) for region, window in job.filled[0]]
    worked = list(zip(job.regions, job.maps, strict=False))  # the first regions; all of them in the end
    coarse = [(region, maps.coarse) for region, maps in worked if maps.coarse is not None]
    crops = [
        WorkedCrop(
            box=(region.left, region.top, region.right, region.bottom),
            working_size=region.working_size,
            global_codes=maps.global_codes,
            local_codes=maps.local_codes,
            credibility=maps.credibility,
        )
        for region, maps in worked
    ]
    values: dict[str, Any] = {}
    makers = {"damaged": lambda: Image.fromarray(np.where(job.missing[..., None], np.uint8(0), photograph.pixels()))}
    main_crop = None
    if crops:
        # Of the decoded ones if there are any: its maps then belong together.
        candidates = range(max(1, sum(crop.local_codes is not None for crop in crops)))
        main_crop = crops[max(candidates, key=lambda index: job.missing[job.regions[index].hole].sum())]
        values["global_codes"], values["credibility"] = main_crop.global_codes, main_crop.credibility
        if main_crop.local_codes is not None:
            values["local_codes"] = main_crop.local_codes
    if coarse:
        makers["coarse"] = lambda: whole(coarse)
    if refined:
        makers["refined"] = lambda: whole(refined)
        makers["composite"] = lambda: (
            images[0] if images and options.output_type == "pil" else photograph.painted(by_result[0], job.opaque)
        )
    return InpaintResult(images=images, stages=Stages(values, makers), crops=crops, main_crop=main_crop)


def _as_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) to (3, H, W), of the same float type."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()

"""Images for training and validation: where they come from, and the samples that are made of them."""

from .loading import InpaintingDataset, InpaintingStream, NamedSample, shards_are_shared, without_pauses
from .samples import Sample, SampleOptions, center_crop, make_sample, validation_samples
from .sources import (
    UnreadableImageError,
    decode_image,
    image_name,
    list_images,
    load_images,
    open_upright,
    rows_of,
    spread,
    undecoded,
)

__all__ = [
    "InpaintingDataset",
    "InpaintingStream",
    "NamedSample",
    "Sample",
    "SampleOptions",
    "UnreadableImageError",
    "center_crop",
    "decode_image",
    "image_name",
    "list_images",
    "load_images",
    "make_sample",
    "open_upright",
    "rows_of",
    "shards_are_shared",
    "spread",
    "undecoded",
    "validation_samples",
    "without_pauses",
]

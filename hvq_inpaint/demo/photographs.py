"""What the browser sends and gets: photographs, strokes and masks as the editor holds them, and files to download."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData, ImageData
from gradio.utils import get_upload_folder, is_in_or_equal
from gradio_client.utils import is_http_url_like
from PIL import Image

from ..errors import InvalidInputError
from ..files import SAVE_OPTIONS, check_format, lossless_suffix, save_image
from ..hole import load_mask
from ..images import FORMATS, GREY_16_MODES, load_photograph, open_image, upright
from .limits import Limits

STROKE_COLOUR, STROKE_OPACITY = (255, 61, 129), 0.7

NAMELESS = "photograph.png"  # what a photograph is called that came without a name

_NOTHING_MARKED = "The mask is empty: paint over what is to be filled, add a mask image, or let the page damage it."
_NOT_UPLOADED = "Only files that were uploaded to this page are taken: upload it, or send the file itself."


@dataclass(frozen=True)
class Filled:
    """What the last fill of a visitor gave: files that this machine wrote, named by no one else."""

    name: str  # of the photograph
    before: str  # path of the photograph as PNG
    results: tuple[str, ...]  # paths
    chosen: int = 0

    @property
    def result(self) -> str:
        """The path of the chosen one."""
        return self.results[self.chosen]

    def is_kept(self) -> bool:
        """Whether the files are still there."""
        return all(Path(path).is_file() for path in (self.before, self.result))


def marked(editor: dict[str, Any] | None, mask_image: Image.Image | None) -> tuple[Image.Image, np.ndarray]:
    """The photograph of an editor, upright, and what is to be filled of it.

    Args:
        editor: value of an `ImageEditor` of type "pil" and mode RGBA. Whatever its layers cover at all is to be filled.
        mask_image: a ready mask, white = repaint, or None; it is added to the strokes.

    Returns:
        An image of mode L, RGB or RGBA, and bool (H, W), True = repaint.

    Raises:
        InvalidInputError: there is no photograph, nothing is marked, or a mask is of another size.
    """
    photograph = photograph_of(editor)
    size = photograph.height, photograph.width
    # From a browser there is always a layer, which may be blank; a caller of the API may send none.
    strokes = [np.asarray(layer.getchannel("A")) > 0 for layer in editor["layers"]]
    masks = [load_mask(stroke, size) for stroke in strokes if stroke.any()]
    if mask_image is not None:
        masks.append(load_mask(mask_image, size))
    if not masks:
        raise InvalidInputError(_NOTHING_MARKED)
    return photograph, np.any(masks, axis=0)


def photograph_of(editor: dict[str, Any] | None) -> Image.Image:
    """The photograph of an editor, upright, as an image of mode L, RGB or RGBA.

    Raises:
        InvalidInputError: there is none.
    """
    if editor is None or editor["background"] is None:
        raise InvalidInputError("There is no photograph yet: upload one and paint over what is to be filled.")
    return _plainest_mode(upright(editor["background"]))


def _plainest_mode(image: Image.Image) -> Image.Image:
    """An RGBA image as L or RGB if that holds the same pixels: the editor makes every photograph RGBA.

    A black and white photograph is filled in black and white, and an opaque one gives an opaque file.
    """
    if image.getchannel("A").getextrema() != (255, 255):
        return image
    red, green, blue, _ = image.split()
    grey = np.array_equal(red, green) and np.array_equal(green, blue)
    return image.convert("RGB").convert("L") if grey else image.convert("RGB")


def editor_value(photograph: str, *layers: str) -> dict[str, Any]:
    """What to give the editor: the files of a photograph and of strokes over it, which can be erased."""
    return {"background": photograph, "layers": list(layers), "composite": None}


def strokes_over(mask: np.ndarray) -> Image.Image:
    """A layer of the editor, RGBA, painted where `mask` (H, W) is True."""
    stroke = np.array([*STROKE_COLOUR, round(STROKE_OPACITY * 255)], dtype=np.uint8)
    return Image.fromarray(np.where(mask[..., None], stroke, np.uint8(0)))


# ---------------------------------------------------------------- uploads


def checked_first(component: Component, check: Callable[[Any], object]) -> None:
    """Let nothing but files that were uploaded come to `component`, and `check` see them before Gradio reads them.

    Gradio itself downloads addresses, of any size; takes for an `Image` any path on this machine, or pixels within the
    request; answers an unreadable file with its internals; and turns 16-bit pixels or CMYK into something else unasked.
    Not a subclass: Gradio takes one for a component with a front end of its own.
    """
    preprocess, bring = component.preprocess, component.async_move_resource_to_block_cache
    uploads = Path(component.GRADIO_CACHE)

    async def brought(path: str | Path | None) -> str | None:
        if path is not None and is_http_url_like(str(path)):
            raise refusal(InvalidInputError(_NOT_UPLOADED))
        return await bring(path)

    def checked(value: Any) -> Any:
        for file in _files_of(value):
            if file.path is None or not is_in_or_equal(file.path, uploads):
                raise refusal(InvalidInputError(_NOT_UPLOADED))
        check(value)
        return preprocess(value)

    component.async_move_resource_to_block_cache = brought
    component.preprocess = checked


def _files_of(value: EditorData | FileData | ImageData | None) -> list[Any]:
    if isinstance(value, EditorData):
        return [file for file in (value.background, *value.layers, value.composite) if file is not None]
    return [] if value is None else [value]


def check_editor(value: EditorData | None, limits: Limits) -> None:
    """Refuse an editor's files that are no images, too large, or would be changed unasked.

    Of the editor's composite nothing is made: it is dropped.
    """
    if value is None:
        return
    value.composite = None
    if len(value.layers) > 1:
        raise refusal(InvalidInputError("The editor has only one layer to paint on: merge the layers."))

    def read(path: str) -> None:
        mode = check_photograph_file(path, limits).mode
        if mode == "CMYK" or mode in GREY_16_MODES:
            raise InvalidInputError(
                f"Images of mode {mode} can't be edited in the browser: convert it to RGB, or use the API."
            )

    refuse_unless(value.background, read)
    for layer in value.layers:
        check_picture(layer, limits)


def check_picture(file: FileData | ImageData | None, limits: Limits) -> None:
    """Refuse a file that is no image, can't be decoded, or is too large.

    Raises:
        gr.Error: it is.
    """
    refuse_unless(file, lambda path: check_photograph_file(path, limits))


def check_photograph_file(path: str, limits: Limits) -> Image.Image:
    """The image of a file that is one, can be decoded, and is not too large.

    Raises:
        InvalidInputError: it is not; unless it is for its size, the sentence has `path` in it.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:  # reads no pixels yet
            limits.check_size(*image.size)
    except (OSError, SyntaxError, Image.DecompressionBombError):
        pass  # what is wrong with it is said below
    return open_image(path)


def refuse_unless(file: FileData | ImageData | None, read: Callable[[str], object]) -> None:
    """Refuse a file that `read` refuses, by the name that its sender knows it by.

    Raises:
        gr.Error: it does.
    """
    if file is None:
        return
    try:
        read(file.path)
    except InvalidInputError as error:
        raise refusal(InvalidInputError(str(error).replace(file.path, file.orig_name or "The file"))) from None


def refusal(error: InvalidInputError) -> gr.Error:
    """What the visitor sees of an error: a toast, or in the API its message."""
    return gr.Error(str(error), title="That can't be done", print_exception=False)


# ---------------------------------------------------------------- downloads


def own_suffix(name: str, photograph: Image.Image) -> str | None:
    """The suffix of the format in which a photograph came, if that is another than PNG and holds the result."""
    suffix = Path(name).suffix.lower()
    if suffix not in SAVE_OPTIONS or suffix == ".png":
        return None
    try:
        check_format(Path(name), load_photograph(photograph), Path(name))
    except InvalidInputError:
        return None
    return suffix


def filled_name(name: str, suffix: str, number: int = 1) -> str:
    """What the filled photograph `name` is called: harmless characters only, as a visitor may send any name."""
    stem = re.sub(r"[^\w-]+", "-", Path(name).stem).strip("-")[:60] or Path(NAMELESS).stem
    return f"{stem}-filled{'' if number == 1 else f'-{number}'}{suffix}"


def save_results(images: Sequence[Image.Image], name: str, folder: Path, suffix: str | None = None) -> list[str]:
    """Write results into `folder`; their paths.

    Args:
        suffix: of the format; None: the one that keeps every pixel of such an image.
    """
    paths = []
    for number, image in enumerate(images, start=1):
        chosen = suffix or lossless_suffix(image.mode)
        paths.append(folder / filled_name(name, chosen, number))
        save_image(image, paths[-1], chosen)
    return [str(path) for path in paths]


def save_picture(picture: Image.Image, folder: Path, name: str) -> str:
    """Write a picture to be shown; its path."""
    path = folder / f"{name}.png"
    picture.save(path)
    return str(path)


def folder_for_visitor() -> Path:
    """A new folder for files to be shown or downloaded; Gradio serves them from there.

    It gets files and no images: those it would write itself, under a name that it makes of the pixels, and anew while a
    browser may be reading them.
    """
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=secrets.token_hex(16), dir=folder))  # an address that no one else can guess

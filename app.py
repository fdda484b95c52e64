"""The demonstration: paint on a photograph, see it filled and every intermediate of the pipeline.

`python app.py` starts it with the bundled model, without a network.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData, ImageData
from PIL import Image, ImageOps

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.commands import load_model
from hvq_inpaint.hole import load_mask
from hvq_inpaint.images import GREY_16_MODES, load_photograph, open_image
from hvq_inpaint.visualize import stage_pictures

TITLE = "Fill in a photograph"
EXPLANATION = """
Paint over what should disappear, and the model makes up what could have been there. It describes a photograph by codes,
like words from a dictionary: it guesses those under your strokes from what is around them, measures how well each guess
fits its word, decodes them to a rough picture and refines that. Everything outside the strokes stays as it was, bit for
bit.
"""
FOOTNOTE = """
After Li, Xu and Chen, [Hierarchical Vector-Quantized Variational Autoencoder and Vector Credibility Mechanism for
High-Quality Image Inpainting](https://doi.org/10.3390/electronics13101852), Electronics 2024, 13, 1852.
"""

# What each picture of the gallery shows, with the paper's symbol.
CAPTIONS = {
    "damaged": "1. Damaged input (F2): what the model sees of the photograph; black is missing.",
    "global_codes": "2. Global codes (Q1): the layout in cells of 8 x 8 pixels; a colour is a code.",
    "local_codes": "3. Local codes (Q2): the texture in cells of 4 x 4 pixels; a colour is a code.",
    "credibility": "4. Credibility: how near each guess is to its global code; it does not tell wrong from right.",
    "coarse": "5. VQ result: the codes of the part worked on, decoded to a rough picture.",
    "refined": "6. Refined (I_out): the rough picture fitted to its surroundings, its details redrawn.",
    "composite": "7. Composite (I_comp): the refined picture in the hole, the photograph everywhere else.",
}
STAGE_LONGEST_SIDE = 1024  # the gallery shows large photographs reduced; the result itself is never reduced

MOST_RESULTS = 4
LARGEST_SEED = 2**31 - 1
LONGEST_QUEUE = 16

CSS = """
/* Nothing to see yet, or no further results. */
.pictures:not(:has(img)) { display: none; }
/* Captions are sentences: below their pictures and wrapped, not one cut line over them. */
.pictures .grid-wrap { max-height: none; min-height: 0; overflow: visible; }
.pictures .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(max(140px, 22%), 1fr));
  grid-auto-rows: auto;
  padding-top: 2.5rem;
}
.pictures .gallery-item .thumbnail-item { aspect-ratio: auto; display: flex; flex-direction: column; }
.pictures .gallery-item .thumbnail-item > img { height: auto; max-height: 320px; }
.pictures .caption-label {
  position: static;
  max-width: none;
  width: 100%;
  border: none;
  background: none;
  white-space: normal;
}
.pictures .caption { white-space: normal; }
"""


def _check_file(file: FileData | ImageData | None, read: Callable[[str], object]) -> None:
    """Refuse a file that `read` refuses, by the name that its sender knows it by."""
    if file is None or file.path is None:
        return
    try:
        read(file.path)
    except InvalidInputError as error:
        raise gr.Error(
            str(error).replace(file.path, file.orig_name or "The file"),
            title="Nothing was filled",
            print_exception=False,
        ) from None


def _read_for_editor(path: str) -> None:
    """Refuse what the editor, which makes every photograph RGBA, would turn into something else unasked."""
    mode = load_photograph(path).mode
    if mode == "CMYK" or mode in GREY_16_MODES:
        raise InvalidInputError(
            f"Images of mode {mode} can't be edited in the browser: convert it to RGB, or fill it on the command line."
        )


def _check_editor(value: EditorData | None) -> None:
    if value is not None:
        _check_file(value.background, _read_for_editor)
        for layer in value.layers or []:
            _check_file(layer, open_image)


def _check_mask_image(value: ImageData | None) -> None:
    _check_file(value, open_image)


def _checked_first(component: Component, check: Callable[[Any], None]) -> None:
    """Let `check` see what was uploaded to `component` before Gradio reads it.

    Gradio itself would answer an unreadable file with its internals, and turn 16-bit pixels or CMYK into something else
    unasked. Not a subclass: Gradio takes one for a component with a front end of its own.
    """
    preprocess = component.preprocess

    def checked(value: Any) -> Any:
        check(value)
        return preprocess(value)

    component.preprocess = checked


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
    if editor is None or editor["background"] is None:
        raise InvalidInputError("There is no photograph yet: upload one and paint over what is to be filled.")
    photograph = _plainest_mode(ImageOps.exif_transpose(editor["background"]))
    size = photograph.height, photograph.width
    # From a browser there is always a layer, which may be blank; a caller of the API may send none.
    strokes = [np.asarray(layer.getchannel("A")) > 0 for layer in editor["layers"]]
    masks = [load_mask(stroke, size) for stroke in strokes if stroke.any()]
    if mask_image is not None:
        masks.append(load_mask(mask_image, size))
    if not masks:
        raise InvalidInputError("The mask is empty: paint over what is to be filled, or add a mask image.")
    return photograph, np.any(masks, axis=0)


def _plainest_mode(image: Image.Image) -> Image.Image:
    """An RGBA image as L or RGB if that holds the same pixels: the editor makes every photograph RGBA.

    A black and white photograph is filled in black and white, and an opaque one gives an opaque file.
    """
    if image.getchannel("A").getextrema() != (255, 255):
        return image
    red, green, blue, _ = image.split()
    grey = np.array_equal(red, green) and np.array_equal(green, blue)
    return image.convert("RGB").convert("L") if grey else image.convert("RGB")


def _reduced(picture: Image.Image) -> Image.Image:
    """`picture` at no more than `STAGE_LONGEST_SIDE`."""
    picture = picture.copy()
    picture.thumbnail((STAGE_LONGEST_SIDE, STAGE_LONGEST_SIDE))
    return picture


def build(model: HVQInpainter) -> gr.Blocks:
    """The page for `model`, with its queue; `launch` serves it.

    Its endpoint `/inpaint` takes the editor's value, a mask image or None, the number of results and the seed, and
    returns the photograph and its first result, the stages with their captions, the further results, and the status
    line.
    """

    def inpaint(
        editor: dict[str, Any] | None, mask_image: Image.Image | None = None, num_results: int = 1, seed: int | None = 0
    ) -> tuple[Any, ...]:
        """Fill the marked part of a photograph.

        Args:
            editor: background: the photograph; layers: RGBA pictures of its size, opaque where it is to be filled; \
composite is not used.
            mask_image: a ready mask of the photograph's size, white = fill; added to the layers.
            num_results: how many different fills, 1 to 4; the first is the most probable one.
            seed: another seed gives other fills after the first.
        """
        start = time.perf_counter()
        try:
            if seed is None:
                raise InvalidInputError("There is no seed: enter a whole number.")
            photograph, mask = marked(editor, mask_image)
            result = model.inpaint(photograph, mask, seed=seed, num_results=int(num_results))
        except InvalidInputError as error:
            raise gr.Error(str(error), title="Nothing was filled", print_exception=False) from None
        seconds = time.perf_counter() - start
        pictures = stage_pictures(result.stages, model.config.num_codes)
        stages = [(_reduced(picture), CAPTIONS[name]) for name, picture in pictures.items()]
        others = [(image, f"Result {number}") for number, image in enumerate(result.images[1:], start=2)]
        status = (
            f"Filled {mask.mean():.1%} of {photograph.width} x {photograph.height} pixels in {seconds:.1f} seconds."
        )
        return (photograph, result.image), stages, others, status

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# {TITLE}\n{EXPLANATION}")
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                editor = gr.ImageEditor(
                    label="Photo",
                    placeholder="Upload a photograph\nand paint over\nwhat is to be filled",
                    elem_id="editor",
                    height="min(480px, 100vw)",
                    type="pil",
                    image_mode="RGBA",  # without its alpha a layer could not tell a stroke from nothing
                    format="png",
                    sources=("upload", "clipboard"),
                    brush=gr.Brush(default_size="auto", colors=[("#ff3d81", 0.7)], color_mode="fixed"),
                    eraser=gr.Eraser(default_size="auto"),
                    layers=False,
                    transforms=(),
                    fixed_canvas=False,  # a fixed canvas resamples the photograph
                    canvas_size=(560, 420),
                )
                button = gr.Button("Fill", variant="primary", size="lg", elem_id="fill")
                with gr.Accordion("More options", open=False):
                    mask_image = gr.Image(
                        label="Mask image, added to the strokes",
                        type="pil",
                        image_mode=None,
                        sources=("upload", "clipboard"),
                        height=200,
                    )
                    num_results = gr.Slider(1, MOST_RESULTS, value=1, step=1, label="Number of results")
                    seed = gr.Number(
                        0,
                        minimum=0,
                        maximum=LARGEST_SEED,
                        precision=0,
                        label="Seed",
                        info="Another seed gives other results after the first.",
                    )
            with gr.Column(min_width=320):
                result = gr.ImageSlider(
                    label="Before and after",
                    elem_id="result",
                    type="pil",
                    image_mode=None,
                    format="png",
                    max_height=480,
                    interactive=False,
                )
                status = gr.Markdown("The result will appear here.", label="Status", elem_id="status")
                others = gr.Gallery(
                    label="Other results",
                    elem_id="others",
                    elem_classes="pictures",
                    format="png",
                    object_fit="contain",
                    interactive=False,
                )
        stages = gr.Gallery(
            label="Step by step",
            elem_id="stages",
            elem_classes="pictures",
            format="png",
            object_fit="contain",
            interactive=False,
        )
        gr.Markdown(FOOTNOTE)
        _checked_first(editor, _check_editor)
        _checked_first(mask_image, _check_mask_image)
        button.click(
            inpaint,
            [editor, mask_image, num_results, seed],
            [result, stages, others, status],
            api_name="inpaint",
            concurrency_limit=1,
            show_progress_on=result,  # a refusal must not cover all that is there from before
        )
    return page.queue(max_size=LONGEST_QUEUE)


def launch(page: gr.Blocks, **options: Any) -> str:
    """Serve `page`, without fetching anything from anywhere; `options` are further ones of `gr.Blocks.launch`.

    Returns:
        The local address, once the server is stopped or, with `prevent_thread_lock`, at once.
    """
    _, address, _ = page.launch(
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"]),
        css=CSS,
        ssr_mode=False,
        show_error=True,
        # The editor sends lossless PNG, some 2 bytes a pixel, and the page waits for ever if it is refused.
        max_file_size="256mb",
        footer_links=["api"],
        **options,
    )
    return address


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `sys.argv` if `arguments` is None."""
    parser = argparse.ArgumentParser(description="A page in the browser to fill in the painted part of a photograph.")
    parser.add_argument(
        "--model",
        help="a folder with config.json and model.safetensors, or user/name on the Hub (default: the bundled model)",
    )
    parser.add_argument(
        "--host", help="address to listen on; 0.0.0.0 for all (default: GRADIO_SERVER_NAME, or 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, help="port to listen on (default: GRADIO_SERVER_PORT, or the first free one from 7860)"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps; auto is a GPU if there is one (default: auto)"
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="also give the page a public address for a week, by a tunnel through gradio.live",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model and serve the page until it is interrupted; the exit status."""
    options = parse_arguments(arguments)
    try:
        model = load_model(options.model, options.device)
        launch(build(model), server_name=options.host, server_port=options.port, share=options.share)
    except (InvalidInputError, OSError) as error:  # an OSError: the address or the port can't be had
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What is where on the page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import InvalidInputError
from ..examples import EXAMPLES
from ..masks import MASK_KINDS
from ..regions import STRATEGIES
from .fills import Filler, Options
from .limits import LARGEST_SEED, MOST_PIXELS_GROWN, MOST_RESULTS
from .photographs import STROKE_COLOUR, STROKE_OPACITY
from .stages import STAGES, Stage, legend

HERE = Path(__file__).parent

_KIND_NAMES = {"random_walk": "Random walk (the paper's)", "brush": "Brush strokes", "box": "Boxes"}


@dataclass(frozen=True)
class Visit:
    """What the page remembers of a visitor."""

    name: gr.State  # of the photograph's file
    filled: gr.State  # a `Filled`; None without a result for the photograph in the editor
    history: gr.State  # a `History`


@dataclass(frozen=True)
class Inputs:
    editor: gr.ImageEditor
    gate: gr.HTML
    examples: gr.Gallery
    fill: gr.Button
    cancel: gr.Button
    kind: gr.Radio
    ratio: gr.Slider
    damage_seed: gr.Number
    damage: gr.Button
    mask_image: gr.Image
    compare: gr.Checkbox
    options: tuple[Any, ...]  # in the order of `Options`

    @classmethod
    def lay_out(cls, filler: Filler) -> Inputs:
        limits = filler.limits
        colour = ("#{:02x}{:02x}{:02x}".format(*STROKE_COLOUR), STROKE_OPACITY)
        editor = gr.ImageEditor(
            label="Photograph",
            placeholder="Upload a photograph,\npaste one or choose an example,\nand paint over what is to be filled",
            elem_id="editor",
            height="min(480px, 100vw)",
            type="pil",
            image_mode="RGBA",  # without its alpha a layer could not tell a stroke from nothing
            format="png",
            # The clipboard is read by page.js: what the editor's own button pastes, no one would have looked at.
            sources=("upload", "webcam"),
            brush=gr.Brush(default_size="auto", colors=[colour], color_mode="fixed"),
            eraser=gr.Eraser(default_size="auto"),
            layers=False,
            transforms=(),
            fixed_canvas=False,  # a fixed canvas resamples the photograph
            # Of the empty editor. Strokes that are given to it for a smaller photograph than this would be misplaced.
            canvas_size=(32, 32),
        )
        gate = gr.HTML(
            f"Photographs of up to {limits.megapixels:g} megapixels, in any format that your browser shows. A fill may "
            f"take up to {limits.seconds:g} seconds.",
            html_template="<p><button type='button' id='choose'>Choose a photograph</button> or "
            "<button type='button' id='paste'>paste one</button>. ${value}</p>",
            js_on_load=(HERE / "page.js").read_text(encoding="utf-8"),
            elem_id="hint",
            megapixels=limits.megapixels,
            most_bytes=limits.file_bytes,
        )
        with gr.Row():
            fill = gr.Button("Fill", variant="primary", size="lg", elem_id="fill", min_width=120, scale=2)
            cancel = gr.Button("Cancel", size="lg", elem_id="cancel", interactive=False, min_width=80, scale=1)
        examples = gr.Gallery(
            [(str(example.path), example.caption) for example in EXAMPLES],
            label="Examples",
            elem_id="examples",
            elem_classes="gallery-of",
            columns=len(EXAMPLES),
            height="auto",
            object_fit="cover",
            allow_preview=False,
            buttons=[],
            interactive=False,
        )
        with gr.Accordion(
            "Or let the page damage the photograph, and measure the result", open=False, elem_id="damage"
        ):
            kind = gr.Radio(
                [(_KIND_NAMES[kind], kind) for kind in MASK_KINDS], value=MASK_KINDS[0], label="Kind of damage"
            )
            ratio = gr.Slider(0.05, 0.6, value=0.2, step=0.01, label="Share of the photograph that goes missing")
            damage_seed = seed_control("Seed of the damage", "Another seed damages other places.")
            damage = gr.Button("Damage it", elem_id="do-damage")
            compare = gr.Checkbox(
                False,
                label="Compare with the photograph as it is now",
                info="For damage to an intact photograph: shows the error, and PSNR, SSIM and L1 of each stage.",
                elem_id="compare",
            )
        with gr.Accordion("Or upload a ready mask", open=False, elem_id="ready-mask"):
            mask_image = gr.Image(
                label="Mask: white is filled; of the photograph's size; added to the strokes",
                type="pil",
                image_mode=None,
                sources=("upload", "clipboard"),
                height=200,
                elem_id="mask",
            )
        with gr.Accordion("Advanced options", open=False, elem_id="options"):
            options = option_controls(filler)
        return cls(editor, gate, examples, fill, cancel, kind, ratio, damage_seed, damage, mask_image, compare, options)


def seed_control(label: str, info: str | None = None, visible: bool = True) -> gr.Number:
    return gr.Number(0, minimum=0, maximum=LARGEST_SEED, precision=0, label=label, info=info, visible=visible)


def option_controls(filler: Filler, visible: bool = True) -> tuple[Any, ...]:
    """A control for each field of `Options`."""
    names = list(filler.models)
    grown = {"minimum": 0, "maximum": MOST_PIXELS_GROWN, "value": 0, "step": 1, "visible": visible}
    return (
        gr.Dropdown(names, value=names[0], label="Model", visible=visible and len(names) > 1),
        gr.Slider(
            1,
            MOST_RESULTS,
            value=1,
            step=1,
            label="Number of results",
            info="The first one is the most probable.",
            visible=visible,
        ),
        seed_control("Seed", "Another seed gives other results after the first.", visible),
        gr.Slider(label="Dilation", info="Pixels by which the mask grows, against remains at its border.", **grown),
        gr.Slider(label="Feather", info="Further pixels over which the fill fades into the photograph.", **grown),
        gr.Dropdown(
            list(STRATEGIES),
            value=STRATEGIES[0],
            label="Strategy for large photographs",
            info="auto: whole up to 512 pixels, else crop. crop: around each hole. resize: reduced. original: in one "
            "pass.",
            visible=visible,
        ),
    )


@dataclass(frozen=True)
class Results:
    slider: gr.ImageSlider
    status: gr.HTML
    png: gr.DownloadButton
    own: gr.DownloadButton
    gallery: gr.Gallery
    send_back: gr.Button
    undo: gr.Button
    redo: gr.Button
    versions: gr.Gallery

    @classmethod
    def lay_out(cls) -> Results:
        slider = gr.ImageSlider(
            label="Before, left of the line, and after",
            slider_position=10,  # percent: what is filled is to be seen at once, wherever it is
            elem_id="result",
            type="filepath",
            image_mode=None,
            format="png",
            max_height=480,
            interactive=False,
        )
        status = gr.HTML(
            "The result will appear here.", html_template='<p role="status">${value}</p>', elem_id="status"
        )
        with gr.Row():
            png = gr.DownloadButton("Download PNG", interactive=False, elem_id="download-png", min_width=140)
            own = gr.DownloadButton("Download", visible=False, elem_id="download-own", min_width=140)
        gallery = _pictures("Results: choose one; the stages below are those of the first", "results")
        with gr.Row():
            send_back = gr.Button("Continue with this result", interactive=False, elem_id="send-back", min_width=180)
            undo = gr.Button("Undo", interactive=False, elem_id="undo", min_width=70)
            redo = gr.Button("Redo", interactive=False, elem_id="redo", min_width=70)
        versions = _pictures("History: choose a version to go back to it", "history")
        return cls(slider, status, png, own, gallery, send_back, undo, redo, versions)


def _pictures(label: str, elem_id: str) -> gr.Gallery:
    return gr.Gallery(
        label=label,
        elem_id=elem_id,
        elem_classes=["gallery-of", "until-filled"],
        type="filepath",
        format="png",
        columns=4,
        height="auto",
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        interactive=False,
    )


@dataclass(frozen=True)
class Cards:
    """A card for each stage: its picture and what is said of it."""

    pictures: dict[str, gr.Image]
    texts: dict[str, gr.HTML]

    @classmethod
    def lay_out(cls) -> Cards:
        pictures, texts = {}, {}
        with gr.Row(elem_id="stages"):
            for number, stage in enumerate(STAGES, start=1):
                with gr.Column(elem_classes="stage", elem_id=f"stage-{stage.name}"):
                    gr.HTML(f'<h3><span>{number}. {stage.title}</span> <span class="symbol">{stage.symbol}</span></h3>')
                    pictures[stage.name] = gr.Image(
                        label=stage.title,
                        alt_text=f"{stage.title}: {stage.sentence}",
                        show_label=False,
                        elem_classes="picture",
                        format="png",
                        image_mode=None,
                        buttons=["fullscreen"],
                        interactive=False,
                    )
                    texts[stage.name] = gr.HTML(card_text(stage))
        return cls(pictures, texts)

    def emptied(self) -> dict[Any, Any]:
        """As at the beginning."""
        return dict.fromkeys(self.pictures.values()) | {self.texts[stage.name]: card_text(stage) for stage in STAGES}


def card_text(stage: Stage, *notes: str) -> str:
    """What a card says under its picture."""
    said = "".join(f'<p class="figures">{html.escape(note)}</p>' for note in notes if note)
    return f"{legend(stage)}<p>{stage.sentence}</p>{said}"


def chosen_options(values: Sequence[Any]) -> Options:
    """The options by the values of their controls."""
    model, num_results, seed, dilate, feather, strategy = values
    return Options(model, int(num_results), whole_seed(seed), int(dilate), int(feather), strategy)


def whole_seed(seed: int | None) -> int:
    if seed is None:
        raise InvalidInputError("There is no seed: enter a whole number.")
    return int(seed)

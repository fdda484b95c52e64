"""What a click on the page does, and how the page is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import InvalidInputError
from ..filling import InpaintResult
from ..inpainter import HVQInpainter
from ..masks import make_mask
from .api import add_api
from .fills import Filler, Progress, hole_of
from .history import History
from .layout import EXAMPLES, HERE, Cards, Inputs, Results, Visit, card_text, chosen_options, whole_seed
from .limits import Limits
from .photographs import (
    NAMELESS,
    Filled,
    check_editor,
    check_picture,
    checked_first,
    editor_value,
    folder_for_visitor,
    marked,
    own_suffix,
    photograph_of,
    refusal,
    save_picture,
    save_results,
    strokes_over,
)
from .stages import (
    FIGURES_EXPLAINED,
    MEASURED,
    STAGES,
    as_words,
    codes_in_use,
    error_of,
    measured,
    rgb,
    shown_part,
    stage_picture,
)

TITLE = "Fill in a photograph"
EXPLANATION = """
Paint over what should disappear, and the model makes up what could have been there. It describes a photograph by words
from two dictionaries, guesses the words under your strokes from what is around them, measures how near each guess lies
to its word, decodes them to a rough picture and refines that. Every stage is shown below as it is computed.
"""
FOOTNOTE = """
After Li, Xu and Chen, [Hierarchical Vector-Quantized Variational Autoencoder and Vector Credibility Mechanism for
High-Quality Image Inpainting](https://doi.org/10.3390/electronics13101852), Electronics 2024, 13, 1852. Symbols are the
paper's. What you upload is deleted from this machine within two hours. A browser's editor has colours of 8 bits without
profile and EXIF; the API and the command line keep all of that.
"""

# Visits that are remembered, each in about 200 kilobytes; the oldest are forgotten first.
_SESSIONS = 500

_STAGE = {stage.name: stage for stage in STAGES}

_NOT_KEPT = "That picture is no longer kept: files are deleted after an hour."


def build(
    models: HVQInpainter | Mapping[str, HVQInpainter],
    limits: Limits | None = None,
    on_gpu: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> gr.Blocks:
    """The page, with its queue; `launch` serves it. Both belong inside `visitors_folder`, which deletes old files.

    Its endpoints `/inpaint` and `/damage` are for programs; the page documents them under "Use via API".

    Args:
        models: by the names that visitors choose from, the first one being chosen; or only one.
        on_gpu: decorates the function that runs a model, as `spaces.GPU` does.
    """
    if isinstance(models, HVQInpainter):
        models = {"default": models}
    filler = Filler(models, limits or Limits())

    def run(photograph: Any, mask: Any, options: Any) -> Iterator[Progress]:
        try:
            yield from filler.run(photograph, mask, options)
        except InvalidInputError as error:
            raise refusal(error) from None  # of another error ZeroGPU would give only the name

    if on_gpu is not None:
        run = on_gpu(run)
    gr.set_static_paths([example.path for example in EXAMPLES])
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n{EXPLANATION}")
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                inputs = Inputs.lay_out(filler)
            with gr.Column(min_width=320):
                results = Results.lay_out()
        gr.Markdown("## Step by step")
        cards = Cards.lay_out()
        gr.Markdown(FOOTNOTE, elem_id="footnote")
        visit = Visit(gr.State(NAMELESS), gr.State(None), gr.State(History()))
        _wire_input(inputs, results, visit, filler.limits)
        _wire_fill(inputs, results, cards, visit, filler, run)
        _wire_results(inputs, results, visit)
        add_api(filler, run)
    return page.queue(max_size=filler.limits.queue)


def launch(page: gr.Blocks, limits: Limits | None = None, **options: Any) -> str:
    """Serve `page`, without fetching anything from anywhere; `options` are further ones of `gr.Blocks.launch`.

    Returns:
        The local address, once the server is stopped or, with `prevent_thread_lock`, at once.
    """
    _, address, _ = page.launch(
        theme=_theme(),
        css_paths=HERE / "page.css",
        ssr_mode=False,
        show_error=True,
        max_file_size=(limits or Limits()).file_bytes,
        state_session_capacity=_SESSIONS,
        footer_links=["api"],
        **options,
    )
    return address


def _theme() -> gr.themes.Base:
    """Gradio's own, with the system's fonts, and with enough contrast for small grey text and for white on buttons."""
    theme = gr.themes.Default(
        primary_hue="rose", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    return theme.set(
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_label_text_color="*neutral_600",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
    )


def _private(**options: Any) -> dict[str, Any]:
    """For events of the page alone. Those that may refuse have to be queued, as only a queued one brings a toast."""
    return {"api_visibility": "private", "show_progress": "hidden", **options}


def _refused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose `InvalidInputError` becomes a toast."""

    @wraps(function)  # Gradio looks at the annotations for those that want the event
    def answered(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InvalidInputError as error:
            raise refusal(error) from None

    return answered


def _wire_input(inputs: Inputs, results: Results, visit: Visit, limits: Limits) -> None:
    """A photograph comes, is looked at, is damaged."""
    checked_first(inputs.editor, partial(check_editor, limits=limits))
    inputs.editor.accept_blobs = None  # a way into this machine's memory that the page does not use
    checked_first(inputs.mask_image, partial(check_picture, limits=limits))

    def refuse(event: gr.EventData) -> None:
        raise gr.Error(str(event.message)[:500], title="The photograph was not taken", print_exception=False)

    def as_new(name: str, filled: Filled | None) -> tuple[Any, ...]:
        # A mask may come before its photograph. One that was filled already was that of the photograph before.
        mask = gr.skip() if filled is None else None
        return name, mask, *_elsewhere(History())

    def uploaded(event: gr.EventData, filled: Filled | None) -> tuple[Any, ...]:
        return as_new(str(event.name or NAMELESS)[:200], filled)

    def example(event: gr.SelectData, filled: Filled | None) -> tuple[Any, ...]:
        chosen = EXAMPLES[event.index]
        return editor_value(str(chosen.path)), *as_new(chosen.path.name, filled)

    inputs.gate.stop(refuse, None, None, **_private())
    new = [visit.name, inputs.mask_image, *_elsewhere_outputs(inputs, results, visit)]
    inputs.gate.upload(uploaded, visit.filled, new, **_private(queue=False))
    inputs.examples.select(example, visit.filled, [inputs.editor, *new], **_private(queue=False))
    inputs.editor.clear(lambda filled: as_new(NAMELESS, filled), visit.filled, new, **_private(queue=False))

    def damaged(editor: dict[str, Any] | None, kind: str, ratio: float, seed: int | None) -> tuple[Any, ...]:
        photograph = photograph_of(editor)
        mask = make_mask(kind, photograph.height, photograph.width, ratio, whole_seed(seed))
        folder = folder_for_visitor()
        files = save_picture(photograph, folder, "photograph"), save_picture(strokes_over(mask), folder, "strokes")
        return editor_value(*files), True

    def fill_is(possible: bool) -> dict[str, Any]:
        return {"fn": lambda: gr.Button(interactive=possible), "inputs": None, "outputs": inputs.fill}

    # Until the damage is there, what is painted is not what will be.
    damaging = inputs.damage.click(**fill_is(False), **_private(queue=False)).then(
        _refused(damaged),
        [inputs.editor, inputs.kind, inputs.ratio, inputs.damage_seed],
        [inputs.editor, inputs.compare],
        **_private(show_progress="minimal"),
    )
    for ended in (damaging.success, damaging.failure):
        ended(**fill_is(True), **_private(queue=False))


def _elsewhere(history: History) -> tuple[Any, ...]:
    """For `_elsewhere_outputs`, once another picture is in the editor: what was known of the last one is not of it."""
    return (
        False,
        None,
        [],
        gr.Button(interactive=False),
        history,
        history.captioned(),
        gr.Button(interactive=history.can_undo),
        gr.Button(interactive=history.can_redo),
    )


def _elsewhere_outputs(inputs: Inputs, results: Results, visit: Visit) -> list[Any]:
    return [
        inputs.compare,
        visit.filled,
        results.gallery,
        results.send_back,
        visit.history,
        results.versions,
        results.undo,
        results.redo,
    ]


def _wire_fill(
    inputs: Inputs,
    results: Results,
    cards: Cards,
    visit: Visit,
    filler: Filler,
    run: Callable[..., Iterator[Progress]],
) -> None:
    """The fill: every stage as soon as it is computed, then the results."""

    def buttons(running: bool) -> dict[Any, Any]:
        return {inputs.fill: gr.Button(interactive=not running), inputs.cancel: gr.Button(interactive=running)}

    def fill(
        editor: dict[str, Any] | None, mask_image: Image.Image | None, compare: bool, name: str, *chosen: Any
    ) -> Iterator[dict[Any, Any]]:
        started = time.monotonic()
        try:
            options = chosen_options(chosen)
            photograph, mask = marked(editor, mask_image)
            filler.limits.check_strategy(options.strategy, *photograph.size)
            num_codes = filler.num_codes(options.model)
            hole = hole_of(mask, options)
        except InvalidInputError as error:
            raise refusal(error) from None
        yield cards.emptied() | {results.status: "Filling ..."}
        for progress in run(photograph, mask, options):
            shown = _stages_so_far(cards, progress, num_codes)
            if not progress.finished:
                shown[results.status] = f"Step {progress.done} of {progress.total} ..."
                # The end of a run that was cancelled just before may have changed the buttons.
                yield shown | buttons(running=True)
        if compare:
            shown |= _compared(cards, progress.result, rgb(photograph), hole, num_codes)
        folder = folder_for_visitor()
        filled = Filled(
            name,
            save_picture(photograph, folder, "before"),
            tuple(save_results(progress.result.images, name, folder)),
        )
        shown |= _chosen(results, visit, filled)
        if len(filled.results) > 1:
            shown[results.gallery] = [(path, f"Result {n}") for n, path in enumerate(filled.results, start=1)]
        else:
            shown[results.gallery] = []
        shown[results.status] = _sentence(hole, time.monotonic() - started)
        yield shown

    both = [inputs.fill, inputs.cancel]
    started = inputs.fill.click(
        lambda: {**buttons(running=True), results.status: "Waiting for its turn ..."},
        None,
        [*both, results.status],
        **_private(queue=False),
    )
    filling = started.then(
        fill,
        [inputs.editor, inputs.mask_image, inputs.compare, visit.name, *inputs.options],
        [
            visit.filled,
            results.slider,
            results.status,
            results.png,
            results.own,
            results.gallery,
            results.send_back,
            *cards.pictures.values(),
            *cards.texts.values(),
            *both,
        ],
        trigger_mode="multiple",  # the button sees to it; a run that is being cancelled is not to swallow the next one
        concurrency_id="model",
        concurrency_limit=1,
        **_private(),  # the status says how far it is; a refusal must not cover what is there from before
    )
    filling.success(lambda: buttons(running=False), None, both, **_private(queue=False))
    ended = {"inputs": None, "outputs": [*both, results.status], **_private(queue=False)}
    filling.failure(lambda: {**buttons(running=False), results.status: "Nothing was filled."}, **ended)
    inputs.cancel.click(lambda: {**buttons(running=False), results.status: "Cancelled."}, cancels=filling, **ended)


def _stages_so_far(cards: Cards, progress: Progress, num_codes: int) -> dict[Any, Any]:
    """The pictures of what is new, and all that is said of the stages."""
    folder = folder_for_visitor()  # a new one: a browser may still be reading the earlier pictures
    result = progress.result
    pictures = {
        cards.pictures[stage]: save_picture(stage_picture(stage, result, num_codes), folder, stage)
        for stage in progress.changed
    }
    texts = {cards.texts[stage]: card_text(_STAGE[stage], *said) for stage, said in _notes(result, num_codes).items()}
    return pictures | texts


def _compared(
    cards: Cards, result: InpaintResult, original: np.ndarray, hole: np.ndarray, num_codes: int
) -> dict[Any, Any]:
    """The error, and the figures of every stage that has some."""
    notes = _notes(result, num_codes)
    figures = as_words(measured(result, original, hole))
    notes |= {stage: (*notes.get(stage, ()), figures[stage]) for stage in MEASURED}
    notes["error"] = (FIGURES_EXPLAINED,)
    error = save_picture(error_of(result, original), folder_for_visitor(), "error")
    texts = {cards.texts[stage]: card_text(_STAGE[stage], *said) for stage, said in notes.items()}
    return {cards.pictures["error"]: error} | texts


def _notes(result: InpaintResult, num_codes: int) -> dict[str, tuple[str, ...]]:
    """What is said of the stages that a result has, beside their sentences."""
    notes = {
        name: (codes_in_use(result.stages[name], num_codes),)
        for name in ("global_codes", "local_codes")
        if name in result.stages
    }
    part = shown_part(result)
    if part:
        notes = {name: (*said, part) for name, said in notes.items()}
        notes["credibility"] = (part,)
    return notes


def _sentence(hole: np.ndarray, seconds: float) -> str:
    height, width = hole.shape
    share = f"{hole.mean():.1%}" if hole.mean() >= 0.001 else "Less than 0.1%"
    return f"Filled {share} of {width} x {height} pixels in {seconds:.1f} seconds."


def _chosen(results: Results, visit: Visit, filled: Filled) -> dict[Any, Any]:
    """One of the results beside the photograph, to be downloaded as PNG and in the photograph's own format."""
    own = gr.DownloadButton(visible=False)
    with Image.open(filled.result) as image:
        suffix = own_suffix(filled.name, image)
        if suffix is not None:
            (path,) = save_results([image], filled.name, folder_for_visitor(), suffix)
            own = gr.DownloadButton(f"Download {suffix[1:].upper()}", value=path, visible=True)
    return {
        visit.filled: filled,
        results.slider: (filled.before, filled.result),
        results.png: gr.DownloadButton(value=filled.result, interactive=True),
        results.own: own,
        results.send_back: gr.Button(interactive=True),
    }


def _wire_results(inputs: Inputs, results: Results, visit: Visit) -> None:
    """One of several results is chosen, sent back to the editor, undone."""

    def kept(filled: Filled | None) -> Filled:
        if filled is None:
            raise InvalidInputError("There is no result for this photograph yet: fill something first.")
        if not filled.is_kept():
            raise InvalidInputError(_NOT_KEPT)
        return filled

    def choose(event: gr.SelectData, filled: Filled | None) -> dict[Any, Any]:
        # Of an index that there is: what a visitor sends is not to be trusted.
        number = max(0, min(int(event.index), len(kept(filled).results) - 1))
        return _chosen(results, visit, kept(replace(filled, chosen=number)))

    results.gallery.select(
        _refused(choose),
        visit.filled,
        [visit.filled, results.slider, results.png, results.own, results.send_back],
        **_private(),
    )

    back = [inputs.editor, inputs.mask_image, *_elsewhere_outputs(inputs, results, visit)]

    def send_back(filled: Filled | None, history: History) -> tuple[Any, ...]:
        filled = kept(filled)
        return editor_value(filled.result), None, *_elsewhere(history.sent_back(filled.before, filled.result))

    def move(history: History, position: int) -> tuple[Any, ...]:
        history = history.moved_to(position)
        if history.current is None or not Path(history.current).is_file():
            raise InvalidInputError(_NOT_KEPT)
        return editor_value(history.current), None, *_elsewhere(history)

    def go_to(event: gr.SelectData, history: History) -> tuple[Any, ...]:
        return move(history, int(event.index))

    results.send_back.click(_refused(send_back), [visit.filled, visit.history], back, **_private())
    results.undo.click(_refused(lambda history: move(history, history.position - 1)), visit.history, back, **_private())
    results.redo.click(_refused(lambda history: move(history, history.position + 1)), visit.history, back, **_private())
    results.versions.select(_refused(go_to), visit.history, back, **_private())

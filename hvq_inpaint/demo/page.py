"""What a click on the page does, and how the page is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import InvalidInputError
from ..inpainter import HVQInpainter
from ..masks import make_mask
from .api import add_api
from .fills import Filler, Progress, hole_of
from .history import History
from .layout import EXAMPLES, HERE, Cards, Inputs, Results, Visit, card_text, chosen_options, whole_seed
from .limits import Limits
from .photographs import (
    NAMELESS,
    check_editor,
    check_photograph_file,
    checked_first,
    editor_value,
    marked,
    own_suffix,
    photograph_of,
    refusal,
    refuse_unless,
    save_picture,
    save_results,
    strokes_over,
    temporary_folder,
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
from two dictionaries, guesses the words under your strokes from what is around them, measures how credible each guess
is, decodes them to a rough picture and refines that. Every stage is shown below as it is computed.
"""
FOOTNOTE = """
After Li, Xu and Chen, [Hierarchical Vector-Quantized Variational Autoencoder and Vector Credibility Mechanism for
High-Quality Image Inpainting](https://doi.org/10.3390/electronics13101852), Electronics 2024, 13, 1852. Symbols are the
paper's. What you upload is deleted from this machine within two hours.
"""

# Files that Gradio keeps for a visitor: looked at every ten minutes, deleted after an hour.
_CACHE = (600, 3600)

_STAGE = {stage.name: stage for stage in STAGES}


def build(
    models: HVQInpainter | Mapping[str, HVQInpainter],
    limits: Limits | None = None,
    on_gpu: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> gr.Blocks:
    """The page, with its queue; `launch` serves it.

    Its endpoints `/inpaint` and `/damage` are for programs; the page documents them under "Use via API".

    Args:
        models: by the names that visitors choose from, the first one being chosen; or only one.
        on_gpu: decorates the function that runs a model, as `spaces.GPU` does.
    """
    if isinstance(models, HVQInpainter):
        models = {"default": models}
    filler = Filler(models, limits or Limits())
    run = (on_gpu or (lambda function: function))(filler.run)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=_CACHE) as page:
        gr.Markdown(f"# {TITLE}\n{EXPLANATION}")
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                inputs = Inputs.lay_out(filler)
            with gr.Column(min_width=320):
                results = Results.lay_out()
        gr.Markdown("## Step by step")
        cards = Cards.lay_out()
        gr.Markdown(FOOTNOTE, elem_id="footnote")
        visit = Visit(gr.State(NAMELESS), gr.State(History()))
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


def _file(value: Any) -> dict[str, Any]:
    """A value that is a file, or has some, for a component that other steps leave as it is.

    As an update: once a step has left out a component, Gradio forgets to delete the files of the plain values that it
    gets later in that visit.
    """
    return gr.update(value=value)


def _refused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose `InvalidInputError` becomes a toast."""

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
    checked_first(
        inputs.mask_image,
        lambda image: refuse_unless(image, partial(check_photograph_file, limits=limits)),
    )

    def refuse(event: gr.EventData) -> None:
        raise gr.Error(str(event.message)[:500], title="The photograph was not taken", print_exception=False)

    def renamed(event: gr.EventData) -> str:
        return str(event.name or NAMELESS)[:200]

    def as_new() -> tuple[Any, ...]:
        return False, *_shown(History())

    def example(event: gr.SelectData) -> tuple[Any, ...]:
        chosen = EXAMPLES[event.index]
        return editor_value(str(chosen.path)), chosen.name, *as_new()

    inputs.gate.stop(refuse, None, None, **_private())
    history_shown = [visit.history, results.versions, results.undo, results.redo]
    new = [inputs.compare, *history_shown]
    inputs.gate.upload(renamed, None, visit.name, **_private(queue=False)).then(
        as_new, None, new, **_private(queue=False)
    )
    inputs.examples.select(example, None, [inputs.editor, visit.name, *new], **_private(queue=False))
    inputs.editor.clear(as_new, None, new, **_private(queue=False))

    def damaged(editor: dict[str, Any] | None, kind: str, ratio: float, seed: int | None) -> Iterator[tuple[Any, ...]]:
        try:
            photograph = photograph_of(editor)
            mask = make_mask(kind, photograph.height, photograph.width, ratio, whole_seed(seed))
        except InvalidInputError as error:
            raise refusal(error) from None
        with temporary_folder() as folder:
            files = save_picture(photograph, folder, "photograph"), save_picture(strokes_over(mask), folder, "strokes")
            yield editor_value(*files), True

    inputs.damage.click(
        damaged,
        [inputs.editor, inputs.kind, inputs.ratio, inputs.damage_seed],
        [inputs.editor, inputs.compare],
        **_private(show_progress="minimal"),
    )


def _shown(history: History) -> tuple[Any, ...]:
    """For the state, the gallery of versions and the two buttons."""
    return (
        history,
        history.captioned(),
        gr.Button(interactive=history.can_undo),
        gr.Button(interactive=history.can_redo),
    )


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
        try:
            options = chosen_options(chosen)
            photograph, mask = marked(editor, mask_image)
            filler.limits.check_strategy(options.strategy, *photograph.size)
            num_codes = filler.num_codes(options.model)
            yield cards.emptied() | {results.status: "Filling ..."}
            for progress in run(photograph, mask, options):
                with temporary_folder() as folder:
                    shown = {
                        cards.pictures[stage]: _file(
                            save_picture(stage_picture(stage, progress.result, num_codes), folder, stage)
                        )
                        for stage in progress.changed
                    }
                    notes = _notes(progress.result, num_codes)
                    if progress.finished:
                        shown |= _finished(results, photograph, progress, name, mask, folder)
                    else:
                        shown[results.status] = f"Step {progress.done} of {progress.total} ..."
                        # The end of a run that was cancelled just before may have changed the buttons.
                        shown |= buttons(running=True)
                    if progress.finished and compare:
                        original = rgb(photograph)
                        figures = as_words(measured(progress.result, original, hole_of(mask, options)))
                        notes |= {stage: (*notes.get(stage, ()), figures[stage]) for stage in MEASURED}
                        notes["error"] = (FIGURES_EXPLAINED,)
                        error = save_picture(error_of(progress.result, original), folder, "error")
                        shown[cards.pictures["error"]] = _file(error)
                    yield shown | {cards.texts[stage]: card_text(_STAGE[stage], *said) for stage, said in notes.items()}
        except InvalidInputError as error:
            raise refusal(error) from None

    both = [inputs.fill, inputs.cancel]
    started = inputs.fill.click(lambda: buttons(running=True), None, both, **_private(queue=False))
    filling = started.then(
        fill,
        [inputs.editor, inputs.mask_image, inputs.compare, visit.name, *inputs.options],
        [
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
        api_visibility="private",
        concurrency_id="model",
        concurrency_limit=1,
        show_progress_on=results.slider,  # a refusal must not cover all that is there from before
    )
    for ended in (filling.success, filling.failure):
        ended(lambda: buttons(running=False), None, both, **_private(queue=False))
    inputs.cancel.click(
        lambda: {**buttons(running=False), results.status: "Cancelled."},
        None,
        [*both, results.status],
        cancels=filling,
        **_private(queue=False),
    )


def _notes(result: Any, num_codes: int) -> dict[str, tuple[str, ...]]:
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


def _finished(
    results: Results, photograph: Image.Image, progress: Progress, name: str, mask: np.ndarray, folder: Path
) -> dict[Any, Any]:
    """The results on the page; their files are in `folder`."""
    images = progress.result.images
    before = save_picture(photograph, folder, "before")
    paths = save_results(images, name, folder)
    width, height = photograph.size
    return {
        results.slider: _file((before, paths[0])),
        results.status: (f"Filled {mask.mean():.1%} of {width} x {height} pixels in {progress.seconds:.1f} seconds."),
        results.gallery: _file(
            [(path, f"Result {number}") for number, path in enumerate(paths, start=1)] if len(paths) > 1 else []
        ),
        results.send_back: gr.Button(interactive=True),
        **_downloads(results, images[0], paths[0], name, folder),
    }


def _downloads(results: Results, image: Image.Image, path: str, name: str, folder: Path) -> dict[Any, Any]:
    """The buttons that download a result: as PNG, and in the photograph's own format if that is another."""
    suffix = own_suffix(name, image)
    own = gr.DownloadButton(visible=False)
    if suffix is not None:
        label = f"Download {suffix[1:].upper()}"
        own = gr.DownloadButton(label, value=save_results([image], name, folder, suffix)[0], visible=True)
    return {results.png: gr.DownloadButton(value=path, interactive=True), results.own: own}


def _wire_results(inputs: Inputs, results: Results, visit: Visit) -> None:
    """One of several results is chosen, sent back to the editor, undone."""

    def choose(
        event: gr.SelectData, pictures: list[tuple[str, str]], shown: tuple[str, str], name: str
    ) -> Iterator[dict[Any, Any]]:
        path = pictures[event.index][0]
        with temporary_folder() as folder, Image.open(path) as image:
            (copy,) = save_results([image], name, folder)
            yield {
                results.slider: _file((shown[0], path)),
                **_downloads(results, image, copy, name, folder),
            }

    results.gallery.select(
        choose,
        [results.gallery, results.slider, visit.name],
        [results.slider, results.png, results.own],
        **_private(),
    )

    history_shown = [visit.history, results.versions, results.undo, results.redo]

    def send_back(shown: tuple[str, str] | None, history: History) -> tuple[Any, ...]:
        if shown is None:
            raise InvalidInputError("There is no result yet: fill something first.")
        history = history.sent_back(*shown)
        return editor_value(shown[1]), False, *_shown(history)

    def move(history: History, position: int) -> tuple[Any, ...]:
        history = history.moved_to(position)
        if history.current is None or not Path(history.current).is_file():
            raise InvalidInputError("That version is no longer kept: files are deleted after an hour.")
        return editor_value(history.current), *_shown(history)

    back = [inputs.editor, *history_shown]
    results.send_back.click(
        _refused(send_back),
        [results.slider, visit.history],
        [inputs.editor, inputs.compare, *history_shown],
        **_private(),
    )
    results.undo.click(_refused(lambda history: move(history, history.position - 1)), visit.history, back, **_private())
    results.redo.click(_refused(lambda history: move(history, history.position + 1)), visit.history, back, **_private())

    def go_to(event: gr.SelectData, history: History) -> tuple[Any, ...]:
        return _refused(move)(history, event.index)

    results.versions.select(go_to, visit.history, back, **_private())

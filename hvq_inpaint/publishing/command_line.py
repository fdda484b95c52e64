"""The options of the commands that make cards and send to the Hub."""

from __future__ import annotations

import argparse

from .. import commands
from ..commands import path_argument


def add_card(subparsers: argparse._SubParsersAction) -> None:
    """The options of `card`."""
    text = "write the card of a model's folder, which the Hub shows"
    parser = subparsers.add_parser(
        "card",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: README.md, with architecture, training, results, samples, limits "
        "and a program to use it. What the card that is there tells, and is not said anew, is kept.",
    )
    parser.set_defaults(run=commands.card)
    parser.add_argument("model", metavar="FOLDER", type=path_argument, help="the model's folder")
    figures = parser.add_mutually_exclusive_group()
    figures.add_argument(
        "--evaluation",
        metavar="FOLDER",
        type=path_argument,
        help="what 'evaluate' wrote with --out: figures for people and, as model-index, for programs (default: none)",
    )
    parser.add_argument(
        "--training",
        metavar="FILE",
        type=path_argument,
        help="Markdown: on what it was trained, and how (default: none)",
    )
    figures.add_argument(
        "--results", metavar="FILE", type=path_argument, help="Markdown, in place of --evaluation (default: none)"
    )
    parser.add_argument(
        "--dataset",
        metavar="ID",
        nargs="+",
        default=[],
        help="datasets on the Hub that it was trained on (default: none)",
    )
    parser.add_argument(
        "--license", metavar="ID", help="of the weights, as the Hub calls it, such as cc-by-4.0, or other"
    )
    parser.add_argument("--license-name", metavar="NAME", help="with --license other")
    parser.add_argument("--license-link", metavar="URL", help="with --license other")
    parser.add_argument("--base-model", metavar="ID", help="the model on the Hub that it was fine-tuned from")
    parser.add_argument("--title", metavar="TITLE", help="of the card (default: a general one)")
    parser.add_argument(
        "--samples",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fill three photographs that come with the package, and show them (default: yes)",
    )


def add_push(subparsers: argparse._SubParsersAction) -> None:
    """The options of `push`, and of its kinds."""
    text = "send a model, the page or a set of masks to the Hugging Face Hub"
    parser = subparsers.add_parser(
        "push",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Without --send it is a dry run, which shows exactly what would be "
        "sent. The token is that of 'hf auth login' or of HF_TOKEN; there is no option for it.",
    )
    kinds = parser.add_subparsers(title="what to send", metavar="KIND", required=True)

    model = kinds.add_parser(
        "model",
        help="a model's folder",
        description="Send a model's folder: configuration, weights, its card and what the card shows. It is loaded "
        "first, so what is sent is what can be loaded.",
    )
    model.set_defaults(run=commands.push_model)
    space = kinds.add_parser(
        "space",
        help="the page in the browser, as a Space",
        description="Send the page of app.py as a Space, with the package, its examples, a model, and requirements "
        "pinned to the versions that are installed here. It needs a clone of the project.",
    )
    space.set_defaults(run=commands.push_space)
    space.add_argument("--title", metavar="TITLE", help="of the Space (default: a general one)")
    masks = kinds.add_parser(
        "masks",
        help="a set of masks, as a dataset",
        description="Send a set of masks that 'masks' wrote, as a dataset: Parquet with the seeds in it, and a card.",
    )
    masks.set_defaults(run=commands.push_masks)
    masks.add_argument("--masks", metavar="FOLDER", type=path_argument, required=True, help="the set")
    for kind in (model, space):
        kind.add_argument(
            "--model", metavar="FOLDER", type=path_argument, help="the model's folder (default: the bundled model)"
        )
    for kind in (model, space, masks):
        kind.add_argument("repo", metavar="REPO", help="the repository, user/name; it is made if it is not there")
        kind.add_argument("--send", action="store_true", help="send it (default: only show what would be sent)")
        kind.add_argument(
            "--save", metavar="FOLDER", type=path_argument, help="also write there what is sent (default: don't)"
        )
        kind.add_argument(
            "--branch", metavar="NAME", default="main", help="made if it is not there (default: %(default)s)"
        )
        kind.add_argument("--tag", metavar="NAME", help="name for the commit, such as v1 (default: none)")
        kind.add_argument("--message", metavar="TEXT", help="of the commit (default: a general one)")
        kind.add_argument("--private", action="store_true", help="if the repository is made, for its owner only")
        kind.add_argument("--pull-request", action="store_true", help="propose the commit, do not make it")
        kind.add_argument(
            "--replace-card", action="store_true", help="replace a README.md that is there (default: keep it)"
        )

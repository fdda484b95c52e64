"""What all sub-commands have in common, and `python -m hvq_inpaint masks`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import contents, pixels_of

import hvq_inpaint
from hvq_inpaint.__main__ import main, make_parser
from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.execution import find_device
from hvq_inpaint.files import all_or_nothing
from hvq_inpaint.masks import random_walk_mask


def test_masks_writes_the_set(workplace, capsys):
    arguments = [
        "masks",
        "--out",
        "set",
        "--per-ratio",
        "2",
        "--size",
        "24",
        "--min-percent",
        "30",
        "--max-percent",
        "31",
        "--seed",
        "3",
        "--workers",
        "1",
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "wrote 4 masks to set\n"
    assert np.array_equal(pixels_of("set/random_walk/31/0001.png"), random_walk_mask(24, 24, 0.31, 3_000_001))
    assert len(list(Path("set").rglob("*.png"))) == 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out", "."], "is not empty"),
        (["--out", "photo.png"], "is a file"),
        (["--kind", "stripes"], "no mask kind 'stripes'"),
        (["--per-ratio", "0"], "masks for each ratio"),
        (["--max-percent", "100"], "percentages"),
        (["--workers", "0"], "workers"),
        (["--seed", "-1"], "negative"),
    ],
)
def test_what_masks_refuses(refused, more, words):
    assert words in refused("masks", "--out", "set", "--size", "16", *more)


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_status:
        main(["--version"])
    assert exit_status.value.code == 0
    assert capsys.readouterr().out == f"hvq-inpaint {hvq_inpaint.__version__}\n"


@pytest.mark.parametrize("command", ["inpaint", "evaluate", "ablate", "masks", "export"])
def test_help_names_every_default(command, capsys):
    with pytest.raises(SystemExit) as exit_status:
        main([command, "--help"])
    assert exit_status.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    subparser = next(
        action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)
    ).choices[command]
    for action in subparser._actions:
        if action.option_strings and not action.required and action.dest not in ("help", "no_opencv"):
            assert "(default: " in action.help, action.dest
        if isinstance(action.default, (int, Path)) and not isinstance(action.default, bool):
            assert f"(default: {action.default})" in text


def test_commands_import_nothing_slow_before_they_run():
    code = (
        "import sys, types, importlib.util as u; p = u.find_spec('hvq_inpaint').submodule_search_locations; "
        "m = types.ModuleType('hvq_inpaint'); m.__path__ = p; m.__version__ = '0'; sys.modules['hvq_inpaint'] = m; "
        "import hvq_inpaint.__main__, hvq_inpaint.mask_set; "
        "slow = ('torch', 'torchmetrics', 'huggingface_hub', 'cv2', 'datasets'); "
        "print([name for name in slow if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_devices():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:", "cuda:x", "cpu:1", "meta", ""):
        with pytest.raises(InvalidInputError):
            find_device(name)


def test_all_or_nothing(tmp_path):
    with pytest.raises(InvalidInputError), all_or_nothing() as partial:
        partial(tmp_path / "first").write_text("new")
        partial(tmp_path / "second").write_text("new")
        raise InvalidInputError("no")
    assert list(tmp_path.iterdir()) == []
    with all_or_nothing() as partial:
        for name in ("first", "second"):
            partial(tmp_path / name).write_text("new")
        assert not (tmp_path / "first").exists()
    assert contents(tmp_path) == {"first": b"new", "second": b"new"}

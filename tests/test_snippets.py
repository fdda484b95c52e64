"""Every piece of code in the README, the cards and the documents on the Hub and the tokenizer is run as it stands.

Python as it is; commands with fewer steps, smaller pictures and a smaller model, and none of what has to be downloaded.
What needs a page to ask is in `test_readme_api`; the two commands that set everything up are what CI runs.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import hub_scenarios as scenarios
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import make_pixels
from fake_hub import FakeHub
from hub_client import Client
from PIL import Image

from hvq_inpaint import HVQConfig, HVQInpainter
from hvq_inpaint.__main__ import main
from hvq_inpaint.card import usage
from hvq_inpaint.masks import random_walk_mask
from hvq_inpaint.training import trainer
from hvq_inpaint.training.command_line import parse_options

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CARD = ROOT / "hub" / "model" / "README.md"
HUB = ROOT / "docs" / "hub.md"
DOCUMENTS = [README, CARD, HUB, ROOT / "docs" / "tokenizer.md"]

# What makes a command short. Of an option that is given twice the last one counts.
SHORT = {
    "inpaint": "",
    "masks": "--per-ratio 1 --max-percent 11 --size 32 --overwrite",
    "export": "--overwrite",
    "evaluate": "--limit 1 --size 32 --buckets 10-20 --metrics psnr psnr_hole --overwrite",
    "card": "",
    "push": "",
    "train": "--batch-size 2 --crop-size 32 --mask-size 32 --workers 0 --quantization-warmup 1 --learning-rate-warmup 1"
    " --validation-images 1 --validation-size 32 --validation-every 2 --loss l1 --feature-window 0 --log-with none"
    " --mixed-precision no --resume",
}


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(), flags=re.DOTALL)


def of_a_page(block: str) -> bool:
    return "gradio" in block


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with all that the documents speak of by its name."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "masks", "PHOTOGRAPHS", "HELD_OUT", "DATA/train", "DATA/val"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            if folder == "masks":
                Image.fromarray(random_walk_mask(48, 56, 0.15, number)).save(tmp_path / folder / f"{number}.png")
            else:
                Image.fromarray(make_pixels(48, 56, number)).save(tmp_path / folder / f"{number}.jpg")
    for suffix in ("jpg", "png"):
        shutil.copy(tmp_path / "photos" / "0.jpg", tmp_path / "photograph.jpg")
        Image.open("photograph.jpg").save(f"photograph.{suffix}")
    shutil.copy(tmp_path / "masks" / "0.png", tmp_path / "mask.png")
    for folder in ("hub/model", "runs/mine/refiner/model"):
        scenarios.make().save_pretrained(tmp_path / folder)
    return tmp_path


def run_python(block: str) -> None:
    exec(compile(block, "snippet", "exec"), {"__name__": "snippet"})


def run_bundle(arguments: list[str], monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    specification = importlib.util.spec_from_file_location("bundle", ROOT / "hub" / "bundle.py")
    bundle = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(bundle)
    monkeypatch.setattr("sys.argv", ["bundle.py", *arguments, "--out", str(out)])
    assert bundle.main() == 0


def run_bash(block: str, monkeypatch: pytest.MonkeyPatch, preset: str = "tiny") -> int:
    """Run the lines of a block one after the other; returns how many there were to run."""
    block = block.replace("\\\n", " ")
    values = dict(re.findall(r'^(\w+)="(.*)"$', block, flags=re.MULTILINE))
    lines = [line for line in block.splitlines() if line and not re.match(r"#|\w+=", line)]
    for line in lines:
        for name, value in values.items():
            line = line.replace(f"${name}", value)
        words = shlex.split(line, comments=True)
        if "train_accelerate.py" in words:
            given = words[words.index("train_accelerate.py") + 1 :]
            stages = given[given.index("--stage") + 1 :]
            number = 3 if stages[0] == "all" else sum(not word.startswith("-") for word in stages[:2])
            short = [*SHORT["train"].split(), "--steps", *(["3"] * (1 if number < 3 else 3))]
            if "--init" not in given:
                short += ["--preset", preset]
            if "--push-to-hub" in given:
                short += ["--push-to-hub", ""]  # that is tested with a Hub to push to
                given = [word for word in given if word != "--push-best"]
            AcceleratorState._reset_state(reset_partial_state=True)
            trainer.run(parse_options([*given, *short]))
        elif "hvq_inpaint" in words:
            given = words[words.index("hvq_inpaint") + 1 :]
            given = [word for word in given if word != "--send"]  # the same
            assert main([*given, *SHORT[given[0]].split()]) == 0, line
        elif words[:2] == ["python", "hub/bundle.py"]:
            run_bundle(words[2:], monkeypatch, Path("hub/model").absolute())
        elif words[:2] == ["python", f"benchmarks/{Path(words[1]).name}"]:
            assert (ROOT / words[1]).is_file()
        else:
            raise AssertionError(f"nothing runs {line!r}")
    return len(lines)


PYTHON = [
    pytest.param(block, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(blocks(document, "python"))
    if not of_a_page(block) and "push_to_hub" not in block
]
BASH = [
    pytest.param(block, document, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(blocks(document, "bash"))
    if not of_a_page(block) and "venv" not in block
]


@pytest.mark.parametrize("block", PYTHON)
def test_python_in_documents_runs(block: str, place: Path) -> None:
    if "networks.onnx" in block:
        assert main(["export", "--out", "networks.onnx", "--model", "hub/model"]) == 0
    run_python(block)


@pytest.mark.parametrize(("block", "document"), BASH)
def test_commands_in_documents_run(block: str, document: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvq_inpaint.commands.BUNDLED_MODEL", place / "hub" / "model")
    if "--evaluation evaluation" in block and "evaluate" not in block:
        command = "evaluate hub/model --dataset PHOTOGRAPHS --out evaluation"
        assert main([*command.split(), *SHORT["evaluate"].split()]) == 0
    if (document == HUB and "masks --out masks" in block) or (document == README and "--per-ratio" in block):
        shutil.rmtree("masks") if document == HUB else None
    torch.manual_seed(0)
    assert run_bash(block, monkeypatch, "small" if document == CARD else "tiny")


def test_pushing_in_documents_runs(hub: FakeHub, owner: Client, place: Path) -> None:
    found = [block for document in DOCUMENTS for block in blocks(document, "python") if "push_to_hub" in block]
    assert len(found) > 1
    for number, block in enumerate(found):
        block = block.replace('"user/', f'"tester/snippet-{number}-').replace('"hub/model"', f'"{place}/hub/model"')
        assert "user/" not in block
        owner.call(scenarios.run_code, block, str(place))
        assert any(repo_id.startswith(f"tester/snippet-{number}-") for _, repo_id in hub.repositories)


@pytest.mark.parametrize("architecture", list(scenarios.CLASSES))
def test_the_program_on_a_card_runs(architecture: str, place: Path) -> None:
    model = scenarios.make(architecture)
    model.save_pretrained("tester", model_card_kwargs={"model_id": "tester"})
    program = usage(architecture, "tester")
    assert f"```python\n{program}\n```" in Path("tester/README.md").read_text()
    run_python(program)


def test_what_a_card_shows_was_written_by_its_program(place: Path) -> None:
    run_python(usage("HVQInpainter", str(place / "hub" / "model")))
    assert Path("filled.png").is_file() and Path("coarse.png").is_file()


def test_the_programs_on_the_card_of_masks_run(hub: FakeHub, owner: Client, place: Path) -> None:
    shutil.rmtree("masks")
    assert main(["masks", "--out", "masks", *SHORT["masks"].split()]) == 0
    arguments = ["push", "masks", "tester/masks-on-a-card", "--masks", str(place / "masks"), "--send"]
    assert owner.run(arguments)[0] == 0
    card = place / "card.md"
    card.write_bytes(hub.files("tester/masks-on-a-card", repo_type="dataset")["README.md"])
    programs = blocks(card, "python")
    assert len(programs) == 2
    for program in programs:
        owner.call(scenarios.run_code, program, str(place))


def test_the_bundled_model_s_card_is_that_of_its_preset() -> None:
    assert HVQInpainter.from_pretrained(CARD.parent).config == HVQConfig.preset("small")

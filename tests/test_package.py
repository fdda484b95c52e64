"""What a user gets: the wheel, the README's commands, imports that stay light and run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hvq_inpaint"


def test_the_wheel_carries_command_templates_and_types(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {
        "hvq_inpaint/py.typed",
        "hvq_inpaint/templates/model_card.md",
        "hvq_inpaint/templates/mask_dataset_card.md",
        "hvq_inpaint/templates/usage/HVQInpainter.py",
        "hvq_inpaint/publishing/model_folder.py",
        "hvq_inpaint/training/trainer.py",
        "hvq_inpaint/demo/page.css",
        "hvq_inpaint/demo/page.js",
        "hvq_inpaint/examples/coffee.jpg",
    } <= set(names)
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert (
        "hvq-inpaint = hvq_inpaint.__main__:main"
        in zipfile.ZipFile(next(tmp_path.glob("*.whl"))).read(entry_points).decode()
    )
    assert not any(name.startswith(("tests", "hub")) for name in names)


def test_importing_needs_neither_gradio_nor_what_only_training_needs():
    unneeded = ["gradio", "torchvision", "datasets", "lpips", "accelerate", "cv2"]
    code = f"import sys, hvq_inpaint; print([name for name in {unneeded} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_page_is_up_without_what_only_its_figures_need():
    unneeded = ["torchmetrics", "torchvision", "datasets", "lpips", "accelerate", "cv2"]
    code = f"import sys, app; print([name for name in {unneeded} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_ci_runs_exactly_the_readme_s_test_command():
    command = next(
        line for line in (ROOT / "README.md").read_text().splitlines() if "pytest" in line and "venv" in line
    )
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


# The way of the data: a file may import those before it, never those after it.
ORDER = [
    "errors",
    "config",
    "distributed",
    "masks",
    "examples",
    "images",
    "hole",
    "regions",
    "blending",
    "execution",
    "visualize",
    "weights",
    "card",
    "hub",
    "pretrained",
    "quantizer",
    "vqvae",
    "encoder",
    "refiner",
    "credibility",
    "losses",
    "sampling",
    "filling",
    "inpainter",
]


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_one_way(name):
    path = PACKAGE / f"{name}.py"
    tree = ast.parse((path if path.is_file() else PACKAGE / name / "__init__.py").read_text())
    # What is imported for annotations only is not imported at all.
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}
    # The package itself: for its version.
    assert imported - {None} <= set(ORDER[: ORDER.index(name)])
    outside = {
        node.module.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module
    }
    assert not outside & {"gradio", "accelerate", "datasets"}

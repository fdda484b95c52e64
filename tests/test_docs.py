"""The commands in the documents are ones that the programs take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hvq_inpaint.__main__ import make_parser
from hvq_inpaint.training.command_line import parse_options

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "hub" / "model" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """Every line of a bash block that calls the package or the training command, with its document."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```bash\n(.*?)```", document.read_text(), flags=re.DOTALL):
            block = block.replace("\\\n", " ")
            common = dict(re.findall(r'^(\w+)="(.*)"$', block, flags=re.MULTILINE))
            for line in block.splitlines():
                for name, value in common.items():
                    line = line.replace(f"${name}", value)
                line = line.partition("  #")[0]
                if "train_accelerate.py" in line or "-m hvq_inpaint" in line:
                    found.append((document.name, line))
    return found


COMMANDS = commands()


@pytest.mark.parametrize(("document", "line"), COMMANDS, ids=range(len(COMMANDS)))
def test_commands_in_documents_are_taken(document, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in DOCUMENTS:
        if path.name == document and (file := re.search(r"```yaml\n(.*?)```", path.read_text(), flags=re.DOTALL)):
            (tmp_path / "mine.yaml").write_text(file[1])
    if "train_accelerate.py" in line:
        assert parse_options(shlex.split(line.partition("train_accelerate.py")[2]))
    else:
        assert make_parser().parse_args(shlex.split(line.partition("-m hvq_inpaint")[2]))


def test_there_are_commands():
    assert {"README.md", "recipes.md"} <= {document for document, _ in COMMANDS}
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_to_files_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing

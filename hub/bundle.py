"""Make the bundled model's folder, in two steps around its evaluation:

    python hub/bundle.py RUN/refiner/model
    python -m hvq_inpaint evaluate hub/model --dataset DATA/val --mask-kind random_walk brush --out evaluation
    python hub/bundle.py RUN/refiner/model --evaluation evaluation

Weights in float16 (codebooks, their statistics and the credibility quantiles in float32), config.json, and a card with
what the evaluation wrote, the texts of `hub/card/`, and the commands that trained and measured the model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hvq_inpaint import HVQConfig, HVQInpainter, InvalidInputError
from hvq_inpaint.evaluation.model_card import EVALUATION_FILE, read_evaluation
from hvq_inpaint.publishing.model_folder import write_card

HERE = Path(__file__).parent
TEXTS = HERE / "card"


def bundle(source: Path, evaluation: Path | None, target: Path) -> None:
    """Write the model of `source` with its card into `target`."""
    model = HVQInpainter.from_pretrained(source)
    if model.config != HVQConfig.preset("small"):
        raise InvalidInputError(f"The card describes the preset small, and {source} has another configuration.")
    model.save_pretrained(target, half_precision=True)
    training, limits, commands = (
        (TEXTS / name).read_text(encoding="utf-8").strip() for name in ("training.md", "limits.md", "commands.sh")
    )
    with TemporaryDirectory() as temporary:
        measured = None
        if evaluation is not None:
            document, _ = read_evaluation(evaluation)
            document["settings"]["dataset"] = "DATA/val"  # as in the commands
            measured = Path(temporary, EVALUATION_FILE)
            measured.write_text(json.dumps(document), encoding="utf-8")
        write_card(
            target,
            measured,
            title="The model bundled with hvq-inpaint",
            model_id="hub/model",
            training=f"{training}\n\n```bash\n{commands}\n```",
            limits=limits,
            # The photographs that it learned from decide, not the code.
            license="other",
            license_name="research-non-commercial",
        )
    if evaluation is not None:
        document["settings"]["model"] = "hub/model"
        (target / EVALUATION_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the trained model's folder")
    parser.add_argument("--evaluation", type=Path, help="folder with evaluation.json of the bundled model")
    parser.add_argument(
        "--out", type=Path, default=HERE / "model", help="where the bundled model goes (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        bundle(arguments.source, arguments.evaluation, arguments.out)
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

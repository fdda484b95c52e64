"""Make the bundled model's folder, in two steps around its evaluation:

    python hub/bundle.py RUN/refiner/model
    python -m hvq_inpaint evaluate hub/model --dataset DATA/val --mask-kind random_walk brush --out evaluation
    python hub/bundle.py RUN/refiner/model --evaluation evaluation --commands commands.sh

Weights in float16 (codebooks, their statistics and the credibility quantiles in float32), config.json, and a card with
the table that the evaluation wrote and the commands that trained and measured the model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from huggingface_hub import ModelCard

from hvq_inpaint import HVQConfig, HVQInpainter, InvalidInputError
from hvq_inpaint.evaluation.methods import method_title
from hvq_inpaint.evaluation.report import METRIC_FORMATS, gains_table
from hvq_inpaint.inpainter import save_state

HERE = Path(__file__).parent
MODEL_CARD_NOTES = HERE / "model_card_notes.md"
MODEL_CARD_LIMITS = HERE / "model_card_limits.md"


def bucket_table(document: dict, metric: str) -> str:
    """A metric by bucket, for each mask kind and method."""
    buckets = [*document["settings"]["buckets_percent"], "mean"]
    lines = [
        f"| masks | method | {' | '.join(name if name == 'mean' else f'{name} %' for name in buckets)} |",
        f"|---|---|{'---:|' * len(buckets)}",
    ]
    for kind, methods in document["figures"].items():
        for method, figures in methods.items():
            cells = " | ".join(format(figures[bucket][metric], METRIC_FORMATS[metric]) for bucket in buckets)
            lines.append(f"| {kind.replace('_', ' ')} | {method_title(method)} | {cells} |")
    return "\n".join(lines)


def results_text(document: dict) -> str:
    """The settings in a sentence, the table, and what of it is not won."""
    settings, versions = document["settings"], document["versions"]
    codebooks = "; ".join(
        f"{level} {v['usage']:.0%} used, perplexity {v['perplexity']:.0f}" for level, v in document["codebooks"].items()
    )
    lost = []
    for kind, methods in document["figures"].items():
        for bucket in settings["buckets_percent"]:
            best = max(methods[name][bucket]["psnr_hole"] for name in ("telea", "navier_stokes"))
            if methods["refined"][bucket]["psnr_hole"] <= best:
                lost.append(f"{kind.replace('_', ' ')} {bucket} %")
    verdict = (
        f"In PSNR not won against the better of OpenCV's two methods: {', '.join(lost)}."
        if lost
        else "In PSNR every bucket is won against both of OpenCV's methods."
    )
    laplace = ""
    if all("harmonic" in methods for methods in document["figures"].values()):
        laplace = "Laplace's equation is its solution in the hole: what is better than it is the network's merit. "
    true_global = ""
    if all("true_global" in methods for methods in document["figures"].values()):
        true_global = "coarse, true global codes is what coarse were if EncoderB1 knew all global codes; "
    lpips = ""
    if "lpips" in settings.get("metrics", []):
        lpips = f"LPIPS (0.1, AlexNet), whole image, on the same composites:\n\n{bucket_table(document, 'lpips')}\n\n"
    return (
        "What the whole network (refined) and the VQ stage alone (coarse) gain over the better of OpenCV's two "
        f"methods, means over the mask ratios:\n\n{gains_table(document['figures'])}\n\n"
        "PSNR in the hole in dB, mean of per-image values on composites rounded to 8 bits: "
        f"{document['number_of_images']} held-out photographs, central {settings['size']} x {settings['size']} pixels, "
        f"one mask for each photograph and bucket (seed {settings['seed']}), "
        f"OpenCV's methods with radius {settings['opencv_radius']} (OpenCV {versions['opencv']}). "
        f"{laplace}Coarse is the VQ stage alone; coarse, blended the same by Poisson blending, which is what "
        f"the refiner gets; refined is the whole network; {true_global}"
        "the oracle is the intact photograph's own codes through the decoder."
        f"\n\n{bucket_table(document, 'psnr_hole')}\n\n{lpips}"
        f"{verdict} Codebooks on the intact photographs: {codebooks}. "
        "All metrics are in [evaluation.json](evaluation.json)."
    )


def bundle(source: Path, evaluation: Path | None, commands: Path | None, target: Path) -> None:
    """Write the model of `source` with its card into `target`."""
    model = HVQInpainter.from_pretrained(source)
    if model.config != HVQConfig.preset("small"):
        raise InvalidInputError(f"The card describes the preset small, and {source} has another configuration.")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    texts = {
        "title": "The model bundled with hvq-inpaint",
        "model_name": "hub/model",
        "architecture": f"Preset `small`, {parameters / 1e6:.1f} M parameters: "
        "the paper's VQ stage with the transformer's output fed back into F_mid, "
        "and a multi-dilation refiner of half the paper's width, with skip connections from its encoder to its "
        "decoder, which gets the VQ stage's result blended into the known pixels (Poisson image editing, Pérez et al. "
        "2003). "
        "The preset `paper` has none of the three additions: no feedback, no skip connections, and it pastes.",
        "limits": MODEL_CARD_LIMITS.read_text(encoding="utf-8").strip(),
        "training": MODEL_CARD_NOTES.read_text(encoding="utf-8").strip(),
    }
    if commands:
        texts["training"] += f"\n\n```bash\n{commands.read_text(encoding='utf-8').strip()}\n```"
    target.mkdir(parents=True, exist_ok=True)
    if evaluation:
        document = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
        # As in the commands: where the folders lay on one machine is nobody's business.
        document["settings"].update(model="hub/model", dataset="DATA/val", export=None)
        if weights := document["settings"].get("lpips_weights"):
            document["settings"]["lpips_weights"] = Path(weights).name
        texts["results"] = results_text(document)
        (target / "evaluation.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (target / "README.md").unlink(missing_ok=True)
    model.save_pretrained(target, model_card_kwargs=texts)
    save_state(model.half_precision_state(), target)
    card = ModelCard.load(target / "README.md")
    # The photographs that it learned from decide, not the code.
    card.data.license, card.data.license_name = "other", "research-non-commercial"
    card.save(target / "README.md")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the trained model's folder")
    parser.add_argument("--evaluation", type=Path, help="folder with evaluation.json of the bundled model")
    parser.add_argument("--commands", type=Path, help="text file with the commands that trained and measured it")
    parser.add_argument(
        "--out", type=Path, default=HERE / "model", help="where the bundled model goes (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        bundle(arguments.source, arguments.evaluation, arguments.commands, arguments.out)
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

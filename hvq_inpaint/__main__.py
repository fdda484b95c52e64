"""The command line: `python -m hvq_inpaint inpaint | evaluate | ablate | masks | shard | export | card | push`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__, commands
from .commands import path_argument
from .errors import InvalidInputError
from .evaluation.options import METRICS
from .masks import MASK_KINDS, RATIO_BUCKETS
from .publishing.command_line import add_card, add_push
from .tokens import refuse_tokens


def make_parser() -> argparse.ArgumentParser:
    """The options of all sub-commands; `run` of the parsed arguments is the function of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="hvq-inpaint",
        description="Image inpainting with a hierarchical VQ-VAE and vector credibility "
        "(Li, Xu, Chen, Electronics 2024, 13, 1852).",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_inpaint(subparsers)
    _add_evaluate(subparsers)
    _add_ablate(subparsers)
    _add_masks(subparsers)
    _add_shard(subparsers)
    _add_export(subparsers)
    add_card(subparsers)
    add_push(subparsers)
    return parser


def _add_inpaint(subparsers: argparse._SubParsersAction) -> None:
    text = "fill the holes of a photograph, or of a folder of them"
    parser = subparsers.add_parser(
        "inpaint",
        help=text,
        description=f"{text.capitalize()}. Pixels outside the mask are kept exactly. In a folder, a photograph that "
        "can't be filled is reported at the end and does not stop the others; the exit status is then 1. Under "
        "'accelerate launch -m hvq_inpaint inpaint ...' the photographs of a folder are shared out over the processes.",
    )
    parser.set_defaults(run=commands.inpaint)
    parser.add_argument(
        "image", metavar="IMAGE", type=path_argument, help="the photograph, of any size, or a folder with sub-folders"
    )
    parser.add_argument(
        "--masks",
        "--mask",
        metavar="PATH",
        type=path_argument,
        help="an image of the same size, white where the photograph is to be filled; for a folder, another one with "
        "masks of the same names, or one mask for all (default: what is transparent in the photograph)",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        type=path_argument,
        required=True,
        help="the result: .png, .tif, .webp or .bmp, which keep every pixel, or .jpg, which does not; or a folder",
    )
    parser.add_argument(
        "--keep-format",
        action="store_true",
        help="results in a folder get the format of their photographs; JPEG then costs a little of every pixel "
        "(default: .png, or .tif where PNG can't hold the image)",
    )
    parser.add_argument(
        "--model", metavar="MODEL", help="a model folder or the id of a Hub repository (default: the bundled model)"
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="for the results after the first, which are drawn at random (default: %(default)s)",
    )
    parser.add_argument(
        "--num-results",
        metavar="N",
        type=int,
        default=1,
        help="how many different fills; the second is written as FILE-2 and so on (default: %(default)s)",
    )
    parser.add_argument(
        "--stages",
        metavar="FOLDER",
        type=path_argument,
        nargs="?",
        const=commands.BESIDE,
        help="write every intermediate of the pipeline as well, there or, without FOLDER, beside the results "
        "(default: none)",
    )
    parser.add_argument(
        "--strategy",
        choices=("auto", "original", "resize", "crop"),
        default="auto",
        help="original: the whole photograph in one pass; resize: reduced to the working size; crop: around each hole; "
        "auto: original if it fits the working size, else crop (default: %(default)s)",
    )
    for flag, default, help_ in (
        ("--working-size", 512, "longest side inside the network, in pixels"),
        ("--dilate", 0, "the mask grows by so many pixels, against remains of what is to vanish"),
        ("--feather", 0, "and by so many more, over which the fill fades into the photograph"),
        ("--batch-size", 1, "photographs of a folder at a time"),
    ):
        parser.add_argument(flag, metavar="N", type=int, default=default, help=f"{help_} (default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="number format of the networks; auto: the faster one on the device (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that exist already (default: refuse; in a folder, leave them alone)",
    )
    _add_device(parser)


def _add_evaluate(subparsers: argparse._SubParsersAction) -> None:
    text = "measure a model on photographs, beside other methods"
    parser = subparsers.add_parser(
        "evaluate",
        help=text,
        description=f"{text.capitalize()}: PSNR, SSIM, L1, LPIPS and FID by mask kind and mask ratio. Writes "
        "evaluation.json, evaluation.md and grid.png. The same command gives the same figures, also with 'accelerate "
        "launch -m hvq_inpaint evaluate ...' in several processes; broken off and given again, it goes on where it "
        "stood.",
    )
    parser.set_defaults(run=commands.evaluate)
    buckets = [f"{round(100 * low)}-{round(100 * high)}" for low, high in RATIO_BUCKETS]
    parser.add_argument("model", metavar="MODEL", help="a model folder or the id of a Hub repository")
    parser.add_argument(
        "--dataset",
        metavar="DATASET",
        required=True,
        help="a folder of images, in sub-folders or not, Parquet, or a dataset id on the Hub",
    )
    parser.add_argument("--split", default="test", help="the split of a dataset on the Hub (default: %(default)s)")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=path_argument,
        default=Path("evaluation"),
        help="where the files go (default: %(default)s)",
    )
    parser.add_argument(
        "--mask-kind",
        metavar="KIND",
        nargs="+",
        help=f"one or more of {', '.join(MASK_KINDS)}, and files with --masks "
        f"(default: files with --masks, else {' '.join(MASK_KINDS)})",
    )
    parser.add_argument(
        "--masks",
        metavar="FOLDER",
        type=path_argument,
        help="mask files, white = repaint, brought to --size; each goes to the bucket of its share of white "
        "(default: none)",
    )
    parser.add_argument(
        "--buckets",
        metavar="LOW-HIGH",
        nargs="+",
        default=buckets,
        help=f"ranges of the share of missing pixels, in percent (default: {' '.join(buckets)})",
    )
    parser.add_argument(
        "--size",
        metavar="PIXELS",
        type=int,
        default=256,
        help="side of the central crop of each image (default: %(default)s)",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="decides the masks (default: %(default)s)")
    parser.add_argument(
        "--limit", metavar="N", type=int, help="use so many images, spread evenly over the folder (default: all)"
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=8, help="images at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--metrics",
        metavar="METRIC",
        nargs="+",
        help=f"one or more of {', '.join(METRICS)}; psnr_hole and l1_hole count the missing pixels only, fd is the "
        "Fréchet distance of AlexNet's features (default: all whose feature networks can be had)",
    )
    parser.add_argument(
        "--lpips-weights",
        metavar="FILE",
        help="AlexNet's convolutions as safetensors, by torchvision's names, for lpips and fd (default: torchvision's "
        "own download)",
    )
    parser.add_argument(
        "--export",
        metavar="FOLDER",
        type=path_argument,
        help="write photographs, masks, damaged and refined pictures there, each as KIND/BUCKET/NUMBER.png, for other "
        "methods to be run on (default: none)",
    )
    parser.add_argument(
        "--outputs",
        metavar="FOLDER",
        type=path_argument,
        nargs="+",
        default=[],
        help="pictures of other methods for the photographs and masks of --export, with its names; each folder is a "
        "row of the tables under its own name (default: none)",
    )
    parser.add_argument(
        "--no-opencv",
        action="store_true",
        help="leave out the comparison with OpenCV, which then need not be installed",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that exist already, and do not continue (default: refuse)",
    )
    _add_device(parser)


# Those of evaluation.ablations, which is slow to import.
_ABLATIONS = (
    "dilation",
    "input",
    "skips",
    "residual",
    "loss",
    "credibility",
    "hole",
    "masks",
    "codebook",
    "warmup",
    "crop",
    "rate",
    "average",
    "coarse",
    "feedback",
)


def _add_ablate(subparsers: argparse._SubParsersAction) -> None:
    text = "train variants of one stage alike, and measure them alike"
    parser = subparsers.add_parser(
        "ablate",
        help=text,
        description=f"{text.capitalize()}. dilation is Table 6 of the paper, input what the VQ stage earns, the others "
        "what their names say. Writes OUT/ABLATION/ablation.md; given again, variants that are done are not done "
        "again.",
    )
    parser.set_defaults(run=commands.ablate)
    parser.add_argument("ablation", metavar="ABLATION", help=f"one of {', '.join(_ABLATIONS)}")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a trained model, whose earlier stages the variants share (default: the bundled one)",
    )
    parser.add_argument("--dataset", metavar="DATASET", required=True, help="images to train on")
    parser.add_argument("--validation", metavar="DATASET", required=True, help="images to measure on")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=path_argument,
        default=Path("ablations"),
        help="where all goes (default: %(default)s)",
    )
    for flag, kind, default, help_ in (
        ("--steps", int, 2000, "optimiser steps of each variant"),
        ("--batch-size", int, 8, "crops a step"),
        ("--crop-size", int, 128, "their side in pixels"),
        ("--learning-rate", float, 4e-4, "at its peak"),
        ("--seed", int, 0, "of weights, order, crops and masks"),
        ("--workers", int, 1, "processes that load data"),
        ("--limit", int, 60, "photographs to measure on"),
    ):
        parser.add_argument(flag, metavar="N", type=kind, default=default, help=f"{help_} (default: %(default)s)")
    parser.add_argument(
        "--refiner-channels",
        metavar="N",
        type=int,
        nargs=3,
        default=[16, 32, 64],
        help="widths of the refiner, where that is trained anew (default: 16 32 64)",
    )
    parser.add_argument(
        "--refiner-residual",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="where it is trained anew, it makes what is added to its input, else the picture (default: yes)",
    )
    parser.add_argument(
        "--mixed-precision",
        choices=("no", "bf16", "fp16"),
        help="of the training (default: as Accelerate is configured)",
    )
    parser.add_argument(
        "--metrics",
        metavar="METRIC",
        nargs="+",
        help=f"one or more of {', '.join(METRICS)} (default: all whose feature networks can be had)",
    )
    parser.add_argument(
        "--vgg-weights", metavar="FILE", help="VGG-19 as safetensors (default: torchvision's own download)"
    )
    parser.add_argument(
        "--lpips-weights", metavar="FILE", help="AlexNet as safetensors (default: torchvision's own download)"
    )


def _add_masks(subparsers: argparse._SubParsersAction) -> None:
    text = "write the paper's set of masks"
    parser = subparsers.add_parser(
        "masks",
        help=text,
        description=f"{text.capitalize()}: PNG files, white = repaint, in one folder for each percentage of missing "
        "pixels, and masks.json, which says how to make each of them again.",
    )
    parser.set_defaults(run=commands.masks)
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=path_argument,
        required=True,
        help="where the masks go; must be empty or not exist yet",
    )
    parser.add_argument(
        "--kind", metavar="KIND", default="random_walk", help=f"one of {', '.join(MASK_KINDS)} (default: %(default)s)"
    )
    parser.add_argument(
        "--per-ratio", metavar="N", type=int, default=200, help="masks for each whole percent (default: %(default)s)"
    )
    parser.add_argument(
        "--min-percent",
        metavar="N",
        type=int,
        default=10,
        help="the smallest share of missing pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--max-percent",
        metavar="N",
        type=int,
        default=60,
        help="the largest share of missing pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--size", metavar="PIXELS", type=int, default=256, help="height and width (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="another seed, another set with no mask in common (default: %(default)s)",
    )
    parser.add_argument("--workers", metavar="N", type=int, help="processes (default: one for each core)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the mask set that lies in FOLDER (default: refuse)"
    )


def _add_shard(subparsers: argparse._SubParsersAction) -> None:
    text = "pack a folder of images into Parquet files, to train from with --streaming"
    parser = subparsers.add_parser(
        "shard",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. The files' bytes are kept as they are, in an order drawn at random; "
        "what can't be decoded is named and left out, and the exit status is then 1. The folder appears when it is "
        "complete; it can be uploaded to the Hub as a dataset.",
    )
    parser.set_defaults(run=commands.shard)
    parser.add_argument("images", metavar="FOLDER", type=path_argument, help="images, also in sub-folders")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=path_argument,
        required=True,
        help="for the shards; must be empty or not exist yet",
    )
    parser.add_argument("--shards", metavar="N", type=int, help="how many (default: by the next two)")
    parser.add_argument(
        "--shard-size", metavar="MB", type=int, default=256, help="megabytes of a shard at most (default: %(default)s)"
    )
    parser.add_argument(
        "--multiple-of",
        metavar="N",
        type=int,
        default=8,
        help="make their number a multiple of this: of processes times workers that will read them (default: "
        "%(default)s)",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the order (default: %(default)s)")
    parser.add_argument("--workers", metavar="N", type=int, help="processes (default: one for each core)")


def _add_export(subparsers: argparse._SubParsersAction) -> None:
    text = "write the networks as one file for programs without PyTorch"
    parser = subparsers.add_parser(
        "export",
        help=text,
        description="Write the networks as one file for programs without PyTorch, for any batch, height and width "
        "(multiples of 8). It is written only if onnxruntime computes the same from it as PyTorch from the model.",
    )
    parser.set_defaults(run=commands.export)
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="of the file (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", type=path_argument, required=True, help="the file, ending in .onnx")
    parser.add_argument(
        "--model", metavar="MODEL", help="a model folder or the id of a Hub repository (default: the bundled model)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists already (default: refuse)")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default="auto",
        help="auto, cpu, cuda, cuda:1 or mps; auto is a GPU if there is one (default: %(default)s)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process if none is given; returns the exit status."""
    try:
        refuse_tokens(sys.argv[1:] if arguments is None else arguments)
        parsed = make_parser().parse_args(arguments)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what a terminal can't show
        return parsed.run(parsed) or 0
    except (InvalidInputError, OSError) as error:  # an OSError: a full disk, a folder that may not be written
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130  # as a shell says it


if __name__ == "__main__":
    sys.exit(main())

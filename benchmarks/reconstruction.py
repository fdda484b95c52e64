"""What the VQ-VAE keeps of a picture as a tokenizer: `python benchmarks/reconstruction.py DATASET`.

The central pixels of each photograph are encoded to codes and decoded from nothing but them. Printed are means of
per-image values of the whole picture, rounded to 8 bits, the bits that the codes take, and how much of each codebook is
used over all photographs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hvq_inpaint.data import list_images, spread
from hvq_inpaint.evaluation.samples import evaluation_crop
from hvq_inpaint.metrics import load_lpips, mean_l1, psnr, round_to_uint8, ssim
from hvq_inpaint.quantizer import codebook_usage
from hvq_inpaint.vqvae import HierarchicalVQVAE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a folder of photographs")
    parser.add_argument(
        "--model", default="hub/model", help="a folder or Hub id of a tokenizer or a whole model (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the central crop (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="photographs, spread evenly (default: all)")
    parser.add_argument("--lpips-weights", help="AlexNet as safetensors (default: torchvision's own download)")
    options = parser.parse_args()
    tokenizer = HierarchicalVQVAE.from_pretrained(options.model)
    lpips = load_lpips(options.lpips_weights)
    paths = list_images(options.dataset)
    paths = [paths[index] for index in spread(len(paths), options.limit or len(paths))]
    figures, codes = [], []
    for path in tqdm(paths, unit="photo", disable=None):
        image = torch.from_numpy(evaluation_crop(path, options.size)).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            tokens = tokenizer.encode(image)
            decoded = round_to_uint8(tokenizer.decode(tokens.global_codes, tokens.local_codes))
            metrics = (psnr, ssim, mean_l1, lpips)
            figures.append([float(metric(decoded, image)) for metric in metrics])
        codes.append(tokens)
    means = np.mean(figures, axis=0)
    bits = sum(tokens.numel() for tokens in vars(codes[0]).values()) * np.log2(tokenizer.config.num_codes)
    print(f"{len(paths)} photographs, central {options.size} x {options.size} pixels, LPIPS 0.1 with AlexNet\n")
    print("| PSNR (dB) | SSIM | L1 | LPIPS | codes | bits a pixel |")
    print("|---:|---:|---:|---:|---:|---:|")
    shapes = " + ".join(" x ".join(map(str, tokens.shape[1:])) for tokens in vars(codes[0]).values())
    values = " | ".join(
        format(value, pattern) for value, pattern in zip(means, (".2f", ".4f", ".4f", ".4f"), strict=True)
    )
    print(f"| {values} | {shapes} | {bits / options.size**2:.3f} |\n")
    print("| codebook | used | perplexity |")
    print("|---|---:|---:|")
    for level in ("global", "local"):
        of_all = torch.cat([getattr(tokens, f"{level}_codes").flatten() for tokens in codes])
        used, perplexity = codebook_usage(of_all, tokenizer.config.num_codes)
        print(f"| {level} | {used:.0%} of {tokenizer.config.num_codes} | {perplexity:.0f} |")


if __name__ == "__main__":
    main()

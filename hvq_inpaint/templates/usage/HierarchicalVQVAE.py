import numpy as np
import torch

from hvq_inpaint.examples import load_example
from hvq_inpaint.images import to_pixels, to_tensor
from hvq_inpaint.vqvae import HierarchicalVQVAE

tokenizer = HierarchicalVQVAE.from_pretrained("MODEL")
photograph, _ = load_example("coffee", side=256)
image = to_tensor(np.array(photograph))  # (1, 3, 256, 256) in [0, 1]; height and width multiples of 8
with torch.inference_mode():
    codes = tokenizer.encode(image)  # global_codes (1, 32, 32) and local_codes (1, 64, 64), int64
    decoded = tokenizer.decode(codes.global_codes, codes.local_codes)  # (1, 3, 256, 256) in [0, 1]
pixels = to_pixels(decoded[0])  # (256, 256, 3) uint8

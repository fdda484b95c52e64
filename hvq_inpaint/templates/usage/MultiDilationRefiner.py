import torch

from hvq_inpaint.refiner import MultiDilationRefiner

refiner = MultiDilationRefiner.from_pretrained("MODEL")
coarse_composite = torch.rand(1, 3, 256, 256)  # known pixels and, in the hole, a first guess; in [0, 1]
known = torch.ones(1, 1, 256, 256)  # 1 = known, 0 = missing
known[:, :, 96:160, 96:160] = 0
with torch.inference_mode():
    refined = refiner(coarse_composite, known)  # (1, 3, 256, 256) in [0, 1]

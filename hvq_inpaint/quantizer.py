"""Vector quantisation with a codebook that follows its latents by an exponential moving average, Eq. (1), (3)
to (5).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from .distributed import all_gather_rows, all_reduce_sum, broadcast_from_first

# Rows of latents compared with the codebook at a time: bounds the (rows, K) table of distances.
_ROWS_AT_A_TIME = 16384


def to_vectors(latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, D, H, W) as a float32 list of vectors (B * H * W, D)."""
    return latents.detach().float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def nearest_codes(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Eq. (1): the index of the nearest code by L2 distance.

    Args:
        vectors: (N, D) float32.
        codebook: (K, D) float32.

    Returns:
        (N,) int64.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        # |v - e|^2 = |v|^2 - 2 v.e + |e|^2, and |v|^2 is the same for every code.
        squared_norms = codebook.square().sum(dim=1)  # (K,)
        # An exported program knows no number of rows to split by.
        parts = (vectors,) if torch.compiler.is_exporting() else vectors.split(_ROWS_AT_A_TIME)
        chunks = [torch.addmm(squared_norms, part, codebook.t(), alpha=-2).argmin(dim=1) for part in parts]
    return torch.cat(chunks)


class _StraightThrough(torch.autograd.Function):
    """The quantised latents forward, the gradient of the unquantised ones backward.

    `latents + (quantized - latents).detach()` would differ from the codebook's vectors by a rounding error.
    """

    @staticmethod
    def forward(ctx, latents: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        return quantized.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


class EMAQuantizer(nn.Module):
    """A codebook of `num_codes` vectors of length `dim`.

    Calling it in train mode quantises with the codebook as it stands and then updates the codebook; in eval mode, and
    by `quantize`, nothing is ever updated. All codebook arithmetic is float32, also under autocast, and all statistics
    are summed over processes, so every process holds the same codebook.

    Buffers:
        codebook (K, D): the codes e_k.
        counts (K,): N_k of Eq. (3); all zero before the first update.
        sums (K, D): m_k of Eq. (4).
        batch_counts (K,): n_k of the last update, over all processes; not saved.
    """

    codebook: torch.Tensor
    counts: torch.Tensor
    sums: torch.Tensor
    batch_counts: torch.Tensor

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99) -> None:
        super().__init__()
        self.num_codes, self.dim, self.decay = num_codes, dim, decay
        self.register_buffer("codebook", torch.randn(num_codes, dim).div_(dim**0.5))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, dim))
        self.register_buffer("batch_counts", torch.zeros(num_codes), persistent=False)
        self._pending: tuple[torch.Tensor, torch.Tensor] | None = None  # n and s of the calls within `one_batch`

    def quantize(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Eq. (1) without any update.

        Args:
            latents: (B, D, H, W).

        Returns:
            `quantized` (B, D, H, W) float32, exactly `codebook[codes]`, its gradient passed straight to `latents`;
            `codes` (B, H, W) int64.
        """
        batch, dim, height, width = latents.shape
        if dim != self.dim:
            raise ValueError(f"The latents have {dim} channels and the codebook's vectors have {self.dim}.")
        codes = nearest_codes(to_vectors(latents), self.codebook).reshape(batch, height, width)
        return _StraightThrough.apply(latents.float(), self.vectors_of(codes)), codes

    def vectors_of(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, H, W) as their vectors (B, D, H, W)."""
        return F.embedding(codes, self.codebook).permute(0, 3, 1, 2)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantise, and in train mode update the codebook afterwards.

        Args:
            latents: (B, D, H, W).

        Returns:
            `quantized` (B, D, H, W) float32, `codes` (B, H, W) int64, and `commitment`, the scalar mean of
            (sg(quantized) - latents)^2 that Eq. (2) weighs with beta.
        """
        quantized, codes = self.quantize(latents)
        commitment = F.mse_loss(latents.float(), quantized.detach())
        if self.training:
            with torch.no_grad():
                n, s = self._statistics(to_vectors(latents), codes.reshape(-1))
                if self._pending is None:
                    self._update(n, s)
                else:
                    self._pending = (self._pending[0] + n, self._pending[1] + s)
        return quantized, codes, commitment

    @contextmanager
    def one_batch(self) -> Iterator[None]:
        """Within it all calls count as one batch: they quantise with the codebook as it stands, which is updated once,
        at the end. If it is left by an exception, nothing is updated.
        """
        n, s = self._statistics(self.codebook[:0], torch.empty(0, dtype=torch.int64, device=self.codebook.device))
        self._pending = (n, s)
        try:
            yield
            self._update(*self._pending)
        finally:
            self._pending = None

    @torch.no_grad()
    def _update(self, n: torch.Tensor, s: torch.Tensor) -> None:
        """Eq. (3) to (5) from this process's number n (K,) and sum s (K, D) of the vectors given to each code."""
        n, s = all_reduce_sum(n).float(), all_reduce_sum(s).float()
        self.batch_counts.copy_(n)
        # The first update takes the batch as it is: the initial conditions of Eq. (3), (4).
        first = (self.counts.sum() == 0).float()
        decay = self.decay * (1 - first)
        self.counts.mul_(decay).add_(n * (1 - decay))
        self.sums.mul_(decay).add_(s * (1 - decay))
        # Eq. (5) would divide by zero for a code that was never used: it keeps its vector.
        used = (self.counts > 0).unsqueeze(1)
        self.codebook.copy_(torch.where(used, self.sums / self.counts.clamp_min(1e-30).unsqueeze(1), self.codebook))

    def _statistics(self, vectors: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """n (K,) and s (K, D), the number and the sum of this process's vectors that were given to each code."""
        # float64, so that the result does not depend on how the batch was split; Apple's GPUs have none.
        wide = torch.float32 if vectors.device.type == "mps" else torch.float64
        n = torch.bincount(codes, minlength=self.num_codes).to(wide)
        s = torch.zeros(self.num_codes, self.dim, dtype=wide, device=vectors.device).index_add_(
            0, codes, vectors.to(wide)
        )
        return n, s

    @torch.no_grad()
    def start_from(self, latents: torch.Tensor, generator: torch.Generator | None = None, iterations: int = 10) -> None:
        """Start the codebook from data: vectors sampled from `latents`, moved by some iterations of k-means.

        Counts and sums are reset, so that the next update is again a first one.

        Args:
            latents: (B, D, H, W), those of the first batches; with several processes, each gives its own.
            generator: a CPU generator for the samples.
            iterations: k-means iterations.
        """
        vectors = to_vectors(latents)
        self.codebook.copy_(self._sample(vectors, self.num_codes, generator))
        for _ in range(iterations):
            n, s = self._statistics(vectors, nearest_codes(vectors, self.codebook))
            n, s = all_reduce_sum(n).float(), all_reduce_sum(s).float()
            self.codebook.copy_(torch.where((n > 0).unsqueeze(1), s / n.clamp_min(1).unsqueeze(1), self.codebook))
        self.counts.zero_()
        self.sums.zero_()

    @torch.no_grad()
    def restart_dead_codes(
        self, latents: torch.Tensor, min_share: float = 0.01, generator: torch.Generator | None = None
    ) -> int:
        """Give each code whose count is below `min_share` of the mean count a new vector from `latents`.

        The vector, N and m are reset together, or the next update would undo the restart. The code starts with the mean
        count, so that it moves at the pace of the others.

        Returns:
            How many codes were restarted.
        """
        mean_count = self.counts.mean()
        dead = self.counts < min_share * mean_count
        number = int(dead.sum())
        if number:
            fresh = self._sample(to_vectors(latents), number, generator)
            self.codebook[dead] = fresh
            self.sums[dead] = fresh * mean_count
            self.counts[dead] = mean_count
        return number

    def _sample(self, vectors: torch.Tensor, number: int, generator: torch.Generator | None) -> torch.Tensor:
        """`number` of the vectors (N, D) of all processes, the same on each process: (number, D)."""
        # Each process offers at most `number` of its own; the first process draws among the offers.
        own = vectors[torch.randperm(len(vectors), generator=generator)[:number].to(vectors.device)]
        offers = all_gather_rows(own)
        if len(offers) >= number:
            drawn = torch.randperm(len(offers), generator=generator)[:number]
        else:
            drawn = torch.randint(len(offers), (number,), generator=generator)
        return offers[broadcast_from_first(drawn.to(vectors.device))]


def codebook_usage(codes: torch.Tensor, num_codes: int) -> tuple[float, float]:
    """How much of a codebook is in use.

    Args:
        codes: int64 codes of any shape.

    Returns:
        The share of codes used at least once, in [0, 1], and the perplexity exp(entropy) of their frequencies,
        in [1, K].
    """
    return usage_of_counts(torch.bincount(codes.reshape(-1), minlength=num_codes))


def usage_of_counts(counts: torch.Tensor) -> tuple[float, float]:
    """`codebook_usage` where it is known how often each code was used: counts (K,), not all of them zero."""
    counts = counts.cpu().double()  # Apple's GPUs have no float64
    frequencies = counts / counts.sum()
    entropy = -torch.special.xlogy(frequencies, frequencies).sum()
    return float((counts > 0).double().mean()), float(entropy.exp())

"""A batch in parts that fit the memory: the same gradient, the same codebook update."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, find_executable_batch_size, should_reduce_batch_size
from torch import nn

from ..data import Sample
from ..distributed import apart
from ..errors import InvalidInputError
from .stages import Logs, TrainingStage


class MicroBatches:
    """Gradients of whole batches, computed part by part, in smaller parts when the memory is exhausted.

    The codebooks see the whole batch as one; the threshold of Eq. (8) is that of each part, over all processes.

    Args:
        wrapped: `stage` as the accelerator prepared it.
        size: images of a part at most; 0: the whole batch.
    """

    def __init__(self, accelerator: Accelerator, stage: TrainingStage, wrapped: nn.Module, size: int) -> None:
        self.accelerator, self.stage, self.wrapped, self.size = accelerator, stage, wrapped, size

    def fit(self, batch: Sample) -> None:
        """Find a size that all processes have the memory for, by trying.

        With several processes this has to be known before they compute together: one that fails in the middle leaves
        the others waiting. With one process `backward` finds it as it goes.
        """
        if self.accelerator.num_processes == 1:
            return
        size = self.size or len(batch["image"])

        def smaller() -> int:
            nonlocal size
            size //= 2
            return size

        @find_executable_batch_size(starting_batch_size=size, reduce_batch_size_fn=smaller)
        def attempt(number: int) -> int:
            # What the first step needs besides: Adam's two moments, and the copy of the gradients that is summed.
            trained = [part for part in self.stage.parameters() if part.requires_grad]
            reserved = [torch.empty_like(part) for part in trained for _ in range(3)]
            loss, _ = self.stage(**{name: tensor[:number] for name, tensor in batch.items()})
            loss.backward()
            del reserved
            return number

        self.stage.eval()  # which takes as much memory and changes no codebook
        try:
            with apart(), self.accelerator.autocast():
                found = attempt()
        except RuntimeError as error:
            if "reached zero" not in str(error):
                raise
            raise InvalidInputError(
                "The memory is exhausted with 1 image at a time: continue with --resume auto and a smaller --crop-size "
                "or --preset."
            ) from None
        self.stage.zero_grad(set_to_none=True)
        self.stage.train()
        smallest = self.accelerator.gather(torch.tensor([found], device=self.accelerator.device)).min()
        self._take(int(smallest), len(batch["image"]))

    def backward(self, batch: Sample, reset: Callable[[], None]) -> tuple[torch.Tensor, Logs]:
        """Add the gradient of `batch` to that of the parameters.

        Args:
            reset: sets the gradients to zero, where a batch is begun again in smaller parts.

        Returns:
            The loss, a scalar, and the values to log: this process's means over the batch.
        """
        number = len(batch["image"])
        while True:
            size = min(self.size or number, number)
            try:
                return self._backward(batch, size)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                reset()
                clear_device_cache(garbage_collection=True)
                if self.accelerator.num_processes > 1 or size == 1:
                    remedy = f"--micro-batch-size {size // 2}" if size > 1 else "a smaller --crop-size or --preset"
                    raise InvalidInputError(
                        f"The memory is exhausted with {size} images at a time: "
                        f"continue with --resume auto and {remedy}."
                    ) from None
                self._take(size // 2, number)

    def _take(self, size: int, number: int) -> None:
        if size < (self.size or number):
            self.accelerator.print(
                f"The memory is exhausted: micro-batches of {size} from here on, of the {number} images of a step."
            )
            self.size = size

    def _backward(self, batch: Sample, size: int) -> tuple[torch.Tensor, Logs]:
        number = len(batch["image"])
        total = torch.zeros((), device=batch["image"].device)
        means: Logs = defaultdict(lambda: torch.zeros((), device=total.device))
        with self.stage.one_batch():
            for start in range(0, number, size):
                part = {name: tensor[start : start + size] for name, tensor in batch.items()}
                share = len(part["image"]) / number
                last = start + size >= number
                # Gradients are summed over the processes once, with the last part.
                with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                    loss, values = self.wrapped(**part)
                    self.accelerator.backward(loss * share)
                total = total + share * loss.detach()
                for name, value in values.items():
                    means[name] = means[name] + share * value.to(total.device)
        return total, dict(means)

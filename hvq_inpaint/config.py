"""Every size of the networks in one dataclass; a preset is data, not a subclass."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError

# Heights and widths inside the network are multiples of this: the global codes are eight times smaller than the image.
SIZE_MULTIPLE = 8

# A configuration from elsewhere may ask for anything: beyond these it is refused before a network is made.
_LARGEST_SIZE = 2**16
_MOST_BLOCKS = 128
_MOST_RATES = 64

_MAY_BE_ZERO = ("residual_blocks", "transformer_blocks", "refiner_blocks")


@dataclass(frozen=True)
class HVQConfig:
    """Sizes of the networks of an `HVQInpainter`. The defaults are the preset `paper`.

    Raises:
        InvalidInputError: a size is not positive, or two sizes do not fit together.
    """

    # Hierarchical VQ-VAE (EncoderA1, EncoderA2, DecoderA)
    stem_channels: int = 64  # after the first stride-2 convolution
    mid_channels: int = 128  # F_mid, at a quarter of the image's size
    residual_channels: int = 32  # inside a residual block
    residual_blocks: int = 2
    code_dim: int = 64  # D, length of a latent vector
    num_codes: int = 512  # K, at each of the two levels
    codebook_decay: float = 0.99  # r of Eq. (3), (4)

    # EncoderB1
    transformer_width: int = 256
    transformer_blocks: int = 4
    transformer_heads: int = 8
    transformer_feedback: bool = False  # feed the transformer's output back into F_mid2
    harmonic_input: bool = False  # it sees the solution of Laplace's equation in the hole, not zeros

    # Multi-dilation refiner
    refiner_channels: tuple[int, int, int] = (64, 128, 256)  # at full, half and quarter size
    refiner_blocks: int = 8
    dilation_rates: tuple[int, ...] = (1, 2, 4, 8)  # one entry = the single-rate variants of Table 6
    refiner_skips: bool = False  # skip connections from its encoder to its decoder, as in a U-Net
    refiner_residual: bool = False  # what it makes is added to its input in the hole, and starts at zero
    poisson_composite: bool = False  # its input: the VQ stage's result blended into the known pixels, not pasted

    config_version: int = 1

    def __post_init__(self) -> None:
        for name in ("refiner_channels", "dilation_rates"):
            if isinstance(getattr(self, name), list):  # JSON knows no tuples
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_several = str(field.type).startswith("tuple")
            values = value if isinstance(value, tuple) else (value,)
            kinds = {"bool": (bool,), "float": (float, int)}.get(str(field.type), (int,))
            fits = isinstance(value, tuple) == is_several and len(values) > 0
            if not fits or not all(type(single) in kinds for single in values):  # a bool is an int as well
                raise InvalidInputError(f"{field.name} can't be {repr(value)[:80]}.")
            most = _MOST_BLOCKS if field.name.endswith("_blocks") else _LARGEST_SIZE
            if max(values) > most:
                raise InvalidInputError(f"{field.name} must be at most {most}, not {repr(value)[:80]}.")
            if len(values) > _MOST_RATES:
                raise InvalidInputError(f"{field.name} must be at most {_MOST_RATES} numbers, not {len(values)}.")
            if field.name not in _MAY_BE_ZERO and str(field.type) != "bool" and not all(values):
                raise InvalidInputError(f"{field.name} must be at least 1, not {value}.")
            if min(values) < 0:
                raise InvalidInputError(f"{field.name} must not be negative, not {value}.")
        if len(self.refiner_channels) != 3:
            raise InvalidInputError(f"refiner_channels must be three positive sizes, not {self.refiner_channels}.")
        if self.refiner_channels[2] % 4:
            raise InvalidInputError(
                f"The last of refiner_channels must be divisible by 4, not {self.refiner_channels[2]}."
            )
        if self.transformer_width % (4 * self.transformer_heads):
            # Rotary positions turn pairs of features, half of them by row and half by column.
            raise InvalidInputError(
                "transformer_width must be divisible by four times transformer_heads, "
                f"not {self.transformer_width} with {self.transformer_heads} heads."
            )
        if not 0 < self.codebook_decay < 1:
            raise InvalidInputError(f"codebook_decay must lie between 0 and 1, not {self.codebook_decay}.")

    @classmethod
    def preset(cls, name: str) -> HVQConfig:
        """The configuration called `name`, one of `PRESETS`."""
        if name not in PRESETS:
            raise InvalidInputError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
        return PRESETS[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dump` takes (tuples become lists when they are read back)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HVQConfig:
        """The inverse of `to_dict`; a name that no field has is an error that says so."""
        version = values.get("config_version", 1)
        if isinstance(version, int) and version > cls.config_version:
            raise InvalidInputError(
                f"The configuration is of version {version} and this hvq_inpaint reads up to {cls.config_version}: "
                "install a newer hvq_inpaint."
            )
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            shown = ", ".join(
                name if name.isidentifier() and len(name) < 40 else repr(name)[:40] for name in unknown[:3]
            )
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise InvalidInputError(
                f"The configuration has fields that this version of hvq_inpaint does not know: {shown}{more}."
            )
        return cls(**values)


PRESETS: dict[str, HVQConfig] = {
    # The sizes of the paper: 15.7 M parameters.
    "paper": HVQConfig(),
    # The bundled model: a refiner of half the width, which two CPU cores can train, and three additions.
    "small": HVQConfig(
        transformer_feedback=True, refiner_channels=(32, 64, 128), refiner_skips=True, poisson_composite=True
    ),
    # Tests: every part is there, a training step takes milliseconds.
    "tiny": HVQConfig(
        stem_channels=8,
        mid_channels=16,
        residual_channels=8,
        residual_blocks=1,
        code_dim=8,
        num_codes=32,
        transformer_width=32,
        transformer_blocks=4,
        transformer_heads=2,
        transformer_feedback=True,
        refiner_channels=(8, 12, 16),
        refiner_blocks=2,
        refiner_skips=True,
        poisson_composite=True,
    ),
}

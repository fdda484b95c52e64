from __future__ import annotations

import json

import pytest
import torch

from hvq_inpaint import HVQConfig, HVQInpainter, InvalidInputError
from hvq_inpaint.config import PRESETS


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_survives_json(name):
    config = HVQConfig.preset(name)
    assert HVQConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_paper_has_about_15_7_million_parameters():
    with torch.device("meta"):
        model = HVQInpainter(HVQConfig.preset("paper"))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(15.7e6, rel=0.01)


def test_the_paper_s_preset_has_none_of_the_additions_and_the_bundled_one_has_three():
    additions = ("transformer_feedback", "refiner_skips", "poisson_composite")
    assert not any(
        getattr(HVQConfig.preset("paper"), name) for name in (*additions, "harmonic_input", "refiner_residual")
    )
    assert all(getattr(HVQConfig.preset("small"), name) for name in additions)
    assert HVQConfig() == HVQConfig.preset("paper")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_codes": 0}, "num_codes"),
        ({"dilation_rates": []}, "dilation_rates"),
        ({"transformer_width": 100}, "transformer_width"),
        ({"refiner_channels": [1, 2]}, "refiner_channels"),
        ({"codebook_decay": 1.0}, "codebook_decay"),
        ({"colour": "blue"}, "colour"),
        ({"config_version": 99, "fields_of_the_future": 1}, "newer"),
        ({"num_codes": "many"}, "num_codes can't be 'many'"),
        ({"refiner_blocks": -1}, "refiner_blocks must not be negative"),
        ({"transformer_feedback": 1}, "transformer_feedback can't be 1"),
        ({"num_codes": True}, "num_codes can't be True"),
        ({"num_codes": [512]}, "num_codes can't be"),
        ({"refiner_channels": 64}, "refiner_channels can't be 64"),
        ({"mid_channels": 10**9}, "mid_channels must be at most 65536"),
        ({"transformer_blocks": 10**9}, "transformer_blocks must be at most 128"),
        ({"codebook_decay": float("nan")}, "codebook_decay"),
    ],
)
def test_sizes_that_make_no_network_are_refused(change, message):
    with pytest.raises(InvalidInputError, match=message):
        HVQConfig.from_dict({**HVQConfig().to_dict(), **change})


def test_an_unknown_preset_names_those_that_exist():
    with pytest.raises(InvalidInputError, match="paper"):
        HVQConfig.preset("papr")

"""Options from the preset, a file and the command line, in this order; what is none is refused with a suggestion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hvq_inpaint import InvalidInputError
from hvq_inpaint.training.command_line import parse_options, to_file
from hvq_inpaint.training.options import TrainingOptions

NEEDED = ["--stage", "encoder", "--dataset", "photographs", "--output", "runs/a"]


def test_the_later_goes_before_the_earlier(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("preset: tiny\nbatch-size: 7\nlearning_rate: 2e-4\nmask_kinds: [box, brush]\nmixed_precision: no\n")
    options = parse_options([*NEEDED, "--config", str(file), "--learning-rate", "5e-4"])[0]
    assert (options.workers, options.crop_size) == (TrainingOptions("encoder", "", "").workers, 32)  # default, preset
    assert (options.batch_size, options.mask_kinds, options.mixed_precision) == (7, ("box", "brush"), "no")  # file
    assert options.learning_rate == 5e-4  # command line
    assert parse_options(NEEDED)[0] == TrainingOptions("encoder", "photographs", "runs/a", preset="paper")


def test_a_json_file_may_hold_all_there_is_and_a_value_for_each_stage(tmp_path: Path):
    values = {"stage": "all", "dataset": "photographs", "output": "runs/a", "steps": [900, 800, 700], "compile": True}
    (tmp_path / "config.json").write_text(json.dumps(values))
    stages = parse_options(["--config", str(tmp_path / "config.json")])
    assert [(options.stage, options.steps, options.compile) for options in stages] == [
        ("autoencoder", 900, True),
        ("encoder", 800, True),
        ("refiner", 700, True),
    ]
    assert not parse_options(["--config", str(tmp_path / "config.json"), "--no-compile"])[0].compile


def test_what_a_run_saves_starts_the_same_run(tmp_path: Path):
    more = ["--preset", "small", "--adam-betas", "0.5", "0.99", "--no-tf32", "--learning-rate", "1e-5", "--resume"]
    options = parse_options([*NEEDED, *more, "--mixed-precision", "no", "--log-with", "none"])
    (tmp_path / "config.yaml").write_text(to_file(options[0]))
    assert "resume" not in yaml.safe_load(to_file(options[0]))
    assert parse_options(["--config", str(tmp_path / "config.yaml"), "--resume"]) == options


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lerning-rate", "1"], r"^There is no option --lerning-rate: did you mean --learning-rate\?$"),
        (["--learning-rat=1"], r"did you mean --learning-rate\?$"),
        (["--zzz"], r"^There is no option --zzz\.$"),
        (["--preset", "smal"], r"'smal' is none of paper, small, tiny: did you mean small\?$"),
        (["--loss", "zzz"], r"'zzz' is none of .*unit_features_lpips\.$"),
        (["--mask-kinds", "box", "brushes"], r"did you mean brush\?$"),
        (["--steps", "many"], r"--steps: invalid int value: 'many'\.$"),
        (["--log-with", "tensorbord"], r"did you mean tensorboard\?$"),
    ],
)
def test_wrong_names_and_values_are_refused_with_a_suggestion(more, message):
    with pytest.raises(InvalidInputError, match=message):
        parse_options([*NEEDED, *more])


def test_what_is_needed_is_named():
    with pytest.raises(InvalidInputError, match=r"required: --stage, --output\.$"):
        parse_options(["--dataset", "photographs"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 1", r"config\.yaml: there is no option lerning_rate: did you mean learning_rate\?$"),
        ("config: other.yaml", r"there is no option config"),
        ("preset: smal", r"did you mean small\?$"),
        ("compile: maybe", r"compile must be true or false, not 'maybe'\.$"),
        ("- 1\n- 2", r"must hold names and values"),
        ("a: [1", r"is neither YAML nor JSON"),
        (None, r"There is no file .*config\.yaml\.$"),
    ],
)
def test_a_file_that_says_what_there_is_not_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        parse_options([*NEEDED, "--config", str(tmp_path / "config.yaml")])

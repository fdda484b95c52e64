"""An evaluation that was broken off or shared out has the figures of a whole one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import OPTIONS, make_model, random_alexnet

from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.evaluation.evaluate import (
    evaluate,
    measure_records,
    settings_of,
    summarise,
)
from hvq_inpaint.evaluation.networks import MetricNetworks
from hvq_inpaint.evaluation.records import RecordFolder, discard_records
from hvq_inpaint.metrics import LPIPS

NAMED = {"dataset": "photographs", "split": "test", "device": "cpu", "export": None}


class Stops(list):
    """Image files of which the third can't be reached."""

    def __getitem__(self, index):
        if index == 2:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_a_broken_off_evaluation_goes_on_where_it_stood(model, files, evaluation, tmp_path):
    def folder() -> RecordFolder:
        return RecordFolder(tmp_path / "records", settings_of(model, files, OPTIONS, MetricNetworks(), **NAMED))

    with pytest.raises(KeyboardInterrupt):
        measure_records(model, Stops(files), OPTIONS, folder())
    assert list(folder()) == [*(f"000000-00{setting}" for setting in range(4)), "000000-images"]
    (tmp_path / "records" / "000001-000.partial").write_bytes(b"half a record")

    read: list[int] = []

    class Counted(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    measure_records(model, Counted(files), OPTIONS, folder())
    assert read == [2]
    assert summarise(model, folder(), len(files), OPTIONS) == evaluation
    discard_records(tmp_path / "records")
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("changed", ["seed", "model", "config", "network", "dataset", "split", "device", "export"])
def test_records_of_other_settings_are_not_continued(model, files, tmp_path, changed):
    RecordFolder(tmp_path, settings_of(model, files, OPTIONS, MetricNetworks(), **NAMED))["x"] = {"x": np.zeros(1)}
    assert list(RecordFolder(tmp_path, settings_of(model, files, OPTIONS, MetricNetworks(), **NAMED))) == ["x"]
    models = {"model": make_model(seed=1), "config": make_model(poisson_composite=False)}
    now = settings_of(
        models.get(changed, model),
        files,
        replace(OPTIONS, seed=1) if changed == "seed" else OPTIONS,
        MetricNetworks(LPIPS(random_alexnet())) if changed == "network" else MetricNetworks(),
        **{**NAMED, **({changed: "another"} if changed in NAMED else {})},
    )
    with pytest.raises(InvalidInputError, match="other settings"):
        RecordFolder(tmp_path, now)


def test_nothing_but_records_is_ever_deleted(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"holds something else \(mine.txt\)"):
        RecordFolder(tmp_path / "records", {})
    with pytest.raises(InvalidInputError, match="something else"):
        discard_records(tmp_path / "records")
    assert (tmp_path / "records" / "mine.txt").read_text() == "mine"
    discard_records(tmp_path / "nowhere")


def test_shares_of_several_processes_make_the_same_figures(model, files, evaluation, networks):
    options = replace(OPTIONS, batch_size=1, metrics=("psnr_hole", "lpips", "fd"))
    together: dict[str, dict] = {}
    measure_records(model, files, options, together, networks, process=1, processes=2)
    assert {name[:6] for name in together} == {"000001"}
    measure_records(model, files, options, together, networks, process=0, processes=2)
    assert summarise(model, together, len(files), options, networks) == evaluate(model, files, options, networks)


def test_a_result_that_is_not_finite_is_refused_and_not_left_out_of_the_mean(files):
    broken = make_model()
    with torch.no_grad():
        broken.refiner.output.bias.fill_(math.nan)
    with pytest.raises(InvalidInputError, match=r"The refined result of one of the images \[0, 1\] is not finite"):
        evaluate(broken, files, OPTIONS)

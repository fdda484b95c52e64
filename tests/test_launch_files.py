"""The launch files in docs/accelerate are ones that Accelerate takes, for as many machines as they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

FOLDER = Path(__file__).parent.parent / "docs" / "accelerate"


@pytest.mark.parametrize(
    ("name", "kind", "machines", "processes"),
    [
        ("one_gpu", DistributedType.NO, 1, 1),
        ("one_node", DistributedType.MULTI_GPU, 1, 8),
        ("several_nodes", DistributedType.MULTI_GPU, 8, 64),
    ],
)
def test_accelerate_reads_them(name, kind, machines, processes):
    path = FOLDER / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.distributed_type == kind
    assert (config.num_machines, config.num_processes) == (machines, processes)
    assert config.mixed_precision == "bf16" and not config.use_cpu
    # What Accelerate does not know it refuses; what it leaves out it would ask for.
    assert set(yaml.safe_load(path.read_text())) <= set(vars(config))
    assert f"docs/accelerate/{name}.yaml" in path.read_text()


def test_all_of_them_are_tried():
    assert {path.stem for path in FOLDER.iterdir()} == {"one_gpu", "one_node", "several_nodes"}

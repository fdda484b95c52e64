"""How long it takes until a model can be used: `python benchmarks/model_load.py`.

In fresh processes, each of which imports PyTorch first, then the package, and loads a model. Printed are the medians in
seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

PROGRAM = """
import json, sys, time
start = time.perf_counter()
import torch
with_torch = time.perf_counter()
from hvq_inpaint import HVQInpainter
imported = time.perf_counter()
HVQInpainter.from_pretrained(sys.argv[1])
print(json.dumps([with_torch - start, imported - with_torch, time.perf_counter() - imported]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub/model", help="a folder or a Hub id (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="processes, after one of warm-up (default: %(default)s)")
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds + 1):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, options.model], capture_output=True, text=True, check=True
        )
        rounds.append(json.loads(done.stdout))
    torch_, package, load = (statistics.median(times) for times in zip(*rounds[1:], strict=True))
    print("| import torch | import of the package | loading | beyond torch |")
    print("|---:|---:|---:|---:|")
    print(f"| {torch_:.2f} | {package:.2f} | {load:.2f} | {package + load:.2f} |")


if __name__ == "__main__":
    main()

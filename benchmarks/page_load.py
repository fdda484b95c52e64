"""The page under load: `python benchmarks/page_load.py`.

It starts `app.py` as a process of its own, then many clients at once send photographs of 512 x 512 pixels, a quarter of
them missing, through the API for two minutes, each the next one as soon as it has its answer. Every answer is compared
with what was sent: its known pixels have to be the same, bit for bit. Who is told that the queue is full tries again a
second later. Memory is the resident size of the page's process.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from PIL import Image

from hvq_inpaint.masks import brush_mask

ROOT = Path(__file__).resolve().parent.parent
SIDE = 512
FULL = "queue is full"  # of Gradio's own sentence


@dataclass
class Load:
    """What happened."""

    seconds_to_start: float  # from the start of the process to its first answer
    seconds_to_import: float  # of a process that only imports torch and gradio
    alone: float = 0.0  # seconds of an answer while nobody else asks, median
    alone_fill: float = 0.0  # of which the fill itself took so many, by the page's report
    answered: list[float] = field(default_factory=list)  # seconds of each, waiting included
    fills: list[float] = field(default_factory=list)  # seconds of each fill itself
    full: int = 0  # told that the queue is full
    failures: list[str] = field(default_factory=list)  # anything else that was not an answer
    wrong: int = 0  # answers with a known pixel changed
    memory: list[float] = field(default_factory=list)  # MB: before the load, at its end of each quarter, afterwards

    def __str__(self) -> str:
        waits = sorted(self.answered) or [float("nan")]
        return "\n".join(
            [
                "| answered | told that the queue is full | failed | known pixels changed | median s | longest s |",
                "|---:|---:|---:|---:|---:|---:|",
                f"| {len(self.answered)} | {self.full} | {len(self.failures)} | {self.wrong} "
                f"| {statistics.median(waits):.1f} | {waits[-1]:.1f} |",
                "",
                "| memory before, MB | " + " | ".join(f"quarter {number}" for number in (1, 2, 3, 4)) + " | after |",
                "|---:" * 6 + "|",
                "| " + " | ".join(f"{megabytes:.0f}" for megabytes in self.memory) + " |",
                "",
                f"An answer while nobody else asks: {self.alone:.1f} seconds, of which the fill {self.alone_fill:.1f}. "
                "The page answered "
                f"{self.seconds_to_start:.1f} seconds after its start; importing torch and gradio alone took "
                f"{self.seconds_to_import:.1f}.",
            ]
        )


@contextmanager
def page(folder: Path, options: Sequence[str]) -> Iterator[tuple[str, int, float]]:
    """`app.py` as a process of its own: its address, its process and the seconds that it took to answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(folder / "gradio"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "app.py"), "--host", "127.0.0.1", "--port", str(port), *options]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    address, start = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while True:
            try:
                httpx.get(address, timeout=10).raise_for_status()
                break
            except httpx.TransportError:
                if process.poll() is not None:
                    raise RuntimeError((folder / "log.txt").read_text()) from None
                time.sleep(0.05)
        yield address, process.pid, time.monotonic() - start
    finally:
        process.terminate()
        process.wait(60)


def visit(address: str, number: int, folder: Path, until: float, load: Load) -> None:
    """One client's photographs, until the time is over."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    mask = brush_mask(SIDE, SIDE, 0.25, number)
    image.save(folder / f"{number}.png")
    Image.fromarray(mask).save(folder / f"mask{number}.png")
    client = Client(address, verbose=False, download_files=str(folder / "downloads"))
    pixels = np.asarray(image)
    while time.monotonic() < until:
        start = time.monotonic()
        try:
            (path,), _, report = client.predict(
                handle_file(str(folder / f"{number}.png")),
                handle_file(str(folder / f"mask{number}.png")),
                api_name="/inpaint",
            )
        except (AppError, QueueError, httpx.HTTPError) as error:
            if FULL in str(error).lower():
                load.full += 1
                time.sleep(1)
            else:
                load.failures.append(f"{type(error).__name__}: {error}")
            continue
        load.answered.append(time.monotonic() - start)
        load.fills.append(report["seconds"])
        with Image.open(path) as result:
            load.wrong += not np.array_equal(np.asarray(result)[~mask], pixels[~mask])
    client.close()


def measure(clients: int, seconds: float, options: Sequence[str] = ()) -> Load:
    """The load of so many clients at once for so many seconds; `options` are further ones of `app.py`."""
    importing = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch, gradio"], check=True)
    importing = time.monotonic() - importing
    with tempfile.TemporaryDirectory() as name, page(Path(name), options) as (address, pid, started):
        folder, process, first = Path(name), psutil.Process(pid), Load(started, importing)
        visit(address, clients, folder, time.monotonic() + 10, first)  # what is allocated once is there afterwards
        if not first.answered:
            raise RuntimeError(f"The page gave one client no answer: {first.failures}")
        alone = statistics.median(first.answered), statistics.median(first.fills)
        load = Load(started, importing, *alone, memory=[process.memory_info().rss / 1e6])
        start = time.monotonic()

        def watch() -> None:
            for quarter in (1, 2, 3, 4):
                time.sleep(max(0.0, start + seconds * quarter / 4 - time.monotonic()))
                load.memory.append(process.memory_info().rss / 1e6)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(clients) as pool:
            jobs = [pool.submit(visit, address, number, folder, start + seconds, load) for number in range(clients)]
            for job in jobs:
                job.result()
        watcher.join()
        load.memory.append(process.memory_info().rss / 1e6)
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20, help="at once (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=120, help="(default: %(default)s)")
    arguments, options = parser.parse_known_args()
    load = measure(arguments.clients, arguments.seconds, options)
    print(load)
    for failure in dict.fromkeys(load.failures):
        print(f"failed: {failure}")


if __name__ == "__main__":
    main()

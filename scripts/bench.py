#!/usr/bin/env python3
"""Compares dualenc with its peers in alternating rounds and prints the tables of docs/PERFORMANCE.md.

Run it with scripts/bench.sh, which builds dualenc, installs the packages and sets DUALENC and DUALENC_SPEED:

    scripts/bench.sh [ROW]... [--rounds N] [--quick] [--write FILE] [--busy]

scripts/bench_rows.py lists the rows. The default is every row with its data available, without ll-1m, ll-1m-bf16 and
fit-1m, which are measured if they are named.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

from bench_processes import first_step, fit, lit, ll
from bench_rows import BF16_FLAGS, NEEDS_QUICKSTART, ON_REQUEST, ORDER
from bench_table import Line, Peer, block, kind, write
from bench_workers import ROOT, Roofs, side_by_side

# Results are not written if other processes use more than this share of the cores.
MOST_BUSY = 0.1
PACKAGES = {
    "torch": "PyTorch", "transformers": "transformers", "torchvision": "torchvision", "pillow": "Pillow",
    "numpy": "NumPy", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO",
}


def busy() -> float:
    """The share of the cores that other processes use, measured over two seconds in which the workers are idle.

    PyTorch's threads wait for one another and lose more than dualenc's, so results of a busy machine favour dualenc.
    """
    if not Path("/proc/stat").exists():
        return 0.0

    def ticks() -> tuple[int, int]:
        values = [int(value) for value in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(values), values[3] + values[4]

    before = ticks()
    time.sleep(2)
    total, idle = (after - first for after, first in zip(ticks(), before))
    return 1 - idle / max(total, 1)


def processor() -> tuple[str, set[str]]:
    """Its name and its flags. Without /proc/cpuinfo, no flag is known."""
    name, flags = platform.processor() or platform.machine(), ""
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text()
        name = next(iter(re.findall(r"model name\s*: (.*)", text)), name)
        flags = next(iter(re.findall(r"flags\s*: (.*)", text)), "")
    return name, set(flags.split())


def machine() -> str:
    name, _ = processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    packages = ", ".join(f"{title} {version(package)}" for package, title in PACKAGES.items())
    return f"{cores} cores of {name}, {platform.system()}; rustc {rust}; Python {platform.python_version()}, {packages}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[[], *ORDER], metavar="ROW", help="rows to measure")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per row (default: 9; ll-1m at most 3)")
    parser.add_argument("--quick", action="store_true", help="3 rounds and 2 epochs, to check that every row runs")
    parser.add_argument(
        "--busy",
        action="store_true",
        help="with --write: write results even if other processes use more than a tenth of the cores",
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="update the tables of this kind of processor in FILE; keep the rows not measured if machine and versions "
        "are the same",
    )
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    rows = arguments.rows or [row for row in ORDER if row not in ON_REQUEST]
    if not (ROOT / "quickstart/data/train.csv").exists():
        skipped = NEEDS_QUICKSTART.intersection(rows)
        rows = [row for row in rows if row not in skipped]
        if skipped:
            names = ", ".join(sorted(skipped))
            print(f"skipping {names}: no quickstart data; run scripts/quickstart.sh --data-only", file=sys.stderr)
    readers = {"images-jpeg": {"images-jpeg"}, "images-jpeg-large": {"images-jpeg-large", "images-jpeg-fast"}}
    for name in readers:
        if readers[name].intersection(rows):
            subprocess.run([sys.executable, ROOT / "scripts/bench_images.py", name], check=True)
    _, flags = processor()
    units = kind(flags, platform.machine())
    others = [busy()]
    roofs = Roofs.measured(rounds)
    print(f"{units}; {roofs}", file=sys.stderr)
    lines: list[Line] = []
    peers: list[Peer] = []
    for row in rows:
        started = time.perf_counter()
        if row.endswith("-bf16") and not BF16_FLAGS & flags:
            measured = [], [Peer(row, "all", left_out="the processor has neither AVX512_BF16 nor AMX")]
        elif row == "lit":
            measured = lit(arguments.quick), []
        elif row == "first-step":
            measured = first_step(rounds), []
        elif row.startswith("ll-1m"):
            measured = ll(row, 1 if arguments.quick else min(rounds, 3), roofs)
        elif row == "fit-1m":
            measured = fit(rounds, roofs)
        else:
            measured = side_by_side(row, rounds)
        lines += measured[0]
        peers += measured[1]
        for line in [*measured[0], *measured[1]]:
            print(line, file=sys.stderr)
        print(f"{row}: took {time.perf_counter() - started:.0f} s", file=sys.stderr)
        others.append(busy())
    facts = f"{roofs}; other processes used at most {100 * max(others):.0f} % of the cores between rows"
    print(block(units, f"{machine()}; {facts}", [str(line) for line in lines], [str(peer) for peer in peers]))
    if max(others) > MOST_BUSY:
        print("warning: other processes are running, and they slow the peers down more than dualenc", file=sys.stderr)
    if arguments.write and (arguments.quick or max(others) > MOST_BUSY and not arguments.busy):
        sys.exit("error: not written: `--write` needs a run without `--quick` and an idle machine, or `--busy`")
    if arguments.write:
        write(arguments.write, units, lines, peers, machine(), facts)


if __name__ == "__main__":
    main()

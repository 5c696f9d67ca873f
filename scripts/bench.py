#!/usr/bin/env python3
"""Compares dualenc with PyTorch in alternating rounds and prints the table of docs/PERFORMANCE.md.

Run it with scripts/bench.sh, which builds dualenc, installs the packages and sets DUALENC and DUALENC_SPEED:

    scripts/bench.sh [ROW]... [--rounds N] [--quick] [--write FILE] [--busy]

ROW is one of: vit bert bert-captions infonce images-jpeg images-jpeg-large images-png first-step lit. The default is
every row with its data available.
"""

import argparse
import csv
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "runs/bench"
DUALENC = Path(os.environ["DUALENC"])
SPEED = Path(os.environ["DUALENC_SPEED"])
EPOCHS, BATCH = 20, 256
# Results are not written if other processes use more than this share of the cores.
MOST_BUSY = 0.1
BEGIN, END = "<!-- begin: written by scripts/bench.sh -->", "<!-- end: written by scripts/bench.sh -->"

# Rows measured in alternating rounds: title and target ratio.
SIDE_BY_SIDE = {
    "vit": ("locked ViT-S/16 forward pass, 16 images at 224 px", 0.95),
    "bert": ("MiniLM-L6 training step, 64 captions of 32 tokens", 0.95),
    "bert-captions": ("MiniLM-L6 training step, 64 quickstart captions (PyTorch pads to 32 tokens)", 0.5),
    "infonce": ("InfoNCE forward and backward pass, 4096 x 512", 0.8),
    "images-jpeg": ("96 JPEG photos, 500 x 375 to 224 px", 0.5),
    "images-jpeg-large": ("24 JPEG photos, 1600 x 1200 to 224 px", 0.5),
    "images-png": ("256 PNG drawings, 128 x 128 to 224 px", 0.5),
}
NEEDS_QUICKSTART = {"images-png", "first-step", "lit"}


@dataclass
class Line:
    """One line of the table. `ratios` holds one entry per round."""

    title: str
    pytorch: str
    dualenc: str
    ratios: list[float]
    target: str
    limit: str = ""

    def __str__(self) -> str:
        median, low, high = statistics.median(self.ratios), min(self.ratios), max(self.ratios)
        spread = f" ({low:.3g} to {high:.3g})" if len(self.ratios) > 1 else ""
        ratio = f"**{median:.3g}**{spread}"
        return f"| {self.title} | {self.pytorch} | {self.dualenc} | {ratio} | {self.target} | {self.limit} |"


class Worker:
    """A process that measures one round for each line it reads."""

    def __init__(self, command: list):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: `{self.process.args}` exited before it reported a measurement")
        return json.loads(line)

    def measure(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.facts = self.read()
        return self.facts["ms"][0]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


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


def side_by_side(name: str, rounds: int) -> list[Line]:
    ours, theirs = Worker([SPEED, name]), Worker([sys.executable, ROOT / "scripts/bench_pytorch.py", name])
    roof = Worker([SPEED, "gemm"]) if ours.facts["flops"] else None
    times = []
    for index in range(rounds):
        first, second = (ours, theirs) if index % 2 else (theirs, ours)
        measured = {first: first.measure(), second: second.measure()}
        times.append((measured[theirs], measured[ours], roof.measure() if roof else 0.0))
        print(f"{name}: PyTorch {times[-1][0]:.1f} ms, dualenc {times[-1][1]:.1f} ms", file=sys.stderr)
    pytorch, dualenc = (statistics.median(column) for column in list(zip(*times))[:2])
    limit = ""
    if roof:
        shares = [ours.facts["flops"] / mine / (roof.facts["flops"] / best) for _, mine, best in times]
        limit = f"{statistics.median(shares):.2f} of the GEMM roof"
    ratios = [mine / other for other, mine, _ in times]
    title, target = SIDE_BY_SIDE[name]
    lines = [Line(title, f"{pytorch:.0f} ms", f"{dualenc:.0f} ms", ratios, f"{target}", limit)]
    if images := ours.facts["images"]:
        if name.startswith("images"):
            lines[0].limit = f"{1e3 * images / dualenc:.0f} images/s"
    if name == "infonce":
        peaks = [worker.facts["peak_rss_mb"] for worker in (theirs, ours)]
        lines.append(Line("InfoNCE peak memory", f"{peaks[0]:.0f} MB", f"{peaks[1]:.0f} MB", [peaks[1] / peaks[0]], "0.4"))
    for worker in (ours, theirs, roof):
        if worker:
            worker.close()
    return lines


def roofs(rounds: int) -> str:
    workers = [Worker([SPEED, name]) for name in ("gemm", "gemm-mlp", "memory")]
    best = [[worker.measure() for worker in workers] for _ in range(rounds)]
    gemm, mlp, copy = (min(column) for column in zip(*best))
    facts = [worker.facts for worker in workers]
    for worker in workers:
        worker.close()
    return (
        f"GEMM roof {facts[0]['flops'] / gemm / 1e6:.0f} GFLOP/s (2048 x 2048 x 2048; {facts[1]['flops'] / mlp / 1e6:.0f} "
        f"at 2048 x 384 x 1536), memory bandwidth {facts[2]['bytes'] / copy / 1e6:.0f} GB/s (reads and writes)"
    )


@dataclass
class Run:
    """A whole process: total seconds, peak memory in MB, and each printed line with its time in seconds."""

    seconds: float
    peak_mb: float
    printed: list[tuple[float, str]]

    def when(self, start: str) -> float:
        return next(seconds for seconds, line in self.printed if line.startswith(start))


def run(command: list) -> Run:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed = [(time.perf_counter() - started, line) for line in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {command} exited with {process.returncode}:\n" + "".join(line for _, line in printed[-20:]))
    return Run(time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e6, printed)


def prepare_lit() -> int:
    """Writes the inputs of the LiT job, with names as captions, for both programs. Returns the number of drawings."""
    WORK.mkdir(parents=True, exist_ok=True)
    with (ROOT / "quickstart/data/train.csv").open(encoding="utf-8") as file:
        # The first caption of a drawing is its name.
        names = {row["image"]: row["caption"] for row in reversed(list(csv.DictReader(file)))}
    with (WORK / "names.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *names.items()])
    (WORK / "lit.toml").write_text(f"""\
run = {{ dir = "lit" }}
model = {{ image_tower = "../../quickstart/towers/vit-s14", text_tower = "../../quickstart/towers/minilm-l6", image_size = 112 }}
data = {{ max_tokens = 32, train.csv = {{ path = "names.csv", root = "../../quickstart/data", image = "image", caption = "caption" }} }}
cache = {{ dir = "cache" }}
checkpoint = {{ every_steps = 100000, keep = 1 }}

[train]
epochs = {EPOCHS}
batch_size = {BATCH}
learning_rate = 5e-4
warmup_steps = 30
duplicates = "ignore"

[eval]
unseen-vendor = {{ task = "zero-shot", images = "../../quickstart/data/unseen-vendor", every_epochs = 5 }}
unseen-concepts = {{ task = "zero-shot", images = "../../quickstart/data/unseen-concepts", every_epochs = 5 }}
""")
    return len(names)


def train(*settings: str, warm: bool = True) -> Run:
    shutil.rmtree(WORK / "lit", ignore_errors=True)
    if not warm:
        shutil.rmtree(WORK / "cache", ignore_errors=True)
    sets = [part for setting in settings for part in ("--set", setting)]
    return run([DUALENC, "train", "--config", WORK / "lit.toml", "--log", "plain", *sets])


def lit(quick: bool) -> list[Line]:
    prepare_lit()
    epochs = 2 if quick else EPOCHS
    sets = [f"train.epochs={epochs}", f"train.warmup_steps={min(30, 10 * epochs - 1)}"]
    job = [sys.executable, ROOT / "scripts/quickstart_pytorch.py", "--epochs"]
    by_hand = run([*job, f"{epochs}"])
    cold = train(*sets, warm=False)
    warm = train(*sets)
    # Without a cache all epochs take equally long: measure one, with start-up and evaluation, and extrapolate.
    one = run([*job, "1", "--no-cache"])
    epoch_s = float(re.findall(r"epoch 1 \((.*?) s\)", "".join(line for _, line in one.printed))[0])
    uncached_s = one.seconds + (epochs - 1) * epoch_s
    title = f"LiT job: quickstart, {epochs} epochs, process start to evaluated model"

    def seconds(title: str, theirs: float, ours: float, target: str) -> Line:
        return Line(title, f"{theirs:.0f} s", f"{ours:.0f} s", [ours / theirs], target)

    def peak(title: str, theirs: Run) -> Line:
        ratios = [cold.peak_mb / theirs.peak_mb]
        return Line(f"LiT job, peak memory; {title}", f"{theirs.peak_mb:.0f} MB", f"{cold.peak_mb:.0f} MB", ratios, "0.4")

    without = "PyTorch without a cache"
    by_hand_title = "PyTorch with features cached by hand"
    return [
        seconds(f"{title}; {without} (extrapolated from 1 epoch)", uncached_s, cold.seconds, "0.12"),
        seconds(f"{title}; {by_hand_title}", by_hand.seconds, cold.seconds, "0.7"),
        seconds(f"LiT job, second run with a full feature cache; {by_hand_title}", by_hand.seconds, warm.seconds, "0.5"),
        peak(without, one),
        peak(by_hand_title, by_hand),
    ]


def first_step(rounds: int) -> list[Line]:
    import torch

    torch.save(torch.rand(prepare_lit(), 384), WORK / "features.pt")
    # No evaluation, because bench_pytorch.py runs none. The first run fills the cache.
    sets = ("train.epochs=", "train.steps=1", "train.warmup_steps=0", "eval.unseen-vendor=", "eval.unseen-concepts=")
    train(*sets)
    rounds_ = []
    for _ in range(rounds):
        theirs, ours = run([sys.executable, ROOT / "scripts/bench_pytorch.py", "first-step"]), train(*sets)
        rounds_.append((theirs.seconds, ours.when("step 1/1"), ours.seconds))
        print("first-step: PyTorch {:.2f} s, dualenc {:.2f} s, to its exit {:.2f} s".format(*rounds_[-1]), file=sys.stderr)
    theirs, step, end = (statistics.median(column) for column in zip(*rounds_))
    title = "process start to first training step, features cached"
    return [
        Line(title, f"{theirs:.2f} s", f"{step:.2f} s", [step / theirs for theirs, step, _ in rounds_], "0.1"),
        Line("process start to exit after one step; dualenc also writes a checkpoint", f"{theirs:.2f} s", f"{end:.2f} s",
             [end / theirs for theirs, _, end in rounds_], ""),
    ]


def machine() -> str:
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        model = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    import torch
    import torchvision
    import PIL
    import transformers

    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return (
        f"{cores} cores of {model}, {platform.system()}; rustc {rust}; Python {platform.python_version()}, PyTorch "
        f"{torch.__version__}, transformers {transformers.__version__}, torchvision {torchvision.__version__}, Pillow "
        f"{PIL.__version__}"
    )


def table(lines: list[str], machine_line: str) -> str:
    head = "| on all cores, f32 | PyTorch | dualenc | ratio: median (range) | target | limit |\n|" + " --- |" * 6
    return "\n".join([BEGIN, f"Measured on {machine_line}.", "", head, *lines, END])


def write(path: Path, lines: list[Line], machine_line: str, roof: str) -> None:
    """Updates `lines` in the table of the file. Keeps its other lines if machine and versions are the same."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    title = lambda line: line.split(" | ")[0]  # noqa: E731
    kept = [line for line in old.splitlines() if line.startswith("| ")][2:] if machine_line in old else []
    order = {title(line): line for line in kept} | {title(str(line)): str(line) for line in lines}
    path.write_text(before + table(list(order.values()), f"{machine_line}; {roof}") + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*SIDE_BY_SIDE, "first-step", "lit"]
    parser.add_argument("rows", nargs="*", choices=[[], *known], metavar="ROW", help="rows to measure")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per row (default: 9)")
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
        help="update the table in FILE; keep the rows not measured if machine and versions are the same",
    )
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    rows = arguments.rows or known
    if not (ROOT / "quickstart/data/train.csv").exists():
        skipped = NEEDS_QUICKSTART.intersection(rows)
        rows = [row for row in rows if row not in skipped]
        if skipped:
            names = ", ".join(sorted(skipped))
            print(f"skipping {names}: no quickstart data; run scripts/quickstart.sh --data-only", file=sys.stderr)
    for name in ("images-jpeg", "images-jpeg-large"):
        if name in rows:
            subprocess.run([sys.executable, ROOT / "scripts/bench_images.py", name], check=True)
    others = [busy()]
    roof = roofs(rounds)
    print(roof, file=sys.stderr)
    lines = []
    for row in rows:
        if row == "lit":
            measured = lit(arguments.quick)
        elif row == "first-step":
            measured = first_step(rounds)
        else:
            measured = side_by_side(row, rounds)
        lines += measured
        for line in measured:
            print(line, file=sys.stderr)
        others.append(busy())
    facts = f"{roof}; other processes used at most {100 * max(others):.0f} % of the cores between rows"
    print(table([str(line) for line in lines], f"{machine()}; {facts}"))
    if max(others) > MOST_BUSY:
        print("warning: other processes are running, and they slow PyTorch down more than dualenc", file=sys.stderr)
    if arguments.write and (arguments.quick or max(others) > MOST_BUSY and not arguments.busy):
        sys.exit("error: not written: `--write` needs a run without `--quick` and an idle machine, or `--busy`")
    if arguments.write:
        write(arguments.write, lines, machine(), facts)


if __name__ == "__main__":
    main()

"""Module of scripts/bench.py: processes that take turns, and whole processes that are timed."""

import json
import os
import re
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_rows import FORMS, ROWS
from bench_table import Line, Peer

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "runs/bench"
DUALENC = Path(os.environ["DUALENC"])
SPEED = Path(os.environ["DUALENC_SPEED"])
# Seconds that a peer may take to get ready, compilers included, and for a round.
MOST_SECONDS = 900
# Seconds before a turn. Threads of the process before it wait in a loop for a while after their last operation.
PAUSE = 0.1


class Failed(Exception):
    """A process gave no measurement. Its text is the reason, in one line."""


class Worker:
    """A process that measures one round for each line it reads. Its stderr goes to a file in runs/bench/logs."""

    def __init__(self, command: list, name: str):
        log = WORK / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
            )
        self.facts = self.read()

    def read(self) -> dict:
        if not select.select([self.process.stdout], [], [], MOST_SECONDS)[0]:
            self.process.kill()
            self.process.wait()
            raise Failed(f"no answer within {MOST_SECONDS} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(reason(self.log.read_text(errors="replace"), self.process.wait()))
        return json.loads(line)

    def measure(self) -> float:
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        self.facts = self.read()
        return self.facts["ms"][0]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def reason(log: str, status: int) -> str:
    """One line of what a process wrote to stderr before it ended with `status`."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    # Below an exception, PyTorch writes advice.
    errors = [line for line in lines if re.match(r"error: |[\w.]*(Error|Exception|InvalidCxxCompiler)\b", line)]
    last = (errors or lines or [f"it ended with status {status} and wrote nothing"])[-1]
    return last.removeprefix("error: ")[:200]


def ours(name: str) -> Worker:
    """dualenc's half of a row, or one of the machine's roofs."""
    try:
        return Worker([SPEED, name], name)
    except Failed as failed:
        sys.exit(f"error: `{SPEED} {name}`: {failed}")


def peers(row: str, forms: tuple[str, ...]) -> tuple[dict[str, Worker], list[Peer]]:
    """The peers of a row that are ready, and those that are left out."""
    ready, left_out = {}, []
    for form in forms:
        try:
            ready[form] = Worker([sys.executable, ROOT / "scripts/bench_pytorch.py", row, form], f"{row}-{form}")
        except Failed as failed:
            print(f"{row}: {FORMS[form]}: left out: {failed}", file=sys.stderr)
            left_out.append(Peer(row, FORMS[form], left_out=str(failed)))
    return ready, left_out


def in_turns(
    row: str, ours: Callable[[], float], ready: dict[str, Worker], left_out: list[Peer], rounds: int,
    roof: Worker | None = None,
) -> list[dict[str, float]]:
    """The milliseconds of each form in each round; dualenc's have the name `dualenc`.

    Each round starts with another form. A peer that fails is left out of all rounds.
    """
    times = []
    for index in range(rounds):
        turns = [("dualenc", ours), *((form, worker.measure) for form, worker in ready.items())]
        start = index % len(turns)
        measured = {}
        for form, measure in [*turns[start:], *turns[:start]]:
            time.sleep(PAUSE)
            try:
                measured[form] = measure()
            except Failed as failed:
                if form == "dualenc":
                    sys.exit(f"error: dualenc: {row}: {failed}")
                print(f"{row}: {FORMS[form]}: left out: {failed}", file=sys.stderr)
                left_out.append(Peer(row, FORMS[form], left_out=str(failed)))
                del ready[form]
        if roof:
            measured["roof"] = roof.measure()
        shown = ", ".join(f"{form} {ms:.1f}" for form, ms in measured.items() if form != "roof")
        print(f"{row}: ms: {shown}", file=sys.stderr)
        times.append(measured)
    return times


def compared(
    row: str, title: str, target: str, times: list[dict[str, float]], forms: list[str], shown: Callable[[float], str]
) -> tuple[list[Line], list[Peer]]:
    """The line of a row, against the peer with the lowest median, and all peers from the fastest on."""
    median = lambda form: statistics.median(measured[form] for measured in times)  # noqa: E731
    ratios = lambda form: [measured["dualenc"] / measured[form] for measured in times]  # noqa: E731
    order = sorted(forms, key=median)
    if not order:
        print(f"{row}: no peer is left", file=sys.stderr)
        return [], []
    fastest = order[0]
    line = Line(row, title, FORMS[fastest], shown(median(fastest)), shown(median("dualenc")), ratios(fastest), target)
    return [line], [Peer(row, FORMS[form], shown(median(form)), ratios(form)) for form in order]


def side_by_side(row: str, rounds: int) -> tuple[list[Line], list[Peer]]:
    described = ROWS[row]
    mine = ours(row)
    ready, left_out = peers(row, described.forms)
    roof = ours("gemm") if mine.facts["flops"] else None
    times = in_turns(row, mine.measure, ready, left_out, rounds, roof)
    shown = lambda ms: f"{ms:.0f} ms"  # noqa: E731
    lines, measured = compared(row, described.title, described.target, times, list(ready), shown)
    ms = statistics.median(round_["dualenc"] for round_ in times)
    if lines and roof:
        rates = [mine.facts["flops"] / round_["dualenc"] for round_ in times]
        shares = [rate / (roof.facts["flops"] / round_["roof"]) for rate, round_ in zip(rates, times)]
        # The roof is in f32.
        in_f32 = not row.endswith("-bf16")
        share = f"{statistics.median(shares):.2f} of the GEMM roof"
        lines[0].limit = share if in_f32 else f"{statistics.median(rates) / 1e6:.0f} GFLOP/s"
    if lines and row.startswith("images"):
        lines[0].limit = f"{1e3 * mine.facts['images'] / ms:.0f} images/s"
    if lines and row == "infonce":
        least = min(ready, key=lambda form: ready[form].facts["peak_rss_mb"])
        peaks = [worker.facts["peak_rss_mb"] for worker in (ready[least], mine)]
        megabytes = [f"{peak:.0f} MB" for peak in peaks]
        lines.append(Line(row, "InfoNCE peak memory", FORMS[least], *megabytes, [peaks[1] / peaks[0]], "0.4"))
    for worker in (mine, *ready.values(), roof):
        if worker:
            worker.close()
    return lines, measured + left_out


@dataclass
class Roofs:
    """What the machine can do: operations a second of products in f32, and bytes a second."""

    gemm: float
    gemm_mlp: float
    bandwidth: float

    @classmethod
    def measured(cls, rounds: int) -> "Roofs":
        workers = [ours(name) for name in ("gemm", "gemm-mlp", "memory")]
        seconds = [[worker.measure() / 1e3 for worker in workers] for _ in range(rounds)]
        best = [min(column) for column in zip(*seconds)]
        for worker in workers:
            worker.close()
        gemm, mlp, memory = (worker.facts for worker in workers)
        return cls(gemm["flops"] / best[0], mlp["flops"] / best[1], memory["bytes"] / best[2])

    def __str__(self) -> str:
        return (
            f"GEMM roof {self.gemm / 1e9:.0f} GFLOP/s (2048 x 2048 x 2048; {self.gemm_mlp / 1e9:.0f} at 2048 x 384 x "
            f"1536), memory bandwidth {self.bandwidth / 1e9:.0f} GB/s (reads and writes)"
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

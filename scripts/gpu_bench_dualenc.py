"""Module of scripts/gpu_bench.py: runs `dualenc`, and reads its log, the GPU's counters and CubeCL's profile."""

import collections
import datetime
import json
import re
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path


class Gpu:
    """Samples memory and utilisation with nvidia-smi; without it, everything is empty."""

    def __init__(self):
        self.samples: list[tuple[float, list[float]]] = []
        self.process = None
        if shutil.which("nvidia-smi"):
            query = "--query-gpu=memory.used,utilization.gpu,utilization.memory,power.draw"
            command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "100"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            try:
                self.samples.append((time.time(), [float(value) for value in line.split(",")]))
            except ValueError:
                continue

    def between(self, start: float, end: float) -> dict:
        """Peak memory in GB, mean share of time in which a kernel ran, mean power."""
        found = [values for at, values in self.samples if start <= at <= end]
        if not found:
            return {}
        memory, busy, _, power = zip(*found)
        return {"memory_gb": max(memory) * 1.048576e-3, "busy": statistics.mean(busy) / 100, "watt": statistics.mean(power)}

    def close(self):
        if self.process:
            self.process.terminate()


class Failed(Exception):
    """dualenc exited with an error or ran too long."""


class Runner:
    """Runs one binary. `timeout`: seconds that one run may take."""

    def __init__(self, name: str, path: str, device: str, work: Path, out: Path, gpu: Gpu, timeout: float):
        self.name, self.path, self.device, self.work, self.out, self.gpu = name, path, device, work, out, gpu
        self.timeout = timeout

    def run(self, label: str, *arguments: str, cwd: Path | None = None, device: str | None = None):
        """The lines of the JSON log, each with `at`, the time in seconds."""
        log = self.out / f"logs/{self.name}-{label}.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [self.path, *arguments, "--device", device or self.device, "--log", "json"]
        started = time.time()
        with log.open("w") as file:
            try:
                done = subprocess.run(command, stderr=file, stdout=subprocess.DEVNULL, cwd=cwd or self.work,
                                      timeout=self.timeout, check=False)
            except subprocess.TimeoutExpired as error:
                raise Failed(f"{label}: no end after {self.timeout} s; last lines: {tail(log)}") from error
        if done.returncode:
            raise Failed(f"{label}: exit code {done.returncode}; last lines: {tail(log)}")
        lines = []
        for line in log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
                record["at"] = datetime.datetime.fromisoformat(record["timestamp"]).timestamp()
                lines.append(record)
            except (ValueError, KeyError, TypeError):
                continue
        return started, lines

    def train(self, label: str, config: str, steps: int, settings: dict, cwd: Path | None = None) -> dict:
        run_dir = self.work / f"runs/{self.name}-{label}"
        shutil.rmtree(run_dir, ignore_errors=True)
        sets = {"run.dir": run_dir, "train.steps": steps} | settings
        arguments = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
        started, lines = self.run(label, "train", "--config", str(self.work / config), *arguments, cwd=cwd)
        shutil.rmtree(run_dir, ignore_errors=True)
        rows = [line for line in lines if line["kind"] == "train"]
        warm = max(1, min(len(rows) - 2, max(5, len(rows) // 3)))
        steady = rows[warm:]
        seconds = steady[-1]["at"] - rows[warm - 1]["at"]
        batch = settings["train.batch_size"]
        return {
            "per_s": batch * len(steady) / seconds,
            "ms": 1e3 * seconds / len(steady),
            "median_ms": 1e3 * statistics.median(batch / row["pairs_per_sec"] for row in steady),
            "first_s": rows[0]["at"] - started,
            "warm_up_s": rows[warm - 1]["at"] - started,
            "loader_wait": statistics.median(row.get("loader_wait") or 0.0 for row in steady),
            "steady_steps": len(steady),
            "losses": [row["loss"] for row in rows],
        } | self.gpu.between(rows[warm - 1]["at"], steady[-1]["at"])

    def features(self, label: str, config: str, cache: Path, precision: str, cwd: Path | None = None) -> dict:
        """Images per second of a locked image tower over uncompressed images, once a quarter of them is done."""
        shutil.rmtree(cache, ignore_errors=True)
        arguments = ["--set", f"cache.dir={cache}", "--set", f"run.locked_precision={precision}"]
        started, lines = self.run(label, "cache", "--config", str(self.work / config), *arguments, cwd=cwd)
        work = [line for line in lines if line["kind"] == "work"]
        first = next(line for line in work if line["done"] >= work[-1]["total"] / 4)
        seconds = work[-1]["at"] - first["at"]
        return {
            "per_s": (work[-1]["done"] - first["done"]) / seconds,
            "first_s": work[0]["at"] - started,
            "images": work[-1]["done"],
        } | self.gpu.between(first["at"], work[-1]["at"])


def tail(path: Path) -> str:
    return path.read_text(errors="replace")[-1500:]


def seconds_of(text: str) -> float:
    """The value of a duration as CubeCL prints it, such as `12.3µs`."""
    value, unit = re.fullmatch(r"([0-9.]+)(ns|µs|ms|s)", text).groups()
    return float(value) * {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def read_profile(path: Path) -> list[tuple[str, float]]:
    """Kernels in the order in which they ran: name and seconds."""
    kernels = []
    for line in path.read_text(errors="replace").splitlines():
        if match := re.match(r".*?\| ([0-9.]+(?:ns|µs|ms|s)) *\| (.*)", line):
            if not re.match(r"\d", match[2]):
                kernels.append((match[2].strip(" |"), seconds_of(match[1])))
    return kernels


def period_of(names: list[str], longest: int = 12000) -> int | None:
    """The smallest number of launches after which at least 97 of 100 names repeat at the end of the list."""
    ids = {name: index for index, name in enumerate(dict.fromkeys(names))}
    values = [ids[name] for name in names]
    for period in range(3, min(longest, len(values) // 2)):
        last, before = values[-period:], values[-2 * period : -period]
        if last[0] == before[0] and sum(a == b for a, b in zip(last, before)) >= 0.97 * period and len(set(last)) > 2:
            return period
    return None


def by_kernel(kernels: list[tuple[str, float]], steps: float) -> list[tuple[str, float, float]]:
    """Name, launches and microseconds a step, of the slowest kernel first."""
    count, total = collections.Counter(), collections.Counter()
    for name, seconds in kernels:
        count[name] += 1
        total[name] += seconds
    return [(name, count[name] / steps, 1e6 * seconds / steps) for name, seconds in total.most_common()]

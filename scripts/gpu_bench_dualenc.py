"""Module of scripts/gpu_bench.py: runs `dualenc`, and reads its log, the GPU's counters and CubeCL's profile.

A run spends its first minute or more on compiling and tuning kernels, on one core. So runs start together, each is
stopped (SIGSTOP) once it is warm, and then they go on one after the other, alone on the GPU, to be measured.
"""

import collections
import datetime
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time
import zlib
from pathlib import Path


class Gpu:
    """Samples memory and utilisation with nvidia-smi; without it, everything is empty."""

    def __init__(self):
        self.samples: list[tuple[float, list[float]]] = []
        self.process = None
        if shutil.which("nvidia-smi"):
            query = "--query-gpu=memory.used,utilization.gpu,power.draw"
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
        """Mean share of time in which a kernel ran, and mean power."""
        found = [values for at, values in self.samples if start <= at <= end]
        if not found:
            return {}
        _, busy, power = zip(*found)
        return {"busy": statistics.mean(busy) / 100, "watt": statistics.mean(power)}

    def close(self):
        if self.process:
            self.process.terminate()


def memory_of(pid: int) -> float | None:
    """GPU memory of a process in GB."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False).stdout
        sizes = [line.split(",") for line in out.splitlines()]
        return next((float(size) * 1.048576e-3 for owner, size in sizes if int(owner) == pid), None)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


class Job:
    """A run of `dualenc` that is held once it is warm.

    `kind` names the log lines that count; a run is warm after `warm` of them, and measured over `measured` more, or to
    its end. `after`: a job that must end first.
    """

    def __init__(
        self,
        label: str,
        command: list[str],
        folder: Path,
        log: Path,
        kind: str,
        warm: int,
        measured: int | None,
        after: "Job | None" = None,
        kernels: Path | None = None,
    ):
        self.label, self.command, self.folder, self.log, self.kind = label, command, folder, log, kind
        self.warm, self.measured, self.after = warm, measured, after
        # Each job has its own caches of compiled kernels: dualenc's (Burn's), and the driver's.
        self.env = (
            os.environ | {"XDG_CACHE_HOME": f"{kernels}", "CUDA_CACHE_PATH": f"{kernels}/driver"} if kernels else None
        )
        self.process, self.file, self.state, self.rest = None, None, "waiting", ""
        self.lines: list[dict] = []
        self.started = self.ended = self.resumed = 0.0
        self.held_at = 0
        self.memory_gb = None

    def start(self):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                self.command, stderr=out, stdout=subprocess.DEVNULL, cwd=self.folder, env=self.env
            )
        self.file, self.started, self.state = self.log.open(errors="replace"), time.time(), "running"

    def poll(self):
        """Reads new lines and notices the end."""
        code = self.process.poll()
        *whole, self.rest = (self.rest + self.file.read()).split("\n")
        for line in whole:
            try:
                record = json.loads(line)
                record["at"] = datetime.datetime.fromisoformat(record["timestamp"]).timestamp()
                self.lines.append(record)
            except (ValueError, KeyError, TypeError):
                continue
        if code is not None and self.state in ("running", "held"):
            self.ended, self.state = time.time(), "done" if code == 0 else f"exit code {code}"

    def rows(self) -> list[dict]:
        return [line for line in self.lines if line.get("kind") == self.kind]

    def hold(self):
        self.process.send_signal(signal.SIGSTOP)
        self.held_at, self.state = len(self.rows()), "held"

    def kill(self, state: str):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.state = state

    def go_on(self, timeout: float):
        """Measures the run alone."""
        self.resumed, self.state = time.time(), "running"
        self.process.send_signal(signal.SIGCONT)
        while self.state == "running":
            time.sleep(0.02)
            self.poll()
            if self.measured is not None and len(self.rows()) > self.held_at + self.measured:
                self.memory_gb = memory_of(self.process.pid)
                return self.kill("done")
            if time.time() - self.resumed > timeout:
                self.kill(f"not measured within {timeout:.0f} s")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1200:] if self.log.exists() else ""


def run_all(jobs: list[Job], tuning_s: float, timeout: float, over) -> None:
    """Warms all jobs at once and measures one after the other. `over` says that time is up."""
    started = time.time()
    while True:
        for job in jobs:
            if job.state == "waiting" and (job.after is None or job.after.state not in ("waiting", "running", "held")):
                job.start()
            elif job.state == "running":
                job.poll()
                if job.state == "running" and job.warm and len(job.rows()) >= job.warm:
                    job.hold()
        if not any(job.state in ("waiting", "running") for job in jobs):
            break
        if time.time() - started > tuning_s or over():
            for job in jobs:
                if job.state in ("waiting", "running"):
                    job.kill(f"not warm after {tuning_s:.0f} s, {len(job.rows())} of {job.warm}")
            break
        time.sleep(0.02)
    for job in jobs:
        if job.state == "held":
            job.kill("no time left") if over() else job.go_on(timeout)


def seconds_of(text: str) -> float:
    """The value of a duration as CubeCL prints it, such as `12.3µs`."""
    value, unit = re.fullmatch(r"([0-9.]+)(ns|µs|ms|s)", text).groups()
    return float(value) * {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def read_profile(path: Path) -> list[tuple[str, float]]:
    """Kernels in the order in which they ran: name, variant and grid (`MatmulEntry #c08e 432x12x1`), and seconds.

    CubeCL writes a record over several lines: `| 12.3µs | path::of::Kernel<..>: what it was compiled for` to
    `CubeCount Static(432, 12, 1)`, and then a table.
    """
    kernels, record = [], None
    for line in path.read_text(errors="replace").splitlines():
        match = re.match(r".*?\| ([0-9.]+(?:ns|µs|ms|s)) *\| (.*)", line)
        if match and not re.match(r"\d", match[2]):
            record = [match[2].strip(" |"), seconds_of(match[1])]
            kernels.append(record)
        elif "⎺" in line:
            record = None
        elif record:
            record[0] += line
    return [(kernel_name(text), seconds) for text, seconds in kernels]


def kernel_name(record: str) -> str:
    info, _, grid = record.partition("CubeCount")
    name = re.match(r"[\w:]*", info)[0].strip(":").split("::")[-1]
    variant = f"{zlib.crc32(info.encode()) & 0xFFFF:04x}"
    return f"{name} #{variant} {'x'.join(re.findall('[0-9]+', grid))}".strip()


def last_periods(kernels: list[tuple[str, float]], repeats: int, tail: int = 60000) -> list[tuple[str, float]] | None:
    """The launches of the last `repeats` steps. The rarest kernel of the last steps marks them: it runs once in each."""
    names = [name for name, _ in kernels[-tail:]]
    count = collections.Counter(names)
    last_seen = {name: index for index, name in enumerate(names)}
    steady = [name for name in count if count[name] > repeats + 1]
    for name in sorted(steady, key=lambda name: (count[name], -last_seen[name])):
        places = [index for index, other in enumerate(names) if other == name][-repeats - 1 :]
        gaps = [after - before for before, after in zip(places, places[1:])]
        # Not a kernel of the first steps, or of every other step.
        if max(gaps) <= 1.05 * min(gaps) and len(names) - places[-1] <= 1.05 * max(gaps) + 20:
            return kernels[-tail:][places[0] : places[-1]]
    return None


def by_kernel(kernels: list[tuple[str, float]], steps: float) -> list[tuple[str, float, float]]:
    """Name, launches and microseconds a step, of the slowest kernel first."""
    count, total = collections.Counter(), collections.Counter()
    for name, seconds in kernels:
        count[name] += 1
        total[name] += seconds
    return [(name, count[name] / steps, 1e6 * seconds / steps) for name, seconds in total.most_common()]

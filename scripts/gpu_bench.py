#!/usr/bin/env python3
"""Measures dualenc and PyTorch on one GPU; run it with scripts/gpu_bench.sh, and see the head of that script.

Speeds of dualenc are those of a steady run of the command line: steps after a third of the run (Burn tunes kernels in
the first ones), by the timestamps of the log. `towers` is `dualenc cache` over uncompressed images of the tower's size:
reading, normalising and copying them to the GPU are in it. PyTorch's inputs are on the GPU already, unless a row says
"upload". Utilisation is nvidia-smi's share of time in which at least one kernel ran, sampled while steps are steady.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import gpu_bench_data
from gpu_bench_dualenc import Gpu, Job, by_kernel, last_periods, read_profile, run_all

ROOT = Path(__file__).resolve().parent.parent
ROWS = ["parity", "towers", "profile", "lu", "uu", "start"]


class Bench:
    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.out, self.started = arguments, Path(arguments.out).resolve(), time.time()
        self.work = Path(arguments.work).resolve() if arguments.work else self.out / "work"
        self.out.mkdir(parents=True, exist_ok=True)
        self.results: list[dict] = []
        self.gpu, self.quick = Gpu(), arguments.quick
        gpu_bench_data.prepare(self.work, 48 if self.quick else arguments.images)
        self.binaries = {}
        for given in arguments.dualenc:
            name, _, path = given.rpartition("=")
            self.binaries[name or "dualenc"] = str(Path(path).resolve())
        # Jobs of the present wave, with what makes a result of each.
        self.jobs: list[tuple[Job, str, str, str, object]] = []
        self.torch_jobs: list[dict] = []
        self.fill: Job | None = None

    def is_over(self) -> bool:
        return time.time() - self.started > self.arguments.budget

    def add(self, row: str, name: str, who: str, result: dict) -> None:
        """Keeps a result, in the file too, so that a killed run loses nothing."""
        result = {"row": row, "name": name, "who": who} | result
        self.results.append(result)
        (self.out / "results.json").write_text(json.dumps(self.results, indent=1))
        shown = {key: value for key, value in result.items() if key not in ("losses", "kernels", "row", "name", "who")}
        print(
            f"{time.time() - self.started:.0f} s: {row}: {name}: {who}: " + json.dumps(shown)[:900],
            file=sys.stderr,
            flush=True,
        )

    def job(
        self,
        who: str,
        label: str,
        command: list,
        settings: dict,
        kind: str,
        warm: int,
        measured: int | None,
        cwd: Path | None = None,
        after: Job | None = None,
        device: str | None = None,
        kernels: str | None = None,
    ) -> Job:
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        device = device or self.arguments.device
        command = [self.binaries[who], *map(str, command), *sets, "--device", device, "--log", "json"]
        return Job(
            label,
            command,
            cwd or self.work,
            self.out / f"logs/{who}-{label}.jsonl",
            kind,
            warm,
            measured,
            after,
            self.work / "kernels" / (kernels or f"{who}-{label}"),
        )

    def train(
        self, who: str, label: str, config: str, settings: dict, cwd: Path | None = None, after: Job | None = None
    ) -> Job:
        run_dir = self.work / f"runs/{who}-{label}"
        shutil.rmtree(run_dir, ignore_errors=True)
        settings = {"run.dir": run_dir, "train.steps": 100000} | settings
        warm, measured = (1, 2) if self.quick else (6, self.arguments.steps)
        return self.job(
            who, label, ["train", "--config", self.work / config], settings, "train", warm, measured, cwd, after
        )

    def features(
        self, who: str, label: str, config: str, cache: Path, precision: str, cwd: Path | None = None, hold: bool = True
    ) -> Job:
        shutil.rmtree(cache, ignore_errors=True)
        settings = {"cache.dir": cache, "run.locked_precision": precision}
        warm = (1 if self.quick else 3) if hold else 0
        return self.job(who, label, ["cache", "--config", self.work / config], settings, "work", warm, None, cwd)

    def cache(self) -> tuple[Path, Job | None]:
        """The feature cache that `lu` reads, and the job that fills it, if it is not filled yet."""
        folder = self.work / "cache"
        if self.fill is None and not folder.exists():
            who = next(iter(self.binaries))
            self.fill = self.features(who, "fill", "lu-vit-s16.toml", folder, "f32", hold=False)
            self.jobs.append((self.fill, "towers", "vit-s16, f32", who, lambda job: self.images_per_s(job, 0)))
        return folder, self.fill

    def pairs_per_s(self, job: Job, batch: int) -> dict:
        rows = job.rows()
        # The step in which it was held does not count.
        steady = rows[job.held_at :]
        seconds, steps = steady[-1]["at"] - steady[0]["at"], len(steady) - 1
        return {
            "per_s": batch * steps / seconds,
            "ms": 1e3 * seconds / steps,
            "median_ms": 1e3 * statistics.median(batch / row["pairs_per_sec"] for row in steady[1:]),
            "first_s": rows[0]["at"] - job.started,
            "warm_up_s": rows[job.warm - 1]["at"] - job.started,
            "loader_wait": statistics.median(row.get("loader_wait") or 0.0 for row in steady[1:]),
            "memory_gb": job.memory_gb,
            "steps": steps,
            "losses": [row["loss"] for row in rows],
        } | self.gpu.between(steady[0]["at"], steady[-1]["at"])

    def images_per_s(self, job: Job, held_at: int) -> dict:
        rows = job.rows()
        # A quarter of the images, at least: the queue of decoded images was full when the run was held.
        first = next(index for index, row in enumerate(rows) if index > held_at and row["done"] >= row["total"] / 4)
        seconds = rows[-1]["at"] - rows[first]["at"]
        return {
            "per_s": (rows[-1]["done"] - rows[first]["done"]) / seconds,
            "ms": 1e3 * seconds / (len(rows) - 1 - first),
            "first_s": rows[0]["at"] - job.started,
            "images": rows[-1]["done"],
        } | self.gpu.between(rows[first]["at"], rows[-1]["at"])

    def parity(self) -> None:
        """The small reference run: 12 steps of a tiny model."""
        golden = ROOT / "tests/goldens/train"
        (self.work / "golden.toml").write_text(
            f'[run]\ndir = "golden"\nlog_every_steps = 1\n[model]\ninit = "{golden}/init"\nlock = "LU"\n'
            f'[data]\nshuffle = false\n[data.train.csv]\npath = "{golden}/train.csv"\n'
            "[train]\nsteps = 12\nbatch_size = 8\nlearning_rate = 1e-3\n"
        )
        for who in self.binaries:

            def run(label: str, device: str) -> Job:
                run_dir = self.work / f"golden-{who}-{label}"
                shutil.rmtree(run_dir, ignore_errors=True)
                return self.job(
                    who,
                    f"parity-{label}",
                    ["train", "--config", self.work / "golden.toml"],
                    {"run.dir": run_dir},
                    "train",
                    0,
                    None,
                    device=device,
                )

            cpu, other = run("cpu", "cpu"), run("device", self.arguments.device)

            def compare(job: Job, cpu: Job = cpu) -> dict:
                ours, expected = ([row["loss"] for row in rows] for rows in (job.rows(), cpu.rows()))
                worst = max(abs(a - b) / abs(a) for a, b in zip(expected, ours, strict=True))
                first, last = job.rows()[0]["at"] - job.started, job.ended - job.started
                return {"losses": ours, "worst": worst, "first_s": first, "whole_s": last}

            self.jobs.append((cpu, "", "", who, None))
            self.jobs.append(
                (other, "parity", "12 losses of the golden run, largest relative difference from cpu", who, compare)
            )

    def lu(self) -> None:
        cache, fill = self.cache()
        for variant in ["16:f32:0.1"] if self.quick else self.arguments.lu:
            batch, precision, dropout = variant.split(":")
            for who in self.binaries:
                settings = {
                    "cache.dir": cache,
                    "train.batch_size": int(batch),
                    "model.text_dropout": dropout,
                    "run.precision": precision,
                }
                job = self.train(who, f"lu-{batch}-{precision}-{dropout}", "lu-vit-s16.toml", settings, after=fill)
                self.jobs.append(
                    (
                        job,
                        "lu",
                        f"batch {batch}, {precision}, dropout {dropout}",
                        who,
                        lambda job, batch=int(batch): self.pairs_per_s(job, batch),
                    )
                )
        sizes = [256, 1024, 4096]
        kinds = [("bf16", True), ("bf16", False), ("tf32", False)]
        jobs = [(precision, compiled, batch, 0.1) for precision, compiled in kinds for batch in sizes]
        jobs += [("f32", False, sizes[-1], 0.1), ("bf16", True, sizes[-1], 0.0)]
        self.torch_jobs += [
            dict(
                row="lu",
                name=f"batch {batch}, {precision}, dropout {dropout}",
                precision=precision,
                compile=compiled,
                batch=batch,
                dropout=dropout,
                rounds=20,
            )
            for precision, compiled, batch, dropout in jobs
        ]

    def start(self) -> None:
        """The first step of a process that finds the kernels of an earlier one, which `lu` ran."""
        cache, fill = self.cache()
        batch, precision, dropout = self.arguments.lu[0].split(":")
        for who in self.binaries:
            label = f"lu-{batch}-{precision}-{dropout}"
            run_dir = self.work / f"runs/{who}-start"
            shutil.rmtree(run_dir, ignore_errors=True)
            settings = {
                "run.dir": run_dir,
                "cache.dir": cache,
                "train.batch_size": batch,
                "model.text_dropout": dropout,
                "run.precision": precision,
                "train.steps": 3,
            }
            job = self.job(
                who,
                "start",
                ["train", "--config", self.work / "lu-vit-s16.toml"],
                settings,
                "train",
                0,
                None,
                after=fill,
                kernels=f"{who}-{label}",
            )
            self.jobs.append(
                (
                    job,
                    "start",
                    f"batch {batch}, {precision}, dropout {dropout}, second process",
                    who,
                    lambda job: {"first_s": job.rows()[0]["at"] - job.started, "whole_s": job.ended - job.started},
                )
            )

    def uu(self) -> None:
        batch = 8 if self.quick else self.arguments.uu_batch
        for who in self.binaries:
            job = self.train(who, "uu", "uu.toml", {"train.batch_size": batch})
            self.jobs.append(
                (
                    job,
                    "uu",
                    f"batch {batch}, f32, dropout 0.1, JPEG files",
                    who,
                    lambda job: self.pairs_per_s(job, batch),
                )
            )
        self.torch_jobs += [
            dict(
                row="uu",
                name=f"batch {batch}, {precision}, dropout 0.1",
                precision=precision,
                compile=compiled,
                batch=batch,
                dropout=0.1,
                rounds=10,
            )
            for precision, compiled in [("bf16", False), ("bf16", True), ("tf32", False)]
        ]

    def towers(self) -> None:
        self.cache()
        for tower in gpu_bench_data.VITS:
            for precision in ["f32"] if self.quick else self.arguments.precisions:
                for who in self.binaries:
                    label = f"{tower}-{precision}"
                    job = self.features(who, label, f"lu-{tower}.toml", self.work / f"cache-{who}-{label}", precision)
                    self.jobs.append(
                        (job, "towers", f"{tower}, {precision}", who, lambda job: self.images_per_s(job, job.held_at))
                    )
        variants = [
            ("bf16", True, False),
            ("bf16", False, True),
            ("bf16", False, False),
            ("f16", False, False),
            ("tf32", False, False),
            ("f32", False, False),
        ]
        self.torch_jobs += [
            dict(
                row="towers",
                name=f"{tower}, {precision}" + (", upload" if upload else ""),
                tower=tower,
                precision=precision,
                compile=compiled,
                upload=upload,
                batch=256,
                rounds=12,
            )
            for tower in gpu_bench_data.VITS
            for precision, compiled, upload in variants
        ]

    def profile(self) -> None:
        """CubeCL's own profile, by kernel and grid: which shapes the time goes to. Each kernel is waited for, so only
        times of kernels count, not those between them."""
        batch = 16 if self.quick else self.arguments.profile_batch
        cache, fill = self.cache()
        for who in self.binaries:
            for label in self.arguments.profiles:
                folder, log = self.work / f"profile-{who}-{label}", self.out / f"profile-{who}-{label}.log"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                log.unlink(missing_ok=True)
                (folder / "cubecl.toml").write_text(f'[profiling]\nlogger = {{ level = "full", file = "{log}" }}\n')
                if label == "lu":
                    settings = {"cache.dir": cache, "train.batch_size": batch}
                    job = self.train(who, "profile-lu", "lu-vit-s16.toml", settings, cwd=folder, after=fill)
                    name = f"training step, batch {batch}"
                else:
                    tower, precision = label.split(":")
                    job = self.features(
                        who, f"profile-{tower}-{precision}", f"lu-{tower}.toml", folder / "cache", precision, cwd=folder
                    )
                    name = f"{tower} {precision}, one chunk"

                def measure(job: Job, log: Path = log) -> dict:
                    kernels = read_profile(log)
                    steps = last_periods(kernels, repeats=4)
                    if steps is None:
                        raise ValueError(f"{len(kernels)} launches without a period")
                    table = by_kernel(steps, 4)
                    return {
                        "launches": len(steps) // 4,
                        "kernel_ms": sum(row[2] for row in table) / 1e3,
                        "kernels": table,
                    }

                self.jobs.append((job, "profile", name, who, measure))

    def wave(self, rows: list[str]) -> None:
        """Runs the rows together."""
        self.jobs, self.torch_jobs = [], []
        for row in rows:
            getattr(self, row)()
        torch = self.start_pytorch("-".join(rows)) if self.torch_jobs and not self.arguments.no_pytorch else None
        run_all([job for job, *_ in self.jobs], self.arguments.tuning, self.arguments.timeout, self.is_over)
        for job, row, name, who, measure in self.jobs:
            if measure is None:
                continue
            try:
                if job.state != "done":
                    raise ValueError(f"{job.state}; last lines: {job.tail()}")
                result = measure(job)
            except (ValueError, IndexError, KeyError, StopIteration, ZeroDivisionError, OSError) as error:
                result = {"error": f"{type(error).__name__}: {error}"}
            self.add(row, name, who, result)
            (self.out / "table.md").write_text(self.table())
        if torch:
            self.read_pytorch(torch)

    def start_pytorch(self, label: str) -> subprocess.Popen:
        """Starts PyTorch, which compiles while dualenc tunes, and waits for a line."""
        jobs = self.torch_jobs
        if self.quick:
            jobs = [job | {"rounds": 1, "batch": min(job["batch"], 8)} for job in jobs if not job["compile"]][:2]
        file = self.work / f"pytorch-{label}.json"
        file.write_text(json.dumps(jobs))
        command = [sys.executable, str(ROOT / "scripts/gpu_bench_pytorch.py"), self.arguments.device, str(file)]
        errors = (self.out / f"pytorch-{label}.log").open("w")
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)

    def read_pytorch(self, process: subprocess.Popen) -> None:
        process.stdin.write("\n")
        process.stdin.flush()
        for line in process.stdout:
            result = json.loads(line)
            who = "PyTorch compiled" if result.pop("compile") else "PyTorch eager"
            self.add(result.pop("row"), result.pop("name"), who, result)
            if self.is_over():
                process.kill()
        process.wait()

    def table(self) -> str:
        lines = ["| row | what | who | per s | ms | first s | GB | GPU busy |", "|" + " --- |" * 8]

        def cell(result: dict, *keys: str, form: str = "{:.3g}") -> str:
            found = next((result[key] for key in keys if result.get(key) is not None), None)
            return "" if found is None else form.format(found)

        for result in self.results:
            what = [result["row"], result["name"], result["who"]]
            if problem := result.get("error") or result.get("skipped"):
                lines.append("| " + " | ".join([*what, problem[:60].replace("\n", " ")]) + " | | | | |")
            elif result["row"] == "parity":
                lines.append("| " + " | ".join([*what, f"{result['worst']:.1e}"]) + " | | | | |")
            elif result["row"] == "profile":
                lines.append(
                    "| "
                    + " | ".join([*what, f"{result['launches']} launches", f"{result['kernel_ms']:.3g}"])
                    + " | | | |"
                )
            else:
                cells = [
                    cell(result, "per_s", form="{:.0f}"),
                    cell(result, "ms"),
                    cell(result, "first_s"),
                    cell(result, "memory_gb", "peak_gb"),
                    cell(result, "busy", form="{:.2f}"),
                ]
                lines.append("| " + " | ".join([*what, *cells]) + " |")
        for result in self.results:
            if "kernels" in result:
                total = sum(row[2] for row in result["kernels"]) or 1
                lines += [
                    "",
                    f"Kernels, {result['name']}, {result['who']}: {result['launches']} launches, "
                    f"{result['kernel_ms']:.3g} ms",
                    "",
                    "| kernel | launches | ms | share |",
                    "|" + " --- |" * 4,
                ]
                lines += [
                    f"| `{name[:90]}` | {count:.0f} | {micros / 1e3:.3f} | {micros / total:.2f} |"
                    for name, count, micros in result["kernels"][:16]
                ]
        return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "waves",
        nargs="*",
        metavar="ROW[+ROW]...",
        help=f"rows to measure, together if joined by +; "
        f"rows: {' '.join(ROWS)} (default: parity+towers+profile+lu+uu start)",
    )
    parser.add_argument("--dualenc", action="append", required=True, metavar="[NAME=]FILE", help="binary (repeatable)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", default="runs/gpu_bench")
    parser.add_argument("--work", default=None)
    parser.add_argument(
        "--lu",
        default="1024:f32:0.1,256:f32:0.1,4096:f32:0.1,4096:f32:0.0,4096:bf16:0.1",
        type=lambda text: text.split(","),
        metavar="BATCH:PRECISION:DROPOUT,...",
        help="variants of `lu`",
    )
    parser.add_argument("--uu-batch", default=128, type=int)
    parser.add_argument("--precisions", default="f32,bf16,f16", type=lambda text: text.split(","), help="of `towers`")
    parser.add_argument("--profiles", default="lu,vit-b16:bf16", type=lambda text: text.split(","))
    parser.add_argument("--steps", default=20, type=int, help="training steps measured")
    parser.add_argument("--images", default=4096, type=int, help="images, at least the largest batch (default 4096)")
    parser.add_argument("--profile-batch", default=1024, type=int)
    parser.add_argument("--budget", default=1e9, type=float, help="seconds after which nothing new starts")
    parser.add_argument("--tuning", default=600, type=float, help="seconds in which runs must become warm")
    parser.add_argument("--timeout", default=120, type=float, help="seconds in which a warm run must be measured")
    parser.add_argument("--no-pytorch", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a few small steps, to check the script")
    arguments = parser.parse_args()
    waves = [wave.split("+") for wave in arguments.waves or ["parity+towers+profile+lu+uu", "start"]]
    if unknown := {row for wave in waves for row in wave} - set(ROWS):
        parser.error(f"unknown row `{unknown.pop()}`; rows: {' '.join(ROWS)}")
    bench = Bench(arguments)
    for wave in waves:
        bench.wave(wave)
    (bench.out / "table.md").write_text(bench.table())
    bench.gpu.close()
    print(bench.table())


if __name__ == "__main__":
    main()

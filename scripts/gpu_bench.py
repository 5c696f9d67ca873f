#!/usr/bin/env python3
"""Measures dualenc and PyTorch on one GPU; run it with scripts/gpu_bench.sh, whose head documents it.

Speeds of dualenc are those of a steady run of the command line: steps after a third of the run (Burn tunes kernels in
the first ones), by the timestamps of the log. `towers` is `dualenc cache` over uncompressed images of the tower's size:
reading, normalising and copying them to the GPU are in it. PyTorch's inputs are on the GPU already, unless a row says
"upload". Utilisation is nvidia-smi's share of time in which at least one kernel ran, sampled while steps are steady.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import gpu_bench_data
from gpu_bench_dualenc import Failed, Gpu, Runner, by_kernel, period_of, read_profile

ROOT = Path(__file__).resolve().parent.parent
ROWS = ["parity", "lu", "uu", "towers", "profile"]


class Bench:
    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.out, self.started = arguments, Path(arguments.out).resolve(), time.time()
        self.work = Path(arguments.work).resolve() if arguments.work else self.out / "work"
        self.out.mkdir(parents=True, exist_ok=True)
        self.results: list[dict] = []
        self.gpu = Gpu()
        self.quick = arguments.quick
        gpu_bench_data.prepare(self.work, 48 if self.quick else arguments.images)
        self.runners = []
        for given in arguments.dualenc:
            name, _, path = given.rpartition("=")
            path = str(Path(path).resolve())
            self.runners.append(Runner(name or "dualenc", path, arguments.device, self.work, self.out, self.gpu,
                                       arguments.timeout))

    def is_over(self) -> bool:
        return time.time() - self.started > self.arguments.budget

    def add(self, row: str, name: str, who: str, measure) -> dict | None:
        """Runs `measure` and keeps what it returns, in the file too, so that a killed run loses nothing."""
        began = time.time()
        try:
            result = {"skipped": "budget"} if self.is_over() else measure()
        except (Failed, subprocess.SubprocessError, OSError, ValueError, IndexError, StopIteration) as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        result = {"row": row, "name": name, "who": who, "wall_s": round(time.time() - began, 1)} | result
        self.results.append(result)
        (self.out / "results.json").write_text(json.dumps(self.results, indent=1))
        shown = {key: value for key, value in result.items() if key not in ("losses", "kernels", "row", "name", "who")}
        print(f"{row}: {name}: {who}: " + json.dumps(shown)[:700], file=sys.stderr, flush=True)
        return None if "error" in result or "skipped" in result else result

    def parity(self) -> None:
        """The small reference run: 12 steps of a tiny model."""
        golden = ROOT / "tests/goldens/train"
        (self.work / "golden.toml").write_text(
            f'[run]\ndir = "golden"\nlog_every_steps = 1\n[model]\ninit = "{golden}/init"\nlock = "LU"\n'
            f'[data]\nshuffle = false\n[data.train.csv]\npath = "{golden}/train.csv"\n'
            "[train]\nsteps = 12\nbatch_size = 8\nlearning_rate = 1e-3\n")
        for runner in self.runners:
            def losses(device):
                run_dir = self.work / f"golden-{device}"
                shutil.rmtree(run_dir, ignore_errors=True)
                _, lines = runner.run(f"parity-{device.replace(':', '')}", "train", "--config", str(self.work / "golden.toml"),
                                      "--set", f"run.dir={run_dir}", device=device)
                return [line["loss"] for line in lines if line["kind"] == "train"]

            def compare():
                cpu, other = losses("cpu"), losses(runner.device)
                worst = max(abs(a - b) / abs(a) for a, b in zip(cpu, other, strict=True))
                return {"losses": other, "worst": worst, "steps": len(cpu)}

            self.add("parity", "12 losses of the golden run, largest relative difference from cpu", runner.name, compare)

    def fill_cache(self, runner: Runner) -> str:
        cache = self.work / "cache"
        if not (cache / "filled").exists():
            runner.features("fill", "lu-vit-s16.toml", cache, "f32")
            (cache / "filled").write_text("")
        return str(cache)

    def lu(self) -> None:
        steps = 4 if self.quick else 30
        for batch in [16] if self.quick else self.arguments.sizes:
            for precision, dropout in [("f32", 0.1), ("f32", 0.0), ("bf16", 0.1)]:
                if self.quick and precision != "f32":
                    continue
                for runner in self.runners:
                    def train():
                        settings = {"cache.dir": self.fill_cache(runner), "train.batch_size": batch,
                                    "model.text_dropout": dropout, "run.precision": precision}
                        return runner.train(f"lu-{batch}-{precision}-{dropout}", "lu-vit-s16.toml", steps, settings)

                    self.add("lu", f"batch {batch}, {precision}, dropout {dropout}", runner.name, train)
        jobs = [(precision, compiled, batch, 0.1) for precision, compiled in [("bf16", True), ("bf16", False), ("tf32", False)]
                for batch in self.arguments.sizes]
        jobs += [("f32", False, self.arguments.sizes[-1], 0.1), ("bf16", True, self.arguments.sizes[-1], 0.0)]
        self.pytorch("lu", [dict(name=f"batch {batch}, {precision}, dropout {dropout}", precision=precision, compile=compiled,
                                 batch=batch, dropout=dropout, rounds=20) for precision, compiled, batch, dropout in jobs])

    def uu(self) -> None:
        batch, steps = (8, 4) if self.quick else (256, 14)
        for runner in self.runners:
            settings = {"train.batch_size": batch}
            self.add("uu", f"batch {batch}, f32, dropout 0.1, JPEG files", runner.name,
                     lambda: runner.train("uu", "uu.toml", steps, settings))
        self.pytorch("uu", [dict(name=f"batch {batch}, {precision}, dropout 0.1", precision=precision, compile=compiled,
                                 batch=batch, dropout=0.1, rounds=10)
                            for precision, compiled in [("bf16", False), ("bf16", True), ("tf32", False)]])

    def towers(self) -> None:
        for tower in gpu_bench_data.VITS:
            for precision in ["f32"] if self.quick else ["f32", "bf16", "f16"]:
                for runner in self.runners:
                    # The cache of the row `lu`.
                    is_kept = (tower, precision) == ("vit-s16", "f32") and runner is self.runners[-1]
                    cache = self.work / ("cache" if is_kept else "cache-towers")
                    if self.add("towers", f"{tower}, {precision}", runner.name, lambda: runner.features(
                            f"{tower}-{precision}", f"lu-{tower}.toml", cache, precision)) and is_kept:
                        (cache / "filled").write_text("")
        batch = 8 if self.quick else 256
        variants = [("bf16", True, False), ("bf16", True, True), ("bf16", False, False), ("f16", False, False),
                    ("tf32", False, False), ("f32", False, False)]
        self.pytorch("towers", [dict(name=f"{tower}, {precision}" + (", upload" if upload else ""), tower=tower,
                                     precision=precision, compile=compiled, upload=upload, batch=batch, rounds=12)
                                for tower in gpu_bench_data.VITS for precision, compiled, upload in variants])

    def profile(self) -> None:
        """CubeCL's own profile. Each kernel is waited for, so only times of kernels count, not those between them."""
        batch = 16 if self.quick else self.arguments.profile_batch
        for runner in self.runners:
            for label, tower, steps in [("lu", "vit-s16", 4 if self.quick else 12), ("forward-bf16", "vit-b16", 0)]:
                folder = self.work / f"profile-{runner.name}-{label}"
                log = self.out / f"profile-{runner.name}-{label}.log"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                log.unlink(missing_ok=True)
                (folder / "cubecl.toml").write_text(f'[profiling]\nlogger = {{ level = "basic", file = "{log}" }}\n')

                def measure():
                    if steps:
                        settings = {"cache.dir": self.fill_cache(runner), "train.batch_size": batch}
                        timed = runner.train(f"profile-{label}", f"lu-{tower}.toml", steps, settings, cwd=folder)
                    else:
                        precision = "f32" if self.quick else "bf16"
                        timed = runner.features(f"profile-{label}", f"lu-{tower}.toml", folder / "cache", precision, cwd=folder)
                    kernels = read_profile(log)
                    period = period_of([name for name, _ in kernels])
                    if period is None:
                        raise ValueError(f"{len(kernels)} launches without a period")
                    # Several periods: one alone can hold an outlier.
                    periods = 2
                    table = by_kernel(kernels[-periods * period:], periods)
                    return {"launches": period, "kernel_ms": sum(row[2] for row in table) / 1e3,
                            "ms_while_profiled": timed.get("ms"), "kernels": table}

                name = f"training step, batch {batch}" if steps else f"{tower} forward pass, one chunk"
                self.add("profile", name, runner.name, measure)

    def pytorch(self, row: str, jobs: list[dict]) -> None:
        if self.arguments.no_pytorch or self.is_over():
            return
        if self.quick:
            jobs = [job | {"rounds": 1, "batch": min(job["batch"], 8)} for job in jobs if not job["compile"]][:2]
        file = self.work / f"pytorch-{row}.json"
        file.write_text(json.dumps([{"row": row} | job for job in jobs]))
        command = [sys.executable, str(ROOT / "scripts/gpu_bench_pytorch.py"), self.arguments.device, str(file)]
        with (self.out / f"pytorch-{row}.log").open("w") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            for line in process.stdout:
                result = json.loads(line)
                who = "PyTorch compiled" if result.pop("compile") else "PyTorch eager"
                self.add(row, result.pop("name"), who, lambda: result)
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
                lines.append("| " + " | ".join([*what, f"{result['launches']} launches", f"{result['kernel_ms']:.3g}"]) + " | | | |")
            else:
                cells = [cell(result, "per_s", form="{:.0f}"), cell(result, "ms"), cell(result, "first_s"),
                         cell(result, "memory_gb", "peak_gb"), cell(result, "busy", form="{:.2f}")]
                lines.append("| " + " | ".join([*what, *cells]) + " |")
        for result in self.results:
            if "kernels" in result:
                total = sum(row[2] for row in result["kernels"]) or 1
                lines += ["", f"Kernels, {result['name']}, {result['who']}: {result['launches']} launches, "
                          f"{result['kernel_ms']:.3g} ms", "", "| kernel | launches | ms | share |", "|" + " --- |" * 4]
                lines += [f"| `{name[:90]}` | {count:.0f} | {micros / 1e3:.3f} | {micros / total:.2f} |"
                          for name, count, micros in result["kernels"][:16]]
        return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"rows to measure: {' '.join(ROWS)} (default: all)")
    parser.add_argument("--dualenc", action="append", required=True, metavar="[NAME=]FILE", help="binary (repeatable)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", default="runs/gpu_bench")
    parser.add_argument("--work", default=None)
    parser.add_argument("--sizes", default="256,1024,4096", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--images", default=8192, type=int, help="images, at least the largest batch (default 8192)")
    parser.add_argument("--profile-batch", default=1024, type=int)
    parser.add_argument("--budget", default=1e9, type=float, help="seconds after which nothing new starts")
    parser.add_argument("--timeout", default=240, type=float, help="seconds that one run of dualenc may take")
    parser.add_argument("--no-pytorch", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a few small steps, to check the script")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"unknown row `{unknown.pop()}`; rows: {' '.join(ROWS)}")
    bench = Bench(arguments)
    # Towers first: they fill the cache that `lu` reads.
    order = ["parity", "towers", "profile", "lu", "uu"]
    for row in order:
        if not arguments.rows or row in arguments.rows:
            getattr(bench, row)()
            (bench.out / "table.md").write_text(bench.table())
    bench.gpu.close()
    print(bench.table())


if __name__ == "__main__":
    main()

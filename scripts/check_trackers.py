#!/usr/bin/env python3
"""Reads event files and the exports of `dualenc metrics` with TensorBoard and MLflow, and compares them with
`metrics.jsonl`.

    pip install tensorboard==2.21.0 mlflow-skinny==3.17.2
    cargo build
    python scripts/check_trackers.py target/debug/dualenc

Every point of `metrics.jsonl` must be read back once, with the same step, wall time and value, to the bit of the f32
that an event file holds:

- of a fresh run, of one that is killed with SIGKILL and resumed, and of one that is resumed from an older checkpoint;
- by a reader that is open while the run is killed and resumed, and by a TensorBoard server that runs all the time;
- from the file store of MLflow, to the last bit but one of the f64.
"""

import json
import math
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "goldens" / "train"
CONFIG = f"""
[run]
dir = "run"
seed = 1
tensorboard = true
[model]
init = {json.dumps(str(GOLDENS / "init"))}
lock = "UU"
[data.train.csv]
path = {json.dumps(str(GOLDENS / "train.csv"))}
[train]
epochs = 40
batch_size = 8
learning_rate = 1e-3
[checkpoint]
every_steps = 10
keep = 100
[eval.pairs]
task = "retrieval"
data = {json.dumps(str(GOLDENS / "train.csv"))}
every_steps = 15
"""


def bits(value):
    """The f32 nearest to `value`, as its bits; all NaN alike."""
    return "nan" if math.isnan(value) else struct.pack("<f", value)


def same(one, other):
    """Equal but for the last bit: the JSON parser of `dualenc metrics` rounds within one unit in the last place."""
    return math.isclose(one, other, rel_tol=2**-52) or math.isnan(one) and math.isnan(other)


def logged(run):
    """The points of `metrics.jsonl`: {tag: [(step, time, value)]}."""
    points = {}

    def add(tag, line, value):
        value = math.nan if value is None else float(value)
        points.setdefault(tag, []).append((line["step"], line["time"], value))

    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        prefix = {"train": "train", "eval": f"eval/{line.get('name')}"}.get(line["kind"])
        for key, value in line.items() if prefix else ():
            if key in ("step", "time") or isinstance(value, str):
                continue
            if isinstance(value, dict):
                for part, number in value.items():
                    add(f"{prefix}/{key}/{part}", line, number)
            elif isinstance(value, list):
                for end, number in zip(("low", "high"), value):
                    add(f"eval_ci95/{line['name']}/{key.removesuffix('_ci95')}_{end}", line, number)
            else:
                add(f"{prefix}/{key}", line, value)
    return points


def compare(what, found, expected):
    """Both are {tag: [(step, time, value)]}."""
    assert found.keys() == expected.keys(), (what, found.keys() ^ expected.keys())
    for tag, points in expected.items():
        assert [p[:2] for p in found[tag]] == [p[:2] for p in points], (what, tag, found[tag], points)
        assert [bits(p[2]) for p in found[tag]] == [bits(p[2]) for p in points], (what, tag)
    count = sum(map(len, expected.values()))
    print(f"{what}: {count} points of {len(expected)} tags, each once, equal to the bit")


def scalars(accumulator):
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(e.step, e.wall_time, e.value) for e in accumulator.Scalars(tag)] for tag in tags}


def of_files(run):
    return scalars(EventAccumulator(str(run), size_guidance={"scalars": 0}))


def train(dualenc, work, *sets, wait_for=None):
    arguments = [dualenc, "train", "--config", "lit.toml", "--resume"]
    arguments += [part for key in sets for part in ("--set", key)]
    process = subprocess.Popen(arguments, cwd=work, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    if wait_for is not None:
        log = work / "run" / "metrics.jsonl"
        while process.poll() is None and (log.read_text().count("\n") if log.exists() else 0) < wait_for:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    _, stderr = process.communicate()
    expected = -signal.SIGKILL if wait_for is not None else 0
    assert process.returncode == expected, (process.returncode, stderr)


class Server:
    """A TensorBoard server on `logdir`."""

    def __init__(self, logdir, *arguments):
        tensorboard = Path(sys.executable).parent / "tensorboard"
        self.port = 6600 + os.getpid() % 1000 + len(arguments)
        command = [tensorboard, "--logdir", logdir, "--port", str(self.port), "--reload_interval", "1"]
        command += ["--samples_per_plugin", "scalars=100000", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(self, path, **query):
        url = f"http://localhost:{self.port}/data/plugin/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url) as answer:
            return json.load(answer)

    def scalars(self, run):
        tags = self.get("scalars/tags").get(run, {})
        points = {tag: self.get("scalars/scalars", run=run, tag=tag) for tag in tags}
        return {tag: [(step, at, value_of(value)) for at, step, value in found] for tag, found in points.items()}

    def wait_for(self, run, expected):
        """Waits until the server shows these points, up to a minute; returns what it shows."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                found = self.scalars(run)
                if found.keys() == expected.keys() and all(
                    [p[0] for p in found[tag]] == [p[0] for p in expected[tag]] for tag in expected
                ):
                    return found
            except OSError:
                pass
            time.sleep(0.5)
        return self.scalars(run)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def value_of(value):
    """TensorBoard writes what JSON does not have as text."""
    return float(value)


def check_tensorboard(dualenc, work):
    run = work / "run"
    servers = {"server": Server(work), "server without its data server": Server(work, "--load_fast=false")}
    try:
        train(dualenc, work, wait_for=60)
        live = EventAccumulator(str(run), size_guidance={"scalars": 0})
        torn = scalars(live)
        steps = {step for points in torn.values() for step, _, _ in points}
        print(f"killed: the file is readable, up to step {max(steps)}")
        for server in servers.values():
            server.wait_for("run", {tag: points for tag, points in torn.items()})
        train(dualenc, work)
        compare("killed and resumed", of_files(run), logged(run))
        compare("killed and resumed, by an open reader", scalars(live), logged(run))
        for name, server in servers.items():
            compare(f"killed and resumed, by a running {name}", server.wait_for("run", logged(run)), logged(run))
        for step in (100, 110, 120):
            subprocess.run(["rm", "-r", run / "checkpoints" / f"step-{step:06}"], check=True)
        train(dualenc, work)
        compare("resumed from an older checkpoint", of_files(run), logged(run))
        compare("resumed from an older checkpoint, by an open reader", scalars(live), logged(run))
        for name, server in servers.items():
            what = f"resumed from an older checkpoint, by a running {name}"
            # The steps are the same as before: wait for the new times.
            deadline = time.monotonic() + 60
            while server.scalars("run") != {
                tag: [(s, t, struct.unpack("<f", bits(v))[0]) for s, t, v in p] for tag, p in logged(run).items()
            } and time.monotonic() < deadline:
                time.sleep(0.5)
            compare(what, server.scalars("run"), logged(run))
        train(dualenc, work, "run.dir=fresh")
        compare("fresh run", of_files(work / "fresh"), logged(work / "fresh"))

        accumulator = EventAccumulator(str(run))
        accumulator.Reload()
        text = accumulator.Tensors("config")[-1].tensor_proto.string_val[0].decode()
        assert "    batch_size = 8" in text, text
        content = accumulator.SummaryMetadata(hparams.SESSION_START_INFO_TAG).plugin_data.content
        start = hparams.parse_session_start_info_plugin_data(content)
        assert start.hparams["train.learning_rate"].number_value == 1e-3, start
        assert start.hparams["model.lock"].string_value == "UU", start
        print(f"hyperparameters: {len(start.hparams)}; the config: {len(text.splitlines())} lines")
        deadline = time.monotonic() + 30
        server = servers["server"]
        while "fresh" not in server.get("text/tags") and time.monotonic() < deadline:
            time.sleep(0.5)
        assert server.get("text/tags")["run"] == ["config"], server.get("text/tags")
        page = server.get("text/text", run="run", tag="config")[-1]["text"]
        assert "<pre><code>" in page and "batch_size = 8" in page, page
        print("the server shows the config as preformatted text")
    finally:
        for server in servers.values():
            server.stop()

    subprocess.run([dualenc, "metrics", "run", "--format", "tensorboard", "--out", "tb"], cwd=work, check=True)
    compare("dualenc metrics --format tensorboard", of_files(work / "tb"), logged(run))


def check_mlflow(dualenc, work):
    import mlflow

    for run in ("run", "fresh", "run"):
        subprocess.run([dualenc, "metrics", run, "--format", "mlflow", "--out", "mlruns"], cwd=work, check=True)
    client = mlflow.tracking.MlflowClient(tracking_uri=(work / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("dualenc")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["fresh", "run"], runs
    for run in runs:
        assert run.info.status == "FINISHED" and run.data.params["train.batch_size"] == "8", run
        expected = {tag.replace("@", "_at_"): points for tag, points in logged(work / run.info.run_name).items()}
        # All values of a step have the time of its training line.
        times = {step: round(at * 1e3) for points in expected.values() for step, at, _ in points}
        times |= {step: round(at * 1e3) for step, at, _ in expected["train/loss"]}
        assert run.data.metrics.keys() == expected.keys(), run.data.metrics.keys() ^ expected.keys()
        for name, points in expected.items():
            history = client.get_metric_history(run.info.run_id, name)
            assert [(m.step, m.timestamp) for m in history] == [(s, times[s]) for s, _, _ in points], name
            for metric, (_, _, value) in zip(history, points):
                assert same(metric.value, value), (name, metric, value)
    points = sum(map(len, expected.values()))
    print(f"MLflow {mlflow.__version__}: {points} points of {len(expected)} metrics, each once, equal")


def main():
    dualenc = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        (work / "lit.toml").write_text(CONFIG)
        check_tensorboard(dualenc, work)
        check_mlflow(dualenc, work)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Compares the peak memory of a batch of 4096 in micro-batches of 64 with that of a batch of 64.

Each run makes three steps and a checkpoint with the image tower locked and its features cached. Exits with 1 if the
ratio is above 1.3. Needs a release build and the towers and data of scripts/quickstart.sh --data-only.

    cargo build --release
    python3 scripts/memory.py [DUALENC]       # path of the program; default: target/release/dualenc
"""

import os
import pathlib
import subprocess
import sys
import tempfile

LIMIT = 1.3
ROOT = pathlib.Path(__file__).resolve().parent.parent


def peak(program, directory, *sets):
    """Peak memory of one run, in MiB."""
    command = [program, "train", "--config", str(ROOT / "configs/quickstart.toml"), "--log", "plain"]
    fixed = [
        f"run.dir={directory}/run-{'-'.join(sets)}", f"cache.dir={directory}/cache", "data.captions=all",
        "model.image_projection.whitening=0", "train.epochs=", "train.steps=3", "train.warmup_steps=0", "eval={}",
    ]
    for value in [*fixed, *sets]:
        command += ["--set", value]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    text = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(text)
    return usage.ru_maxrss / 1024


def main():
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    program = sys.argv[1] if len(sys.argv) > 1 else str(pathlib.Path(target) / "release/dualenc")
    with tempfile.TemporaryDirectory() as directory:
        large = ["train.batch_size=4096", "train.micro_batch_size=64"]
        peak(program, directory, *large, "train.steps=1")
        small = peak(program, directory, "train.batch_size=64")
        parts = peak(program, directory, *large)
    ratio = parts / small
    print(f"batch 64: {small:.0f} MiB; micro-batches: {parts:.0f} MiB; ratio {ratio:.2f}, limit {LIMIT}")
    sys.exit(ratio > LIMIT)


if __name__ == "__main__":
    main()

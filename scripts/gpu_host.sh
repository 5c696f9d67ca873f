#!/usr/bin/env bash
# Measures what the host does in a training step on CUDA, without a GPU: a driver that computes nothing
# (scripts/null_cuda.c) takes US microseconds for each kernel and each product, and says how long it had nothing to do.
# A step should take launches x US, or the host's own time if that is longer.
#
#   scripts/gpu_host.sh --dualenc target/release/dualenc [--us "0 50 150"] [--steps 100] [--work DIR]
#   scripts/gpu_host.sh --dualenc before=OLD --dualenc after=NEW      two binaries in turns
#
# --few-cores: for machines with fewer than four cores. Burn's host threads wait by spinning, which takes the time of
# the threads that they wait for (docs/GPU.md, "Cores"). Copies of the binaries, in which they give way after 16 turns
# instead of 524,288, are measured instead.
#
# Needs a binary built with `--features cuda` (docs/GPU.md), a C compiler, libdevice.10.bc below $CUDA_PATH (docs/GPU.md),
# and the towers and images of scripts/quickstart.sh. A step is one of `LU` with cached features, 256 pairs, MiniLM-L6,
# dropout and AdamW. The first run of a binary compiles kernels, which takes minutes; losses and weights mean nothing.
#
# Last figures, --few-cores, two cores with AVX-512, nothing beside it, ms a step before and after the host went a step
# ahead of the device, runs of 100 steps, on two occasions:
#   0 us:   17.9, 17.1 -> 17.4, 17.4
#   50 us:  27.0, 26.6 -> 19.9, 19.9
#   150 us: 66.6, 65.6 -> 59.7, 59.7
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
binaries=() us="0 50 150" steps=100 work=$root/runs/gpu_host few_cores=
while [ $# -gt 0 ]; do
    case $1 in
        --few-cores) few_cores=1; shift; continue ;;
        --dualenc) binaries+=("$2") ;;
        --us) us=$2 ;;
        --steps) steps=$2 ;;
        --work) work=$2 ;;
        *) sed -n '2,27s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
    esac
    shift 2
done
[ ${#binaries[@]} -gt 0 ] || { echo "error: name a binary built with \`--features cuda\`: --dualenc FILE" >&2; exit 2; }
quickstart=$root/quickstart
[ -d "$quickstart/towers/minilm-l6" ] || { echo "error: run scripts/quickstart.sh first, for its towers" >&2; exit 2; }

mkdir -p "$work/lib"
${CC:-cc} -O2 -shared -fPIC -w -o "$work/lib/libcuda.so.1" "$root/scripts/null_cuda.c"
ln -sf libcuda.so.1 "$work/lib/libcublasLt.so.13"
ln -sf libcuda.so.1 "$work/lib/libcublasLt.so"
${PYTHON:-python3} - "$quickstart/data/train.csv" "$work/train.csv" <<'PYTHON'
import csv, pathlib, random, sys

source, target = map(pathlib.Path, sys.argv[1:])
rows = list(csv.DictReader(source.open()))
images = list(dict.fromkeys(row["image"] for row in rows))
words = sorted({word.lower() for row in rows for word in row["caption"].split() if word.isalpha()})
rng = random.Random(1)
lines = [
    f"{source.parent / images[n % len(images)]},{' '.join(rng.choices(words, k=rng.randint(8, 24)))}"
    for n in range(8192)
]
target.write_text("\n".join(["image,caption", *lines]) + "\n")
PYTHON
if [ -n "$few_cores" ]; then
    for n in "${!binaries[@]}"; do
        name=${binaries[n]%%=*} patched=$work/few-cores-$n
        ${PYTHON:-python3} - "${binaries[n]#*=}" "$patched" <<'PYTHON'
import pathlib, re, sys

# `cmp $0x80000`, close to a `cmp $0x81000`: SPIN_BUDGET_CLIENT of cubecl-common 0.11.3, `device/handle/channel.rs`.
code = bytearray(pathlib.Path(sys.argv[1]).read_bytes())
found = [m.end() for m in re.finditer(rb"(\x3d|\x81[\xf8-\xff])\x00\x00\x08\x00", bytes(code))]
found = [end for end in found if b"\x00\x10\x08\x00" in code[end : end + 40]]
for end in found:
    code[end - 4 : end] = (16).to_bytes(4, "little")
if not found:
    sys.exit("error: the binary has no waits of CubeCL 0.11.3")
pathlib.Path(sys.argv[2]).write_bytes(code)
PYTHON
        chmod +x "$patched"
        binaries[n]=$name=$patched
    done
fi
cd "$work"
PYTHONPATH=$root/scripts ${PYTHON:-python3} -c '
import sys
from gpu_bench_data import config
print(config("train", sys.argv[1], "LU"))
' "$quickstart/towers/vit-s14" > lu.toml
settings=(--set model.text_tower="$quickstart/towers/minilm-l6" --set model.image_size=56 --set model.text_dropout=0.1)
"${binaries[0]#*=}" train --config lu.toml --device cpu "${settings[@]}" --set run.dir=features > /dev/null 2> features.log
rm -rf features
train() {
    rm -rf run
    env LD_LIBRARY_PATH="$work/lib" XDG_CACHE_HOME="$work/kernels" NULL_CUDA_US="$1" \
        "$2" train --config lu.toml --device cuda "${settings[@]}" --set train.steps="$3" > /dev/null 2> "$work/train.log" || { tail -n 3 train.log >&2; exit 1; }
}
for binary in "${binaries[@]}"; do
    train 0 "${binary#*=}" 40
done
for time in $us; do
    for binary in "${binaries[@]}"; do
        train "$time" "${binary#*=}" "$steps"
        ${PYTHON:-python3} - "$time" "${binary%%=*}" <<'PYTHON'
import json, sys

lines = [json.loads(line) for line in open("run/metrics.jsonl")]
times = [line["time"] for line in lines if line["kind"] == "train"]
ms = 1e3 * (times[-2] - times[19]) / (len(times) - 21)
driver = open("train.log").read().strip().splitlines()[-1]
print(f"{sys.argv[1]:>5} us  {ms:6.1f} ms a step  {sys.argv[2]}  ({driver})")
PYTHON
    done
done

"""Module of scripts/bench.py: the rows of whole processes."""

import csv
import json
import re
import shutil
import statistics
import sys

import bench_heads
from bench_table import Line, Peer
from bench_workers import DUALENC, ROOT, WORK, Roofs, Run, Worker, compared, in_turns, ours, peers, run

EPOCHS, BATCH = 20, 256
# Steps of a round of `ll-1m`, after one that is not counted.
LL_STEPS = 2


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
        return Line("lit", title, "PyTorch", f"{theirs:.0f} s", f"{ours:.0f} s", [ours / theirs], target)

    def peak(title: str, theirs: Run) -> Line:
        ratios = [cold.peak_mb / theirs.peak_mb]
        megabytes = [f"{run.peak_mb:.0f} MB" for run in (theirs, cold)]
        return Line("lit", f"LiT job, peak memory; {title}", "PyTorch", *megabytes, ratios, "0.4")

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
        shown = "first-step: PyTorch {:.2f} s, dualenc {:.2f} s, to its exit {:.2f} s"
        print(shown.format(*rounds_[-1]), file=sys.stderr)
    theirs, step, end = (statistics.median(column) for column in zip(*rounds_))
    title = "process start to first training step, features cached"
    return [
        Line("first-step", title, "PyTorch", f"{theirs:.2f} s", f"{step:.2f} s",
             [step / theirs for theirs, step, _ in rounds_], "0.1"),
        Line("first-step", "process start to exit after one step; dualenc also writes a checkpoint", "PyTorch",
             f"{theirs:.2f} s", f"{end:.2f} s", [end / theirs for theirs, _, end in rounds_]),
    ]


HEADS_DATA = 'data = { train.features = { images = "heads/images.npy", texts = "heads/texts.npy" } }'
LINEAR = '{ kind = "linear", bias = true }'


def train_heads() -> float:
    """The milliseconds of one step on the features of bench_heads.py: the mean of LL_STEPS, after a first one."""
    shutil.rmtree(WORK / "heads-run", ignore_errors=True)
    (WORK / "heads.toml").write_text(f"""\
run = {{ dir = "heads-run" }}
model = {{ embed_dim = {bench_heads.EMBED} }}
{HEADS_DATA}
checkpoint = {{ every_steps = 100000, keep = 1 }}

[train]
steps = {1 + LL_STEPS}
batch_size = {bench_heads.BATCH}
learning_rate = 1e-3
warmup_steps = 0
""")
    run([DUALENC, "train", "--config", WORK / "heads.toml", "--log", "plain"])
    lines = [json.loads(line) for line in (WORK / "heads-run/metrics.jsonl").read_text().splitlines()]
    times = [line["time"] for line in lines if line["kind"] == "train"]
    return 1e3 * (times[-1] - times[0]) / LL_STEPS


def shares(times: list[dict[str, float]], flops: float, read: float, roof: Worker, roofs: Roofs) -> str:
    """What dualenc reaches with `flops` operations on `read` bytes, of the roof of the same round and the bandwidth."""
    products = statistics.median(flops / of["dualenc"] / (roof.facts["flops"] / of["roof"]) for of in times)
    memory = read / (statistics.median(of["dualenc"] for of in times) / 1e3) / roofs.bandwidth
    return f"{products:.2f} of the GEMM roof, {100 * memory:.2g} % of the bandwidth"


def ll(row: str, rounds: int, roofs: Roofs) -> tuple[list[Line], list[Peer]]:
    """An epoch of linear heads on a million pairs, from the time of its steps."""
    bench_heads.write_features()
    forms = ("eager-autocast", "compile-autocast") if row.endswith("-bf16") else ("eager", "compile")
    ready, left_out = peers(row, forms)
    roof = ours("gemm")
    times = in_turns(row, train_heads, ready, left_out, rounds, roof)
    pairs, width, embed, batch = bench_heads.PAIRS, bench_heads.WIDTH, bench_heads.EMBED, bench_heads.BATCH
    steps = pairs / batch
    mixed = "; peers in bf16, dualenc in f32" if row.endswith("-bf16") else ""
    title = (
        f"LL epoch of {pairs:,} pairs of {width} and {width} values in f16, batch {batch:,}, linear heads to {embed} "
        f"(from {LL_STEPS} steps a round){mixed}"
    )
    lines, measured = compared(row, title, "", times, list(ready), lambda ms: f"{steps * ms / 1e3:.0f} s")
    if lines:
        # Logits and both gradients of the loss, projections and their weights' gradients.
        flops = 3 * 2 * batch**2 * embed + 2 * 2 * 2 * batch * width * embed
        lines[0].limit = shares(times, flops, 2 * 2 * width * batch, roof, roofs)
    for worker in (*ready.values(), roof):
        worker.close()
    return lines, measured + left_out


def fit(rounds: int, roofs: Roofs) -> tuple[list[Line], list[Peer]]:
    """The closed form on a million pairs, as whole processes from their start to the saved heads."""
    bench_heads.write_features()
    (WORK / "fit.toml").write_text(f"""\
run = {{ dir = "fit-run" }}
fit = {{ ridge = {bench_heads.RIDGE}, power = {bench_heads.POWER} }}
train = {{ epochs = 1, batch_size = {BATCH}, learning_rate = 1e-3 }}
{HEADS_DATA}

[model]
embed_dim = {bench_heads.WIDTH}
lock = "LL"
head_init = "cca"
image_head = {LINEAR}
text_head = {LINEAR}
""")

    def fitted() -> float:
        shutil.rmtree(WORK / "fit-run", ignore_errors=True)
        return 1e3 * run([DUALENC, "fit", "--config", WORK / "fit.toml", "--log", "plain"]).seconds

    roof = ours("gemm")
    times, script = [], [sys.executable, ROOT / "scripts/bench_heads.py", "fit"]
    for index in range(rounds):
        turns = {"dualenc": fitted}
        turns |= {form: lambda form=form: 1e3 * run([*script, form]).seconds for form in ("numpy", "pytorch")}
        order = list(turns)
        order = [*order[index % 3 :], *order[: index % 3]]
        times.append({form: turns[form]() for form in order} | {"roof": roof.measure()})
        print(f"fit-1m: ms: {', '.join(f'{form} {ms:.0f}' for form, ms in times[-1].items())}", file=sys.stderr)
    pairs, width = bench_heads.PAIRS, bench_heads.WIDTH
    size = f"{pairs:,} pairs of {width} and {width} values in f16"
    title = f"closed form (CCA) of {size}, process start to saved heads"
    shown = lambda ms: f"{ms / 1e3:.1f} s"  # noqa: E731
    lines, measured = compared("fit-1m", title, "", times, ["numpy", "pytorch"], shown)
    lines[0].limit = shares(times, 3 * 2 * pairs * width**2, 2 * 2 * width * pairs, roof, roofs)
    roof.close()
    return lines, measured

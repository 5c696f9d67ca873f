#!/usr/bin/env python3
"""One peer of dualenc in scripts/bench.sh: measures a benchmark row in one form.

    python scripts/bench_pytorch.py ROW FORM [--rounds N]

With `--rounds`, it measures N rounds and prints one JSON line. Without, it prints a JSON line when it is ready, then
measures one round and prints a JSON line for each line on stdin. The dualenc half is crates/train/benches/speed.

scripts/bench_rows.py lists the rows and their forms. All of them use one thread per core; `eager` is PyTorch with its
defaults. Needs the packages of scripts/bench.sh.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
LENGTHS = [int(length) for length in (ROOT / "crates/train/benches/speed/caption_lengths.txt").read_text().split()]


def torch():
    import torch

    torch.set_num_threads(CORES)
    torch.manual_seed(1)
    return torch


def bert(lengths: list[int], form: str):
    """A training step of a text tower of MiniLM-L6's size on captions padded to the longest.

    Forward pass, loss, backward pass and AdamW.
    """
    from torch.nn import functional as F
    from transformers import BertConfig, BertModel

    t = torch()
    size = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    dropout = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = BertModel(BertConfig(vocab_size=30522, **size, **dropout, attn_implementation="sdpa")).train()
    projection = t.nn.Linear(384, 512, bias=False)
    scale = t.nn.Parameter(t.tensor(2.6592))
    images = F.normalize(t.rand(len(lengths), 512) * 2 - 1, dim=1)
    parameters = [*model.parameters(), *projection.parameters(), scale]
    optimizer = t.optim.AdamW(parameters, lr=1e-4, weight_decay=0.1, fused=form != "eager" or None)
    mask = t.zeros(len(lengths), max(lengths), dtype=t.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    ids = t.randint(100, 30100, mask.shape) * mask
    autocast = t.autocast("cpu", dtype=t.bfloat16, enabled=form.endswith("autocast"))
    if form.endswith("medium"):
        # Factors of products are rounded to bf16, and everything else stays in float32.
        t.set_float32_matmul_precision("medium")

    def loss_of(ids, mask):
        with autocast:
            texts = projection(model(input_ids=ids, attention_mask=mask).pooler_output)
        return contrastive(t, F.normalize(texts.float(), dim=1), images, scale)

    forward = t.compile(loss_of) if form.startswith("compile") else loss_of
    first = loss_of(ids, mask).item()

    def round_():
        loss = forward(ids, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # It learns the batch by heart, or it measures something else.
        if not loss.item() < 1.1 * first:
            raise SystemExit(f"error: the loss rose from {first:.3g} to {loss.item():.3g}")

    return round_


def contrastive(t, texts, images, scale):
    F = t.nn.functional
    logits = scale.exp() * texts @ images.T
    target = t.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def infonce(form: str):
    """InfoNCE of 4,096 pairs of 512 values, with the gradients of both embeds and of `logit_scale`."""
    t = torch()
    from torch.nn import functional as F

    texts, images = (F.normalize(t.rand(4096, 512) * 2 - 1, dim=1).requires_grad_() for _ in range(2))
    scale = t.tensor(2.6592, requires_grad=True)
    loss = t.compile(contrastive) if form == "compile" else contrastive

    def round_():
        t.autograd.grad(loss(t, texts, images, scale), [texts, images, scale])

    return round_


LOAD = None


def start_image_worker(form: str):
    """Sets up one worker process with a single thread, as PyTorch's DataLoader does."""
    global LOAD
    t = torch()
    t.set_num_threads(1)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    if form == "torchvision":
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms import InterpolationMode, v2

        transform = v2.Compose([
            v2.Resize(224, InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(t.float32, scale=True),
            v2.Normalize(mean, std),
        ])
        LOAD = lambda path: transform(decode_image(path, ImageReadMode.RGB))  # noqa: E731
        return
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose([
        transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ])

    def load(path: str):
        with Image.open(path) as image:
            if form == "draft":
                # At least twice the size of the resized image, as `thumbnail` with its `reducing_gap`.
                image.draft("RGB", (448, 448))
            return transform(image.convert("RGB"))

    LOAD = load


def load_image(path: str) -> int:
    return LOAD(path).shape[0]


def images(name: str, form: str):
    """Image files to input tensors, with one process per core.

    The tensors stay in the workers, so the time a DataLoader spends on transferring them is not measured.
    """
    from multiprocessing import get_context

    if name == "images-png":
        folder, count = ROOT / "quickstart/data/images", 256
    elif name == "images-jpeg-fast":
        folder, count = ROOT / "runs/bench/images-jpeg-large", None
    else:
        folder, count = ROOT / "runs/bench" / name, None
    paths = sorted(str(path) for path in folder.rglob("*.*"))[:count]
    if not paths:
        fetch = "quickstart.sh --data-only" if name == "images-png" else f"bench.sh {name}"
        sys.exit(f"error: no images in `{folder}`; run scripts/{fetch}")
    pool = get_context("spawn").Pool(CORES, start_image_worker, (form,))
    return lambda: pool.map(load_image, paths, chunksize=4)


def first_step():
    """One training step with cached image features: imports, models and features from disk, one batch.

    scripts/bench.py measures it as a whole process.
    """
    import csv

    t = torch()
    from torch.nn import functional as F
    from transformers import AutoTokenizer, BertModel, Dinov2Model, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    towers = ROOT / "quickstart/towers"
    vision, text = Dinov2Model.from_pretrained(towers / "vit-s14"), BertModel.from_pretrained(towers / "minilm-l6")
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision.config, text.config, projection_dim=512)
    model = VisionTextDualEncoderModel(config, vision.eval(), text).train()
    tokenizer = AutoTokenizer.from_pretrained(towers / "minilm-l6")
    with (ROOT / "runs/bench/names.csv").open(encoding="utf-8") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    features = t.load(ROOT / "runs/bench/features.pt")
    model.vision_model.requires_grad_(False)
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = t.optim.AdamW(parameters, lr=5e-4, weight_decay=0.1)
    rows = t.randperm(len(captions))[:256]
    tokens = tokenizer([captions[row] for row in rows], padding=True, return_tensors="pt")
    texts = F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=1)
    contrastive(t, texts, F.normalize(model.visual_projection(features[rows]), dim=1), model.logit_scale).backward()
    t.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def work(row: str, form: str):
    match row.removesuffix("-bf16"):
        case "vit" | "vit-b":
            from bench_forward import forward

            return forward(torch(), row, form, CORES)
        case "bert":
            return bert([32] * 64, form)
        case "bert-captions":
            return bert(LENGTHS, form)
        case "infonce":
            return infonce(form)
        case "images-jpeg" | "images-jpeg-large" | "images-jpeg-fast" | "images-png":
            return images(row, form)
        case "ll-1m":
            from bench_heads import training_step

            return training_step(torch(), form)
        case _:
            sys.exit(f"error: unknown row `{row}`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", metavar="ROW", help="row to measure, as in scripts/bench.sh")
    parser.add_argument("form", metavar="FORM", nargs="?", default="eager", help="form to measure it in")
    parser.add_argument("--rounds", type=int, help="rounds to measure (default: one per line on stdin)")
    arguments = parser.parse_args()
    # Libraries print to stdout.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Compiled code is kept, and compiled by all cores.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / "runs/bench/inductor"))
    if arguments.row == "first-step":
        return first_step()
    round_ = work(arguments.row, arguments.form)

    def measure() -> float:
        started = time.perf_counter()
        round_()
        return (time.perf_counter() - started) * 1e3

    def report(ms: list[float]) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(json.dumps({"name": arguments.row, "ms": ms, "peak_rss_mb": peak}), file=out, flush=True)

    # The first round compiles; the second one is the first to run as the others do.
    for _ in range(1 if arguments.form == "eager" else 2):
        measure()
    if arguments.rounds:
        return report([measure() for _ in range(arguments.rounds)])
    report([])
    for _ in sys.stdin:
        report([measure()])


if __name__ == "__main__":
    main()

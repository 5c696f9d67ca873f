#!/usr/bin/env python3
"""The PyTorch half of scripts/gpu_bench.py: measures on one device and prints a JSON line per figure.

    python scripts/gpu_bench_pytorch.py DEVICE JOBS.json

JOBS.json is a list of objects. Each has `row` (`lu`, `uu` or `towers`) and `name`, and: `batch`; `precision` (`f32`:
without TF32; `tf32`; `bf16`; `f16`; training in bf16 is autocast); `compile`; `rounds`; for training `dropout`; for
towers `tower` and `upload` (whether pixels start in pinned host memory). Inputs of training are on the device already,
captions padded to the longest of all. Attention is SDPA, AdamW is fused where the device has it.

All jobs are compiled and warmed up first; then a line on stdin starts the measurements. Each figure is the median of
`rounds`, in items per second, with the peak memory of PyTorch's allocator, which holds the parameters of all jobs.
Needs torch and transformers.
"""

import json
import random
import statistics
import sys
import time

import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel, ViTModel

from gpu_bench_data import BERT, CAPTION_WORDS, EMBED_DIM, VOCABULARY, vit_config

DEVICE = torch.device(sys.argv[1])
CUDA = DEVICE.type == "cuda"
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
PAIRS = 4096


def measure(step, rounds: int) -> list[float]:
    """Seconds of each round."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        if CUDA:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times


class Figure:
    """Warms a step up at once, and measures it when asked."""

    def __init__(self, job: dict, step, items: int):
        self.job, self.step, self.items = job, step, items
        self.precision = "highest" if job["precision"] == "f32" else "high"
        torch.set_float32_matmul_precision(self.precision)
        self.first = measure(step, 1)[0]
        measure(step, 4 if CUDA else 0)

    def measure(self) -> dict:
        torch.set_float32_matmul_precision(self.precision)
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        measure(self.step, 3 if CUDA else 0)
        median = statistics.median(measure(self.step, self.job["rounds"]))
        peak = torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0
        return {"per_s": self.items / median, "ms": 1e3 * median, "first_s": self.first, "peak_gb": peak}


def towers(job: dict) -> Figure:
    torch.manual_seed(1)
    dtype = DTYPES.get(job["precision"], torch.float32)
    model = ViTModel(vit_config(job["tower"])).eval().to(DEVICE, dtype)
    forward = torch.compile(model) if job["compile"] else model
    pixels = torch.rand(job["batch"], 3, 224, 224) * 2 - 1
    host = pixels.pin_memory() if CUDA and job.get("upload") else None
    pixels = pixels.to(DEVICE, dtype)

    def step():
        with torch.inference_mode():
            values = pixels if host is None else host.to(DEVICE, non_blocking=True).to(dtype)
            pooled = forward(pixel_values=values).pooler_output
            if host is not None:
                pooled.float().cpu()

    return Figure(job, step, job["batch"])


class DualEncoder(torch.nn.Module):
    def __init__(self, dropout: float, with_image_tower: bool):
        super().__init__()
        rates = dict(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        self.image = ViTModel(vit_config("vit-s16")) if with_image_tower else None
        self.text = BertModel(BertConfig(**BERT, **rates))
        self.image_projection = torch.nn.Linear(384, EMBED_DIM, bias=False)
        self.text_projection = torch.nn.Linear(384, EMBED_DIM, bias=False)
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.6592))

    def forward(self, images, ids, mask):
        if self.image is not None:
            images = self.image(pixel_values=images).pooler_output
        text = self.text(input_ids=ids, attention_mask=mask).pooler_output
        image = F.normalize(self.image_projection(images).float(), dim=1)
        text = F.normalize(self.text_projection(text).float(), dim=1)
        logits = self.logit_scale.exp() * text @ image.T
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def training(job: dict) -> Figure:
    torch.manual_seed(1)
    batch, with_image_tower = job["batch"], job["row"] == "uu"
    model = DualEncoder(job["dropout"], with_image_tower).to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=CUDA)
    rng = random.Random(1)
    lengths = torch.tensor([rng.randint(*CAPTION_WORDS) + 2 for _ in range(PAIRS)])
    mask = (torch.arange(CAPTION_WORDS[1] + 2) < lengths[:, None]).long().to(DEVICE)
    ids = torch.randint(5, VOCABULARY, mask.shape, device=DEVICE) * mask
    count = batch if with_image_tower else PAIRS
    images = torch.rand(count, *((3, 224, 224) if with_image_tower else (384,)), device=DEVICE)
    forward = torch.compile(model) if job["compile"] else model
    autocast = job["precision"] == "bf16"

    def step():
        rows = torch.randperm(PAIRS, device=DEVICE)[:batch]
        inputs = images if with_image_tower else images[rows]
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            loss = forward(inputs, ids[rows], mask[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return Figure(job, step, batch)


def main() -> None:
    with open(sys.argv[2]) as file:
        jobs = json.load(file)
    figures = []
    for job in jobs:
        try:
            figures.append((job, towers(job) if job["row"] == "towers" else training(job)))
        except Exception as error:  # noqa: BLE001 - one figure that fails must not lose the others
            figures.append((job, error))
        if CUDA:
            torch.cuda.empty_cache()
    sys.stdin.readline()
    for job, figure in figures:
        try:
            if isinstance(figure, Exception):
                raise figure
            result = figure.measure()
        except Exception as error:  # noqa: BLE001
            result = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(job | result), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes the caption lengths for the benchmark row `bert-captions` to crates/train/benches/speed/caption_lengths.txt.

Draws 64 of the quickstart's training captions and counts the tokens of its text tower. Needs the package transformers
and the data of scripts/quickstart.sh --data-only.

    python scripts/bench_captions.py
"""

import csv
import random
from pathlib import Path

from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
tokenizer = AutoTokenizer.from_pretrained(ROOT / "quickstart/towers/minilm-l6")
with (ROOT / "quickstart/data/train.csv").open(encoding="utf-8") as file:
    captions = [row["caption"] for row in csv.DictReader(file)]
lengths = [len(tokenizer(caption)["input_ids"]) for caption in random.Random(0).sample(captions, 64)]
out = ROOT / "crates/train/benches/speed/caption_lengths.txt"
out.write_text(" ".join(map(str, lengths)) + "\n")
print(out, "mean", sum(lengths) / len(lengths), "longest", max(lengths))

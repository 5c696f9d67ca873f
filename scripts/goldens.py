#!/usr/bin/env python3
"""Writes the reference fixtures (goldens) in tests/goldens/ and prints the package versions they come from.

The Rust tests only read the fixtures. Python is needed to regenerate them, not to run the tests.

    python -m venv .venv-goldens
    .venv-goldens/bin/pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 \
        numpy==2.4.6 pillow==13.0.0 tokenizers==0.23.3 safetensors==0.8.0 jax==0.10.2 optax==0.2.8 \
        scipy==1.17.1 scikit-learn==1.9.1
    .venv-goldens/bin/pip install --no-deps timm==1.0.31 open_clip_torch==3.3.0 ftfy==6.3.1
    .venv-goldens/bin/python scripts/goldens.py

Pass section names to write only those: towers dual image_families train optim resize decode formats jpeg processor
pixels augment tokens ids tokenizer_cases decoder_ids text_families text_decoders whole losses terms
layers heads token_heads closed_form teacher. The same versions on the same machine write the same bytes.
"""

import argparse
import importlib
import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SECTIONS = (
    "towers",
    "dual",
    "image_families",
    "train",
    "optim",
    "resize",
    "decode",
    "formats",
    "jpeg",
    "processor",
    "pixels",
    "augment",
    "tokens",
    "ids",
    "tokenizer_cases",
    "decoder_ids",
    "text_families",
    "text_decoders",
    "whole",
    "losses",
    "layers",
    "closed_form",
    "heads",
    "token_heads",
    "terms",
    "teacher",
)
PACKAGES = ("torch", "torchvision", "transformers", "numpy", "pillow", "tokenizers", "safetensors", "timm", "jax", "optax", "open_clip_torch", "scipy", "scikit-learn")


def versions() -> str:
    lines = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    lines += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return "\n".join(lines) + "\n"


def main() -> None:
    root = Path(__file__).resolve().parent.parent / "tests" / "goldens"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="sections to write (default: all)")
    parser.add_argument("--out", type=Path, default=root, help="directory to write to (default: tests/goldens)")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"unknown sections {sorted(unknown)}; expected any of {', '.join(SECTIONS)}")

    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    print(versions(), end="")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "versions.txt").write_text(versions())
    for section in arguments.sections or SECTIONS:
        folder = arguments.out / section
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        importlib.import_module(f"goldens.{section}").write(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{section}: {size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()

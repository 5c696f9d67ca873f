#!/usr/bin/env python3
"""Exports golden dual encoders for sentence-transformers, and compares `SentenceTransformer.encode` with `dualenc embed`.

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 sentence-transformers==6.2.0 pillow safetensors
    cargo build
    python scripts/check_sentence_transformers.py target/debug/dualenc

Each exported directory must:

- load with `SentenceTransformer(DIR)`, without `trust_remote_code`, a warning, or a random weight;
- embed texts and PIL images within 1e-4 of `dualenc embed`, normalised;
- have a model card with YAML that parses, and Python that runs.

Heads without stock modules must be refused. Embeddings that are cut, by `export --dim` or by `truncate_dim` of
sentence-transformers, must be those of `dualenc embed --dim`.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sentence_transformers
import torch
import transformers
from check_families import GOLDENS, TEXTS, TOLERANCE, check_card, stage
from PIL import Image
from safetensors import safe_open
from sentence_transformers import SentenceTransformer

# SigLIP's text tower, which transformers loads only within a whole SigLIP.
REFUSED = {"text_families/pair_siglip_text", "whole/siglip"}
TOWERS = f"""
        image_tower = "{GOLDENS / 'train' / 'vit'}"
        text_tower = "{GOLDENS / 'train' / 'bert'}"
        """
# Heads that have no stock modules.
REFUSED_HEADS = {
    f"{side} head {kind}": f"""{TOWERS}
        embed_dim = 24
        [model.{side}_head]
        kind = "{kind}"
        """
    for side, kind in (("image", "glu"), ("text", "blocks"))
}
REFUSED |= set(REFUSED_HEADS)
NARROW = "embeddings cut to 8 values"
# What VisionTextDualEncoder cannot compute, each as `[model]` of a small run.
RUNS = {
    f"both towers by {pooling}": f"""
        init = "{GOLDENS / 'train' / 'init'}"
        image_pool = "{pooling}"
        text_pool = "{pooling}"
        """
    for pooling in ("mean", "cls")
} | {
    "a decoder with a prompt": f"""
        image_tower = "{GOLDENS / 'train' / 'vit'}"
        text_tower = "{GOLDENS / 'text_decoders' / 'embedder'}"
        text_prompt_name = "query"
        """,
    "residual and normed heads": f"""{TOWERS}
        embed_dim = 24
        [model.image_head]
        kind = "residual"
        [model.text_head]
        bias = true
        norm = true
        """,
    "residual heads after a mean": f"""{TOWERS}
        embed_dim = 10
        image_pool = "mean"
        text_pool = "mean"
        [model.image_head]
        kind = "residual"
        norm = false
        bias = false
        [model.text_head]
        kind = "residual"
        """,
    "a normed head after class token and mean": f"""{TOWERS}
        image_pool = "cls+mean"
        [model.image_head]
        norm = true
        [model.text_head]
        kind = "identity"
        """,
    NARROW: f"""{TOWERS}
        embed_dim = 24
        [model.image_head]
        kind = "residual"
        """,
} | REFUSED_HEADS
FIXTURES = ("dual/*", "image_families/dual_*", "text_families/pair_*", "whole/*")


def train(program: str, name: str, directory: Path) -> None:
    """Trains a few steps in `directory`, as `RUNS` says."""
    config = f"""
        [run]
        dir = "{directory}"
        [model]
        lock = "LU"
        {RUNS[name]}
        [data.train.csv]
        path = "{GOLDENS / 'train' / 'train.csv'}"
        [train]
        epochs = 1
        batch_size = 8
        learning_rate = 1e-3
        matryoshka = {[8] if name == NARROW else []}
        """
    path = directory.with_suffix(".toml")
    path.write_text(config, encoding="utf-8")
    subprocess.run([program, "train", "--config", path], check=True, capture_output=True, text=True)


def largest(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    assert theirs.shape == ours.shape and ours.abs().max() > 0.01
    return (theirs - ours).abs().max().item()


def main(program: str) -> int:
    transformers.utils.logging.disable_progress_bar()
    versions = [sentence_transformers.__version__, transformers.__version__, torch.__version__]
    print("sentence-transformers {}, transformers {}, torch {}".format(*versions))
    cases = [str(path.relative_to(GOLDENS)) for pattern in FIXTURES for path in sorted(GOLDENS.glob(pattern))]
    cases.remove("whole/doubled")
    cases += RUNS
    failed, worst = [], {"images": 0.0, "texts": 0.0}
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        (root / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
        (root / "images").mkdir()
        for path in sorted((GOLDENS / "train" / "images").glob("*.png"))[:3]:
            shutil.copy(path, root / "images")
        images = sorted((root / "images").iterdir())
        for number, name in enumerate(cases):
            original, exported, embedded = (root / f"{number}.{kind}" for kind in ("in", "out", "safetensors"))
            if name in RUNS:
                train(program, name, original)
            else:
                stage(name, original, None, None)
            run = [program, "export", "--format", "sentence-transformers", "--model", original, "--out"]
            dim = ["--dim", "8"] if name == NARROW else []
            done = subprocess.run([*run, exported, *dim], capture_output=True, text=True)
            if name in REFUSED:
                refused = done.returncode == 2 and not exported.exists()
                print(f"{name}: {'refused' if refused else 'NOT REFUSED: ' + done.stderr}")
                failed += [] if refused else [name]
                continue
            embed = [program, "embed", "--model", original, "--images", root / "images", "--texts", root / "texts.txt"]
            said = io.StringIO()
            try:
                assert done.returncode == 0, done.stderr
                subprocess.run([*embed, "--out", embedded, *dim], check=True, capture_output=True, text=True)
                with contextlib.redirect_stderr(said):
                    model = SentenceTransformer(str(exported), device="cpu")
                pictures = [Image.open(path).convert("RGB") for path in images]
                with safe_open(embedded, "pt") as ours:
                    found = {
                        "images": largest(model.encode(pictures, convert_to_tensor=True), ours.get_tensor("image_embeds")),
                        "texts": largest(model.encode(TEXTS, convert_to_tensor=True), ours.get_tensor("text_embeds")),
                    }
                    if name == NARROW:
                        whole = root / f"{number}.whole"
                        subprocess.run([*run, whole], check=True, capture_output=True, text=True)
                        cut = SentenceTransformer(str(whole), device="cpu", truncate_dim=8)
                        cut = cut.encode(TEXTS, convert_to_tensor=True, normalize_embeddings=True)
                        found["texts, truncate_dim"] = largest(cut, ours.get_tensor("text_embeds"))
                        check_card(whole, images, "sentence-transformers")
                check_card(exported, images, "sentence-transformers")
            except Exception as error:
                detail = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
                print(f"{name}: FAILED: {type(error).__name__}: {detail}")
                failed.append(name)
                continue
            worst |= {kind: max(value, worst.get(kind, 0.0)) for kind, value in found.items()}
            good = max(found.values()) <= TOLERANCE and not said.getvalue().strip()
            failed += [] if good else [name]
            listed = ", ".join(f"{kind} {value:.1e}" for kind, value in found.items())
            print(f"{name}: {'' if good else 'FAILED: '}{listed}; {', '.join(map(str, model.modalities))}{said.getvalue()}")
    print("largest differences: " + ", ".join(f"{kind} {value:.1e}" for kind, value in worst.items()))
    print(f"{len(cases)} directories, {len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))

#!/usr/bin/env python3
"""Runs the Python in the model cards of `dualenc export --format heads`, and compares it with `dualenc embed`.

    pip install torch==2.15.0 safetensors numpy transformers==5.23.0 pillow
    cargo build
    python scripts/check_heads.py target/debug/dualenc

For each kind of head, trains a few steps on random features, exports the heads, whole and with `--dim`, and executes the
card; then the same for heads over all tokens, of the ViT and the images in `tests/goldens/train`, with transformers for
the tokens. Exits with 1 if an embedding differs from that of `dualenc embed` by more than 1e-5.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from safetensors import safe_open

TOLERANCE = 1e-5
ROWS, WIDTHS, DIM, CUT = 24, {"image": 6, "text": 8}, 8, 3
# Image head and text head.
HEADS = {
    "linear": ("", ""),
    "linear with bias, and norm": ("bias = true", "norm = true"),
    "residual": ('kind = "residual"', 'kind = "residual"\nbias = false\nnorm = false'),
    "glu": ('kind = "glu"', 'kind = "glu"\nexpansion = 2\nbias = false\nnorm = false'),
    "blocks": ('kind = "blocks"', 'kind = "blocks"\nblocks = 1\nbias = false\nnorm = false'),
    "residual and identity": ('kind = "residual"', 'kind = "identity"'),
}


def config(heads: tuple[str, str]) -> str:
    image, text = heads
    return f"""
[run]
dir = "run"
[model]
embed_dim = {DIM}
[model.image_head]
{image}
[model.text_head]
{text}
[data.train.features]
images = "image.npy"
texts = "text.npy"
[train]
epochs = 2
batch_size = 8
learning_rate = 1e-2
"""


TOKEN_HEADS = {
    "query": 'tokens = "query"\ntoken_width = 8\ntoken_heads = 2',
    "blocks": 'kind = "residual"\ntokens = "blocks"\ntoken_width = 8\ntoken_heads = 2',
    "blocks as wide as the tower": 'tokens = "blocks"\ntoken_width = 16\ntoken_heads = 4\ntoken_blocks = 1',
    "query over a grid": 'tokens = "query"\ntoken_width = 8\ntoken_grid = 3',
}
GOLDENS = Path(__file__).resolve().parent.parent / "tests/goldens/train"


def config_of_tokens(head: str) -> str:
    return f"""
[run]
dir = "run"
[model]
image_tower = {str(GOLDENS / "vit")!r}
text_tower = {str(GOLDENS / "bert")!r}
lock = "LL"
embed_dim = {DIM}
[model.image_head]
{head}
[data.train.csv]
path = {str(GOLDENS / "train.csv")!r}
[train]
epochs = 4
batch_size = 8
learning_rate = 3e-2
"""


def check_tokens(program: str, root: Path) -> float:
    """The largest difference of image embeddings."""
    from PIL import Image
    from transformers import ViTImageProcessorPil, ViTModel

    vit = ViTModel.from_pretrained(GOLDENS / "vit").eval()
    processor = ViTImageProcessorPil.from_pretrained(GOLDENS / "vit")
    worst = 0.0
    for number, (name, head) in enumerate(TOKEN_HEADS.items()):
        folder = root / f"tokens{number}"
        folder.mkdir()
        (folder / "lit.toml").write_text(config_of_tokens(head), encoding="utf-8")

        def run(*arguments: str) -> None:
            subprocess.run([program, *arguments], check=True, capture_output=True, text=True, cwd=folder)

        run("train", "--config", "lit.toml")
        run("embed", "--model", "run", "--images", str(GOLDENS / "images"), "--out", "e.safetensors")
        run("export", "--model", "run", "--format", "heads", "--out", "heads")
        with safe_open(folder / "e.safetensors", "pt") as ours:
            expected = ours.get_tensor("image_embeds")
        images = [Image.open(path).convert("RGB") for path in sorted((GOLDENS / "images").iterdir())]
        with torch.no_grad():
            tokens = vit(**processor(images, return_tensors="pt")).last_hidden_state
            defined = card(folder / "heads", {"image": tokens, "text": torch.ones(2, 12)})
            found = defined["embed_image"](tokens)
        assert found.shape == expected.shape and found.std(0).max() > 1e-3, (found.shape, expected.shape)
        difference = (found - expected).abs().max().item()
        worst = max(worst, difference)
        print(f"tokens, {name}: {difference:.1e}")
    return worst


def card(directory: Path, features: dict[str, torch.Tensor]) -> dict:
    """What the Python of the card defines."""
    (code,) = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    defined = {"images": features["image"], "texts": features["text"]}
    before = os.getcwd()
    try:
        os.chdir(directory)
        exec(code, defined)
    finally:
        os.chdir(before)
    return defined


def main(program: str) -> int:
    program = str(Path(program).resolve())
    random = numpy.random.default_rng(1)
    features = {side: random.standard_normal((ROWS, width), dtype=numpy.float32) for side, width in WIDTHS.items()}
    worst = 0.0
    with tempfile.TemporaryDirectory() as root:
        for number, (name, heads) in enumerate(HEADS.items()):
            folder = Path(root) / str(number)
            folder.mkdir()
            for side, values in features.items():
                numpy.save(folder / f"{side}.npy", values)
            (folder / "lit.toml").write_text(config(heads), encoding="utf-8")

            def run(*arguments: str) -> None:
                subprocess.run([program, *arguments], check=True, capture_output=True, text=True, cwd=folder)

            run("train", "--config", "lit.toml")
            for dim in (DIM, CUT):
                cut = ("--model", "run", "--dim", str(dim))
                run("embed", *cut, "--images", "image.npy", "--texts", "text.npy", "--out", f"{dim}.safetensors")
                run("export", *cut, "--format", "heads", "--out", f"heads{dim}")
                tensors = {side: torch.from_numpy(values) for side, values in features.items()}
                defined = card(folder / f"heads{dim}", tensors)
                assert defined["logits"].shape == (ROWS, ROWS)
                with safe_open(folder / f"{dim}.safetensors", "pt") as ours:
                    for side in WIDTHS:
                        found = defined[f"embed_{side}"](tensors[side])
                        expected = ours.get_tensor(f"{side}_embeds")
                        assert found.shape == expected.shape == (ROWS, dim) and expected.abs().max() > 0.1
                        difference = (found - expected).abs().max().item()
                        worst = max(worst, difference)
                        print(f"{name}, {dim} values, {side}s: {difference:.1e}")
        worst = max(worst, check_tokens(program, Path(root)))
    print(f"largest difference: {worst:.1e}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))

#!/usr/bin/env python3
"""Exports every golden dual encoder and whole model with `dualenc`, and checks the directories in transformers.

scripts/check_parity.sh runs it, in a test.

    python scripts/check_families.py target/debug/dualenc

Each exported directory must:

- load as VisionTextDualEncoderModel with no missing or unexpected key, and as VisionTextDualEncoderProcessor;
- compute the features in the golden from the golden's tensors;
- compute the features that `dualenc embed` computes with the original, from images and captions;
- have a model card with YAML that parses, and Python that runs.

`dualenc export` must refuse the models that transformers cannot compute.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

GOLDENS = Path(__file__).resolve().parent.parent / "tests" / "goldens"
# Largest absolute difference allowed. f32 sums in a different order differ a little in every layer.
TOLERANCE = 1e-4
FIXTURES = ("dual/*", "image_families/dual_*", "text_families/pair_*", "whole/*")
# Text config type -> golden in ids/ with a tokenizer, for fixtures without one.
TOKENIZERS = {
    "albert": "albert",
    "bert": "bert",
    "clip_text_model": "clip",
    "deberta-v2": "deberta_v2",
    "distilbert": "bert",
    "electra": "bert",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "siglip_text_model": "siglip",
}
# Fixtures to repeat with another tokenizer: in files older than `tokenizer.json`, or of a family with the same network.
AGAIN = (
    ("dual/vit_bert", "bert_files", None),
    ("dual/vit_bert", "bert_cased", None),
    ("dual/deit_roberta", "roberta_files", None),
    ("dual/deit_roberta", "xlm_roberta", "xlm-roberta"),
    ("text_families/pair_clip_text", "clip_files", None),
)
REFUSED = {
    "image_families/dual_resnet",
    "text_families/pair_deberta",
    "text_families/pair_distilbert",
    "text_families/pair_electra",
    "text_families/pair_modernbert",
    "text_families/pair_siglip_text",
    "whole/chinese_clip",
    "whole/siglip",
}
WORDS = ("word_embeddings.weight", "token_embedding.weight", "tok_embeddings.weight")
# No unknown words: in MPNet's small vocabulary, `[UNK]` has the id that its tower treats as padding.
TEXTS = [
    "the red dog",
    "A cat, two dogs and a bee",
    "photo",
    "the sun in the sky over a sharp green triangle by the sea",
]


def load_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def save_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def stage(name: str, target: Path, tokenizer: str | None, model_type: str | None) -> bool:
    """Copies the fixture and adds missing files. Returns whether its expected text features still apply."""
    shutil.copytree(GOLDENS / name, target)
    if not (target / "config.json").exists():
        # open_clip's directory is complete.
        return True
    config = load_json(target / "config.json")
    text = config["text_config"]
    text["model_type"] = model_type or text["model_type"]
    if not any((target / file).exists() for file in ("preprocessor_config.json", "processor_config.json")):
        side = config["vision_config"].get("image_size", 32)
        size = {"height": side, "width": side}
        save_json(target / "preprocessor_config.json", {"image_processor_type": "ViTImageProcessor", "size": size})
    same = True
    if tokenizer or not any((target / file).exists() for file in ("tokenizer.json", "vocab.json")):
        for file in target.glob("tokenizer*"):
            file.unlink()
        for file in (GOLDENS / "ids" / (tokenizer or TOKENIZERS[text["model_type"]])).iterdir():
            if file.name != "expected.json":
                shutil.copy(file, target)
        same = widen(target, text)
    save_json(target / "config.json", config)
    return same


def widen(target: Path, text: dict) -> bool:
    """Extends the word embeddings to the tokenizer's vocabulary and sets CLIP's end token. Returns as `stage` does."""
    # transformers 5.23 has no fast tokenizer class for SigLIP.
    fast = text["model_type"].startswith("siglip")
    loader = transformers.PreTrainedTokenizerFast if fast else transformers.AutoTokenizer
    tokenizer = loader.from_pretrained(target)
    missing = len(tokenizer) - text["vocab_size"]
    if missing > 0:
        tensors = load_file(target / "model.safetensors")
        (name,) = [name for name in tensors if name.startswith("text_model") and name.endswith(WORDS)]
        rows = torch.randn(missing, tensors[name].shape[1], generator=torch.Generator().manual_seed(1))
        tensors[name] = torch.cat([tensors[name], 0.5 * rows])
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        text["vocab_size"] = len(tokenizer)
    if text["model_type"] == "clip_text_model":
        text["eos_token_id"] = tokenizer.eos_token_id
        return False
    return True


def room(config: dict) -> int:
    """Returns the number of tokens for which the text tower has positions."""
    numbered = config["model_type"] in ("roberta", "xlm-roberta", "mpnet")
    return config["max_position_embeddings"] - (config.get("pad_token_id", 1) + 1 if numbered else 0)


def differences(model, original: Path, exported: Path, embedded: Path, images: list[Path], same: bool) -> dict:
    """Returns the largest absolute difference from the reference for each kind of features."""
    found = {}

    def compare(name: str, theirs, ours) -> None:
        assert theirs.shape == ours.shape and ours.abs().max() > 0.01, name
        found[name] = (theirs - ours).abs().max().item()

    expected = load_file(original / "expected.safetensors")
    given = {name: expected[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in expected}
    pixels = expected["pixel_values"]
    compare("image", model.get_image_features(pixel_values=pixels).pooler_output, expected["image_features"])
    if same:
        compare("text", model.get_text_features(**given).pooler_output, expected["text_features"])
        logits = model(pixel_values=pixels, **given).logits_per_text
        compare("logits", logits, expected["logits_per_text"])
    processor = transformers.VisionTextDualEncoderProcessor.from_pretrained(exported)
    limit = room(load_json(exported / "config.json")["text_config"])
    tokens = processor(text=TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=limit)
    # Use the processor based on PIL, because the one based on torchvision rounds differently when it resizes.
    on_pil = transformers.AutoImageProcessor.from_pretrained(exported, use_fast=False)
    pixels = on_pil(images=[Image.open(path).convert("RGB") for path in images], return_tensors="pt")["pixel_values"]
    with safe_open(embedded, "pt") as ours:
        image_features = model.get_image_features(pixel_values=pixels).pooler_output
        compare("images", image_features, ours.get_tensor("image_features"))
        compare("captions", model.get_text_features(**tokens).pooler_output, ours.get_tensor("text_features"))
    return found | {"class": type(processor.tokenizer).__name__}


def check_card(directory: Path, images: list[Path], library: str) -> None:
    """Parses the front matter and runs the Python of the card, in the directory."""
    card = (directory / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    meta = yaml.safe_load(front)
    assert meta["library_name"] == library and "dualenc" in meta["tags"], meta
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    shutil.copy(images[0], directory / "photo.jpg")
    printed = io.StringIO()
    before = os.getcwd()
    try:
        os.chdir(directory)
        with contextlib.redirect_stdout(printed):
            exec(code, {})
    finally:
        os.chdir(before)
    assert "a photo of a cat" in printed.getvalue(), printed.getvalue()


def main(program: str) -> int:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    fixtures = [str(path.relative_to(GOLDENS)) for pattern in FIXTURES for path in sorted(GOLDENS.glob(pattern))]
    cases = [(name, None, None) for name in fixtures if name != "whole/doubled"] + list(AGAIN)
    failed, worst = [], {}
    with tempfile.TemporaryDirectory() as root, torch.no_grad():
        root = Path(root)
        (root / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
        (root / "images").mkdir()
        for path in sorted((GOLDENS / "train" / "images").glob("*.png"))[:3]:
            shutil.copy(path, root / "images")
        images = sorted((root / "images").iterdir())
        for number, (name, tokenizer, model_type) in enumerate(cases):
            label = f"{name} ({tokenizer})" if tokenizer else name
            original, exported, embedded = (root / f"{number}.{kind}" for kind in ("in", "out", "safetensors"))
            same = stage(name, original, tokenizer, model_type)
            run = [program, "export", "--model", original, "--out", exported]
            done = subprocess.run(run, capture_output=True, text=True)
            if name in REFUSED:
                refused = done.returncode == 2 and "VisionTextDualEncoder" in done.stderr and not exported.exists()
                print(f"{label}: {'refused' if refused else 'NOT REFUSED: ' + done.stderr}")
                failed += [] if refused else [label]
                continue
            embed = [program, "embed", "--model", original, "--images", root / "images", "--texts", root / "texts.txt"]
            try:
                assert done.returncode == 0, done.stderr
                subprocess.run([*embed, "--raw", "--out", embedded], check=True, capture_output=True, text=True)
                model_class = transformers.VisionTextDualEncoderModel
                model, info = model_class.from_pretrained(exported, output_loading_info=True)
                problems = {kind: keys for kind, keys in info.items() if keys}
                assert not problems, problems
                found = differences(model.eval(), original, exported, embedded, images, same)
                check_card(exported, images, "transformers")
            except subprocess.CalledProcessError as error:
                print(f"{label}: FAILED: {error.stderr}")
                failed.append(label)
                continue
            except Exception as error:
                print(f"{label}: FAILED: {type(error).__name__}: {error}")
                failed.append(label)
                continue
            figures = {kind: value for kind, value in found.items() if kind != "class"}
            worst |= {kind: max(value, worst.get(kind, 0.0)) for kind, value in figures.items()}
            good = max(figures.values()) <= TOLERANCE
            failed += [] if good else [label]
            listed = ", ".join(f"{kind} {value:.1e}" for kind, value in figures.items())
            print(f"{label}: {'' if good else 'FAILED: '}{listed}; {found['class']}")
    print("largest differences: " + ", ".join(f"{kind} {value:.1e}" for kind, value in worst.items()))
    print(f"{len(cases)} directories, {len(failed)} failed" + "".join(f"\n  {label}" for label in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))

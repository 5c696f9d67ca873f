#!/usr/bin/env python3
"""Loads an exported directory in transformers and compares its features with those of `dualenc embed --raw`.

    pip install torch==2.15.0 transformers==5.23.0 torchvision==0.29.2 pillow safetensors
    dualenc export --model RUN --out HFDIR
    dualenc embed --model RUN --images FOLDER --texts FILE --raw --out OUT.safetensors
    python scripts/check_export.py HFDIR FILE OUT.safetensors

Exits with 1 if a key is missing or unexpected, or if a feature differs by more than 1e-4. Compares PNG, GIF and
JPEG images only.
"""

import json
import sys

import torch
import transformers
from PIL import Image
from safetensors import safe_open

# Largest absolute difference allowed. f32 sums in a different order differ a little in every layer.
TOLERANCE = 1e-4
# Formats that dualenc decodes to the pixels of Pillow.
EXACT = (".png", ".gif", ".jpg", ".jpeg")


def pooled(output):
    """Returns the features. transformers 4 returns the tensor itself, 5 an output with `pooler_output`."""
    return output if torch.is_tensor(output) else output.pooler_output


def main(directory, texts_path, embeddings_path):
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    model, info = transformers.VisionTextDualEncoderModel.from_pretrained(directory, output_loading_info=True)
    model.eval()
    problems = {kind: info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[kind]}
    print(f"keys: {problems or 'none missing, unexpected or mismatched'}")
    processor = transformers.VisionTextDualEncoderProcessor.from_pretrained(directory)
    worst = {}
    with safe_open(embeddings_path, "pt") as ours, torch.no_grad():
        names = set(ours.keys())
        if "text_features" in names:
            texts = [line.strip() for line in open(texts_path, encoding="utf-8") if line.strip()]
            tokens = processor(text=texts, return_tensors="pt", padding=True)
            theirs = pooled(model.get_text_features(**tokens))
            worst["text_features"] = (ours.get_tensor("text_features") - theirs).abs().max().item()
        if "image_features" in names:
            paths = json.loads(ours.metadata()["image_paths"])
            rows = [row for row, path in enumerate(paths) if path.lower().endswith(EXACT)]
            images = [Image.open(paths[row]).convert("RGB") for row in rows]
            # Use the processor based on PIL, because the one based on torchvision rounds differently when it resizes.
            on_pil = transformers.AutoImageProcessor.from_pretrained(directory, use_fast=False)
            pixels = on_pil(images=images, return_tensors="pt")["pixel_values"]
            theirs = pooled(model.get_image_features(pixel_values=pixels))
            worst["image_features"] = (ours.get_tensor("image_features")[rows] - theirs).abs().max().item()
    for name, difference in worst.items():
        print(f"{name}: largest difference {difference:.2e}")
    return 0 if worst and not problems and max(worst.values()) <= TOLERANCE else 1


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

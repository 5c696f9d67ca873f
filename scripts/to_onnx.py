#!/usr/bin/env python3
"""Converts a directory of `dualenc export --format transformers` to two ONNX graphs, and checks them in onnxruntime.

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 onnx onnxscript onnxruntime safetensors pillow
    dualenc export --model RUN --out HFDIR
    python scripts/to_onnx.py HFDIR OUTDIR [EMBEDS.safetensors IMAGES TEXTS]

Writes:

- OUTDIR/image.onnx: `pixel_values` [batch, 3, height, width] to `image_embeds` [batch, dim], L2-normalised;
- OUTDIR/text.onnx: `input_ids` and `attention_mask` [batch, length] to `text_embeds` [batch, dim], L2-normalised.

Batch and length are dynamic. Exits with 1 if a graph differs from PyTorch by more than 1e-4, on batches of other sizes
than it was traced with and with padded texts; or, if the last three arguments are given, from what
`dualenc embed --model RUN --images IMAGES --texts TEXTS --out EMBEDS.safetensors` wrote (lossless images only).
"""

import json
import sys
from pathlib import Path

import numpy
import onnxruntime
import torch
import transformers
from PIL import Image
from safetensors import safe_open

# Largest absolute difference allowed. f32 sums in a different order differ a little in every layer.
TOLERANCE = 1e-4


class ImageGraph(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        features = self.model.vision_model(pixel_values=pixel_values).pooler_output
        return torch.nn.functional.normalize(self.model.visual_projection(features), dim=-1)


class TextGraph(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        features = self.model.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return torch.nn.functional.normalize(self.model.text_projection(features), dim=-1)


def convert(graph, example, path, names, output, shapes):
    torch.onnx.export(
        graph.eval(),
        example,
        path,
        input_names=names,
        output_names=[output],
        dynamic_shapes=shapes,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, inputs)
    return output


def padded(tokenizer, texts):
    tokens = tokenizer(texts, return_tensors="np", padding=True, truncation=True)
    return {name: tokens[name].astype(numpy.int64) for name in ("input_ids", "attention_mask")}


def refuse_other_formats(directory):
    """Says what to do with a directory that is no VisionTextDualEncoder. Those have linear heads without bias and norm."""
    directory = Path(directory)
    if (directory / "modules.json").exists():
        sys.exit(f"{directory} is a SentenceTransformer; give a directory of `dualenc export --format transformers`")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") == "dualenc-heads":
        sys.exit(
            f"{directory} holds heads alone, without towers; to convert them, call the functions in its README.md from a "
            "torch.nn.Module and pass that to `torch.onnx.export`"
        )


def main(directory, out, embeds=None, images=None, texts=None):
    refuse_other_formats(directory)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, onnxruntime {onnxruntime.__version__}")
    model = transformers.VisionTextDualEncoderModel.from_pretrained(directory).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    image_path, text_path = str(out / "image.onnx"), str(out / "text.onnx")
    blank = [Image.new("RGB", (64, 48), color) for color in ("red", "white")]
    pixels = processor(images=blank, return_tensors="pt")["pixel_values"]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    ids = torch.ones(2, 8, dtype=torch.long)
    convert(ImageGraph(model), (pixels,), image_path, ["pixel_values"], "image_embeds", ({0: batch},))
    # Padded: transformers leaves the mask out of a trace in which nothing is masked.
    mask = ids.clone()
    mask[0, 5:] = 0
    shapes = ({0: batch, 1: length}, {0: batch, 1: length})
    convert(TextGraph(model), (ids, mask), text_path, ["input_ids", "attention_mask"], "text_embeds", shapes)
    worst = {}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for count in (1, 3):
            pixels = torch.randn(count, *pixels.shape[1:], generator=generator)
            theirs = ImageGraph(model)(pixels).numpy()
            found = numpy.abs(run(image_path, pixel_values=pixels.numpy()) - theirs).max()
            worst["image, as PyTorch"] = max(found, worst.get("image, as PyTorch", 0.0))
            tokens = padded(tokenizer, ["the red dog", "a", "one dog and one more red dog"][:count])
            theirs = TextGraph(model)(**{name: torch.from_numpy(value) for name, value in tokens.items()}).numpy()
            found = numpy.abs(run(text_path, **tokens) - theirs).max()
            worst["text, as PyTorch"] = max(found, worst.get("text, as PyTorch", 0.0))
    if embeds:
        with safe_open(embeds, "np") as ours:
            paths = [Path(path) for path in json.loads(ours.metadata()["image_paths"])]
            rows = [row for row, path in enumerate(paths) if path.suffix.lower() in (".png", ".gif", ".webp")]
            opened = [Image.open(paths[row] if paths[row].exists() else Path(images) / paths[row]) for row in rows]
            pixels = processor(images=[image.convert("RGB") for image in opened], return_tensors="np")["pixel_values"]
            found = run(image_path, pixel_values=pixels) - ours.get_tensor("image_embeds")[rows]
            worst["image, as dualenc"] = numpy.abs(found).max()
            lines = [line.strip() for line in open(texts, encoding="utf-8") if line.strip()]
            found = run(text_path, **padded(tokenizer, lines)) - ours.get_tensor("text_embeds")
            worst["text, as dualenc"] = numpy.abs(found).max()
    for name, difference in worst.items():
        print(f"{name}: largest difference {difference:.1e}")
    return 0 if max(worst.values()) <= TOLERANCE else 1


if __name__ == "__main__":
    if len(sys.argv) not in (3, 6):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

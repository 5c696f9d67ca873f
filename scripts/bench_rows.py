"""Module of scripts/bench.py: the rows that are measured in turns, and the peers of dualenc in each."""

from dataclasses import dataclass

# The forms that scripts/bench_pytorch.py measures, as the table names them.
FORMS = {
    "eager": "PyTorch",
    "fused": "PyTorch, fused AdamW",
    "compile": "`torch.compile`",
    "compile-fused": "`torch.compile`, fused AdamW",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino-streams": "OpenVINO, one stream per core",
    "eager-autocast": "PyTorch, bf16 autocast",
    "fused-autocast": "PyTorch, bf16 autocast, fused AdamW",
    "compile-autocast": "`torch.compile`, bf16 autocast",
    "compile-fused-autocast": "`torch.compile`, bf16 autocast, fused AdamW",
    "eager-weights": "PyTorch, weights in bf16",
    "compile-weights": "`torch.compile`, weights in bf16",
    "compile-medium": "`torch.compile`, matmul precision `medium`",
    "compile-fused-medium": "`torch.compile`, matmul precision `medium`, fused AdamW",
    "pillow": "Pillow and torchvision",
    "torchvision": "`torchvision.io`",
    "draft": "Pillow's `draft` and torchvision",
    "numpy": "NumPy",
    "pytorch": "PyTorch",
}

FORWARD = ("eager", "compile", "onnxruntime", "openvino", "openvino-streams")
FORWARD_BF16 = ("eager-autocast", "compile-autocast", "eager-weights", "compile-weights", "compile-medium", "openvino",
                "openvino-streams")
STEP = ("eager", "fused", "compile-fused")
STEP_BF16 = ("fused-autocast", "compile-fused-autocast", "compile-fused-medium")
LOSS = ("eager", "compile")
IMAGES = ("pillow", "torchvision")


@dataclass(frozen=True)
class Row:
    """`target` is the project's goal for the ratio."""

    title: str
    forms: tuple[str, ...]
    target: str = ""


STEP_TITLE = "MiniLM-L6 training step, 64 captions of 32 tokens"
CAPTIONS_TITLE = "MiniLM-L6 training step, 64 quickstart captions (peers pad to the longest, 8 tokens)"
ROWS = {
    "vit": Row("locked ViT-S/16 forward pass, 16 images at 224 px", FORWARD, "0.95"),
    "vit-bf16": Row("locked ViT-S/16 forward pass in bf16, 16 images at 224 px", FORWARD_BF16),
    "vit-b": Row("locked ViT-B/16 forward pass, 16 images at 224 px", FORWARD),
    "vit-b-bf16": Row("locked ViT-B/16 forward pass in bf16, 16 images at 224 px", FORWARD_BF16),
    "bert": Row(STEP_TITLE, STEP, "0.95"),
    "bert-bf16": Row(f"{STEP_TITLE}, in bf16", STEP_BF16),
    "bert-captions": Row(CAPTIONS_TITLE, STEP, "0.5"),
    "bert-captions-bf16": Row(f"{CAPTIONS_TITLE}, in bf16", STEP_BF16),
    "infonce": Row("InfoNCE forward and backward pass, 4096 x 512", LOSS, "0.8"),
    "images-jpeg": Row("96 JPEG photos, 500 x 375 to 224 px", IMAGES, "0.5"),
    "images-jpeg-large": Row("24 JPEG photos, 1600 x 1200 to 224 px", IMAGES, "0.5"),
    "images-jpeg-fast": Row(
        "24 JPEG photos, 1600 x 1200 to 224 px, decoded at a half (`data.fast_decode`)", ("draft", *IMAGES)
    ),
    "images-png": Row("256 PNG drawings, 128 x 128 to 224 px", IMAGES, "0.5"),
}
# Rows of whole processes, and rows that are measured only if they are named.
PROCESSES = ("first-step", "lit")
ON_REQUEST = ("ll-1m", "ll-1m-bf16", "fit-1m")
NEEDS_QUICKSTART = {"images-png", "first-step", "lit"}
# In this order, rows are measured and written.
ORDER = [*ROWS, *PROCESSES, *ON_REQUEST]
# Emulated bf16 is no anchor: without these instructions, rows in bf16 are left out.
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}

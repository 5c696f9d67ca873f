"""Seeded random numbers and file writing, shared by all sections."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def generator(name: str) -> np.random.Generator:
    """Returns a generator seeded by `name` alone, so that one fixture never changes another."""
    return np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))


def normal(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(generator(name).standard_normal(shape).astype(np.float32))


def is_norm(name: str) -> bool:
    owner = name.split(".")[-2].lower() if "." in name else ""
    return "norm" in owner


def randomise(model: torch.nn.Module, seed: str) -> torch.nn.Module:
    """Redraws every parameter except `logit_scale`, so that a swapped, skipped or transposed tensor changes the output.

    Initial values would hide such faults: norms start at one, biases and class tokens at zero, layer scales equal.
    Matrices have a standard deviation of 1/sqrt(fan in). Queries and keys have 1.5 times that, so that attention is
    neither flat nor saturated.
    """
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            draw = normal(f"{seed}/{name}", *parameter.shape)
            if name.endswith("logit_scale"):
                continue
            elif is_norm(name):
                value = 1.0 + 0.2 * draw if name.endswith("weight") else 0.1 * draw
            elif "lambda1" in name:
                value = 0.6 + 0.2 * draw
            elif "token" in name.split(".")[-1] or "embeddings" in name.split(".")[-1]:
                value = 0.5 * draw
            elif "word_embeddings" in name or "position_embeddings" in name or "token_type_embeddings" in name:
                value = 0.5 * draw
            elif parameter.dim() == 1:
                value = 0.1 * draw
            else:
                fan_in = parameter[0].numel()
                gain = 1.5 if any(part in name for part in ("query", "key", "q_proj", "k_proj")) else 1.0
                value = draw * gain / fan_in**0.5
            parameter.copy_(value)
    return model.eval()


def save_tensors(path: Path, tensors: dict, metadata: dict[str, str] | None = None) -> None:
    arrays = {}
    for name, value in tensors.items():
        value = torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else torch.as_tensor(value)
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{path}: `{name}` is not finite")
        arrays[name] = value.detach().contiguous().clone()
    save_file(arrays, path, metadata=metadata)


def format_json(value, indent: str = "") -> str:
    """Formats JSON with sorted keys and indentation. Lists of plain values stay on one line."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        lines = [f"{deeper}{json.dumps(name)}: {format_json(value[name], deeper)}" for name in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(deeper + format_json(item, deeper) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def save_json(path: Path, value) -> None:
    path.write_text(format_json(value) + "\n", encoding="utf-8")


def load_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))

"""token_heads/: heads over all tokens of an image, as plain PyTorch modules: outputs and all gradients; and grids of tokens pooled.

Parameters have their names in dualenc, and matrices its layout, [in, out]. Every parameter is drawn at random: LayerScale
starts at 1e-5, which would hide what the blocks compute.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from .common import is_norm, normal, save_tensors

# The width and the special tokens are those of the golden DINOv2 with registers, and of the golden SigLIP.
BATCH, PATCHES, WIDTH = 3, 6, 12
EPSILON = 1e-5


def summary(tokens: torch.Tensor, special: int, class_token: bool) -> torch.Tensor:
    return tokens[:, 0] if class_token else tokens[:, special:].mean(1)


def heads_of(x: torch.Tensor, heads: int) -> torch.Tensor:
    batch, count, width = x.shape
    return x.reshape(batch, count, heads, width // heads).transpose(1, 2)


class Query(nn.Module):
    def __init__(self, token_width: int, width: int, heads: int, special: int, class_token: bool):
        super().__init__()
        self.heads, self.special, self.class_token = heads, special, class_token
        self.probe = nn.Parameter(torch.empty(1, width))
        self.norm = nn.LayerNorm(token_width, eps=EPSILON)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(token_width, width, bias=False)
        self.value = nn.Linear(token_width, width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens):
        batch = len(tokens)
        normed = self.norm(tokens)
        query = self.query(self.probe).expand(batch, 1, -1)
        query, key, value = (heads_of(x, self.heads) for x in (query, self.key(normed), self.value(normed)))
        found = functional.scaled_dot_product_attention(query, key, value)
        found = self.output(found.transpose(1, 2).reshape(batch, -1))
        return torch.cat([summary(tokens, self.special, self.class_token), found], 1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.value, self.output = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)

    def forward(self, x):
        query, key, value = (heads_of(part(x), self.heads) for part in (self.query, self.key, self.value))
        found = functional.scaled_dot_product_attention(query, key, value)
        return self.output(found.transpose(1, 2).reshape(x.shape))


class SwiGlu(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        hidden = -(-8 * width // 3)
        hidden = -(-hidden // 64) * 64
        self.gate, self.up, self.down = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.attention, self.mlp = Attention(width, heads), SwiGlu(width)
        self.attention_scale, self.mlp_scale = (nn.Parameter(torch.empty(width)) for _ in range(2))

    def forward(self, x):
        x = x + self.attention_scale * self.attention(self.attention_norm(x))
        return x + self.mlp_scale * self.mlp(self.mlp_norm(x))


class Blocks(nn.Module):
    def __init__(self, token_width: int, width: int, heads: int, count: int, special: int, class_token: bool):
        super().__init__()
        self.special, self.class_token = special, class_token
        self.input = nn.Linear(token_width, width) if token_width != width else nn.Identity()
        self.encoder = nn.Module()
        self.encoder.blocks = nn.ModuleList(Block(width, heads) for _ in range(count))
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, tokens):
        x = self.input(tokens)
        for block in self.encoder.blocks:
            x = block(x)
        x = self.norm(x)
        mean = x[:, self.special :].mean(1)
        return torch.cat([x[:, 0], mean], 1) if self.class_token else mean


# Name: module, special tokens.
CASES = {
    "query": (lambda: Query(WIDTH, 8, 2, 4, True), 4),
    "query_patches": (lambda: Query(WIDTH, 8, 1, 0, False), 0),
    "blocks": (lambda: Blocks(WIDTH, 8, 2, 2, 4, True), 4),
    "blocks_patches": (lambda: Blocks(WIDTH, WIDTH, 4, 1, 0, False), 0),
}


def redraw(name: str, head: nn.Module) -> None:
    with torch.no_grad():
        for path, parameter in head.named_parameters():
            draw = normal(f"token_heads/{name}/{path}", *parameter.shape)
            if is_norm(path):
                draw = 1.0 + 0.2 * draw if path.endswith("weight") else 0.1 * draw
            elif path.endswith("_scale"):
                draw = 0.6 + 0.2 * draw
            elif parameter.dim() == 1:
                draw = 0.2 * draw
            elif path != "probe":
                # Attention that is neither flat nor saturated.
                gain = 2.0 if "query" in path or "key" in path else 1.0
                draw = gain * draw / parameter.shape[1] ** 0.5
            parameter.copy_(draw)


def ours(path: str, value: torch.Tensor) -> torch.Tensor:
    return value.T if value.dim() == 2 and path != "probe" else value


def write_grids(folder: Path) -> None:
    tensors = {}
    for name, (height, width), side in (("even", (4, 8), 4), ("uneven", (5, 7), 3), ("one", (5, 7), 1)):
        x = normal(f"token_heads/{name}/grid", 1, 2, height, width)
        y = functional.adaptive_avg_pool2d(x, side)
        # [tokens, width], row by row.
        tensors |= {f"{name}.{key}": value[0].flatten(1).T for key, value in (("x", x), ("y", y))}
    save_tensors(folder / "grid.safetensors", tensors, {"torch": torch.__version__.split("+")[0]})


def write(folder: Path) -> None:
    write_grids(folder)
    for name, (make, special) in CASES.items():
        head = make()
        redraw(name, head)
        tokens = (1.5 * normal(f"token_heads/{name}/x", BATCH, special + PATCHES, WIDTH) + 0.3).requires_grad_()
        y = head(tokens)
        weights = normal(f"token_heads/{name}/weights", *y.shape)
        (y * weights).sum().backward()
        tensors = {"x": tokens.flatten(1), "weights": weights, "y": y, "gradient.x": tokens.grad.flatten(1)}
        for path, value in head.named_parameters():
            tensors |= {f"before.{path}": ours(path, value), f"gradient.{path}": ours(path, value.grad)}
        tensors = {key: value.detach().clone() for key, value in tensors.items()}
        save_tensors(folder / f"{name}.safetensors", tensors, {"torch": torch.__version__.split("+")[0]})

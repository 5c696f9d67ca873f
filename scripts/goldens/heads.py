"""heads/: the projection heads of every kind, as plain PyTorch modules: outputs, all gradients, and three AdamW steps.

Parameters have their names in dualenc, and matrices its layout, [in, out]. Every parameter is drawn at random: initial
values, where biases and the last matrix of a residual head are zero, would hide faults.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from .common import is_norm, normal, save_tensors

BATCH, WIDTH, DIM = 7, 16, 10
STEPS, RATE, DECAY = 3, 0.01, 0.1
EPSILON = 1e-5


def norm_of(wanted: bool) -> nn.Module:
    return nn.LayerNorm(WIDTH, eps=EPSILON) if wanted else nn.Identity()


class Linear(nn.Module):
    def __init__(self, bias: bool, norm: bool):
        super().__init__()
        self.norm = norm_of(norm)
        self.weight = nn.Parameter(torch.empty(DIM, WIDTH))
        self.bias = nn.Parameter(torch.empty(DIM)) if bias else None

    def forward(self, x):
        return functional.linear(self.norm(x), self.weight, self.bias)


class Glu(nn.Module):
    def __init__(self, bias: bool, norm: bool, expansion: int):
        super().__init__()
        self.norm = norm_of(norm)
        self.gate = nn.Linear(WIDTH, expansion * WIDTH, bias)
        self.up = nn.Linear(WIDTH, expansion * WIDTH, bias)
        self.down = nn.Linear(expansion * WIDTH, DIM, bias)

    def forward(self, x):
        x = self.norm(x)
        return self.down(functional.relu6(self.gate(x)) * self.up(x))


class Residual(nn.Module):
    def __init__(self, bias: bool, norm: bool):
        super().__init__()
        self.norm = norm_of(norm)
        self.weight = nn.Parameter(torch.empty(DIM, WIDTH))
        self.bias = nn.Parameter(torch.empty(DIM)) if bias else None
        self.up = nn.Linear(WIDTH, DIM, bias)
        self.down = nn.Linear(DIM, DIM, False)

    def forward(self, x):
        x = self.norm(x)
        return functional.linear(x, self.weight, self.bias) + self.down(functional.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self, bias: bool):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias)

    def forward(self, x):
        return x + self.down(functional.gelu(self.up(self.norm(x))))


class Blocks(nn.Module):
    def __init__(self, bias: bool, norm: bool, count: int):
        super().__init__()
        self.norm = norm_of(norm)
        self.blocks = nn.ModuleList(Block(bias) for _ in range(count))
        self.output_norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.output = nn.Linear(WIDTH, DIM, bias)

    def forward(self, x):
        x = self.norm(x)
        for block in self.blocks:
            x = block(x)
        return self.output(self.output_norm(x))


CASES = {
    "linear": lambda: Linear(False, False),
    "linear_bias": lambda: Linear(True, False),
    "linear_norm": lambda: Linear(True, True),
    "glu": lambda: Glu(True, True, 8),
    "glu_plain": lambda: Glu(False, False, 3),
    "residual": lambda: Residual(True, True),
    "residual_plain": lambda: Residual(False, False),
    "blocks": lambda: Blocks(True, True, 2),
    "blocks_plain": lambda: Blocks(False, False, 1),
}


def redraw(name: str, head: nn.Module) -> None:
    with torch.no_grad():
        for path, parameter in head.named_parameters():
            draw = normal(f"heads/{name}/{path}", *parameter.shape)
            if is_norm(path):
                draw = 1.0 + 0.2 * draw if path.endswith("weight") else 0.1 * draw
            elif parameter.dim() == 1:
                draw = 0.2 * draw
            else:
                # Wide gates: some are shut, some are open as far as they go.
                draw = draw * (4.0 if path.startswith("gate") else 1.0) / parameter.shape[1] ** 0.5
            parameter.copy_(draw)


def ours(value: torch.Tensor) -> torch.Tensor:
    return value.T if value.dim() == 2 else value


def write(folder: Path) -> None:
    for name, make in CASES.items():
        head = make()
        redraw(name, head)
        x = (2.0 * normal(f"heads/{name}/x", BATCH, WIDTH) + 0.3).requires_grad_()
        weights = normal(f"heads/{name}/weights", BATCH, DIM)
        tensors = {"x": x, "weights": weights}
        tensors |= {f"before.{path}": ours(value) for path, value in head.named_parameters()}
        tensors = {key: value.detach().clone() for key, value in tensors.items()}
        decays = [value for value in head.parameters() if value.dim() > 1]
        others = [value for value in head.parameters() if value.dim() == 1]
        groups = [{"params": decays, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=RATE, eps=1e-8)
        for step in range(STEPS):
            optimizer.zero_grad()
            y = head(x)
            (y * weights).sum().backward()
            if step == 0:
                tensors |= {"y": y.detach().clone(), "gradient.x": x.grad.clone()}
                for path, value in head.named_parameters():
                    tensors[f"gradient.{path}"] = ours(value.grad).clone()
            optimizer.step()
        tensors |= {f"after.{path}": ours(value).detach().clone() for path, value in head.named_parameters()}
        save_tensors(folder / f"{name}.safetensors", tensors, {"torch": torch.__version__.split("+")[0]})

"""optim/: five updates of each optimiser on a matrix, a matrix with a short side, and a vector.

AdamW and SGD are torch's. Lion (Chen et al., arXiv 2302.06675, algorithm 2) and Adafactor (Shazeer and Stern, arXiv
1804.04235, algorithms 4 and 5, with the settings of big_vision's `scale_by_adafactor`) are written out, in float64.
Rates rise with the step; gradients are scaled as a clipped global norm would; weight decay is decoupled, on matrices
only.
"""

from pathlib import Path

import torch

from .common import normal, save_tensors

SHAPES = {"matrix": (40, 33), "narrow": (6, 40), "vector": (11,)}
STEPS = 5
CLIP = 0.5
WEIGHT_DECAY = 0.1


def rate(step: int) -> float:
    return 0.01 * (step + 1)


def gradient(name: str, step: int) -> torch.Tensor:
    shape = SHAPES[name]
    draw = normal(f"optim/{name}/{step}", *shape)
    # Scale rows and columns differently, because a factored second moment would otherwise be flat.
    for axis, size in enumerate(shape):
        ramp = torch.linspace(0.2, 3.0, size).reshape([size if at == axis else 1 for at in range(len(shape))])
        draw = draw * ramp
    return draw


def by_torch(make):
    """Returns a function for the updates and the final state, with the state's names in dualenc."""

    def run(value: torch.Tensor, gradients: list[torch.Tensor], decay: float):
        parameter = torch.nn.Parameter(value.clone())
        optimizer, names = make(parameter, decay)
        after = []
        for step, gradient in enumerate(gradients):
            parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = rate(step)
            if isinstance(optimizer, torch.optim.SGD):
                with torch.no_grad():
                    parameter.mul_(1 - rate(step) * decay)
            optimizer.step()
            after.append(parameter.detach().clone())
        state = optimizer.state[parameter]
        return after, {ours: state[theirs] for ours, theirs in names.items()}

    return run


def adamw(parameter: torch.nn.Parameter, decay: float):
    optimizer = torch.optim.AdamW([parameter], betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
    return optimizer, {"first": "exp_avg", "second": "exp_avg_sq"}


def sgd(parameter: torch.nn.Parameter, _: float):
    # torch's own weight decay for SGD is not decoupled.
    return torch.optim.SGD([parameter], lr=1.0, momentum=0.9), {"first": "momentum_buffer"}


def lion(value: torch.Tensor, gradients: list[torch.Tensor], decay: float):
    value, momentum, after = value.double(), torch.zeros_like(value).double(), []
    for step, gradient in enumerate(gradients):
        direction = torch.sign(0.9 * momentum + 0.1 * gradient.double())
        value = value - rate(step) * (direction + decay * value)
        momentum = 0.99 * momentum + 0.01 * gradient.double()
        after.append(value)
    return after, {"first": momentum}


def adafactor(value: torch.Tensor, gradients: list[torch.Tensor], decay: float):
    value = value.double()
    momentum, second, row, column, after = 0.0, 0.0, 0.0, 0.0, []
    factored = value.dim() == 2 and min(value.shape) >= 32
    for step, gradient in enumerate(gradients):
        gradient = gradient.double()
        beta = min(0.999, 1 - (step + 1) ** -0.8)
        squares = gradient**2 + 1e-30
        if factored:
            row = beta * row + (1 - beta) * squares.mean(dim=1)
            column = beta * column + (1 - beta) * squares.mean(dim=0)
            second = torch.outer(row, column) / row.mean()
        else:
            second = beta * second + (1 - beta) * squares
        update = gradient / second.sqrt()
        momentum = 0.9 * momentum + 0.1 * update
        value = value - rate(step) * (momentum + decay * value)
        after.append(value)
    return after, {"first": momentum} | ({"row": row, "column": column} if factored else {"second": second})


OPTIMIZERS = {"adamw": by_torch(adamw), "adafactor": adafactor, "lion": lion, "sgd": by_torch(sgd)}


def write(folder: Path) -> None:
    """Writes `<parameter>.initial`, `.gradient.<step>`, `<optimizer>.<parameter>.<step>` (0 and the last), and state."""
    tensors = {}
    for name, shape in SHAPES.items():
        initial = normal(f"optim/{name}", *shape)
        gradients = [gradient(name, step) for step in range(STEPS)]
        tensors[f"{name}.initial"] = initial
        tensors |= {f"{name}.gradient.{step}": gradients[step] for step in range(STEPS)}
        for optimizer, run in OPTIMIZERS.items():
            decay = WEIGHT_DECAY if len(shape) > 1 else 0.0
            after, state = run(initial, [CLIP * gradient for gradient in gradients], decay)
            for step in (0, STEPS - 1):
                tensors[f"{optimizer}.{name}.{step}"] = after[step].float()
            tensors |= {f"{optimizer}.{name}.{array}": value.float() for array, value in state.items()}
    save_tensors(folder / "expected.safetensors", tensors)

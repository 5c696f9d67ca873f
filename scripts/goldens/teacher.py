"""teacher/: the contrastive loss with the divergence from a teacher, values and all gradients, in double precision.

Softmax: torch's `kl_div` between the softmaxes of each row, and of each column, over the pairs that are not masked.
Sigmoid: `binary_cross_entropy_with_logits` with the teacher's probabilities as targets, less the entropy of these. With
several texts of each image, which follow each other, the loss is the mean over a matrix for each of them.
"""

from pathlib import Path

import torch
from torch.nn import functional

from .common import normal, save_json
from .losses import LOGIT_BIAS, LOGIT_SCALE, RELATED, sigmoid, softmax

BATCH, DIM, TEACHER_DIM = 8, 6, 9
WEIGHT, SCALE, BIAS = 0.3, 12.0, -4.0


def divergence(teacher: torch.Tensor, logits: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """The mean over the rows of KL(teacher || student)."""
    of_rows = []
    for wanted, found, left_out in zip(teacher, logits, masked):
        kept = left_out == 0
        wanted, found = (functional.log_softmax(row[kept], dim=0) for row in (wanted, found))
        of_rows.append(functional.kl_div(found, wanted, reduction="sum", log_target=True))
    return torch.stack(of_rows).mean()


def sigmoid_divergence(teacher: torch.Tensor, logits: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    cross_entropy = functional.binary_cross_entropy_with_logits
    target = torch.sigmoid(teacher)
    losses = cross_entropy(logits, target, reduction="none") - cross_entropy(teacher, target, reduction="none")
    return (losses * (1.0 - masked)).sum() / BATCH


def write(folder: Path) -> None:
    torch.set_default_dtype(torch.double)
    try:
        write_cases(folder)
    finally:
        torch.set_default_dtype(torch.float)


def write_cases(folder: Path) -> None:
    related = torch.zeros(BATCH, BATCH)
    for row, column in RELATED:
        related[row, column] = 1.0
    inputs, cases = {}, []
    for slots in (1, 2):
        shapes = {"image": (BATCH, DIM), "text": (BATCH * slots, DIM)}
        shapes |= {"teacher_image": (BATCH, TEACHER_DIM), "teacher_text": (BATCH * slots, TEACHER_DIM)}
        tensors = {name: normal(f"teacher/{slots}/{name}", *shape).double() for name, shape in shapes.items()}
        for side in ("teacher_image", "teacher_text"):
            tensors[side] = functional.normalize(tensors[side], dim=-1)
        inputs[str(slots)] = {name: value.flatten().tolist() for name, value in tensors.items()}
        for loss in ("softmax", "sigmoid"):
            for duplicates in ("ignore", "positives", "mask"):
                image, text = (tensors[side].clone().requires_grad_() for side in ("image", "text"))
                scale, bias = (torch.tensor(value, requires_grad=True) for value in (LOGIT_SCALE, LOGIT_BIAS))
                masked = related if duplicates == "mask" else torch.zeros_like(related)
                own, term = 0.0, 0.0
                for slot in range(slots):
                    units = [functional.normalize(side, dim=-1) for side in (image, text[slot::slots])]
                    logits = units[0] @ units[1].T * scale.exp()
                    teacher = tensors["teacher_image"] @ tensors["teacher_text"][slot::slots].T * SCALE
                    if loss == "softmax":
                        directions = [(logits, related), (logits.T, related.T)]
                        own = own + sum(softmax(*direction, duplicates, 0.1) for direction in directions) / 2 / slots
                        both = [(teacher, logits, masked), (teacher.T, logits.T, masked.T)]
                        term = term + sum(divergence(*direction) for direction in both) / 2 / slots
                    else:
                        own = own + sigmoid(logits + bias, related, duplicates) / slots
                        term = term + sigmoid_divergence(teacher + BIAS, logits + bias, masked) / slots
                total = (1 - WEIGHT) * own + WEIGHT * term
                total.backward()
                case = {"slots": slots, "loss": loss, "duplicates": duplicates}
                case |= {"label_smoothing": 0.1 if loss == "softmax" else 0.0}
                case |= {"total": total.item(), "contrastive": own.item(), "term": term.item()}
                case |= {"by_image": image.grad.flatten().tolist(), "by_text": text.grad.flatten().tolist()}
                case |= {"by_logit_scale": scale.grad.item()}
                cases.append(case | {"by_logit_bias": 0.0 if bias.grad is None else bias.grad.item()})
    inputs |= {"shape": [BATCH, DIM], "related": RELATED, "logit_scale": LOGIT_SCALE, "logit_bias": LOGIT_BIAS}
    inputs |= {"weight": WEIGHT, "scale": SCALE, "bias": BIAS}
    save_json(folder / "expected.json", {"inputs": inputs, "cases": cases})

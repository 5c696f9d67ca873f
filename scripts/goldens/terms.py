"""terms/: what is added to the contrastive loss: narrower widths, the structure term, blends of pairs. Values and all
gradients, in double precision, with torch's `cross_entropy`, `logsigmoid` and `kl_div`.

Inputs are the features of locked towers, and un-normalised outputs of the heads. Which blends are no negatives of each
other is found here pair by pair; `dualenc` computes it from the matches of single pairs.
"""

from pathlib import Path

import torch
from torch.nn import functional

from .common import normal, save_json
from .losses import LOGIT_BIAS, LOGIT_SCALE, RELATED, sigmoid, softmax

BATCH, DIM, IMAGE_WIDTH, TEXT_WIDTH = 8, 6, 7, 5
WIDTHS = [4, 1]
TEMPERATURE, EPS = 0.05, 1e-12
STRUCTURE = {"weight": 10.0, "warmup_steps": 1000}
MIXING = {"share": 0.3, "partners": [3, 5, 0, 6, 1, 7, 2, 4]}


def clashes(related: torch.Tensor, partners: list[int], duplicates: str) -> torch.Tensor:
    """Blends that share a pair, or of which a pair of the row's matches a pair of the column's."""
    found = torch.zeros(BATCH, BATCH)
    for row in range(BATCH):
        for column in range(BATCH):
            pairs = [(a, b) for a in (row, partners[row]) for b in (column, partners[column])]
            is_match = any(a == b or (duplicates != "ignore" and related[a, b] > 0) for a, b in pairs)
            found[row, column] = float(row != column and is_match)
    return found


def contrastive(case: dict, sides: list[torch.Tensor], scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    related = torch.zeros(BATCH, BATCH)
    for row, column in RELATED:
        related[row, column] = 1.0
    duplicates = case["duplicates"]
    if case["mixing"]:
        related, duplicates = clashes(related, MIXING["partners"], duplicates), "mask"
    losses = []
    for width in [DIM, *case["widths"]]:
        units = [functional.normalize(side[:, :width], dim=-1) for side in sides]
        logits = units[0] @ units[1].T * scale.exp()
        if case["loss"] == "softmax":
            directions = [(logits, related), (logits.T, related.T)]
            losses.append(sum(softmax(*direction, duplicates, case["label_smoothing"]) for direction in directions) / 2)
        else:
            losses.append(sigmoid(logits + bias, related, duplicates))
    return sum(losses) / len(losses)


def neighbourhoods(vectors: torch.Tensor) -> torch.Tensor:
    units = functional.normalize(vectors, dim=-1)
    centred = units - units.mean(0, keepdim=True)
    return functional.softmax(centred @ centred.T / TEMPERATURE, dim=-1)


def structure(locked: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """As `structure_reg` of the authors at one level: `kl_div(log P, M)` is KL(M || P)."""
    before, after = neighbourhoods(locked), neighbourhoods(features)
    mean = (before + after) / 2 + EPS
    return sum(functional.kl_div((side + EPS).log(), mean, reduction="batchmean") for side in (after, before)) / 2


def write(folder: Path) -> None:
    torch.set_default_dtype(torch.double)
    try:
        write_cases(folder)
    finally:
        torch.set_default_dtype(torch.float)


def write_cases(folder: Path) -> None:
    shapes = {"image": DIM, "text": DIM, "locked_image": IMAGE_WIDTH, "locked_text": TEXT_WIDTH}
    inputs = {name: normal(f"terms/{name}", BATCH, width).double() for name, width in shapes.items()}
    plain = {"loss": "softmax", "label_smoothing": 0.0, "duplicates": "ignore"}
    plain |= {"widths": [], "structure": [], "step": 0, "mixing": False}
    both = ["image", "text"]
    cases = [
        plain | {"widths": WIDTHS, "duplicates": duplicates, "loss": loss, "label_smoothing": smoothing}
        for loss, smoothing in [("softmax", 0.0), ("softmax", 0.1), ("sigmoid", 0.0)]
        for duplicates in ("ignore", "positives", "mask")
    ]
    of_structure = [(both, 5000), (["image"], 400), (["text"], 1000)]
    cases += [plain | {"structure": sides, "step": step} for sides, step in of_structure]
    cases += [
        plain | {"mixing": True, "loss": loss, "label_smoothing": smoothing, "duplicates": duplicates}
        for loss, smoothing in [("softmax", 0.1), ("sigmoid", 0.0)]
        for duplicates in ("ignore", "positives", "mask")
    ]
    all_on = plain | {"widths": WIDTHS, "structure": both, "step": 250, "mixing": True, "duplicates": "positives"}
    cases += [all_on, all_on | {"loss": "sigmoid"}]
    for case in cases:
        image, text = (inputs[side].clone().requires_grad_() for side in both)
        scale, bias = (torch.tensor(value, requires_grad=True) for value in (LOGIT_SCALE, LOGIT_BIAS))
        own = contrastive(case, [image, text], scale, bias)
        total, term = own, None
        if case["structure"]:
            sides = []
            for side, features in zip(both, (image, text)):
                locked, share = inputs[f"locked_{side}"], MIXING["share"]
                if case["mixing"]:
                    locked = share * locked + (1 - share) * locked[MIXING["partners"]]
                sides += [structure(locked, features)] if side in case["structure"] else []
            term = sum(sides) / len(sides)
            total = own + STRUCTURE["weight"] * min(1.0, case["step"] / STRUCTURE["warmup_steps"]) * term
        total.backward()
        case |= {"total": total.item(), "contrastive": own.item(), "term": None if term is None else term.item()}
        case |= {"by_image": image.grad.flatten().tolist(), "by_text": text.grad.flatten().tolist()}
        case |= {"by_logit_scale": scale.grad.item(), "by_logit_bias": 0.0 if bias.grad is None else bias.grad.item()}
    values = {name: value.flatten().tolist() for name, value in inputs.items()}
    values |= {"shape": [BATCH, DIM], "widths": [IMAGE_WIDTH, TEXT_WIDTH], "related": RELATED}
    values |= {"logit_scale": LOGIT_SCALE, "logit_bias": LOGIT_BIAS}
    values |= {"structure": STRUCTURE | {"temperature": TEMPERATURE}, "mixing": MIXING}
    save_json(folder / "expected.json", {"inputs": values, "cases": cases})

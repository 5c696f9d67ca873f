"""losses/: the contrastive losses of one batch and all their gradients, with torch's `cross_entropy` and `logsigmoid`.

`related` lists matches between an image and the text of another pair. As positives, they share the mass of a target.
Masked, they are not candidates, so `cross_entropy` sees only the others.

`slots.json` has several texts of each image, which follow each other. Softmax: the mean over a matrix for each of them
(MobileCLIP). Sigmoid: one matrix of all images and all texts, in which every text of an image is positive.
"""

from pathlib import Path

import torch
from torch.nn import functional

from .common import normal, save_json

BATCH, DIM = 8, 5
RELATED = [(0, 3), (1, 2), (2, 1), (2, 5), (6, 2), (6, 3), (6, 7)]
LOGIT_SCALE, LOGIT_BIAS = 2.0, -1.5
SMOOTHING = [0.0, 0.1, 0.5]
SLOTS = [2, 3]
# An image, another one, and which of its texts.
RELATED_SLOTS = [(0, 3, 0), (1, 2, 1), (2, 1, 0), (2, 1, 1), (2, 5, 0), (6, 2, 1), (6, 7, 0), (7, 6, 1)]


def softmax(logits: torch.Tensor, related: torch.Tensor, duplicates: str, smoothing: float) -> torch.Tensor:
    """One direction of the loss: a softmax over the columns of each row."""
    own = torch.eye(len(logits))
    if duplicates == "positives":
        targets = own + related
        return functional.cross_entropy(logits, targets / targets.sum(1, keepdim=True), label_smoothing=smoothing)
    losses = []
    for index, row in enumerate(logits):
        kept = [at for at in range(len(row)) if duplicates == "ignore" or not related[index, at]]
        target = torch.tensor([kept.index(index)])
        losses.append(functional.cross_entropy(row[kept][None], target, label_smoothing=smoothing))
    return torch.stack(losses).mean()


def sigmoid(logits: torch.Tensor, related: torch.Tensor, duplicates: str) -> torch.Tensor:
    matching = torch.eye(len(logits)) + (related if duplicates == "positives" else 0.0)
    losses = -functional.logsigmoid((2.0 * matching - 1.0) * logits)
    return (losses * (1.0 - related if duplicates == "mask" else 1.0)).sum() / len(logits)


def write(folder: Path) -> None:
    related = torch.zeros(BATCH, BATCH)
    for row, column in RELATED:
        related[row, column] = 1.0
    sides = [functional.normalize(normal(f"losses/{side}", BATCH, DIM), dim=-1) for side in ("image", "text")]
    cases = []
    for loss, smoothing in [("softmax", smoothing) for smoothing in SMOOTHING] + [("sigmoid", 0.0)]:
        for duplicates in ("ignore", "positives", "mask"):
            image, text = (side.clone().requires_grad_() for side in sides)
            scale, bias = (torch.tensor(value, requires_grad=True) for value in (LOGIT_SCALE, LOGIT_BIAS))
            logits = image @ text.T * scale.exp()
            if loss == "softmax":
                directions = [(logits, related), (logits.T, related.T)]
                value = sum(softmax(*direction, duplicates, smoothing) for direction in directions) / 2
            else:
                value = sigmoid(logits + bias, related, duplicates)
            value.backward()
            case = {"loss": loss, "label_smoothing": smoothing, "duplicates": duplicates, "value": value.item()}
            case |= {"image": image.grad.flatten().tolist(), "text": text.grad.flatten().tolist()}
            case |= {"logit_scale": scale.grad.item(), "logit_bias": 0.0 if bias.grad is None else bias.grad.item()}
            cases.append(case)
    embeds = {name: side.flatten().tolist() for name, side in zip(("image", "text"), sides)}
    inputs = {"shape": [BATCH, DIM], "related": RELATED, "logit_scale": LOGIT_SCALE, "logit_bias": LOGIT_BIAS, **embeds}
    save_json(folder / "expected.json", {"inputs": inputs, "cases": cases})
    slots = [several(count) for count in SLOTS]
    save_json(folder / "slots.json", {"torch": torch.__version__, "logit_scale": LOGIT_SCALE, "logit_bias": LOGIT_BIAS, "slots": slots})


def several(slots: int) -> dict:
    """The losses with this number of texts of each image; texts are `[BATCH * slots, DIM]`."""
    related = torch.zeros(BATCH, BATCH * slots)
    for row, other, slot in RELATED_SLOTS:
        related[row, other * slots + slot] = 1.0
    own = torch.eye(BATCH).repeat_interleave(slots, dim=1)
    counts = {"image": BATCH, "text": BATCH * slots}
    sides = [functional.normalize(normal(f"losses/{slots}/{side}", count, DIM), dim=-1) for side, count in counts.items()]
    cases = []
    for loss, smoothing in [("softmax", smoothing) for smoothing in SMOOTHING] + [("sigmoid", 0.0)]:
        for duplicates in ("ignore", "positives", "mask"):
            image, text = (side.clone().requires_grad_() for side in sides)
            scale, bias = (torch.tensor(value, requires_grad=True) for value in (LOGIT_SCALE, LOGIT_BIAS))
            logits = image @ text.T * scale.exp()
            if loss == "softmax":
                matrices = [(logits[:, slot::slots], related[:, slot::slots]) for slot in range(slots)]
                directions = matrices + [(matrix.T, matches.T) for matrix, matches in matrices]
                value = sum(softmax(*direction, duplicates, smoothing) for direction in directions) / (2 * slots)
            else:
                signs = 2.0 * (own + (related if duplicates == "positives" else 0.0)) - 1.0
                losses = -functional.logsigmoid(signs * (logits + bias))
                value = (losses * (1.0 - related if duplicates == "mask" else 1.0)).sum() / (slots * BATCH)
            value.backward()
            case = {"loss": loss, "label_smoothing": smoothing, "duplicates": duplicates, "value": value.item()}
            case |= {"image": image.grad.flatten().tolist(), "text": text.grad.flatten().tolist()}
            case |= {"logit_scale": scale.grad.item(), "logit_bias": 0.0 if bias.grad is None else bias.grad.item()}
            cases.append(case)
    embeds = {name: side.flatten().tolist() for name, side in zip(counts, sides)}
    return {"count": slots, "shape": [BATCH, DIM], "related": related.nonzero().tolist(), **embeds, "cases": cases}

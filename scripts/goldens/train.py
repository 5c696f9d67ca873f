"""train/: a small but complete training run, from picture files and captions to the loss of every step.

The loop is written here in plain PyTorch: VisionTextDualEncoderModel's forward, torch's AdamW and
`clip_grad_norm_`, open_clip's warm-up and cosine (`open_clip_train/scheduler.py: cosine_lr`) and its order of clip,
step, clamp of `logit_scale` to at most ln(100) (`open_clip_train/train.py: train_one_epoch`).
"""

import csv
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional
from transformers import (
    BertModel,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from . import dual
from .captions import PICTURES
from .common import save_json, save_tensors
from .pictures import figure_picture
from .tokenizer import bert_tokenizer, set_fixed_padding

CONFIG = {
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.1,
    "warmup_steps": 3,
    "schedule": "cosine",
    "clip_grad_norm": 1.0,
    "max_logit_scale": math.log(100),
    "shuffle": False,
    "embed_dim": dual.PROJECTION_DIM,
}
# SigLIP (arXiv 2303.15343, section 3.2): t' = ln 10, b = -10.
SIGLIP_LOGIT_SCALE = math.log(10)
SIGLIP_LOGIT_BIAS = -10.0

@dataclass(frozen=True)
class Run:
    """`lock` is the image tower's letter, then the text tower's: L locked, U trained."""

    lock: str
    loss: str = "softmax"
    duplicates: str = "ignore"
    table: str = "train.csv"


RUNS = {
    "UU": Run("UU"),
    "LU": Run("LU"),
    "LL": Run("LL"),
    "LU_positives": Run("LU", duplicates="positives"),
    "LU_positives_repeated": Run("LU", duplicates="positives", table="train_repeated.csv"),
    "UU_sigmoid": Run("UU", loss="sigmoid"),
}


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption"])
        writer.writerows(rows)


def write_data(folder: Path) -> None:
    (folder / "images").mkdir()
    rows = []
    for index, (figure, colour, ground, caption) in enumerate(PICTURES):
        name = f"images/{index:02}.png"
        figure_picture(name, figure, colour, ground).save(folder / name, optimize=True)
        assert (folder / name).stat().st_size < 2048, name
        rows.append((name, caption))
    write_table(folder / "train.csv", rows)
    # The same captions, but in each batch one picture is in two rows, and one of these rows shares its caption with a
    # third row. Pairs that share only a caption or only a picture have equal embeddings, and then soft targets have
    # the same loss as diagonal targets. Only such a chain distinguishes them.
    repeated = {6: 5, 14: 13, 21: 22}
    rows = [(rows[repeated.get(index, index)][0], caption) for index, (_, caption) in enumerate(rows)]
    write_table(folder / "train_repeated.csv", rows)


def write_models(folder: Path) -> None:
    """Writes `init/`, the whole model before the first step, and `vit/` and `bert/`, its two towers."""
    tokenizer = bert_tokenizer()
    image_processor = ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=Image.Resampling.BICUBIC)
    vision = ViTModel(ViTConfig(**dual.IMAGE | {"image_size": 32, "patch_size": 8}, intermediate_size=24))
    text = dual.bert_model(tokenizer)
    for tower in (vision, text):
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            setattr(tower.config, name, 0.0)
    # Dropout layers are created with the model, so build it again from the changed config.
    vision, text = ViTModel(vision.config), BertModel(text.config)
    model = dual.build(vision, text, "train", dual.LOGIT_SCALE_INIT)
    model.save_pretrained(folder / "init")
    VisionTextDualEncoderProcessor(image_processor, tokenizer).save_pretrained(folder / "init")
    model.vision_model.save_pretrained(folder / "vit")
    image_processor.save_pretrained(folder / "vit")
    model.text_model.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    set_fixed_padding(folder / "init")
    set_fixed_padding(folder / "bert")


def decays(name: str, parameter: torch.nn.Parameter) -> bool:
    kept = ("position_embeddings", "cls_token", "distillation_token", "mask_token")
    return parameter.dim() > 1 and not any(part in name for part in kept)


def learning_rate(step: int, steps: int) -> float:
    warmup, peak = CONFIG["warmup_steps"], CONFIG["learning_rate"]
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()


def positives(images: list[str], captions: list[str], table: list[tuple[str, str]]) -> torch.Tensor:
    """1 where the table lists the caption of the column for the picture of the row, else 0."""
    known = set(table)
    return torch.tensor([[float((image, caption) in known) for caption in captions] for image in images])


def loss_of(run: Run, outputs, logit_scale, logit_bias, images, captions, table) -> torch.Tensor:
    similarity = outputs.image_embeds @ outputs.text_embeds.T
    if run.loss == "sigmoid":
        # arXiv 2303.15343, algorithm 1.
        signs = 2 * torch.eye(len(images), dtype=similarity.dtype) - 1
        return -functional.logsigmoid(signs * (similarity * logit_scale.exp() + logit_bias)).sum() / len(images)
    if run.duplicates == "ignore":
        return outputs.loss
    logits = similarity * logit_scale.exp()
    matrix = positives(images, captions, table).to(logits.dtype)
    targets = matrix / matrix.sum(dim=1, keepdim=True)
    transposed = matrix.T / matrix.T.sum(dim=1, keepdim=True)
    return (soft_cross_entropy(logits, targets) + soft_cross_entropy(logits.T, transposed)) / 2


def trainable(model, run: Run) -> None:
    """Locks whole towers, including the pooler. Projections and `logit_scale` always train."""
    model.train()
    for tower, letter in zip((model.vision_model, model.text_model), run.lock, strict=True):
        if letter == "L":
            tower.requires_grad_(False).eval()


def train(folder: Path, run: Run, dtype: torch.dtype) -> dict:
    model = VisionTextDualEncoderModel.from_pretrained(folder / "init").to(dtype)
    image_processor, tokenizer = ViTImageProcessorPil.from_pretrained(folder / "vit"), bert_tokenizer()
    trainable(model, run)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    logit_bias = torch.nn.Parameter(torch.tensor(SIGLIP_LOGIT_BIAS, dtype=dtype))
    if run.loss == "sigmoid":
        parameters["logit_bias"] = logit_bias
        model.logit_scale.data.fill_(SIGLIP_LOGIT_SCALE)
    groups = [
        {"params": [p for n, p in parameters.items() if decays(n, p)], "weight_decay": CONFIG["weight_decay"]},
        {"params": [p for n, p in parameters.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=CONFIG["betas"], eps=CONFIG["eps"], foreach=False)

    with (folder / run.table).open(newline="", encoding="utf-8") as file:
        rows = [(row["image"], row["caption"]) for row in csv.DictReader(file)]
    size = CONFIG["batch_size"]
    batches = [rows[start : start + size] for start in range(0, len(rows), size)] * CONFIG["epochs"]
    record = {name: [] for name in ("loss", "learning_rate", "logit_scale", "logit_scale_exp", "grad_norm")}
    if run.loss == "sigmoid":
        record["logit_bias"] = []
    for step, batch in enumerate(batches):
        images, captions = zip(*batch, strict=True)
        pictures = [Image.open(folder / name).convert("RGB") for name in images]
        pixels = image_processor(pictures, return_tensors="pt").pixel_values
        text = tokenizer(list(captions), padding=True, return_tensors="pt")
        rate = learning_rate(step, len(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        outputs = model(pixel_values=pixels.to(dtype), return_loss=True, **text)
        loss = loss_of(run, outputs, model.logit_scale, logit_bias, images, captions, rows)
        loss.backward()
        assert all(parameter.grad is not None for parameter in parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), CONFIG["clip_grad_norm"], foreach=False)
        record["loss"].append(loss.item())
        record["learning_rate"].append(rate)
        record["logit_scale"].append(model.logit_scale.item())
        record["logit_scale_exp"].append(model.logit_scale.exp().item())
        record["grad_norm"].append(norm.item())
        if run.loss == "sigmoid":
            record["logit_bias"].append(logit_bias.item())
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=CONFIG["max_logit_scale"])
    # As files name them, which differs from the names in memory.
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        record["final"] = load_file(Path(saved) / "model.safetensors")
    if run.loss == "sigmoid":
        record["final"]["logit_bias"] = logit_bias.detach().clone()
    record["trainable_parameters"] = sum(parameter.numel() for parameter in parameters.values())
    return record


def error_of(values: dict, exact: dict) -> float:
    """The largest error of single precision in the final weights, relative to the largest value of its tensor.

    The bias of a key shifts all scores of a query alike. Its gradient is rounding noise, which Adam scales up.
    """
    names = [name for name in exact if not name.endswith("key.bias")]
    errors = [(values[name].double() - exact[name]).abs().max() / exact[name].abs().max() for name in names]
    return max(error.item() for error in errors)


def write(folder: Path) -> None:
    write_data(folder)
    write_models(folder)
    runs, final = {}, {}
    for name, run in RUNS.items():
        record = train(folder, run, torch.float32)
        exact = train(folder, run, torch.float64)
        # The float64 values show the error of single precision, a lower bound for the tests' tolerance.
        record["loss_float64"] = exact["loss"]
        values, exact_values = record.pop("final"), exact.pop("final")
        final |= {f"{name}/{tensor}": value for tensor, value in values.items()}
        record["final_error"] = error_of(values, exact_values)
        record["grad_norm_float64"] = exact["grad_norm"]
        settings = {"lock": run.lock, "loss_function": run.loss, "duplicates": run.duplicates, "table": run.table}
        runs[name] = settings | record
    save_json(folder / "expected.json", {"config": CONFIG, "runs": runs})
    save_tensors(folder / "final.safetensors", final)

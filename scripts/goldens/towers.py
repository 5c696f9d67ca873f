"""towers/<name>/: tiny random towers in the format of `save_pretrained`, with inputs and reference outputs."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from .common import generator, normal, randomise, save_tensors

LARGE = dict(hidden_size=20, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32)
SMALL = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)
IMAGE = dict(image_size=32, patch_size=8)
BERT = dict(vocab_size=120, max_position_embeddings=24)
# RoBERTa's positions start at padding_idx + 1, and its published models use eps 1e-5.
ROBERTA = dict(vocab_size=120, max_position_embeddings=26, layer_norm_eps=1e-5)


def image_outputs(seed: str, model) -> dict:
    interpolate = {} if isinstance(model, Dinov2Model) else {"interpolate_pos_encoding": True}
    pixel_values = normal(f"{seed}/pixel_values", 2, 3, 32, 32)
    pixel_values_48 = normal(f"{seed}/pixel_values_48", 1, 3, 48, 40)
    tensors = {"pixel_values": pixel_values, "pixel_values_48": pixel_values_48}
    with torch.no_grad():
        for suffix, pixels, arguments in (("", pixel_values, {}), ("_48", pixel_values_48, interpolate)):
            outputs = model(pixel_values=pixels, **arguments)
            tensors[f"last_hidden_state{suffix}"] = outputs.last_hidden_state
            if outputs.pooler_output is not None:
                tensors[f"pooler_output{suffix}"] = outputs.pooler_output
    return tensors


def padded_ids(seed: str, lengths: list[int], width: int, vocabulary: int, pad: int, left: bool):
    """Random ids without special ids, padded with `pad` to `width` on one side."""
    ids = torch.full((len(lengths), width), pad, dtype=torch.int64)
    mask = torch.zeros((len(lengths), width), dtype=torch.int64)
    for row, length in enumerate(lengths):
        place = slice(width - length, width) if left else slice(0, length)
        ids[row, place] = torch.from_numpy(generator(f"{seed}/{row}").integers(5, vocabulary, length))
        mask[row, place] = 1
    return ids, mask


def text_outputs(seed: str, model, is_bert: bool) -> dict:
    pad = model.config.pad_token_id
    ids, mask = padded_ids(f"{seed}/input_ids", [9, 5, 1, 7, 3], 9, model.config.vocab_size, pad, left=False)
    cases = {"": dict(input_ids=ids, attention_mask=mask)}
    if is_bert:
        cases[""]["token_type_ids"] = torch.zeros_like(ids)
        second_half = torch.arange(9).expand(5, 9) >= 4
        cases["_b"] = dict(input_ids=ids, attention_mask=mask, token_type_ids=second_half.long() * mask)
        left_ids, left_mask = padded_ids(f"{seed}/left", [4, 9, 6], 9, model.config.vocab_size, pad, left=True)
        cases["_left"] = dict(input_ids=left_ids, attention_mask=left_mask)
    tensors = {}
    with torch.no_grad():
        for suffix, inputs in cases.items():
            outputs = model(**inputs)
            shared = ("input_ids", "attention_mask") if suffix == "_b" else ()
            tensors |= {f"{name}{suffix}": value for name, value in inputs.items() if name not in shared}
            tensors[f"last_hidden_state{suffix}"] = outputs.last_hidden_state
            if outputs.pooler_output is not None:
                tensors[f"pooler_output{suffix}"] = outputs.pooler_output
    return tensors


def write_image_towers(folder: Path) -> None:
    dinov2 = {name: value for name, value in LARGE.items() if name != "intermediate_size"} | {"mlp_ratio": 2}
    towers = {
        "vit": ViTModel(ViTConfig(**LARGE | IMAGE | {"num_hidden_layers": 3})),
        "vit_no_pooler": ViTModel(ViTConfig(**SMALL, **IMAGE), add_pooling_layer=False),
        "vit_classifier": ViTForImageClassification(ViTConfig(**SMALL, **IMAGE, num_labels=7)),
        "deit": DeiTModel(DeiTConfig(**LARGE, **IMAGE)),
        "dinov2": Dinov2Model(Dinov2Config(**dinov2, **IMAGE)),
    }
    for name, model in towers.items():
        randomise(model, name).save_pretrained(folder / name)
        base = getattr(model, "vit", model)
        save_tensors(folder / name / "expected.safetensors", image_outputs(name, base))


def rename_norms(source: Path, target: Path) -> None:
    """The same checkpoint with the LayerNorm names of BERT's first PyTorch port (`gamma`, `beta`)."""
    target.mkdir()
    for name in ("config.json", "expected.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in load_file(source / "model.safetensors").items()
    }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def write_text_towers(folder: Path) -> None:
    towers = {
        "bert": BertModel(BertConfig(**LARGE, **BERT)),
        "bert_mlm": BertForMaskedLM(BertConfig(**SMALL, **BERT)),
        "bert_sharded": BertModel(BertConfig(**SMALL, **BERT)),
        "roberta": RobertaModel(RobertaConfig(**LARGE, **ROBERTA)),
        "roberta_mlm": RobertaForMaskedLM(RobertaConfig(**SMALL, **ROBERTA)),
    }
    for name, model in towers.items():
        shards = {"max_shard_size": "8KB"} if name == "bert_sharded" else {}
        randomise(model, name).save_pretrained(folder / name, **shards)
        base = getattr(model, "bert", getattr(model, "roberta", model))
        save_tensors(folder / name / "expected.safetensors", text_outputs(name, base, name.startswith("bert")))
    rename_norms(folder / "bert_mlm", folder / "bert_gamma_beta")


def check(folder: Path) -> None:
    """Asserts that the fixtures contain the special cases they are for."""
    def names(tower: str) -> list[str]:
        return sorted(n for file in (folder / tower).glob("model*.safetensors") for n in safe_open(file, "pt").keys())

    def has(tower: str, part: str) -> bool:
        return any(part in name for name in names(tower))

    assert has("vit", "pooler.dense.weight") and not has("vit_no_pooler", "pooler")
    assert has("vit_classifier", "classifier.weight") and not has("vit_classifier", "pooler")
    assert has("bert_mlm", "cls.predictions") and not has("bert_mlm", "pooler")
    assert has("bert_gamma_beta", "LayerNorm.gamma") and not has("bert_gamma_beta", "LayerNorm.weight")
    assert has("roberta_mlm", "lm_head.") and not has("roberta_mlm", "pooler")
    assert has("deit", "distillation_token")
    index = json.loads((folder / "bert_sharded" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2


def write(folder: Path) -> None:
    write_image_towers(folder)
    write_text_towers(folder)
    check(folder)

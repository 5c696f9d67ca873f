"""whole/<name>/: tiny random models with both towers in one directory (CLIP, Chinese CLIP, SigLIP, open_clip).

Some are sharded or in the spellings of transformers 4.
"""

import json
from pathlib import Path

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.push_to_hf_hub import save_for_hf
from safetensors.torch import load_file, save_file
from transformers import (
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from .common import load_json, normal, randomise, save_json, save_tensors
from .ids import canonical, clip, siglip_backend
from .tokenizer import bert_tokenizer

CAPTIONS = ["the red dog", "a cat", "a photo of the blue sea, at night"]
PROJECTION_DIM = 10
LOGIT_SCALE = 2.1
LOGIT_BIAS = -3.5
IMAGE = dict(
    hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, image_size=16, patch_size=8
)
TEXT = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
# Captions are padded to this length.
SIGLIP_LENGTH = 20
SQUARE = {"height": 16, "width": 16}


def inputs(seed: str, ids: list[list[int]], pad: int, masked: bool) -> dict:
    longest = max(map(len, ids))
    found = {
        "pixel_values": normal(f"{seed}/pixel_values", 3, 3, 16, 16),
        "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in ids]),
    }
    if masked:
        found["attention_mask"] = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    return found


def save(folder: Path, seed: str, model, ids: list[list[int]], pad: int = 0, masked: bool = True) -> None:
    randomise(model, seed)
    with torch.no_grad():
        model.logit_scale.fill_(LOGIT_SCALE)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(LOGIT_BIAS)
    model.save_pretrained(folder)
    given = inputs(seed, ids, pad, masked)
    text = {name: value for name, value in given.items() if name != "pixel_values"}
    with torch.no_grad():
        whole = model(**given)
        found = {
            "image_features": model.get_image_features(pixel_values=given["pixel_values"]).pooler_output,
            "text_features": model.get_text_features(**text).pooler_output,
            "image_embeds": whole.image_embeds,
            "text_embeds": whole.text_embeds,
            "logits_per_text": whole.logits_per_text,
        }
    if not masked:
        given["attention_mask"] = torch.ones_like(given["input_ids"])
    save_tensors(folder / "expected.safetensors", given | found, {"captions": json.dumps(CAPTIONS)})


def write_clip(folder: Path) -> None:
    tokenizer = clip()
    ends = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=1)
    text = TEXT | dict(vocab_size=len(tokenizer), max_position_embeddings=24) | ends
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=IMAGE, projection_dim=PROJECTION_DIM))
    ids = tokenizer(CAPTIONS)["input_ids"]
    save(folder, "whole/clip", model, ids, pad=tokenizer.pad_token_id)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=SQUARE).save_pretrained(folder)


def write_siglip(folder: Path) -> None:
    tokenizer = siglip_backend(cleaning=True)
    ids = [tokenizer.encode(canonical(caption)).ids for caption in CAPTIONS]
    # The tokenizer class pads with the end token.
    end = tokenizer.token_to_id("</s>")
    ids = [row + [end] * (SIGLIP_LENGTH - len(row)) for row in ids]
    size = dict(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=SIGLIP_LENGTH, projection_size=12)
    model = SiglipModel(SiglipConfig(text_config=TEXT | size, vision_config=IMAGE))
    save(folder, "whole/siglip", model, ids, masked=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    save_json(folder / "tokenizer_config.json", settings)
    SiglipImageProcessorPil(size=SQUARE).save_pretrained(folder)


def write_chinese_clip(folder: Path) -> None:
    tokenizer = bert_tokenizer()
    text = TEXT | dict(vocab_size=len(tokenizer), max_position_embeddings=24)
    config = ChineseCLIPConfig(text_config=text, vision_config=IMAGE, projection_dim=PROJECTION_DIM)
    save(folder, "whole/chinese_clip", ChineseCLIPModel(config), tokenizer(CAPTIONS)["input_ids"])
    tokenizer.save_pretrained(folder)
    ChineseCLIPImageProcessorPil(size=SQUARE, crop_size=SQUARE).save_pretrained(folder)


def in_shards(tensors: dict, folder: Path) -> None:
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in halves.items() for name in part}
    save_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def write_clip_early(source: Path, folder: Path) -> None:
    """CLIP in its first file format, sharded: each config twice, vocabulary files, plain numbers as processor sizes."""
    folder.mkdir()
    config = load_json(source / "config.json")
    for part in ("text_config", "vision_config"):
        config[f"{part}_dict"] = config[part]
        config[part] = {"hidden_size": 999, "model_type": config[part]["model_type"]}
        del config[f"{part}_dict"]["model_type"]
    save_json(folder / "config.json", config)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    save_json(folder / "vocab.json", tokenizer["model"]["vocab"])
    merges = tokenizer["model"]["merges"]
    lines = ["#version: 0.2", *(merge if isinstance(merge, str) else " ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    processor = load_json(source / "preprocessor_config.json")
    processor |= {"size": 16, "crop_size": 16, "feature_extractor_type": "CLIPFeatureExtractor"}
    del processor["image_processor_type"]
    save_json(folder / "preprocessor_config.json", processor)
    in_shards(load_file(source / "model.safetensors"), folder)
    (folder / "expected.safetensors").write_bytes((source / "expected.safetensors").read_bytes())


def write_open_clip(folder: Path) -> None:
    """Writes a CLIP of open_clip, built, saved and run by open_clip itself."""
    tokenizer = clip()
    vision_cfg = dict(image_size=16, layers=2, width=12, head_width=4, patch_size=8, mlp_ratio=2.0)
    text_cfg = dict(context_length=24, vocab_size=len(tokenizer), width=8, heads=2, layers=1, mlp_ratio=2.0)
    model_cfg = dict(embed_dim=PROJECTION_DIM, vision_cfg=vision_cfg, text_cfg=text_cfg)
    model = open_clip.CLIP(**model_cfg)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            draw = normal(f"whole/open_clip/{name}", *parameter.shape)
            if ".ln_" in f".{name}" and name.endswith("weight"):
                parameter.copy_(1.0 + 0.2 * draw)
            elif parameter.dim() == 1:
                parameter.copy_(0.1 * draw)
            elif parameter.dim() > 1:
                parameter.copy_(draw / parameter[0].numel() ** 0.5)
        model.logit_scale.fill_(LOGIT_SCALE)
    model.eval()
    set_model_preprocess_cfg(model, dict(mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3]))
    save_for_hf(model, tokenizer, model_cfg, folder, safe_serialization=True)
    # open_clip pads with 0 to the length of the context, and pools at the greatest id, the end of the text.
    ids = tokenizer(CAPTIONS)["input_ids"]
    pixels = normal("whole/open_clip/pixel_values", 3, 3, 16, 16)
    padded = torch.tensor([row + [0] * (24 - len(row)) for row in ids])
    with torch.no_grad():
        image, text, scale = model(pixels, padded)
        found = {
            "image_features": model.encode_image(pixels),
            "text_features": model.encode_text(padded),
            "image_embeds": image,
            "text_embeds": text,
            "logits_per_text": scale * text @ image.T,
        }
    longest = max(map(len, ids))
    given = {
        "pixel_values": pixels,
        "input_ids": padded[:, :longest],
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
    }
    save_tensors(folder / "expected.safetensors", given | found, {"captions": json.dumps(CAPTIONS)})


def write_doubled(folder: Path) -> None:
    """Writes a sharded dual encoder of CLIP's towers, both under a doubled prefix."""
    vision_config = CLIPVisionConfig(**IMAGE)
    text_config = CLIPTextConfig(**TEXT, vocab_size=40, max_position_embeddings=12, eos_token_id=39, pad_token_id=0)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision_config, text_config, projection_dim=PROJECTION_DIM
    )
    model = VisionTextDualEncoderModel(config, CLIPVisionModel(vision_config), CLIPTextModel(text_config))
    save(folder, "whole/doubled", model, [[5, 6, 7, 39], [8, 39], [9, 10, 39]])
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for part in ("vision_model.", "text_model."):
        tensors = {
            name.replace(part, part * 2, 1) if name.startswith(part) else name: value
            for name, value in tensors.items()
        }
    in_shards(tensors, folder)


def write(folder: Path) -> None:
    write_clip(folder / "clip")
    write_siglip(folder / "siglip")
    write_chinese_clip(folder / "chinese_clip")
    write_clip_early(folder / "clip", folder / "clip_early")
    write_doubled(folder / "doubled")
    write_open_clip(folder / "open_clip")

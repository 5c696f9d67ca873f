"""dual/<image>_<text>/: VisionTextDualEncoder directories with their processors and reference outputs."""

import json
import shutil
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertModel,
    BitImageProcessorPil,
    DeiTConfig,
    DeiTImageProcessorPil,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    RobertaConfig,
    RobertaModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from .common import load_json, normal, randomise, save_json, save_tensors
from .tokenizer import bert_tokenizer, roberta_tokenizer, set_fixed_padding

PROJECTION_DIM = 24
# ln(1/0.07), the default of VisionTextDualEncoderConfig.
LOGIT_SCALE_INIT = 2.6592
# The value in these checkpoints. It differs from the config's, to detect a reader that uses the config's.
LOGIT_SCALE = 2.1
IMAGE = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, image_size=24, patch_size=6)
TEXT = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20)
CAPTIONS = ["the sun in the sky", "a bee", "a green square on a black ground"]


def build(vision_model, text_model, seed: str, logit_scale: float) -> VisionTextDualEncoderModel:
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision_model.config, text_model.config, projection_dim=PROJECTION_DIM, logit_scale_init_value=LOGIT_SCALE_INIT
    )
    model = randomise(VisionTextDualEncoderModel(config, vision_model, text_model), seed)
    with torch.no_grad():
        model.logit_scale.fill_(logit_scale)
    return model


def bert_model(tokenizer) -> BertModel:
    return BertModel(BertConfig(**TEXT, vocab_size=len(tokenizer), max_position_embeddings=40))


def pairs() -> dict:
    bert, roberta = bert_tokenizer(), roberta_tokenizer()
    roberta_config = RobertaConfig(
        **TEXT, vocab_size=len(roberta), max_position_embeddings=42, layer_norm_eps=1e-5, type_vocab_size=1
    )
    square = {"height": 24, "width": 24}
    return {
        "vit_bert": (
            ViTModel(ViTConfig(**IMAGE, intermediate_size=24)),
            bert_model(bert),
            ViTImageProcessorPil(size=square),
            bert,
        ),
        "deit_roberta": (
            DeiTModel(DeiTConfig(**IMAGE, intermediate_size=24)),
            RobertaModel(roberta_config),
            DeiTImageProcessorPil(size={"height": 28, "width": 28}, crop_size=square),
            roberta,
        ),
        "dinov2_bert": (
            Dinov2Model(Dinov2Config(**IMAGE, mlp_ratio=2)),
            bert_model(bert),
            BitImageProcessorPil(size={"shortest_edge": 28}, crop_size=square),
            bert,
        ),
    }


def outputs(seed: str, model: VisionTextDualEncoderModel, tokenizer) -> dict:
    pixel_values = normal(f"{seed}/pixel_values", 3, 3, 24, 24)
    text = dict(tokenizer(CAPTIONS, padding=True, return_tensors="pt"))
    with torch.no_grad():
        whole = model(pixel_values=pixel_values, return_loss=True, **text)
        image_features = model.get_image_features(pixel_values=pixel_values).pooler_output
        text_features = model.get_text_features(**text).pooler_output
    assert torch.allclose(image_features / image_features.norm(dim=-1, keepdim=True), whole.image_embeds)
    return text | {
        "pixel_values": pixel_values,
        "image_features": image_features,
        "text_features": text_features,
        "image_embeds": whole.image_embeds,
        "text_embeds": whole.text_embeds,
        "logits_per_image": whole.logits_per_image,
        "logits_per_text": whole.logits_per_text,
        "loss": whole.loss,
    }


def as_version_4(source: Path, target: Path) -> None:
    """The same model in the files of transformers 4: `torch_dtype`, and no `processor_config.json`."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("processor_config.json"))
    config = load_json(source / "config.json")
    config["torch_dtype"] = config.pop("dtype")
    config["vision_config"]["torch_dtype"] = config["text_config"]["torch_dtype"] = "float32"
    config["transformers_version"] = "4.44.2"
    save_json(target / "config.json", config)
    save_json(target / "preprocessor_config.json", load_json(source / "processor_config.json")["image_processor"])
    tokenizer = load_json(source / "tokenizer_config.json")
    tokenizer.pop("backend", None)
    special = {name: token for name, token in tokenizer.items() if name.endswith("_token")}
    save_json(target / "tokenizer_config.json", tokenizer)
    save_json(target / "special_tokens_map.json", special)
    vocabulary = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (target / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")


def write(folder: Path) -> None:
    for name, (vision_model, text_model, image_processor, tokenizer) in pairs().items():
        target = folder / name
        model = build(vision_model, text_model, f"dual/{name}", LOGIT_SCALE)
        model.save_pretrained(target)
        VisionTextDualEncoderProcessor(image_processor, tokenizer).save_pretrained(target)
        if name.endswith("_bert"):
            set_fixed_padding(target)
        loaded = VisionTextDualEncoderModel.from_pretrained(target).eval()
        metadata = {"captions": json.dumps(CAPTIONS)}
        save_tensors(target / "expected.safetensors", outputs(name, loaded, tokenizer), metadata)
    as_version_4(folder / "vit_bert", folder / "vit_bert_v4")

"""text_families/<name>/: tiny random text towers of further families; pair_<family>/: each with a ViT."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertModel,
    BertConfig,
    CamembertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    ElectraConfig,
    ElectraForPreTraining,
    ElectraModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    MPNetConfig,
    MPNetForMaskedLM,
    MPNetModel,
    RobertaConfig,
    Siglip2TextConfig,
    Siglip2TextModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipTextModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTModel,
    XLMRobertaConfig,
)
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from .common import load_json, normal, randomise, save_json, save_tensors
from .towers import padded_ids

VOCABULARY = 70
# The end token, an id that random ids (5 and above) never take. The largest id, as in CLIP's vocabulary.
END = VOCABULARY - 1
SIZE = dict(vocab_size=VOCABULARY, hidden_size=12, num_hidden_layers=2, num_attention_heads=3)
BERT = SIZE | dict(intermediate_size=20, max_position_embeddings=18)
# T5's buckets hold one distance each up to 8, then ranges up to 128. Longer sequences use all of them.
MPNET = BERT | dict(max_position_embeddings=142, layer_norm_eps=1e-5)
DISTILBERT = dict(
    vocab_size=VOCABULARY, dim=12, n_layers=2, n_heads=3, hidden_dim=20, max_position_embeddings=18
)
MODERNBERT = SIZE | dict(
    intermediate_size=20,
    num_hidden_layers=4,
    max_position_embeddings=40,
    local_attention=6,
    pad_token_id=0,
    bos_token_id=1,
    cls_token_id=1,
    eos_token_id=2,
    sep_token_id=2,
)
CLIP = BERT | dict(bos_token_id=2, eos_token_id=END, pad_token_id=0)
SIGLIP = BERT | dict(bos_token_id=2, eos_token_id=3, pad_token_id=1)
DEBERTA = BERT | dict(relative_attention=True, pos_att_type=["p2c", "c2p"])
IMAGE = dict(
    hidden_size=12,
    num_hidden_layers=1,
    num_attention_heads=3,
    intermediate_size=16,
    image_size=16,
    patch_size=8,
)
PROJECTION_DIM = 10


def towers() -> dict:
    return {
        "mpnet": MPNetModel(MPNetConfig(**MPNET)),
        "mpnet_mlm": MPNetForMaskedLM(MPNetConfig(**MPNET | dict(max_position_embeddings=20))),
        "distilbert": DistilBertModel(DistilBertConfig(**DISTILBERT)),
        "distilbert_mlm": DistilBertForMaskedLM(DistilBertConfig(**DISTILBERT, activation="silu")),
        "electra": ElectraModel(ElectraConfig(**BERT, embedding_size=8)),
        "electra_discriminator": ElectraForPreTraining(
            ElectraConfig(**BERT, embedding_size=12, hidden_act="gelu_fast")
        ),
        # Three layers in two groups, so the first group runs twice.
        "albert": AlbertModel(AlbertConfig(**BERT | dict(num_hidden_layers=3), embedding_size=8, num_hidden_groups=2)),
        "albert_mlm": AlbertForMaskedLM(AlbertConfig(**BERT, embedding_size=12)),
        "modernbert": ModernBertModel(ModernBertConfig(**MODERNBERT)),
        "modernbert_mlm": ModernBertForMaskedLM(
            ModernBertConfig(
                **MODERNBERT,
                attention_bias=True,
                mlp_bias=True,
                norm_bias=True,
                classifier_pooling="mean",
                layer_types=["full_attention", "sliding_attention"] * 2,
                rope_parameters={
                    "full_attention": {"rope_type": "default", "rope_theta": 900.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
                },
            )
        ),
        "clip_text": CLIPTextModel(CLIPTextConfig(**CLIP)),
        "clip_text_legacy": CLIPTextModelWithProjection(CLIPTextConfig(**CLIP | dict(eos_token_id=2))),
        "clip": CLIPModel(CLIPConfig(text_config=CLIP, vision_config=IMAGE, projection_dim=PROJECTION_DIM)),
        "siglip_text": SiglipTextModel(SiglipTextConfig(**SIGLIP)),
        "siglip2_text": Siglip2TextModel(Siglip2TextConfig(**SIGLIP, projection_size=8)),
        "siglip": SiglipModel(SiglipConfig(text_config=SIGLIP, vision_config=IMAGE)),
        "deberta_v2": DebertaV2ForMaskedLM(DebertaV2Config(**DEBERTA, type_vocab_size=2)),
        "deberta_v3": DebertaV2Model(
            DebertaV2Config(
                **DEBERTA,
                position_biased_input=False,
                position_buckets=4,
                share_att_key=True,
                norm_rel_ebd="layer_norm",
            )
        ),
        "deberta_c2p": DebertaV2Model(
            DebertaV2Config(**DEBERTA | dict(pos_att_type="c2p"), max_relative_positions=5)
        ),
    }


def base_of(model):
    """Returns the text tower in a model with a head or in a whole CLIP."""
    for name in ("text_model", "model", "mpnet", "distilbert", "electra", "albert", "deberta"):
        model = getattr(model, name, model)
    return model


def end_texts(ids: torch.Tensor, mask: torch.Tensor) -> None:
    """Replaces the last real token of every row with the end token."""
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        ids[row, length - 1] = END


def cases(seed: str, config) -> dict:
    """Returns suffix -> inputs: padded on the right or left, with token types, of one token, and of full length."""
    pad = config.pad_token_id
    family = config.model_type
    longest = config.max_position_embeddings - (2 if family == "mpnet" else 0)

    def padded(case: str, lengths: list[int], left: bool = False) -> dict:
        ids, mask = padded_ids(f"{seed}/{case}", lengths, max(lengths), VOCABULARY - 1, pad, left)
        if family == "clip_text_model":
            end_texts(ids, mask)
        return dict(input_ids=ids, attention_mask=mask)

    found = {"_one": padded("one", [1, 1, 1]), "_full": padded("full", [longest, longest])}
    if family.startswith("siglip"):
        # The tower attends to padding: the tokenizer's mask does not reach the model.
        ids, mask = padded_ids(f"{seed}/right", [9, 5, 1], longest, VOCABULARY, pad, False)
        return found | {"": dict(input_ids=ids, attention_mask=torch.ones_like(mask))}
    found[""] = padded("right", [9, 5, 1, 7, 3])
    if family == "clip_text_model":
        twice = {name: value.clone() for name, value in found[""].items()}
        # Of two end tokens, the first one counts.
        twice["input_ids"][0, 4] = END
        return found | {"_twice": twice}
    found["_left"] = padded("left", [4, 9, 6], left=True)
    if getattr(config, "type_vocab_size", 0) > 1:
        second_half = torch.arange(9).expand(5, 9) >= 4
        found["_types"] = found[""] | dict(token_type_ids=second_half.long() * found[""]["attention_mask"])
    return found


def outputs(seed: str, model) -> dict:
    tensors = {}
    for suffix, inputs in cases(seed, model.config).items():
        with torch.no_grad():
            result = model(**inputs)
        tensors |= {f"{name}{suffix}": value for name, value in inputs.items()}
        tensors[f"last_hidden_state{suffix}"] = result.last_hidden_state
        if getattr(result, "pooler_output", None) is not None:
            tensors[f"pooler_output{suffix}"] = result.pooler_output
    return tensors


def as_version_4(folder: Path) -> None:
    """Writes ModernBERT's config as before transformers 5."""
    config = load_json(folder / "config.json")
    rope = config.pop("rope_parameters")
    config["global_rope_theta"] = rope["full_attention"]["rope_theta"]
    config["local_rope_theta"] = rope["sliding_attention"]["rope_theta"]
    assert config.pop("layer_types") == ["full_attention", "sliding_attention"] * 2
    config["global_attn_every_n_layers"] = 2
    save_json(folder / "config.json", config)


def pairs() -> dict:
    return {
        "mpnet": MPNetModel(MPNetConfig(**MPNET | dict(max_position_embeddings=20))),
        "distilbert": DistilBertModel(DistilBertConfig(**DISTILBERT)),
        "electra": ElectraModel(ElectraConfig(**BERT, embedding_size=8)),
        "albert": AlbertModel(AlbertConfig(**BERT, embedding_size=8)),
        "modernbert": ModernBertModel(ModernBertConfig(**MODERNBERT)),
        "clip_text": CLIPTextModel(CLIPTextConfig(**CLIP)),
        "siglip_text": SiglipTextModel(SiglipTextConfig(**SIGLIP)),
        "deberta": DebertaV2Model(DebertaV2Config(**DEBERTA, position_buckets=4, share_att_key=True)),
    }


# Towers without a pooler. The reference raises an IndexError.
NO_POOLER = ("distilbert", "electra", "modernbert", "deberta")


def pair_outputs(name: str, model: VisionTextDualEncoderModel) -> dict:
    pixel_values = normal(f"pair/{name}/pixel_values", 3, 3, 16, 16)
    text = cases(f"pair/{name}", model.text_model.config)[""]
    text = {key: value[:3] for key, value in text.items()}
    with torch.no_grad():
        image_features = model.get_image_features(pixel_values=pixel_values).pooler_output
        if name in NO_POOLER:
            assert fails_in_the_reference(model, pixel_values, text)
            first = model.text_model(**text).last_hidden_state[:, 0]
            text_features = model.text_projection(first)
        else:
            text_features = model.get_text_features(**text).pooler_output
        image_embeds = image_features / image_features.norm(dim=-1, keepdim=True)
        text_embeds = text_features / text_features.norm(dim=-1, keepdim=True)
        logits_per_text = text_embeds @ image_embeds.T * model.logit_scale.exp()
        if name not in NO_POOLER:
            whole = model(pixel_values=pixel_values, **text)
            assert torch.allclose(whole.logits_per_text, logits_per_text, atol=1e-5)
    return text | {
        "pixel_values": pixel_values,
        "image_features": image_features,
        "text_features": text_features,
        "image_embeds": image_embeds,
        "text_embeds": text_embeds,
        "logits_per_text": logits_per_text,
    }


def fails_in_the_reference(model, pixel_values, text) -> bool:
    try:
        model(pixel_values=pixel_values, **text)
    except IndexError:
        return True
    return False


def double_prefix(source: Path, target: Path) -> None:
    """The same dual encoder with the names of transformers 4 for a CLIP text tower."""
    target.mkdir()
    for name in ("config.json", "expected.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    tensors = {
        name.replace("text_model.", "text_model.text_model.", 1): value
        for name, value in load_file(source / "model.safetensors").items()
    }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def buckets() -> dict:
    """Rows of the relative position tables for keys up to 599 tokens before and after the query at 0."""
    distance = torch.arange(-599, 600)[None]
    deberta = {}
    for span, most in ((256, 512), (32, 128), (4, 18)):
        # DeBERTa measures from the key to the query, MPNet from the query to the key.
        rows = make_log_bucket_position(-distance, span, most).long() + span
        deberta[f"deberta_{span}_{most}"] = rows.clamp(0, 2 * span - 1)
    return deberta | {"mpnet": MPNetEncoder.relative_position_bucket(distance)}


def defaults() -> list[dict]:
    """Returns every key of the config classes with its default."""
    classes = (
        BertConfig,
        RobertaConfig,
        XLMRobertaConfig,
        CamembertConfig,
        MPNetConfig,
        DistilBertConfig,
        ElectraConfig,
        AlbertConfig,
        ModernBertConfig,
        CLIPTextConfig,
        SiglipTextConfig,
        Siglip2TextConfig,
        DebertaV2Config,
    )
    return [json.loads(config().to_json_string(use_diff=False)) for config in classes]


def check(folder: Path) -> None:
    """Asserts that the fixtures contain the special cases they are for."""

    def has(tower: str, part: str) -> bool:
        with safe_open(folder / tower / "model.safetensors", "pt") as file:
            return any(name.startswith(part) for name in file.keys())

    assert has("mpnet", "encoder.relative_attention_bias") and has("mpnet_mlm", "mpnet.")
    assert has("distilbert_mlm", "distilbert.") and not has("distilbert", "pooler")
    assert has("electra", "embeddings_project") and not has("electra_discriminator", "electra.embeddings_project")
    assert has("albert", "pooler.weight") and has("albert", "encoder.albert_layer_groups.1")
    assert not has("albert_mlm", "albert.pooler") and has("albert_mlm", "albert.")
    assert has("modernbert_mlm", "model.") and not has("modernbert", "layers.0.attn_norm")
    assert has("clip_text_legacy", "text_model.") and has("clip_text", "embeddings.") and has("clip", "text_model.")
    assert has("pair_clip_text_v4", "text_model.text_model.")
    assert has("deberta_v2", "deberta.encoder.layer.0.attention.self.pos_key_proj")
    assert has("deberta_v3", "encoder.LayerNorm") and not has("deberta_v3", "embeddings.position_embeddings")
    assert "rope_parameters" in json.loads((folder / "modernbert" / "config.json").read_text())


def write(folder: Path) -> None:
    for name, model in towers().items():
        randomise(model, f"text_families/{name}").save_pretrained(folder / name)
        save_tensors(folder / name / "expected.safetensors", outputs(f"text_families/{name}", base_of(model)))
    as_version_4(folder / "modernbert_mlm")
    for name, text_model in pairs().items():
        vision_model = ViTModel(ViTConfig(**IMAGE))
        config = VisionTextDualEncoderConfig.from_vision_text_configs(
            vision_model.config, text_model.config, projection_dim=PROJECTION_DIM
        )
        model = randomise(VisionTextDualEncoderModel(config, vision_model, text_model), f"pair/{name}")
        model.save_pretrained(folder / f"pair_{name}")
        save_tensors(folder / f"pair_{name}" / "expected.safetensors", pair_outputs(name, model))
    double_prefix(folder / "pair_clip_text", folder / "pair_clip_text_v4")
    save_json(folder / "defaults.json", defaults())
    (folder / "buckets").mkdir()
    save_tensors(folder / "buckets" / "expected.safetensors", buckets())
    check(folder)

"""image_families/: a tiny random image tower of every family with reference outputs; dual_<name>/: each with BERT.

Files are in the format of `save_pretrained`. The output tokens of a convolutional tower are the positions of its last
feature map, row by row.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    BeitModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2Model,
    Data2VecVisionConfig,
    Data2VecVisionForImageClassification,
    Data2VecVisionModel,
    DeiTConfig,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinForImageClassification,
    SwinModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)

from .common import generator, load_json, normal, randomise, save_json, save_tensors

SIZE = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)
RATIO = {name: value for name, value in SIZE.items() if name != "intermediate_size"} | {"mlp_ratio": 2}
IMAGE = dict(image_size=16, patch_size=4)
TEXT = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, max_position_embeddings=12)
# Patches of two pixels, because windows of 3 then divide maps of 8, 12 x 10 and 6 x 8 unevenly.
SWIN = dict(
    image_size=16, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[2, 4], window_size=3, mlp_ratio=2.0
)
STAGES = dict(hidden_sizes=[8, 12], depths=[1, 2])
CONFIGS = (
    BeitConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextV2Config,
    Data2VecVisionConfig,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    ResNetConfig,
    SiglipVisionConfig,
    SwinConfig,
    ViTConfig,
)
PROJECTION_DIM = 10
LOGIT_SCALE = 2.1


def redraw(model: torch.nn.Module, seed: str) -> torch.nn.Module:
    """Redraws parameters and batch norm statistics, including factors and norms that `randomise` misses by name."""
    randomise(model, seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            draw = normal(f"{seed}/{name}/again", *parameter.shape)
            if any(part in name for part in ("lambda_1", "lambda_2", "layer_scale_parameter")):
                parameter.copy_(0.6 + 0.2 * draw)
            elif name.endswith("downsampling_layer.0.weight"):
                parameter.copy_(1.0 + 0.2 * draw)
        for name, buffer in sorted(model.named_buffers()):
            draw = normal(f"{seed}/{name}", *buffer.shape)
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * draw)
            elif name.endswith("running_var"):
                buffer.copy_((0.3 * draw).exp())
            elif name.endswith("num_batches_tracked"):
                buffer.fill_(1234)
    return model.eval()


def towers() -> dict:
    """Returns name -> the model to save and its tower."""
    clip_text = dict(vocab_size=40) | TEXT
    clip = CLIPConfig(vision_config=SIZE | IMAGE, text_config=clip_text, projection_dim=6)
    siglip = SiglipConfig(vision_config=SIZE | IMAGE, text_config=clip_text)
    relative = dict(use_relative_position_bias=True)
    shared = dict(use_shared_relative_position_bias=True)
    whole = {
        "clip": CLIPVisionModel(CLIPVisionConfig(**SIZE, **IMAGE)),
        "clip_whole": CLIPModel(clip),
        "siglip": SiglipVisionModel(SiglipVisionConfig(**SIZE, **IMAGE)),
        "siglip_whole": SiglipModel(siglip),
        "siglip_no_head": SiglipVisionModel(SiglipVisionConfig(**SIZE, **IMAGE, vision_use_head=False)),
        "beit": BeitForImageClassification(BeitConfig(**SIZE, **IMAGE, **relative, num_labels=5)),
        "beit_shared": BeitModel(
            BeitConfig(
                **SIZE,
                **IMAGE,
                **shared,
                use_mean_pooling=False,
                use_absolute_position_embeddings=True,
                use_mask_token=True,
            )
        ),
        "beit_plain": BeitModel(BeitConfig(**SIZE, **IMAGE, layer_scale_init_value=0.0)),
        "data2vec": Data2VecVisionModel(
            Data2VecVisionConfig(**SIZE, **IMAGE, **shared, use_mean_pooling=False), add_pooling_layer=True
        ),
        "data2vec_classifier": Data2VecVisionForImageClassification(
            Data2VecVisionConfig(**SIZE, **IMAGE, **relative, num_labels=5)
        ),
        "dinov2_swiglu": Dinov2Model(Dinov2Config(**RATIO, **IMAGE, use_swiglu_ffn=True)),
        "dinov2_registers": Dinov2WithRegistersForImageClassification(
            Dinov2WithRegistersConfig(**RATIO, **IMAGE, num_register_tokens=3, num_labels=5)
        ),
        "dinov2_registers_swiglu": Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**RATIO, **IMAGE, use_swiglu_ffn=True)
        ),
        "dinov3": DINOv3ViTModel(DINOv3ViTConfig(**SIZE, **IMAGE, num_register_tokens=2)),
        "dinov3_gated": DINOv3ViTModel(
            DINOv3ViTConfig(**SIZE | dict(hidden_size=24), **IMAGE, use_gated_mlp=True, key_bias=True, rope_theta=30.0)
        ),
        "swin": SwinForImageClassification(SwinConfig(**SWIN, num_labels=5)),
        "swin_positions": SwinModel(SwinConfig(**SWIN | dict(window_size=2, use_absolute_embeddings=True))),
        "resnet": ResNetForImageClassification(ResNetConfig(embedding_size=6, **STAGES, num_labels=5)),
        "resnet_basic": ResNetModel(
            ResNetConfig(embedding_size=6, **STAGES, layer_type="basic", downsample_in_first_stage=True)
        ),
        "resnet_early": ResNetModel(
            ResNetConfig(embedding_size=8, **STAGES, downsample_in_bottleneck=True, hidden_act="gelu")
        ),
        "convnext": ConvNextForImageClassification(ConvNextConfig(num_stages=2, **STAGES, num_labels=5)),
        "convnextv2": ConvNextV2Model(ConvNextV2Config(num_stages=2, **STAGES)),
    }
    inner = ("vision_model", "beit", "data2vec_vision", "dinov2_with_registers", "swin", "resnet", "convnext")
    found = {}
    for name, model in whole.items():
        redraw(model, name)
        found[name] = (model, next((getattr(model, part) for part in inner if hasattr(model, part)), model))
    return found


def as_tokens(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden


def outputs(seed: str, tower) -> dict:
    tensors = {}
    sizes = {"": (2, 3, 16, 16), "_larger": (1, 3, 24, 20), "_smaller": (1, 3, 8, 12)}
    if tower.config.model_type == "swin":
        # The reference fails if a map is smaller than a window.
        sizes["_smaller"] = (1, 3, 12, 16)
    for suffix, shape in sizes.items():
        pixels = normal(f"{seed}/pixel_values{suffix}", *shape)
        interpolates = tower.config.model_type in (
            "clip_vision_model",
            "siglip_vision_model",
            "beit",
            "data2vec-vision",
            "swin",
        )
        arguments = {"interpolate_pos_encoding": True} if suffix and interpolates else {}
        with torch.no_grad():
            output = tower(pixel_values=pixels, **arguments)
        tensors[f"pixel_values{suffix}"] = pixels
        tensors[f"last_hidden_state{suffix}"] = as_tokens(output.last_hidden_state)
        if output.pooler_output is not None:
            tensors[f"pooler_output{suffix}"] = output.pooler_output.flatten(1)
    return tensors


def with_prefix(source: Path, target: Path, prefix: str) -> None:
    """The same tower as transformers 4 wrote it on its own."""
    target.mkdir()
    for name in ("config.json", "expected.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    tensors = {f"{prefix}{name}": value for name, value in load_file(source / "model.safetensors").items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def dual_outputs(seed: str, model, config: dict, text: dict) -> dict:
    """Outputs of the reference, or of its formula if it fails because the pooled output is not `[batch, width]`."""
    pixel_values = normal(f"{seed}/pixel_values", 3, 3, 16, 16)
    with torch.no_grad():
        image = model.vision_model(pixel_values=pixel_values)
        pooled = image.pooler_output
        if pooled is None:
            pooled = image.last_hidden_state[:, 0]
        image_features = model.visual_projection(pooled.flatten(1))
        text_features = model.text_projection(model.text_model(**text).pooler_output)
        image_embeds = image_features / image_features.norm(dim=-1, keepdim=True)
        text_embeds = text_features / text_features.norm(dim=-1, keepdim=True)
        logits_per_text = model.logit_scale.exp() * text_embeds @ image_embeds.T
        if config["model_type"] not in ("resnet", "data2vec-vision"):
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


def dual_towers() -> dict:
    return {
        "clip": CLIPVisionModel(CLIPVisionConfig(**SIZE, **IMAGE)),
        "siglip": SiglipVisionModel(SiglipVisionConfig(**SIZE, **IMAGE)),
        "beit": BeitModel(BeitConfig(**SIZE, **IMAGE, use_relative_position_bias=True)),
        "data2vec": Data2VecVisionModel(
            Data2VecVisionConfig(**SIZE, **IMAGE, use_shared_relative_position_bias=True, use_mean_pooling=False)
        ),
        "dinov2_swiglu": Dinov2Model(Dinov2Config(**RATIO, **IMAGE, use_swiglu_ffn=True)),
        "dinov2_registers": Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**RATIO, **IMAGE)),
        "dinov3": DINOv3ViTModel(DINOv3ViTConfig(**SIZE, **IMAGE, num_register_tokens=2)),
        "swin": SwinModel(SwinConfig(**SWIN)),
        "resnet": ResNetModel(ResNetConfig(embedding_size=6, **STAGES)),
        "convnext": ConvNextModel(ConvNextConfig(num_stages=2, **STAGES)),
        "convnextv2": ConvNextV2Model(ConvNextV2Config(num_stages=2, **STAGES)),
    }


def write_duals(folder: Path) -> None:
    for name, vision_model in dual_towers().items():
        seed, target = f"dual_{name}", folder / f"dual_{name}"
        text_model = BertModel(BertConfig(vocab_size=40, **TEXT))
        # The reference reads `hidden_size`, which convolutional towers do not have.
        without_width = not hasattr(vision_model.config, "hidden_size")
        if without_width:
            vision_model.config.hidden_size = vision_model.config.hidden_sizes[-1]
        config = VisionTextDualEncoderConfig.from_vision_text_configs(
            vision_model.config, text_model.config, projection_dim=PROJECTION_DIM
        )
        model = redraw(VisionTextDualEncoderModel(config, vision_model, text_model), seed)
        with torch.no_grad():
            model.logit_scale.fill_(LOGIT_SCALE)
        model.save_pretrained(target)
        written = load_json(target / "config.json")
        if without_width:
            del written["vision_config"]["hidden_size"]
            save_json(target / "config.json", written)
        ids = torch.from_numpy(generator(f"{seed}/input_ids").integers(5, 40, (3, 6)))
        lengths = torch.tensor([[6], [2], [4]])
        mask = (torch.arange(6) < lengths).long()
        text = dict(input_ids=ids * mask, attention_mask=mask)
        save_tensors(target / "expected.safetensors", dual_outputs(seed, model, written["vision_config"], text))
    # transformers 4 nested CLIP's tower one level deeper.
    clip = load_file(folder / "dual_clip" / "model.safetensors")
    nested = {name.replace("vision_model.", "vision_model.vision_model.", 1): value for name, value in clip.items()}
    (folder / "dual_clip_v4").mkdir()
    save_file(nested, folder / "dual_clip_v4" / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "expected.safetensors"):
        (folder / "dual_clip_v4" / name).write_bytes((folder / "dual_clip" / name).read_bytes())


def write(folder: Path) -> None:
    for name, (model, tower) in towers().items():
        model.save_pretrained(folder / name)
        save_tensors(folder / name / "expected.safetensors", outputs(name, tower))
    with_prefix(folder / "clip", folder / "clip_v4", "vision_model.")
    with_prefix(folder / "siglip", folder / "siglip_v4", "vision_model.")
    write_duals(folder)
    # The defaults of each config class: all keys, as the class writes them.
    save_json(folder / "defaults.json", [json.loads(config().to_json_string(use_diff=False)) for config in CONFIGS])

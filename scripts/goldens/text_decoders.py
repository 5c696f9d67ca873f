"""text_decoders/<name>/: tiny random decoders, T5 encoders and GTE as text towers, with the gradients of one case."""

import copy
import json
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma3TextModel,
    GteConfig,
    GteForMaskedLM,
    GteModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from . import decoder_ids
from .captions import SENTENCES
from .common import load_json, normal, randomise, save_json, save_tensors
from .towers import padded_ids

VOCABULARY = 70
SIZE = dict(
    vocab_size=VOCABULARY,
    hidden_size=12,
    num_hidden_layers=2,
    intermediate_size=20,
    max_position_embeddings=40,
    pad_token_id=0,
)
# Heads that together are wider than the model, and share keys and values.
GROUPED = SIZE | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8)
GEMMA = GROUPED | dict(
    num_hidden_layers=3,
    query_pre_attn_scalar=12,
    layer_types=["sliding_attention"] * 2 + ["full_attention"],
)
T5 = dict(vocab_size=VOCABULARY, d_model=12, d_kv=6, d_ff=20, num_layers=2, num_heads=3)
GTE = SIZE | dict(num_attention_heads=3)
# Of four frequencies, the first is kept, the second is interpolated, the others are divided.
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=128,
    rope_theta=10000.0,
)
NTK = dict(type="ntk", factor=8.0)
NTK_THETA = 500.0


def towers() -> dict:
    """Returns name -> model and the pooling of a sentence embedder of that kind."""
    return {
        "qwen3": (Qwen3Model(Qwen3Config(**GROUPED)), "last"),
        "qwen3_lm": (
            Qwen3ForCausalLM(
                Qwen3Config(
                    **GROUPED,
                    attention_bias=True,
                    use_sliding_window=True,
                    sliding_window=4,
                    layer_types=["full_attention", "sliding_attention"],
                )
            ),
            "last",
        ),
        "qwen2": (Qwen2Model(Qwen2Config(**SIZE, num_attention_heads=3, num_key_value_heads=1)), "last"),
        "llama": (
            LlamaModel(LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True, rope_parameters=dict(LLAMA3))),
            "last",
        ),
        "llama_lm": (
            LlamaForCausalLM(
                LlamaConfig(
                    **SIZE,
                    num_attention_heads=3,
                    rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=300.0),
                )
            ),
            "last",
        ),
        "mistral": (MistralModel(MistralConfig(**GROUPED, sliding_window=5)), "last"),
        "gemma3": (Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA, sliding_window=5)), "last"),
        "embedding_gemma": (
            Gemma3TextModel(Gemma3TextConfig(**GEMMA, sliding_window=8, use_bidirectional_attention=True)),
            "mean",
        ),
        "t5": (T5EncoderModel(T5Config(**T5)), "mean"),
        "t5_gated": (T5ForConditionalGeneration(T5Config(**T5, feed_forward_proj="gated-gelu")), "mean"),
        "gte": (GteModel(GteConfig(**GTE, type_vocab_size=0)), "cls"),
        "gte_new": (GteForMaskedLM(GteConfig(**GTE)), "cls"),
    }


def base_of(model):
    """Returns the text tower in a model with a head."""
    if isinstance(model, T5ForConditionalGeneration):
        return model.encoder
    for name in ("model", "gte"):
        model = getattr(model, name, model)
    return model


def ntk_frequencies(width: int) -> torch.Tensor:
    """GTE's own stretching of rotary positions, from its description: a base times the factor, then a constant."""
    channels = torch.arange(0, width, 2).double() / width
    return ((NTK_THETA * NTK["factor"]) ** -channels / NTK["factor"] ** (2 / width)).float()


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pools real tokens, with padding on either side."""
    rows = []
    for states, real in zip(hidden, mask.bool()):
        tokens = states[real]
        rows.append({"last": tokens[-1], "mean": tokens.mean(dim=0), "cls": tokens[0]}[pooling])
    return torch.stack(rows)


def cases(seed: str, is_t5: bool) -> dict:
    """Returns suffix -> inputs: padded on the right or left, of one token, and longer than every window."""

    def padded(case: str, lengths: list[int], left: bool = False) -> dict:
        ids, mask = padded_ids(f"{seed}/{case}", lengths, max(lengths), VOCABULARY, 0, left)
        return dict(input_ids=ids, attention_mask=mask)

    # T5's buckets hold one distance each up to 8, then ranges up to 128.
    longest = 142 if is_t5 else 40
    return {
        "": padded("right", [9, 5, 1, 7, 3]),
        "_one": padded("one", [1, 1, 1]),
        "_full": padded("full", [longest, 12]),
        "_left": padded("left", [4, 9, 6], left=True),
    }


def outputs(seed: str, model, pooling: str) -> dict:
    tensors = {}
    for suffix, inputs in cases(seed, model.config.model_type == "t5").items():
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state
        tensors |= {f"{name}{suffix}": value for name, value in inputs.items()}
        tensors[f"last_hidden_state{suffix}"] = hidden
        tensors[f"pooled{suffix}"] = pooled(hidden, inputs["attention_mask"], pooling)
    return tensors


def gradients(seed: str, whole, pooling: str) -> dict:
    """Returns the gradients of a weighted sum of the pooled outputs of the first case, by the names in the file."""
    model = base_of(whole)
    inputs = cases(seed, model.config.model_type == "t5")[""]
    whole.zero_grad()
    output = pooled(model(**inputs).last_hidden_state, inputs["attention_mask"], pooling)
    weights = normal(f"{seed}/weights", *output.shape)
    (output * weights).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    whole.zero_grad()
    if model is not whole and model.config.model_type == "t5":
        found = {f"encoder.{name}".replace("encoder.embed_tokens", "shared"): value for name, value in found.items()}
    if model.config.model_type == "gte":
        found = gte_names(found)
    return {"gradient_weights": weights} | {f"gradient.{name}": value for name, value in found.items()}


def gte_names(tensors: dict) -> dict:
    """Renames GTE's tensors from those in memory to those in files, where neighbours are stored as one."""
    renamed = {}
    for name, value in tensors.items():
        for new, old in (
            ("self_attn.o_proj", "attention.o_proj"),
            ("post_attention_layernorm", "attn_ln"),
            ("post_mlp_layernorm", "mlp_ln"),
            ("layers.", "encoder.layer."),
        ):
            name = name.replace(new, old)
        renamed[name] = value
    for packed, folder, parts in (
        ("attention.qkv_proj", "self_attn", ("q_proj", "k_proj", "v_proj")),
        ("mlp.up_gate_proj", "mlp", ("up_proj", "gate_proj")),
    ):
        for name in [name for name in renamed if f"{folder}.{parts[0]}." in name]:
            names = [name.replace(f"{folder}.{parts[0]}", f"{folder}.{part}") for part in parts]
            renamed[name.replace(f"{folder}.{parts[0]}", packed)] = torch.cat([renamed.pop(part) for part in names])
    return renamed


def as_version_4(folder: Path, theta: str, scaling: dict | None = None) -> None:
    """Writes the rotary positions of a config as before transformers 5."""
    config = load_json(folder / "config.json")
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config[theta] = rope.pop("rope_theta")
    if rope.get("rope_type") != "default":
        config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
    save_json(folder / "config.json", config)


def as_new(folder: Path) -> None:
    """Writes GTE's config as its own code does."""
    config = load_json(folder / "config.json")
    config.pop("rope_parameters")
    config |= {
        "architectures": ["NewForMaskedLM"],
        "model_type": "new",
        "position_embedding_type": "rope",
        "rope_theta": NTK_THETA,
        "rope_scaling": NTK,
        "pack_qkv": True,
        "layer_norm_type": "layer_norm",
        "logn_attention_scale": False,
        "unpad_inputs": False,
        "use_memory_efficient_attention": False,
    }
    save_json(folder / "config.json", config)


def write_embedder(folder: Path) -> None:
    """A directory as Qwen3-Embedding's: a tower, its tokenizer, pooling and prompts of sentence-transformers."""
    tokenizer, settings = decoder_ids.qwen3()
    config = Qwen3Config(**GROUPED | dict(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64))
    model = randomise(Qwen3Model(config), "text_decoders/embedder")
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    save_json(folder / "tokenizer_config.json", settings)
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    save_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 12, "pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}
    save_json(folder / "1_Pooling" / "config.json", pooling)
    prompts = {"query": decoder_ids.PROMPT, "document": ""}
    save_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    reference = AutoTokenizer.from_pretrained(folder)
    texts = [decoder_ids.PROMPT + caption for caption in SENTENCES[:6]]
    inputs = reference(texts, padding=True, return_tensors="pt")
    assert reference.padding_side == "left" and (inputs.input_ids[:, -1] == reference.pad_token_id).all()
    with torch.no_grad():
        hidden = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).last_hidden_state
    save_json(folder / "texts.json", SENTENCES[:6])
    save_tensors(folder / "expected.safetensors", {"pooled": hidden[:, -1]})


def defaults() -> list[dict]:
    """Returns every key of the config classes with its default."""
    classes = (LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Gemma3TextConfig, T5Config, GteConfig)
    return [json.loads(config().to_json_string(use_diff=False)) for config in classes]


def check(folder: Path) -> None:
    """Asserts that the fixtures contain the special cases they are for."""

    def names(tower: str) -> list[str]:
        found = []
        for path in (folder / tower).glob("model*.safetensors"):
            with safe_open(path, "pt") as file:
                found += file.keys()
        return found

    assert len(list((folder / "qwen3_lm").glob("model-*.safetensors"))) > 1
    assert "model.norm.weight" in names("qwen3_lm") and "lm_head.weight" in names("llama_lm")
    assert "norm.weight" in names("qwen3") and "lm_head.weight" not in names("gemma3")
    assert any(name.startswith("decoder.") for name in names("t5_gated")) and "shared.weight" in names("t5")
    assert "gte.encoder.layer.0.attention.qkv_proj.weight" in names("gte_new")
    assert "embeddings.token_type_embeddings.weight" not in names("gte")
    config = load_json(folder / "embedding_gemma" / "config.json")
    assert (config["sliding_window"], config["rope_local_base_freq"], config["rope_theta"]) == (8, 10000.0, 1000000.0)
    frequencies = LlamaRotaryEmbedding(LlamaConfig(**GROUPED, rope_parameters=dict(LLAMA3))).inv_freq
    factors = frequencies * 10000.0 ** (torch.arange(4) / 4)
    assert factors[0] == 1.0 and 0.125 < factors[1] < 1.0 and torch.allclose(factors[2:], torch.tensor(0.125))


def write(folder: Path) -> None:
    for name, (whole, pooling) in towers().items():
        seed = f"text_decoders/{name}"
        randomise(whole, seed)
        shard = {"max_shard_size": "8KB"} if name == "qwen3_lm" else {}
        if name == "mistral":
            # Stored in half precision; the outputs are those of the stored values, with frequencies in full precision.
            for parameter in whole.parameters():
                parameter.data = parameter.data.to(torch.bfloat16).float()
            copy.deepcopy(whole).to(torch.bfloat16).save_pretrained(folder / name)
        else:
            whole.save_pretrained(folder / name, **shard)
        if name == "gte_new":
            rotary = whole.gte.rotary_emb
            rotary.inv_freq = ntk_frequencies(2 * rotary.inv_freq.numel())
        (folder / name / "generation_config.json").unlink(missing_ok=True)
        expected = outputs(seed, base_of(whole), pooling) | gradients(seed, whole, pooling)
        save_tensors(folder / name / "expected.safetensors", expected)
    write_embedder(folder / "embedder")
    as_version_4(folder / "llama_lm", "rope_theta")
    as_version_4(folder / "embedding_gemma", "rope_theta")
    as_new(folder / "gte_new")
    save_json(folder / "defaults.json", defaults())
    check(folder)

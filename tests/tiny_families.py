"""Tiny configurations of the families of causal LLMs that the installed transformers knows."""

from collections.abc import Mapping
from typing import Any

from tiny_llm import VOCABULARY_SIZE
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

WIDTH, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD, POSITIONS = 32, 2, 4, 2, 8, 2048

#: A small value, and the names under which configurations hold such a number.
SIZES: tuple[tuple[int, str], ...] = (
    (VOCABULARY_SIZE, "vocab_size vocab_size_per_layer_input unpadded_vocab_size"),
    (
        WIDTH,
        "hidden_size d_model n_embd dim emb_dim embedding_size word_embed_proj_dim attention_hidden_size "
        "embed_dim lru_width hidden_size_global input_embedding_size output_embedding_size",
    ),
    (2 * WIDTH, "intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim dff dim_ff feed_forward_size"),
    (2 * WIDTH, "shared_intermediate_size ffn_hidden_size expert_ffn_hidden_size shared_experts_intermediate_size"),
    (WIDTH // 2, "moe_intermediate_size shared_expert_intermediate_size q_lora_rank kv_lora_rank router_hidden_size"),
    (LAYERS, "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_blocks"),
    (LAYERS, "num_decoder_layers num_encoder_layers n_layers_per_attn_res_block"),
    (HEADS, "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads"),
    (HEADS, "num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads num_query_groups"),
    (HEADS, "linear_num_value_heads linear_num_heads index_n_heads"),
    (KEY_VALUE_HEADS, "num_key_value_heads swa_num_key_value_heads linear_num_key_heads"),
    (HEAD, "head_dim attention_head_dim kv_channels d_kv swa_head_dim global_head_dim attention_head_size"),
    (HEAD, "linear_head_dim linear_key_head_dim linear_value_head_dim index_head_dim hidden_size_per_layer_input"),
    (HEAD, "qk_nope_head_dim qk_rope_head_dim v_head_dim rotary_dim"),
    (2 * HEAD, "qk_head_dim"),
    (4, "num_experts n_routed_experts num_local_experts moe_num_experts"),
    (2, "num_experts_per_tok moe_topk moe_k top_k_experts num_experts_per_token zero_expert_num"),
    (1, "n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group num_expert_group"),
    (1, "first_k_dense_replace num_dense_layers"),
    (0, "num_kv_shared_layers"),
    (290, "image_token_id image_token_index"),
    (291, "video_token_id audio_token_id"),
    (16, "mamba_d_state state_size rel_extent"),
    (POSITIONS, "max_position_embeddings n_positions n_ctx max_seq_len model_max_length"),
)
SMALL: dict[str, int] = {name: size for size, names in SIZES for name in names.split()}

#: Multi-head latent attention has no groups of heads.
LATENT = {"num_key_value_heads": HEADS}
MAMBA_2 = {"mamba_n_heads": 8, "mamba_d_head": HEAD, "mamba_chunk_size": 16}
GEMMA_4 = {"per_layer_config": {}, "layer_types": ["sliding_attention", "full_attention"]}
DOTS_3 = LATENT | {
    "head_dim": 2 * HEAD,
    "per_layer_config": {},
    "layer_types": ["indexed_attention", "sliding_attention"],
    "mlp_layer_types": ["dense", "sparse"],
}
#: A mamba layer, and two whose attention is shared.
ZAMBA = {
    "num_hidden_layers": 3,
    "layer_types": ["mamba", "hybrid", "hybrid"],
    "attention_hidden_size": 2 * WIDTH,
    "attention_head_dim": 2 * HEAD,
}

#: What a family needs beside or in place of the small sizes.
OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "bamba": MAMBA_2 | {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 100},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": None, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": KEY_VALUE_HEADS, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": WIDTH, "ffn_hidden_size": 16},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "dots3_note": {
        "text_config": DOTS_3,
        "vision_config": {
            "per_layer_config": {}, "mlp_layer_types": ["dense"] * 2, "adapter_in_dim": WIDTH, "adapter_out_dim": WIDTH,
        },
        "audio_config": {"adapter_input_size": WIDTH, "adapter_out_dim": WIDTH},
    },
    "dots3_note_text": DOTS_3,
    "falcon_h1": MAMBA_2 | {"mamba_d_ssm": 2 * WIDTH},
    # Its norms have no gradient at the zero row that padding has.
    "gemma3n_text": {"pad_token_id": 1},
    "gemma4": {"text_config": GEMMA_4},
    "gemma4_text": GEMMA_4,
    "gemma4_unified": {"text_config": GEMMA_4},
    "gemma4_unified_text": GEMMA_4,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": MAMBA_2 | {"layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": HEAD},
    "hunyuan_v1_moe": {"head_dim": HEAD, "num_experts": 4, "moe_topk": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "n_groups": 1, "time_step_rank": 2, "chunk_size": 16},
    "ministral": {"head_dim": HEAD},
    "nemotron": {"num_key_value_heads": KEY_VALUE_HEADS},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": HEAD, "ssm_state_size": 16, "chunk_size": 16},
    "reformer": {
        "attn_layers": ["local", "lsh"], "axial_pos_shape": [32, 64], "axial_pos_embds_dim": [8, 24],
    },
    "roc_bert": {
        "shape_vocab_size": 20, "pronunciation_vocab_size": 20, "shape_embed_dim": 16, "pronunciation_embed_dim": 16,
    },
    "xlm": {"n_langs": 1, "causal": True},
    "xmod": {"default_language": "en_XX"},
    "zamba": ZAMBA,
    "zamba2": ZAMBA | {
        "hybrid_layer_ids": [1, 2], "mamba_headdim": HEAD, "n_mamba_heads": 8, "chunk_size": 16,
        "num_key_value_heads": HEADS,
    },
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid"]},
}  # fmt: skip

FAMILIES: tuple[str, ...] = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

#: Families that cannot be built here, and what transformers says.
NOT_SMALL: Mapping[str, str] = {
    "gemma3n": "requires the timm library",
    "gemma4_assistant": "hidden_size_per_layer_input must be 0",
    "musicgen": "has no attribute 'dropout'",
    "musicgen_melody": "has no attribute 'dropout'",
}


def tiny_config(family: str) -> PreTrainedConfig:
    """The configuration of a family in small sizes."""
    return small_config(CONFIG_MAPPING[family], OVERRIDES.get(family, {}))


def small_config(kind: type[PreTrainedConfig], overrides: Mapping[str, Any]) -> PreTrainedConfig:
    """A configuration whose sizes are small by their names, those of the parts it consists of too.

    Args:
        kind: its class.
        overrides: other values, those of a part in a mapping of its own.
    """
    values: dict[str, Any] = {}
    for name, value in kind().to_dict().items():
        part = kind.sub_configs.get(name)
        if part is not None and value is not None:
            part = CONFIG_MAPPING[value["model_type"]] if value.get("model_type") in CONFIG_MAPPING else part
            values[name] = small_config(part, overrides.get(name, {})).to_dict()
        elif name in overrides:
            values[name] = overrides[name]
        elif name == "is_decoder":
            values[name] = True
        elif name in SMALL and value is not None:
            values[name] = SMALL[name]
    if "kv_lora_rank" in values:
        values |= {name: size for name, size in LATENT.items() if name in values}
    values |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    values |= {name: value for name, value in overrides.items() if name not in kind.sub_configs}
    return kind(**values)

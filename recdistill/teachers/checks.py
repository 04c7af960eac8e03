"""Checks of a teacher's options before any work: against files and the LLM's configuration, without the network."""

import copy
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM

from recdistill.config import TeacherConfig
from recdistill.distillation.policies.custom import policy_of_file
from recdistill.errors import InputError
from recdistill.registry import TEACHERS
from recdistill.teachers.ilora.base_llm import check_bitsandbytes, most_tokens_of
from recdistill.teachers.ilora.gate import build_gate
from recdistill.teachers.ilora.gated_lora import attach_gated_lora, check_layers
from recdistill.teachers.ilora.gated_teacher import gated_settings
from recdistill.teachers.ilora.llm_source import check_llm_name, local_configuration
from recdistill.teachers.protocol import Teacher
from recdistill.training.device import device_of

# The layers of an LLM are alike: two are enough to check.
LAYERS = 2
STATE_SIZE = 64


def check_teacher(config: TeacherConfig) -> None:
    """Raise InputError, one line, where a teacher of these options cannot be made.

    It takes a second or two: it looks at local paths, packages, the gate, and the layer shapes of an LLM whose
    configuration is on this machine. Anything that depends on data, weights or a download is checked later.
    """
    kind: type[Teacher] = TEACHERS.get(config.teacher)
    device_of(config)
    if config.query_policy == "custom":
        policy_of_file(config.value("policy_file"))
    most_tokens = None
    if kind.needs_llm:
        check_llm_name(config.llm)
        if config.load_in_4bit:
            check_bitsandbytes()
        check_gate_options(config)
        configuration = local_configuration(config.llm)
        if configuration is not None:
            check_llm(config, configuration, kind.needs_language_model_head)
            most_tokens = most_tokens_of(configuration)
    kind.check(config, most_tokens)


def check_gate_options(config: TeacherConfig) -> None:
    """Raise InputError where the gate cannot be built for so many experts."""
    with torch.random.fork_rng(devices=[]):
        build_gate(config.gate, STATE_SIZE, config.experts, options=gated_settings(config)["gate_options"])


def check_llm(config: TeacherConfig, configuration: Any, causal_lm: bool) -> None:
    """Raise InputError where an LLM of this configuration cannot carry gated LoRA, or give what the teacher reads.

    A model of few layers and without weights is built and run for its shapes alone.
    """
    if getattr(configuration, "is_encoder_decoder", False):
        raise InputError(f"llm={config.llm}: is an encoder and a decoder; give a causal (decoder) LLM")
    if causal_lm and type(configuration) not in AutoModelForCausalLM._model_mapping:
        raise InputError(
            f"llm={config.llm}: predicts no tokens, as teacher={config.teacher} needs; give a causal (decoder) LLM"
        )
    few = copy.deepcopy(configuration)
    text = few.get_text_config()
    if getattr(text, "num_hidden_layers", 0) > LAYERS:
        text.num_hidden_layers = LAYERS
    auto = AutoModelForCausalLM if causal_lm else AutoModel
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = auto.from_config(few)
            check_sizes(config, model)
            gated = attach_gated_lora(
                model,
                rank=config.lora_rank,
                alpha=config.lora_alpha,
                dropout=config.lora_dropout,
                experts=config.experts,
                gate_per_layer=config.gate_per_layer,
            )
            check_layers(gated)
    except InputError as error:
        raise InputError(f"llm={config.llm}: {error}") from None
    except Exception:  # some models cannot run without weights; they are checked when they are loaded
        return


def check_sizes(config: TeacherConfig, model: Any) -> None:
    """Raise InputError where inputs and states of the LLM differ in size: both are H of the teacher's layers."""
    hidden_size = getattr(model.config, "hidden_size", None)
    embedding_size = model.get_input_embeddings().weight.shape[1]
    if hidden_size != embedding_size:
        raise InputError(
            f"has states of {hidden_size} and token embeddings of {embedding_size}; give one where both are alike"
        )

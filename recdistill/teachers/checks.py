"""Checks of a teacher's options before any work: against files and the LLM's configuration, without the network."""

import copy
from typing import Any

import torch

from recdistill.config import TeacherConfig
from recdistill.distillation.policies.custom import check_policy_file
from recdistill.errors import InputError, one_line
from recdistill.registry import GATES, TEACHERS
from recdistill.teachers.ilora.base_llm import (
    check_bitsandbytes,
    check_causal,
    check_embeddings,
    most_tokens_of,
)
from recdistill.teachers.ilora.gate import build_gate
from recdistill.teachers.ilora.llm_source import check_llm_name, local_configuration
from recdistill.teachers.protocol import Teacher
from recdistill.training.device import device_of

# The layers of an LLM are alike: two are enough to check.
LAYERS = 2
# A model of no more random weights than these is made in about a second.
MOST_WEIGHTS = 50_000_000
STATE_SIZE = 64


def check_teacher(config: TeacherConfig) -> None:
    """Raise InputError, one line, where a teacher of these options cannot be made.

    It takes a second or two: it looks at local paths, packages, the gate, and the layer shapes of an LLM whose
    configuration is on this machine. Anything that depends on data, weights or a download is checked later.
    """
    kind: type[Teacher] = TEACHERS.get(config.teacher)
    device_of(config)
    if config.query_policy == "custom":
        check_policy_file(config.value("policy_file"))
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
    with TEACHERS.calling(config.teacher):
        kind.check(config, most_tokens)


def check_gate_options(config: TeacherConfig) -> None:
    """Raise InputError where the gate cannot be built for so many experts."""
    from recdistill.teachers.ilora.gated_teacher import gated_settings

    with torch.random.fork_rng(devices=[]), GATES.calling(config.gate):
        build_gate(config.gate, STATE_SIZE, config.experts, options=gated_settings(config)["gate_options"])


def check_llm(config: TeacherConfig, configuration: Any, causal_lm: bool) -> None:
    """Raise InputError where an LLM of this configuration cannot carry gated LoRA, or give what the teacher reads.

    A model of few layers is built and run: of random weights where these are few, else without, for its shapes alone.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    from recdistill.teachers.ilora.gated_lora import attach_gated_lora, check_layers

    if getattr(configuration, "is_encoder_decoder", False):
        raise InputError(f"llm={config.llm}: is an encoder and a decoder; give a causal (decoder) LLM")
    if causal_lm and type(configuration) not in AutoModelForCausalLM._model_mapping:
        raise InputError(
            f"llm={config.llm}: predicts no tokens, as teacher={config.teacher} needs; give a causal (decoder) LLM"
        )
    if not any(type(configuration) in auto._model_mapping for auto in (AutoModel, AutoModelForCausalLM)):
        raise InputError(f"llm={config.llm}: transformers has no model of this configuration; give a causal LLM")
    try:
        model = few_layers(configuration, causal_lm)
    except Exception:  # some models cannot be built so small; they are checked when they are loaded
        return
    try:
        check_sizes(config, model)
        if model.device.type != "meta":
            model.requires_grad_(False).eval()
            check_causal(model, config.llm)
            check_embeddings(model, config.llm)
        with torch.random.fork_rng(devices=[]), torch.device(model.device):
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
        named = f"llm={config.llm}: "
        raise InputError(named + str(error).removeprefix(named)) from None
    except Exception as error:  # some models cannot run without weights; they are checked when they are loaded
        if model.device.type != "meta":
            raise InputError(f"llm={config.llm}: cannot be run with an adapter ({one_line(error)})") from None


def few_layers(configuration: Any, causal_lm: bool) -> Any:
    """A model of this configuration with few layers: of random weights where these are few, else without weights."""
    few = copy.deepcopy(configuration)
    text = few.get_text_config()
    if getattr(text, "num_hidden_layers", 0) > LAYERS:
        text.num_hidden_layers = LAYERS
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            model = built(few, causal_lm)
        if sum(weight.numel() for weight in model.parameters()) <= MOST_WEIGHTS:
            return built(few, causal_lm)
    return model


def built(configuration: Any, causal_lm: bool) -> Any:
    """A new model of a configuration, as `base_llm.read_model` would read one."""
    from transformers import AutoModel, AutoModelForCausalLM

    if not causal_lm and type(configuration) in AutoModel._model_mapping:
        return AutoModel.from_config(configuration)
    model = AutoModelForCausalLM.from_config(configuration)
    return model if causal_lm else model.base_model


def check_sizes(config: TeacherConfig, model: Any) -> None:
    """Raise InputError where inputs and states of the LLM differ in size: both are H of the teacher's layers."""
    hidden_size = getattr(model.config.get_text_config(), "hidden_size", None)
    embedding_size = model.get_input_embeddings().weight.shape[1]
    if hidden_size is None:
        raise InputError("its configuration names no size of its states; choose another LLM")
    if hidden_size != embedding_size:
        raise InputError(
            f"has states of {hidden_size} and token embeddings of {embedding_size}; give one where both are alike"
        )

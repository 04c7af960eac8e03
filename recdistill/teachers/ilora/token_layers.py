"""The linear layers of an LLM that read every token of a pass: those whose update a gate can mix.

Routed experts read the tokens that are sent to them, vision towers none, a pooler one of each text: these stay as
they are. Layers that read the tokens of all sequences as one list, [B·T, H], are taken as those that read [B, T, H].
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

LLAMA_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
#: Sequences and tokens of the pass that tells: their product is no size of a layer of a model in use.
SEQUENCES, TOKENS = 3, 5
EXPERT = re.compile(r"experts?\.\d+\.")
#: Names that peft refuses in these families, whose fused kernels read the weights and leave the layer out.
FUSED_WITH_STATES = ("out_proj",)
FAMILIES_WITH_STATES = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")


def default_targets(base: PreTrainedModel) -> list[str] | str:
    """What LoRA adapts where nobody says: the seven projections of a llama, else all layers that read tokens.

    Peft's ``all-linear`` where the base cannot be run, as one without weights that sends tokens to experts.
    """
    layers = token_layers(base)
    if layers is None:
        ends = {end_of(name) for name, _ in base.named_modules()}
        return list(LLAMA_PROJECTIONS) if ends.issuperset(LLAMA_PROJECTIONS) else "all-linear"
    of_llama = [name for name, _ in base.named_modules() if end_of(name) in LLAMA_PROJECTIONS]
    if {end_of(name) for name in of_llama} == set(LLAMA_PROJECTIONS) and set(of_llama) <= set(layers):
        return list(LLAMA_PROJECTIONS)
    return layers


@torch.no_grad()
def token_layers(base: PreTrainedModel) -> list[str] | None:
    """Names of the linear layers that read every token of a text, the head aside; None where no pass can be run.

    One short pass tells. It leaves the model in evaluation mode.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def noting(name: str) -> Any:
        def note(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            read = next((one for one in (*inputs, *named.values()) if isinstance(one, Tensor)), None)
            # A router may be a linear layer by its class, and give more than one tensor.
            shapes[name] = tuple(read.shape) if read is not None and isinstance(output, Tensor) else ()

        return note

    head = base.get_output_embeddings()
    linear = [
        (name, module)
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not EXPERT.search(name)
    ]
    handles = [module.register_forward_hook(noting(name), with_kwargs=True) for name, module in linear]
    base.eval()
    try:
        base(input_ids=short_texts(base), use_cache=False)
    except Exception:  # without weights, or none that reads tokens alone: those who load it say so
        return None
    finally:
        for handle in handles:
            handle.remove()
    left_out = taken_for_experts(base, {end_of(name) for name in shapes})
    return [name for name, shape in shapes.items() if reads_tokens(shape) and end_of(name) not in left_out]


def short_texts(base: PreTrainedModel) -> Tensor:
    """A few different tokens, int64 [SEQUENCES, TOKENS]."""
    embedding: Any = base.get_input_embeddings()
    rows = int(embedding.weight.shape[0])
    tokens = 1 + torch.arange(SEQUENCES * TOKENS) % max(1, rows - 1)
    return tokens.view(SEQUENCES, TOKENS).to(base.device)


def reads_tokens(shape: tuple[int, ...]) -> bool:
    """Whether an input of this shape holds every token of the short texts: [B, T, ...], or [B·T, H]."""
    if len(shape) == 2:
        return shape[0] == SEQUENCES * TOKENS
    return shape[:2] == (SEQUENCES, TOKENS)


def taken_for_experts(base: PreTrainedModel, ends: Iterable[str]) -> set[str]:
    """Of the last parts of layers' names those that peft refuses, or takes for the family's fused experts.

    It would adapt the experts in their place, with ranks of its own, and no gate could mix these.
    """
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers as convert
    except ImportError:  # peft before it knew fused experts
        return set()
    found = {end for end in FUSED_WITH_STATES if getattr(base.config, "model_type", None) in FAMILIES_WITH_STATES}
    for end in ends:
        tried = LoraConfig(target_modules=[end])
        try:
            convert(tried, model=base, conversions=None)
        except ValueError:
            found.add(end)
        if tried.target_parameters:
            found.add(end)
    return found


def end_of(name: str) -> str:
    """The last part of a layer's name."""
    return name.rpartition(".")[2]

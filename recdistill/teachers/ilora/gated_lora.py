"""Gated LoRA of iLoRA (NeurIPS 2024): y = W x + α/(r/K) · Σ_k ω_k B_k A_k x, on unmodified peft.

Peft's own scaling is α/r, so the output of each ``lora_A`` is multiplied by K·ω_k, repeated for the r/K rows of
expert k: a uniform gate is then exactly plain LoRA, and an adapter opened without its gate is the average expert.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from recdistill.errors import InputError, one_line
from recdistill.teachers.ilora.documents import Documents
from recdistill.teachers.ilora.fused_lora import FusedLayer, fuse, lower_weights
from recdistill.teachers.ilora.token_layers import default_targets, short_texts

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
GATED_CONFIG = "gated_lora.json"
# Options of peft under which K·ω times the output of lora_A is no longer the mixture of experts.
REFUSED_OPTIONS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")


class GateError(RuntimeError):
    """The gate's weights do not belong to the tokens that a layer reads."""


class GateSlot:
    """The mixing weights that every gated layer of one model reads.

    Set before the forward pass and held until the next ``set`` or ``clear``. Gradient checkpointing runs layers again
    in the backward pass, with the weights of their forward pass; see `GatedLoRA.enable_gradient_checkpointing`.

    Args:
        experts: K.
        rank: r, a multiple of K; expert k owns rows k·r/K to (k+1)·r/K of ``lora_A``.
        layers: N adapted transformer layers with weights of their own; None for weights that all share.
    """

    def __init__(self, experts: int, rank: int, layers: int | None = None) -> None:
        self.experts = experts
        self.rank = rank
        self.layers = layers
        # One for all layers or one for each: [B, 1, r] for a sequence each, [B, T, r] for a token each.
        self._scales: tuple[Tensor, ...] = ()
        self._per_token = False
        # What `factors` gave last, and what it was made of.
        self._factors: tuple[Tensor, tuple[float, torch.dtype, bool], Tensor, Tensor] | None = None
        #: Where the pass at hand is one row of several texts.
        self.documents: Documents | None = None
        #: The layers that read the weights in one step, see `fused_lora`.
        self.fused: list[FusedLayer] = []
        # Sequences and tokens of the pass at hand: a layer that reads [B·T, H] does not tell them.
        self._pass: tuple[int, int] | None = None

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """Shape of the weights of one sequence or token: [K], or [N, K]."""
        return (self.experts,) if self.layers is None else (self.layers, self.experts)

    def set(self, weights: Tensor, documents: Documents | None = None) -> None:
        """Mix by ``weights``: [B, K], one a sequence, or [B, T, K], one a token. ValueError on another shape.

        Where layers have weights of their own they are [B, N, K] or [B, T, N, K]. ``documents`` are the texts of a
        pass of one row.
        """
        own = self.weights_shape
        leading = weights.ndim - len(own)
        if leading not in (1, 2) or weights.shape[leading:] != own:
            each = ", ".join(map(str, own))
            raise ValueError(f"gate weights have shape {list(weights.shape)}; must be [B, {each}] or [B, T, {each}]")
        precise = weights.to(torch.promote_types(weights.dtype, torch.float32))
        scale = (self.experts * precise).repeat_interleave(self.rank // self.experts, dim=-1)
        self._per_token, self.documents = leading == 2, documents
        scale = scale if self._per_token else scale.unsqueeze(1)
        self._scales = (scale,) if self.layers is None else scale.unbind(-2)

    def clear(self) -> None:
        """Forget the weights; a forward pass then raises."""
        self._scales, self._factors, self.documents = (), None, None

    def factors(self, batch: int, length: int, layer: int, factor: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``factor`` times `scale`, and the same in another precision, without gradient.

        Made once for all layers that share the weights.
        """
        scale = self.scale(batch, length, layer)
        own = factor, dtype, torch.is_grad_enabled()
        if self._factors is None or self._factors[0] is not scale or self._factors[1] != own:
            wide = factor * scale
            self._factors = scale, own, wide, wide.detach().to(dtype)
        return self._factors[2:]

    def begin_pass(self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Note the sequences and tokens of a pass: a hook before a model's forward pass."""
        given = (*inputs, named.get("input_ids"), named.get("inputs_embeds"))
        read = next((one for one in given if isinstance(one, Tensor)), None)
        self._pass = None if read is None else (read.shape[0], read.shape[1])
        lower_weights(self.fused)

    def end_pass(self, *_: Any) -> None:
        """Drop what was made for a pass: a hook after a model's forward pass, also one that failed."""
        for layer in self.fused:
            layer.low = None

    def mix(self, hidden: Tensor, layer: int = 0) -> Tensor:
        """``hidden`` [B·n, T, ..., r] of a layer, with every expert's rows multiplied by K times its weight.

        A layer may read the tokens of all sequences as one list: then ``hidden`` is [B·n·T, r]. ``generate`` repeats
        each sequence for its n beams or samples, and so are the weights, where no gradient is recorded. Raises
        GateError while no weights are set, and where batch or T differs from theirs.
        """
        if hidden.ndim == 2 and self._pass is not None and len(hidden) == self._pass[0] * self._pass[1]:
            return self.mix(hidden.view(*self._pass, -1), layer).view_as(hidden)
        if hidden.ndim < 3:
            raise GateError(f"gated LoRA: a layer's input must be [B, T, H]; lora_A gave {list(hidden.shape)}")
        scale = self.scale(hidden.shape[0], hidden.shape[1], layer)
        return hidden * scale.to(hidden.dtype).view(*scale.shape[:2], *[1] * (hidden.ndim - 3), -1)

    def scale(self, batch: int, length: int, layer: int = 0) -> Tensor:
        """What `mix` multiplies by, [batch, 1 or length, r]; see there."""
        if not self._scales:
            raise GateError("gated LoRA: no gate weights are set; call slot.set(weights) before the forward pass")
        scale = self._scales[0 if self.layers is None else layer]
        gates = scale.shape[0]
        if batch != gates:
            # In training another batch is always a forgotten set, never beams.
            if batch % gates or torch.is_grad_enabled():
                raise GateError(f"gated LoRA: the batch is {batch} but gate weights are set for {gates}")
            scale = scale.repeat_interleave(batch // gates, dim=0)
        if self._per_token and scale.shape[1] != length:
            raise GateError(
                f"gated LoRA: the pass has {length} tokens but gate weights are set for {scale.shape[1]}; "
                "generation needs weights [B, K]"
            )
        return scale


class HeldWeights:
    """While entered, a slot has the weights that it had when this was made. Can be entered more than once.

    Args:
        slot: whose weights are held.
        contexts: further contexts to enter with it, made anew each time.
    """

    def __init__(self, slot: GateSlot, contexts: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self.slot, self.contexts = slot, contexts
        self.weights = self.of_slot()
        self.entered: list[tuple[ExitStack, Any]] = []

    def __enter__(self) -> Self:
        stack = ExitStack()
        stack.enter_context(self.contexts())
        self.entered.append((stack, self.of_slot()))
        self.put(self.weights)
        return self

    def __exit__(self, *_: object) -> None:
        stack, weights = self.entered.pop()
        self.put(weights)
        stack.close()

    def of_slot(self) -> tuple[Any, ...]:
        """What the layers read of a pass."""
        return self.slot._scales, self.slot._per_token, self.slot._pass, self.slot.documents

    def put(self, weights: tuple[Any, ...]) -> None:
        """Have the layers read this."""
        self.slot._scales, self.slot._per_token, self.slot._pass, self.slot.documents = weights


@dataclass(frozen=True, eq=False)
class GatedLoRA:
    """A model with gated LoRA.

    Attributes:
        model: the base inside peft; called as the base is, after ``slot.set``.
        slot: holds the mixing weights.
        gated_layers: names, within ``model``, of every LoRA layer; all are gated.
        transformer_layers: names of the N adapted transformer layers, those that `GateSlot` counts.
        adapter: peft's name of the adapter.
    """

    model: PeftModel
    slot: GateSlot
    gated_layers: tuple[str, ...]
    transformer_layers: tuple[str, ...]
    adapter: str

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The LoRA matrices; the base is frozen and the gate is the caller's."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def enable_gradient_checkpointing(
        self, contexts: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        """Compute activations again in the backward pass, in training mode, in the form that keeps the gate's gradient.

        Several forward passes may come before their backward pass: each layer is computed again with its own weights.

        Args:
            contexts: makes the context that forward passes stand in, for layers to be computed again in it.

        Raises InputError where the base has no such form.
        """
        base: Any = self.model.get_base_model()
        # With use_reentrant=True no gradient would reach the gate, which is no input of the layers.
        form = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), HeldWeights(self.slot, contexts))}
        # Its name since transformers 5, and before.
        enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
        try:
            enable(form)
        except ValueError as error:
            raise InputError(f"gradient_checkpointing=true: the LLM does not allow it ({one_line(error)})") from None


def attach_gated_lora(
    base: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    experts: int,
    gate_per_layer: bool = False,
    target_modules: list[str] | None = None,
    adapter: str = "default",
) -> GatedLoRA:
    """Freeze ``base`` and put LoRA of K experts on its linear layers, in place; it starts as the base itself.

    Args:
        base: a transformers model, with or without language-model head, in any precision; LoRA is in float32
            where that is float16 or bfloat16.
        rank: r of all experts together, a multiple of ``experts``.
        alpha: α; the update is scaled by α/(r/K).
        dropout: probability of dropping an entry of a LoRA layer's input.
        experts: K.
        gate_per_layer: whether each transformer layer has mixing weights of its own.
        target_modules: ends of layer names; None for those of `default_targets`.
        adapter: peft's name of the adapter.

    Raises:
        InputError: a number is out of range, r is no multiple of K, a target names no linear layer, no linear layer
            reads the tokens of a text, or the base already has an adapter.
    """
    if alpha <= 0 or not 0 <= dropout < 1:
        raise InputError(f"gated LoRA: alpha {alpha} must be above 0, and dropout {dropout} in [0, 1)")
    targets = default_targets(base) if target_modules is None else list(target_modules)
    if target_modules is None and not targets:
        raise InputError("this LLM cannot be a teacher: none of its linear layers reads the tokens; choose another llm")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides it by r, so fractions are fine
        lora_dropout=dropout,
        target_modules=targets,
    )
    return _attach(base, config, experts, gate_per_layer, adapter)


@torch.no_grad()
def check_layers(gated: GatedLoRA) -> None:
    """Raise InputError where a gate cannot follow the tokens: a layer reads other than all of them, or is not reached.

    Some LLMs route tokens to experts of their own before a linear layer. One short pass tells; it leaves the model in
    evaluation mode and the slot without weights.
    """
    reached: set[str] = set()

    def noting(name: str) -> Callable[..., None]:
        return lambda *_: reached.add(name)

    layers: dict[str, Any] = {name: gated.model.get_submodule(name) for name in gated.gated_layers}
    handles = [layer.lora_A[gated.adapter].register_forward_hook(noting(name)) for name, layer in layers.items()]
    tokens = short_texts(gated.model.get_base_model())  # type: ignore[arg-type]
    gated.model.eval()
    gated.slot.set(torch.full((len(tokens), *gated.slot.weights_shape), 1 / gated.slot.experts, device=tokens.device))
    try:
        gated.model(input_ids=tokens, use_cache=False)
    except GateError as error:
        raise InputError(f"this LLM cannot be a teacher: {one_line(error)}; choose another llm") from None
    finally:
        gated.slot.clear()
        for handle in handles:
            handle.remove()
    missing = [name for name in layers if name not in reached]
    if missing:
        raise InputError(
            f"this LLM cannot be a teacher: {len(missing)} of its adapted layers read no token of a text, "
            f"as {missing[0]}; choose another llm"
        )


def save_adapter(directory: Path, gated: GatedLoRA) -> None:
    """Write the adapter as peft does, readable by peft, and beside it how it is gated; no gate, no base."""
    # "auto" would ask the Hugging Face hub for the base's vocabulary size.
    gated.model.save_pretrained(str(directory), selected_adapters=[gated.adapter], save_embedding_layers=False)
    settings = {"experts": gated.slot.experts, "rank": gated.slot.rank, "adapter": gated.adapter}
    settings |= {"gate_per_layer": gated.slot.layers is not None}
    (Path(directory) / GATED_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_adapter(base: PreTrainedModel, directory: Path) -> GatedLoRA:
    """Attach to ``base``, in place, the adapter that ``save_adapter`` wrote; it can be trained on.

    Raises:
        InputError: a file is missing or cannot be read, the adapter does not fit the base, or it has an option
            (DoRA, rank-stabilised scaling, ranks by layer) that experts do not allow.
    """
    settings = _read_json(Path(directory) / GATED_CONFIG)
    experts, rank, adapter = (settings.get(key) for key in ("experts", "rank", "adapter"))
    if not isinstance(experts, int) or not isinstance(rank, int) or not isinstance(adapter, str):
        raise InputError(
            f"{Path(directory) / GATED_CONFIG}: must hold experts, rank and adapter; save the adapter again"
        )
    # Peft keeps an adapter that is not called default in a folder of that name.
    folder = Path(directory) if adapter == "default" else Path(directory) / adapter
    _read_json(folder / ADAPTER_CONFIG)
    try:
        config = LoraConfig.from_pretrained(str(folder))
        weights = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: the adapter cannot be read ({error}); save it again") from None
    if not isinstance(config, LoraConfig) or config.r != rank:
        raise InputError(f"{folder}: {ADAPTER_CONFIG} is not LoRA of rank {rank} as {GATED_CONFIG} says; save it again")
    config.inference_mode = False
    gated = _attach(base, config, experts, bool(settings.get("gate_per_layer")), adapter)
    own = _adapter_weights(gated)
    if {name: tensor.shape for name, tensor in own.items()} != {name: one.shape for name, one in weights.items()}:
        raise InputError(f"{folder}: the adapter does not fit this base model; load the model it was trained on")
    # Not by peft, which would rename layers of some mixtures of experts, and leave these out without a word.
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])
    return gated


def _attach(base: PreTrainedModel, config: LoraConfig, experts: int, gate_per_layer: bool, adapter: str) -> GatedLoRA:
    """The base with LoRA of this configuration, every layer of it gated."""
    if experts < 1 or config.r < 1 or config.r % experts:
        raise InputError(f"gated LoRA: rank {config.r} is no multiple of {experts} experts; give a rank that is")
    refused = [option for option in REFUSED_OPTIONS if getattr(config, option, None)]
    if refused:
        raise InputError(f"gated LoRA: {', '.join(refused)} does not work with experts; train a plain LoRA adapter")
    if any(isinstance(module, LoraLayer) for module in base.modules()):
        raise InputError("gated LoRA: the base model already has an adapter; load the base afresh")
    _check_targets(base, config.target_modules)
    try:
        model = get_peft_model(base, config, adapter_name=adapter)
    except ValueError as error:
        raise InputError(f"gated LoRA: peft refuses the targets ({one_line(error, 300)})") from None
    assert isinstance(model, PeftModel)
    gated_layers = [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    of_layer = [_transformer_layer(name) for name in gated_layers]
    transformer_layers = tuple(dict.fromkeys(of_layer))
    slot = GateSlot(experts, config.r, len(transformer_layers) if gate_per_layer else None)
    base_model: Any = model.get_base_model()
    base_model.register_forward_pre_hook(slot.begin_pass, with_kwargs=True)
    base_model.register_forward_hook(slot.end_pass, always_call=True)
    for name, number in zip(gated_layers, map(transformer_layers.index, of_layer), strict=True):
        layer: Any = model.get_submodule(name)
        # Peft adapts experts that are one tensor by themselves, without a pass through lora_A that a gate could mix.
        if adapter not in layer.lora_A or isinstance(layer, ParamWrapper):
            raise InputError(f"gated LoRA: {name} is no linear layer; leave it out of target_modules")
        layer.lora_A[adapter].register_forward_hook(
            lambda module, inputs, output, number=number: slot.mix(output, number)
        )
        if (fused := fuse(layer, adapter, slot, number)) is not None:
            slot.fused.append(fused)
        _refuse_merging(layer, ("merge",))
    _refuse_merging(model.base_model, ("merge_adapter", "merge_and_unload"))
    return GatedLoRA(model, slot, tuple(gated_layers), transformer_layers, adapter)


def _transformer_layer(name: str) -> str:
    """``model.layers.3`` of ``model.layers.3.mlp.up_proj``: up to its first number; all of a name without one."""
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 1])


def _check_targets(base: nn.Module, targets: Iterable[str] | str | None) -> None:
    """Raise InputError unless every listed end of a name occurs: peft is content when any one does."""
    if targets is None or isinstance(targets, str):
        return
    names = [name for name, _ in base.named_modules()]
    missing = [end for end in targets if not any(name == end or name.endswith(f".{end}") for name in names)]
    if missing or not list(targets):
        raise InputError(f"gated LoRA: no layer of the base model is named {', '.join(missing) or '(nothing given)'}")


def _refuse_merging(layer_or_model: object, methods: tuple[str, ...]) -> None:
    """A mixture that depends on the sequence cannot be added to the weights: calling these methods raises."""
    for method in methods:
        setattr(layer_or_model, method, _merging)


def _merging(*_: object, **__: object) -> NoReturn:
    raise InputError("gated LoRA cannot be merged: its update differs from sequence to sequence; keep the adapter")


def _adapter_weights(gated: GatedLoRA) -> dict[str, Tensor]:
    """The adapter's weights by the names they are saved under."""
    return get_peft_model_state_dict(gated.model, adapter_name=gated.adapter, save_embedding_layers=False)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a folder that save_adapter wrote") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object; give a folder that save_adapter wrote")
    return content

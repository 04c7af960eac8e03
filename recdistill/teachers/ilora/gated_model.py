"""The model of both iLoRA teachers: a frozen LLM with gated LoRA, the gate, and the projector of injected items."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from peft.helpers import disable_input_dtype_casting
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recdistill.errors import InputError
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.documents import documents_apart
from recdistill.teachers.ilora.gate import build_gate
from recdistill.teachers.ilora.gated_lora import (
    GatedLoRA,
    attach_gated_lora,
    check_layers,
    load_adapter,
    save_adapter,
)
from recdistill.teachers.ilora.injection import Projector, embedding_scale
from recdistill.teachers.ilora.short_attention import short_attention

WEIGHTS_FILE = "teacher.safetensors"
SETTINGS_FILE = "teacher.json"
ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, kw_only=True)
class GatedShape:
    """Settings of a teacher's gated LoRA: all that fixes its parameters, LLM and backbone aside.

    Attributes:
        called: name of this kind of teacher in messages.
        rank, alpha, dropout, experts, gate: see `attach_gated_lora` and `build_gate`.
        gate_options: the gate's own options, by name.
        gate_per_layer: whether each transformer layer has a gate of its own.
        encode_users: whether a prompt begins with a marker of the backbone's state before its titles.
    """

    called: ClassVar[str] = "teacher"
    rank: int
    alpha: float
    dropout: float
    experts: int
    gate: str
    gate_options: Mapping[str, Any] = field(default_factory=dict)
    gate_per_layer: bool = False
    encode_users: bool = False


Shape = TypeVar("Shape", bound=GatedShape)
Model = TypeVar("Model", bound="GatedModel")


class GatedModel(nn.Module):
    """Gated LoRA over a frozen LLM, gate and projector. Only the tensors of `trained` are trained and saved.

    Attributes:
        slot: holds the mixing weights of the pass to come.
        llm: the LLM inside peft.
        llm_name: the LLM's name, as the user gave it.
        gate, projector, item_table: see `build_gate` and `Projector`; the backbone's input table [V, D].
        user_projector: of the backbone's states, where prompts begin with a user's; else None.
        sample_gates: mixing weights [S, K] or [S, N, K] of the last pass's samples, to look at: without gradient.
    """

    item_table: Tensor
    sample_gates: Tensor

    def __init__(self, gated: GatedLoRA, llm: BaseLLM, shape: GatedShape, items: Tensor) -> None:
        """``items`` [V, D] is the backbone's input table, injected at markers."""
        super().__init__()
        self.slot = gated.slot
        self.llm = gated.model
        self.llm_name = llm.name
        self._gated = gated
        self._described = {"llm": llm.name, "llm_fingerprint": llm.fingerprint, "shape": asdict(shape)}
        self.gate = build_gate(shape.gate, items.shape[1], shape.experts, gated.slot.layers, shape.gate_options)
        self.projector = Projector(items.shape[1], llm.hidden_size, embedding_scale(self._tokens().weight))
        self.user_projector: Projector | None = None
        if shape.encode_users:
            self.user_projector = Projector(items.shape[1], llm.hidden_size, embedding_scale(self._tokens().weight))
        self.register_buffer("item_table", items.detach().clone(), persistent=False)

    def trained(self) -> dict[str, Tensor]:
        """Every parameter that training changes (and the buffers of gate and projectors), by name."""
        named = {name: tensor for name, tensor in self.named_parameters() if tensor.requires_grad}
        return named | {
            name: tensor
            for name, tensor in self.named_buffers()
            if name.startswith(("gate.", "projector.", "user_projector."))
        }

    def injected(self, tokens: Tensor, marker: Tensor, items: Tensor) -> Tensor:
        """Inputs of the LLM [B, T, H]: embeddings of ``tokens`` [B, T], at ``marker`` bool [B, T] projected items.

        ``items`` [M] are those of the markers, row by row; all are on the teacher's device.
        """
        embedded = self._tokens()(tokens)
        projected = self.projector(self.item_table[items]).to(embedded.dtype)
        return embedded.masked_scatter(marker.unsqueeze(-1), projected)

    def with_users(self, embedded: Tensor, marker: Tensor, users: Tensor | None) -> Tensor:
        """Inputs of the LLM [B, T, H] with the projected backbone state of each prompt's user at its marker.

        ``marker`` bool [B, T] has one place a prompt; ``users`` are their states [W, D], None where nothing came before
        the titles. All are on the teacher's device.
        """
        assert self.user_projector is not None
        if users is None:
            users = self.item_table.new_zeros(int(marker.sum()), self.item_table.shape[1])
        projected = self.user_projector(users).to(embedded.dtype)
        return embedded.masked_scatter(marker.unsqueeze(-1), projected)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Float32 LoRA weights, but activations as the base has them: half the memory, and products in bfloat16.

        Gradients of attention over short texts come by `short_attention`; texts of one row are kept apart.
        """
        dtype = self._tokens().weight.dtype
        low = dtype != torch.float32
        with (
            torch.autocast(self.item_table.device.type, dtype, enabled=low),
            disable_input_dtype_casting(self.llm, low),
            short_attention(),
            documents_apart(lambda: self.slot.documents),
        ):
            yield

    def enable_gradient_checkpointing(self) -> None:
        """Compute the LLM's activations again in the backward pass; see `GatedLoRA`."""
        self._gated.enable_gradient_checkpointing(self.precision)

    def save(self, folder: Path) -> None:
        """Write the adapter, the other trained tensors, and the settings; no weight of the base LLM."""
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(folder / ADAPTER_FOLDER, self._gated)
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in self._own_tensors().items()}
        save_file(own, folder / WEIGHTS_FILE)
        (folder / SETTINGS_FILE).write_text(json.dumps(self._described, indent=2) + "\n", encoding="utf-8")

    def load(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """Take the tensors of ``folder`` that are not the adapter's. Raises InputError where they do not fit."""
        own = self._own_tensors()
        if {name: tensor.shape for name, tensor in own.items()} != {name: t.shape for name, t in tensors.items()}:
            raise InputError(
                f"{folder}: the weights do not fit this backbone and catalogue; give those it was trained on"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])

    def _own_tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.trained().items() if not name.startswith("llm.")}

    def _tokens(self) -> nn.Embedding:
        embedding = self.llm.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return embedding


def with_gated_lora(llm: BaseLLM, shape: GatedShape) -> GatedLoRA:
    """The LLM with a fresh gated LoRA, in place. Raises InputError where sizes do not fit or no gate can follow."""
    gated = attach_gated_lora(
        llm.model,
        rank=shape.rank,
        alpha=shape.alpha,
        dropout=shape.dropout,
        experts=shape.experts,
        gate_per_layer=shape.gate_per_layer,
    )
    check_layers(gated)
    return gated


def load_gated_model(
    folder: Path,
    kind: type[Shape],
    llm: BaseLLM,
    make: Callable[[Shape, Callable[[], GatedLoRA]], Model],
) -> Model:
    """The model of `GatedModel.save`, in evaluation mode; ``llm`` gets its adapter in place.

    Args:
        folder: where it was saved.
        kind: class of its settings.
        llm: the base that it was trained over.
        make: builds the model from its settings and a function that attaches its adapter to the base.

    Raises:
        InputError: a file is missing or damaged, another base is given, or sizes do not fit.
    """
    try:
        described = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        shape = kind(**described["shape"])
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: no readable {kind.called} ({error}); train it again") from None
    if described.get("llm_fingerprint") != llm.fingerprint:
        raise InputError(f"{folder}: was trained over {described.get('llm')}, not over this {llm.name}; load that LLM")
    model = make(shape, lambda: load_adapter(llm.model, folder / ADAPTER_FOLDER))
    model.load(folder, tensors)
    return model.eval()

"""What both teachers are made of: a frozen LLM with gated LoRA, the gate, and the projector of injected items."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from peft.helpers import disable_input_dtype_casting
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recdistill.errors import InputError
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.gate import build_gate
from recdistill.teachers.ilora.gated_lora import GatedLoRA, attach_gated_lora, save_adapter
from recdistill.teachers.ilora.injection import Projector, embedding_scale

WEIGHTS_FILE = "teacher.safetensors"
SETTINGS_FILE = "teacher.json"
ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, kw_only=True)
class GatedShape:
    """What fixes the gated LoRA of a teacher.

    Attributes:
        called: what messages call a teacher of this kind.
        rank, alpha, dropout, experts, gate: see `attach_gated_lora` and `build_gate`.
        gate_per_layer: whether each transformer layer has a gate of its own.
    """

    called: ClassVar[str] = "teacher"
    rank: int
    alpha: float
    dropout: float
    experts: int
    gate: str
    gate_per_layer: bool = False


Shape = TypeVar("Shape", bound=GatedShape)


class GatedModel(nn.Module):
    """Gated LoRA over a frozen LLM, gate and projector. Only what `trained` names is trained and saved.

    Attributes:
        slot: holds the mixing weights of the pass to come.
        llm: the LLM inside peft.
        gate, projector, item_table: see `build_gate` and `Projector`; the backbone's input table [V, D].
        sample_gates: mixing weights [S, K] or [S, N, K] of the last pass's samples, to look at: without gradient.
    """

    item_table: Tensor
    sample_gates: Tensor

    def __init__(self, gated: GatedLoRA, llm: BaseLLM, shape: GatedShape, items: Tensor) -> None:
        """``items`` [V, D] is the backbone's input table, injected at markers."""
        super().__init__()
        self.slot = gated.slot
        self.llm = gated.model
        self._gated = gated
        self._described = {"llm": llm.name, "llm_fingerprint": llm.fingerprint, "shape": asdict(shape)}
        self.gate = build_gate(shape.gate, items.shape[1], shape.experts, gated.slot.layers)
        self.projector = Projector(items.shape[1], llm.hidden_size, embedding_scale(self._tokens().weight))
        self.register_buffer("item_table", items.detach().clone(), persistent=False)

    def trained(self) -> dict[str, Tensor]:
        """Every parameter that training changes (and the buffers of gate and projector), by name."""
        named = {name: tensor for name, tensor in self.named_parameters() if tensor.requires_grad}
        return named | {
            name: tensor for name, tensor in self.named_buffers() if name.startswith(("gate.", "projector."))
        }

    def injected(self, tokens: Tensor, marker: Tensor, items: Tensor) -> Tensor:
        """Inputs of the LLM [B, T, H]: embeddings of ``tokens`` [B, T], at ``marker`` bool [B, T] projected items.

        ``items`` [M] are those of the markers, row by row; all are on the teacher's device.
        """
        embedded = self._tokens()(tokens)
        projected = self.projector(self.item_table[items]).to(embedded.dtype)
        return embedded.masked_scatter(marker.unsqueeze(-1), projected)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Float32 LoRA weights, but activations as the base has them: half the memory, and products in bfloat16."""
        dtype = self._tokens().weight.dtype
        low = dtype != torch.float32
        with (
            torch.autocast(self.item_table.device.type, dtype, enabled=low),
            disable_input_dtype_casting(self.llm, low),
        ):
            yield

    def save(self, folder: Path) -> None:
        """Write the adapter, what else is trained, and settings; no weight of the base LLM."""
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(folder / ADAPTER_FOLDER, self._gated)
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in self._beside_the_adapter().items()}
        save_file(own, folder / WEIGHTS_FILE)
        (folder / SETTINGS_FILE).write_text(json.dumps(self._described, indent=2) + "\n", encoding="utf-8")

    def load(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """Take what ``folder`` has beside the adapter, of `read_teacher`. Raises InputError where it does not fit."""
        own = self._beside_the_adapter()
        if {name: tensor.shape for name, tensor in own.items()} != {name: t.shape for name, t in tensors.items()}:
            raise InputError(
                f"{folder}: the weights do not fit this backbone and catalogue; give those it was trained on"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])

    def _beside_the_adapter(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.trained().items() if not name.startswith("llm.")}

    def _tokens(self) -> nn.Embedding:
        embedding = self.llm.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return embedding


def with_gated_lora(llm: BaseLLM, shape: GatedShape) -> GatedLoRA:
    """The LLM with a fresh gated LoRA, in place. Raises InputError where sizes do not fit."""
    return attach_gated_lora(
        llm.model,
        rank=shape.rank,
        alpha=shape.alpha,
        dropout=shape.dropout,
        experts=shape.experts,
        gate_per_layer=shape.gate_per_layer,
    )


def read_teacher(folder: Path, kind: type[Shape], llm: BaseLLM) -> tuple[Shape, dict[str, Tensor]]:
    """The shape of a teacher of `GatedModel.save`, and what it has beside its adapter (`load_adapter` reads that).

    Raises InputError where a file is missing or damaged, or another base is given.
    """
    try:
        described = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        shape = kind(**described["shape"])
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: no readable {kind.called} ({error}); train it again") from None
    if described.get("llm_fingerprint") != llm.fingerprint:
        raise InputError(f"{folder}: was trained over {described.get('llm')}, not over this {llm.name}; load that LLM")
    return shape, tensors

"""The generative teacher: iLoRA (NeurIPS 2024) as the paper has it, a causal LLM that answers with the next title.

The backbone comes in as tensors: its item table, injected at the markers, and its state of each sample, whose gate
holds for the whole prompt and its answer.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft.helpers import disable_input_dtype_casting
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recdistill.errors import InputError
from recdistill.teacher.base_llm import BaseLLM
from recdistill.teacher.candidate_prompts import NO_ITEM, NO_LABEL, CandidatePrompts, PromptTokens, prompt_tokens
from recdistill.teacher.gate import build_gate
from recdistill.teacher.gated_lora import GatedLoRA, attach_gated_lora, load_adapter, save_adapter
from recdistill.teacher.injection import Projector, embedding_scale
from recdistill.teacher.ranking_teacher import ADAPTER_FOLDER, SETTINGS_FILE, WEIGHTS_FILE
from recdistill.teacher.titles import MAX_TITLE_TOKENS

TEXT_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class GenerativeShape:
    """What fixes a generative teacher's parameters and prompts, LLM, backbone and catalogue aside.

    Attributes:
        rank, alpha, dropout, experts, gate, gate_per_layer: of the gated LoRA.
        domain: whose words the prompts are in; see `wordings`.
    """

    rank: int
    alpha: float
    dropout: float
    experts: int
    gate: str
    domain: str
    gate_per_layer: bool = False


class GenerativeTeacher(nn.Module):
    """Gated LoRA over a frozen LLM with its language-model head, gate and projector; see `build_generative_teacher`.

    Only what `trained` names is trained and saved. `answers` has the ways in which it answers.

    Attributes:
        sample_gates: mixing weights of the last pass's samples [B, K] or [B, N, K], to look at: without gradient.
    """

    item_table: Tensor
    sample_gates: Tensor

    def __init__(
        self, gated: GatedLoRA, llm: BaseLLM, shape: GenerativeShape, parts: PromptTokens, items: Tensor
    ) -> None:
        super().__init__()
        self.shape = shape
        self.parts = parts
        self.slot = gated.slot
        self.llm = gated.model
        self.tokenizer = llm.tokenizer
        self._gated = gated
        self._described = {"llm": llm.name, "llm_fingerprint": llm.fingerprint}
        state_size = items.shape[1]
        embedding = gated.model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        self.gate = build_gate(shape.gate, state_size, shape.experts, gated.slot.layers)
        self.projector = Projector(state_size, llm.hidden_size, embedding_scale(embedding.weight))
        self.register_buffer("item_table", items.detach().clone(), persistent=False)

    def trained(self) -> dict[str, Tensor]:
        """Every parameter that training changes (and the buffers of gate and projector), by name."""
        named = {name: tensor for name, tensor in self.named_parameters() if tensor.requires_grad}
        return named | {
            name: tensor for name, tensor in self.named_buffers() if name.startswith(("gate.", "projector."))
        }

    def forward(self, prompts: CandidatePrompts, states: Tensor, injected: bool = True) -> Tensor:
        """Mean cross-entropy of the answers' tokens, a scalar.

        Args:
            prompts: B with their answers, padded on the right, on the CPU.
            states: the backbone's states of the samples [B, D], on the model's device.
            injected: False reads the markers as text alone: then the projector is not trained.
        """
        row, place = (prompts.labels != NO_LABEL).nonzero(as_tuple=True)
        # The state at a token predicts the token after it; the head runs where some row needs it.
        kept = torch.unique(place - 1)
        embedded = self.embedded(prompts, injected)
        self.set_gates(states)
        with self.precision():
            # Right padding needs no mask in a causal LLM: no real token attends to a later one.
            logits = self.llm(inputs_embeds=embedded, use_cache=False, logits_to_keep=kept.to(embedded.device)).logits
        asked = torch.searchsorted(kept, place - 1)
        found = logits[row.to(logits.device), asked.to(logits.device)].float()
        return F.cross_entropy(found, prompts.labels[row, place].to(logits.device))

    def embedded(self, prompts: CandidatePrompts, injected: bool = True) -> Tensor:
        """Inputs of the LLM [B, T, H], on its device: token embeddings, at markers the projected items."""
        embedding = self.llm.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        device = self.item_table.device
        embedded = embedding(prompts.tokens.to(device))
        if not injected:
            return embedded
        item = prompts.item.to(device)
        marker = item != NO_ITEM
        projected = self.projector(self.item_table[item[marker]]).to(embedded.dtype)
        return embedded.masked_scatter(marker.unsqueeze(-1), projected)

    def set_gates(self, states: Tensor) -> None:
        """Hold the gates of the samples [B, D] for the passes to come: a prompt's, and those of its answer's tokens."""
        weights = self.gate(states)
        self.sample_gates = weights.detach()
        self.slot.set(weights)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Float32 LoRA weights, but activations as the base has them: half the memory, and products in bfloat16."""
        embedding = self.llm.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        dtype = embedding.weight.dtype
        low = dtype != torch.float32
        with (
            torch.autocast(self.item_table.device.type, dtype, enabled=low),
            disable_input_dtype_casting(self.llm, low),
        ):
            yield

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """The base LLM's last hidden state at each text's last token, float32 [N, H] (BIGRec, arXiv 2308.08434)."""
        base: Any = self.llm.get_base_model()
        parts = []
        for begin in range(0, len(texts), TEXT_ROWS):
            ids = [self._text_tokens(text) for text in texts[begin : begin + TEXT_ROWS]]
            last = torch.tensor([len(row) - 1 for row in ids])
            tokens = torch.full((len(ids), int(last.max()) + 1), self.parts.titles.padding)
            for row, own in enumerate(ids):
                tokens[row, : len(own)] = torch.tensor(own)
            # Catalogue and answers alike are seen by the base alone, whatever the adapter has learnt.
            with self.llm.disable_adapter():
                hidden = base.base_model(input_ids=tokens.to(self.item_table.device), use_cache=False)[0]
            parts.append(hidden[torch.arange(len(ids)), last].float())
        return torch.cat(parts)

    def _text_tokens(self, text: str) -> list[int]:
        """Tokens of a title by itself, at most 48; the closing newline where a text has none."""
        return self.tokenizer(text)["input_ids"][:MAX_TITLE_TOKENS] or [self.parts.closing]

    def save(self, folder: Path) -> None:
        """Write adapter, gate, projector and settings; no weight of the base LLM."""
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(folder / ADAPTER_FOLDER, self._gated)
        own = {name: tensor for name, tensor in self.trained().items() if not name.startswith("llm.")}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}, folder / WEIGHTS_FILE)
        described = self._described | {"shape": asdict(self.shape)}
        (folder / SETTINGS_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def build_generative_teacher(
    llm: BaseLLM, shape: GenerativeShape, titles: Sequence[str], items: Tensor
) -> GenerativeTeacher:
    """A fresh teacher; ``llm`` gets the adapter in place.

    Args:
        llm: the frozen base, with its language-model head.
        shape: sizes.
        titles: V titles.
        items: the backbone's input table [V, D].

    Raises:
        InputError: sizes do not fit.
    """
    parts = prompt_tokens(llm.tokenizer, titles, shape.domain)
    gated = attach_gated_lora(
        llm.model,
        rank=shape.rank,
        alpha=shape.alpha,
        dropout=shape.dropout,
        experts=shape.experts,
        gate_per_layer=shape.gate_per_layer,
    )
    return GenerativeTeacher(gated, llm, shape, parts, items)


def load_generative_teacher(folder: Path, llm: BaseLLM, titles: Sequence[str], items: Tensor) -> GenerativeTeacher:
    """The teacher of `GenerativeTeacher.save` over the same base, backbone and catalogue, in evaluation mode.

    Raises:
        InputError: a file is missing or damaged, or another base is given.
    """
    try:
        described = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        shape = GenerativeShape(**described["shape"])
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: no readable generative teacher ({error}); train it again") from None
    if described.get("llm_fingerprint") != llm.fingerprint:
        raise InputError(f"{folder}: was trained over {described.get('llm')}, not over this {llm.name}; load that LLM")
    gated = load_adapter(llm.model, folder / ADAPTER_FOLDER)
    teacher = GenerativeTeacher(gated, llm, shape, prompt_tokens(llm.tokenizer, titles, shape.domain), items)
    own = {name: tensor for name, tensor in teacher.trained().items() if not name.startswith("llm.")}
    if {name: tensor.shape for name, tensor in own.items()} != {name: t.shape for name, t in tensors.items()}:
        raise InputError(f"{folder}: the weights do not fit this backbone; give the one it was trained on")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return teacher.eval()

"""The generative teacher: iLoRA (NeurIPS 2024) as the paper has it, a causal LLM that answers with the next title.

The backbone comes in as tensors: its item table, injected at the markers, and its state of each sample, whose gate
holds for the whole prompt and its answer.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor

from recdistill.teachers.generative.candidate_prompts import (
    NO_LABEL,
    USER,
    CandidatePrompts,
    PromptTokens,
    prompt_tokens,
)
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.gated_lora import GatedLoRA
from recdistill.teachers.ilora.gated_model import GatedModel, GatedShape, load_gated_model, with_gated_lora
from recdistill.teachers.ilora.titles import MAX_TITLE_TOKENS

TEXT_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class GenerativeShape(GatedShape):
    """Settings of a generative teacher: all that fixes its parameters and prompts, LLM, backbone and catalogue aside.

    Attributes:
        domain: whose words the prompts are in; see `prompt_templates`.
    """

    called = "generative teacher"
    domain: str


class GenerativeModel(GatedModel):
    """Gated LoRA over a frozen LLM with its language-model head, gate and projector; see `build_generative_model`.

    `answers` has the ways in which it answers.
    """

    def __init__(
        self, gated: GatedLoRA, llm: BaseLLM, shape: GenerativeShape, parts: PromptTokens, items: Tensor
    ) -> None:
        super().__init__(gated, llm, shape, items)
        self.shape = shape
        self.parts = parts
        self.tokenizer = llm.tokenizer

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
            logits = logits_at(self.llm, kept.to(embedded.device), inputs_embeds=embedded, use_cache=False)
        asked = torch.searchsorted(kept, place - 1)
        found = logits[row.to(logits.device), asked.to(logits.device)].float()
        return F.cross_entropy(found, prompts.labels[row, place].to(logits.device))

    def embedded(self, prompts: CandidatePrompts, injected: bool = True) -> Tensor:
        """Inputs of the LLM [B, T, H], on its device: token embeddings, at markers the projected items."""
        device = self.item_table.device
        tokens, item = prompts.tokens.to(device), prompts.item.to(device)
        if not injected:
            return self._tokens()(tokens)
        marker = item >= 0
        embedded = self.injected(tokens, marker, item[marker])
        if self.user_projector is None:
            return embedded
        return self.with_users(embedded, item == USER, prompts.users)

    def set_gates(self, states: Tensor) -> None:
        """Hold the gates of the samples [B, D] for the passes to come: a prompt's, and those of its answer's tokens."""
        weights = self.gate(states)
        self.sample_gates = weights.detach()
        self.slot.set(weights)

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

    def num_text_tokens(self, texts: Sequence[str]) -> int:
        """LLM tokens that `embed_texts` reads of texts."""
        return sum(len(self._text_tokens(text)) for text in texts)

    def _text_tokens(self, text: str) -> list[int]:
        """Tokens of a title by itself, at most 48; the closing newline where a text has none."""
        rows = self._tokens().weight.shape[0]
        known = [token for token in self.tokenizer(text)["input_ids"] if token < rows]
        return known[:MAX_TITLE_TOKENS] or [self.parts.closing]


def logits_at(llm: PeftModel, kept: Tensor, **inputs: Any) -> Tensor:
    """Logits [B, n, W] of a pass at ``kept`` places, int64 [n]; the head runs there alone where the LLM can do so."""
    base: Any = llm.get_base_model()
    if "logits_to_keep" in inspect.signature(base.forward).parameters:
        return llm(**inputs, logits_to_keep=kept).logits
    return llm(**inputs).logits[:, kept]


def build_generative_model(
    llm: BaseLLM, shape: GenerativeShape, titles: Sequence[str], items: Tensor
) -> GenerativeModel:
    """A fresh teacher; ``llm`` gets the adapter in place.

    Args:
        llm: the frozen base, with its language-model head.
        shape: sizes.
        titles: V titles.
        items: the backbone's input table [V, D].

    Raises:
        InputError: sizes do not fit.
    """
    return _over(llm, shape, titles, items, lambda: with_gated_lora(llm, shape))


def load_generative_model(folder: Path, llm: BaseLLM, titles: Sequence[str], items: Tensor) -> GenerativeModel:
    """The teacher of `GenerativeModel.save` over the same base, backbone and catalogue, in evaluation mode.

    Raises:
        InputError: a file is missing or damaged, or another base is given.
    """
    return load_gated_model(
        folder, GenerativeShape, llm, lambda shape, attach: _over(llm, shape, titles, items, attach)
    )


def _over(
    llm: BaseLLM, shape: GenerativeShape, titles: Sequence[str], items: Tensor, attach: Callable[[], GatedLoRA]
) -> GenerativeModel:
    """The teacher over a base that ``attach`` gives its adapter."""
    parts = prompt_tokens(llm.tokenizer, titles, shape.domain, shape.encode_users)
    around = [text for template in parts.templates for text in template]
    llm.check_tokens(parts.titles.tokens, *around, [parts.placeholder, parts.closing])
    return GenerativeModel(attach(), llm, shape, parts, items)

"""Prompts read on by an answer: with what the LLM keeps of them in a cache, or anew for every token.

Caches of hybrid and recurrent LLMs cannot be repeated for many answers, and some take the padding before a short
prompt for text. Whether those of an LLM can be trusted is found out once, by comparing both ways on two prompts.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from recdistill.teachers.generative.candidate_prompts import CandidatePrompts, answer_prompts
from recdistill.teachers.generative.model import GenerativeModel, logits_at

#: Number of a row and the tokens that it has written, to the tokens that may come next.
Allowed = Callable[[int, list[int]], list[int]]

# What both ways may differ by, as a share of how much two prompts' logits differ. Half precision alone makes a fourth
# of that in a real LLM; a cache that takes padding for text, several times as much.
MOST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.5}
PROBED_TOKENS = 3


class TrustedCaches(NamedTuple):
    """Which caches of an LLM give what reading all anew gives.

    Attributes:
        writing: that of ``generate``, which writes on after prompts of unlike length.
        repeating: one whose prompts are repeated for several answers.
    """

    writing: bool
    repeating: bool


_trusted: "WeakKeyDictionary[GenerativeModel, TrustedCaches]" = WeakKeyDictionary()


def trusted_caches(teacher: GenerativeModel) -> TrustedCaches:
    """The caches of a teacher's LLM that can be trusted; compared when it is first asked for."""
    if teacher not in _trusted:
        _trusted[teacher] = compared_caches(teacher)
    return _trusted[teacher]


@torch.inference_mode()
def compared_caches(teacher: GenerativeModel) -> TrustedCaches:
    """Compare the logits of a few tokens after two prompts of unlike length, with each cache and without.

    The teacher's gates are set anew; it is in evaluation mode.
    """
    items = np.arange(min(4, len(teacher.parts.titles.lengths)))
    prompts = answer_prompts(teacher.parts, [items, items[:1]], np.stack([items[:2], items[:2]]), [0, 0])
    states = torch.zeros(2, teacher.item_table.shape[1], device=teacher.item_table.device)
    tokens = torch.from_numpy(teacher.parts.titles.tokens[:PROBED_TOKENS]).to(states.device)
    tokens = tokens if len(tokens) > 1 else tokens.repeat(2)
    repeated = tokens.expand(4, -1)
    anew = answer_logits_anew(teacher, prompts, states, repeated)[1].view(2, 2, len(tokens) - 1, -1)
    embedding: Any = teacher.llm.get_input_embeddings()
    between = float((anew[0] - anew[1]).square().mean().sqrt())
    most = MOST_DIFFERENCE.get(embedding.weight.dtype, 1e-3) * between

    def alike(found: Callable[[], Tensor], expected: Tensor) -> bool:
        try:
            difference = (found().float() - expected).square().mean().sqrt()
        except Exception:  # families raise many kinds where they have no such cache
            return False
        return bool(difference <= most)

    def written() -> Tensor:
        forced = tokens.tolist()
        logits: list[Tensor] = []
        generated_with_cache(teacher, prompts, states, len(forced), [], lambda row, begun: [forced[len(begun)]], logits)
        return torch.stack(logits, dim=1)[:, 1:]

    return TrustedCaches(
        writing=alike(written, anew[:, 0]),
        repeating=alike(lambda: answer_logits_with_cache(teacher, prompts, states, repeated)[1].view_as(anew), anew),
    )


@torch.inference_mode()
def generated_with_cache(
    teacher: GenerativeModel,
    prompts: CandidatePrompts,
    states: Tensor,
    most: int,
    ends: list[int],
    allowed: Allowed | None = None,
    logits: list[Tensor] | None = None,
) -> Tensor:
    """As `answers.generated`, by ``generate`` of transformers; ``logits``, where given, gets those of each token."""
    device, width = teacher.item_table.device, prompts.tokens.shape[1]
    options: dict[str, Any] = {}
    if allowed is not None:
        options["prefix_allowed_tokens_fn"] = lambda row, tokens: allowed(int(row), tokens[width:].tolist())
    teacher.set_gates(states)
    with teacher.precision():
        written = teacher.llm.generate(
            # The embeddings are what is read. The tokens only hold the place, so that they are given back with
            # the answer behind them in every version of transformers.
            input_ids=prompts.tokens.to(device),
            inputs_embeds=teacher.embedded(prompts),
            attention_mask=prompts.real.long().to(device),
            max_new_tokens=most,
            eos_token_id=ends or None,
            pad_token_id=teacher.parts.titles.padding,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            return_dict_in_generate=True,
            output_logits=logits is not None,
            **options,
        )
    if logits is not None:
        logits += written.logits
    return written.sequences[:, width:].cpu()


@torch.inference_mode()
def generated_anew(
    teacher: GenerativeModel,
    prompts: CandidatePrompts,
    states: Tensor,
    most: int,
    ends: list[int],
    allowed: Allowed | None = None,
) -> Tensor:
    """As `answers.generated`, reading prompt and answer anew for every token, padded on the right."""
    embedded, length = moved_left(teacher, prompts)
    rows = torch.arange(len(prompts), device=embedded.device)
    embedded = torch.cat([embedded, embedded.new_zeros(len(rows), most, embedded.shape[2])], dim=1)
    words = teacher.llm.get_input_embeddings()
    written: list[list[int]] = [[] for _ in rows]
    open_rows = set(range(len(rows)))
    teacher.set_gates(states)
    for step in range(most):
        kept, asked = torch.unique(length + step - 1, return_inverse=True)
        with teacher.precision():
            # A copy: some LLMs add positions to what they are given in place.
            read = embedded[:, : int(kept.max()) + 1].clone()
            logits = logits_at(teacher.llm, kept, inputs_embeds=read, use_cache=False)[rows, asked].float()
        for row in sorted(open_rows):
            of_row = logits[row]
            if allowed is not None:
                taken = torch.tensor(allowed(row, written[row]), device=of_row.device)
                of_row = torch.full_like(of_row, -torch.inf).index_copy(0, taken, of_row[taken])
            written[row].append(int(of_row.argmax()))
            if written[row][-1] in ends:
                open_rows.remove(row)
        if not open_rows:
            break
        last = torch.tensor([own[-1] for own in written], device=rows.device)
        embedded[rows, length + step] = words(last).to(embedded.dtype)
    table = torch.full((len(rows), max(map(len, written))), teacher.parts.titles.padding)
    for row, own in enumerate(written):
        table[row, : len(own)] = torch.tensor(own)
    return table


def answer_logits_with_cache(
    teacher: GenerativeModel, prompts: CandidatePrompts, states: Tensor, answers: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits after each prompt [B, 1, W], and after all but the last token of its answers [B·K, A - 1, W].

    ``answers`` are K for each of the B prompts, int64 [B·K, A], padded on the right. Each prompt is read once.
    """
    device = answers.device
    count = len(answers) // len(prompts)
    mask = prompts.real.long().to(device)
    length = mask.sum(dim=1)
    base: Any = teacher.llm.get_base_model()
    cache: Any = DynamicCache(config=base.config)
    # Its name since transformers 5, and before.
    kept = {"cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values": cache}
    teacher.set_gates(states)
    with teacher.precision():
        first = teacher.llm(
            inputs_embeds=teacher.embedded(prompts),
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
            **kept,
        ).logits[:, -1:]
        cache.batch_repeat_interleave(count)
        # The last token of an answer predicts nothing that is asked for.
        read = answers[:, :-1]
        rest = teacher.llm(
            input_ids=read,
            attention_mask=torch.cat([mask.repeat_interleave(count, dim=0), torch.ones_like(read)], dim=1),
            position_ids=length.repeat_interleave(count)[:, None] + torch.arange(read.shape[1], device=device),
            use_cache=True,
            **kept,
        ).logits
    return first, rest


def answer_logits_anew(
    teacher: GenerativeModel, prompts: CandidatePrompts, states: Tensor, answers: Tensor
) -> tuple[Tensor, Tensor]:
    """As `answer_logits_with_cache`, reading the prompt again for each of its answers, padded on the right."""
    count, tokens = len(answers) // len(prompts), answers.shape[1]
    embedded, length = moved_left(teacher, prompts)
    embedded, length = embedded.repeat_interleave(count, dim=0), length.repeat_interleave(count)
    rows = torch.arange(len(answers), device=answers.device)[:, None]
    place = length[:, None] + torch.arange(tokens, device=answers.device)
    embedded = torch.cat([embedded, embedded.new_zeros(len(rows), tokens, embedded.shape[2])], dim=1)
    embedded[rows, place] = teacher.llm.get_input_embeddings()(answers).to(embedded.dtype)
    teacher.set_gates(states.repeat_interleave(count, dim=0))
    # The state at a token predicts the token after it.
    kept, asked = torch.unique(place - 1, return_inverse=True)
    with teacher.precision():
        logits = logits_at(teacher.llm, kept, inputs_embeds=embedded, use_cache=False)[rows, asked].float()
    return logits[::count, :1], logits[:, 1:]


def moved_left(teacher: GenerativeModel, prompts: CandidatePrompts) -> tuple[Tensor, Tensor]:
    """Embeddings [B, T, H] of prompts with their padding on the right, and their lengths int64 [B]."""
    embedded = teacher.embedded(prompts)
    length = prompts.real.sum(dim=1).to(embedded.device)
    width = embedded.shape[1]
    place = (torch.arange(width, device=embedded.device) + (width - length)[:, None]) % width
    return embedded.gather(1, place.unsqueeze(2).expand_as(embedded)), length

"""Answers of a generative teacher: free, constrained to the candidates' titles, or by the likelihood of each."""

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from recdistill.teachers.generative.candidate_prompts import CandidatePrompts
from recdistill.teachers.generative.model import GenerativeModel
from recdistill.teachers.generative.title_trie import TitleTrie
from recdistill.teachers.ilora.titles import Int64Array

# A free answer may be so many tokens longer than the catalogue's longest title.
FREE_TOKENS = 8
# Tokens of repeated prompts whose keys and values are held at a time.
REPEATED_TOKENS = 16_384


def most_answer_tokens(teacher: GenerativeModel, candidates: Int64Array) -> int:
    """Tokens of the longest answer that names one of the candidates [B, K], its closing newline included."""
    return int(teacher.parts.titles.lengths[candidates].max()) + 1


def most_free_tokens(teacher: GenerativeModel) -> int:
    """Tokens of a free answer, at most: those of the catalogue's longest title, and room for words around it."""
    return int(teacher.parts.titles.lengths.max()) + 1 + FREE_TOKENS


def free_answers(teacher: GenerativeModel, prompts: CandidatePrompts, states: Tensor) -> list[str]:
    """The first line that the teacher writes greedily after each prompt, white space around it removed.

    Args:
        teacher: in evaluation mode.
        prompts: B, padded on the left.
        states: the backbone's states of the samples [B, D], on the teacher's device.
    """
    ends = [teacher.parts.closing, *end_tokens(teacher)]
    written = generated(teacher, prompts, states, most_free_tokens(teacher), ends)
    texts = teacher.tokenizer.batch_decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [text.strip().partition("\n")[0].strip() for text in texts]


def constrained_answers(
    teacher: GenerativeModel, prompts: CandidatePrompts, states: Tensor, candidates: Int64Array
) -> Int64Array:
    """Positions int64 [B] of the candidates that the teacher names greedily where no other word is open to it.

    ``candidates`` are the items offered, int64 [B, K]; of those with the same title the first stands for all. Other
    arguments as in `free_answers`.
    """
    padding = teacher.parts.titles.padding
    tries = [TitleTrie([teacher.parts.answer(item).tolist() for item in row], padding) for row in candidates]
    width = prompts.tokens.shape[1]

    def allowed(row: int, tokens: Tensor) -> list[int]:
        return tries[row].allowed(tokens[width:].tolist())

    closing = teacher.parts.closing
    most = most_answer_tokens(teacher, candidates)
    written = generated(teacher, prompts, states, most, [closing], prefix_allowed_tokens_fn=allowed).tolist()
    return np.array(
        [trie.place(tokens[: tokens.index(closing) + 1]) for trie, tokens in zip(tries, written, strict=True)],
        dtype=np.int64,
    )


@torch.inference_mode()
def generated(
    teacher: GenerativeModel, prompts: CandidatePrompts, states: Tensor, most: int, ends: list[int], **options: Any
) -> Tensor:
    """Tokens int64 [B, at most ``most``] written greedily after the prompts, with each prompt's gate throughout."""
    device = teacher.item_table.device
    teacher.set_gates(states)
    with teacher.precision():
        written = teacher.llm.generate(
            # The embeddings are what is read. The tokens only hold the place, so that they are given back with
            # the answer behind them in every version of transformers.
            input_ids=prompts.tokens.to(device),
            inputs_embeds=teacher.embedded(prompts),
            attention_mask=prompts.real.long().to(device),
            max_new_tokens=most,
            eos_token_id=ends,
            pad_token_id=teacher.parts.titles.padding,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            **options,
        )
    return written[:, prompts.tokens.shape[1] :].cpu()


def end_tokens(teacher: GenerativeModel) -> list[int]:
    """Tokens at which the LLM itself ends a text."""
    base: Any = teacher.llm.get_base_model()
    ends = base.generation_config.eos_token_id
    return [] if ends is None else list(ends) if isinstance(ends, (list, tuple)) else [ends]


@torch.inference_mode()
def candidate_log_likelihoods(
    teacher: GenerativeModel, prompts: CandidatePrompts, states: Tensor, candidates: Int64Array
) -> Tensor:
    """Mean log-probability of the tokens of each candidate's answer after its prompt, float32 [B, K], nats.

    The prompt is read once: its keys and values are repeated for the K answers. Arguments as in
    `constrained_answers`.
    """
    count = candidates.shape[1]
    width = prompts.tokens.shape[1] + most_answer_tokens(teacher, candidates)
    step = max(1, REPEATED_TOKENS // (count * width))
    found = []
    for begin in range(0, len(prompts), step):
        rows = slice(begin, begin + step)
        found.append(_log_likelihoods(teacher, prompts.rows(rows), states[rows], candidates[rows]))
    return torch.cat(found)


def _log_likelihoods(
    teacher: GenerativeModel, prompts: CandidatePrompts, states: Tensor, candidates: Int64Array
) -> Tensor:
    device = teacher.item_table.device
    count = candidates.shape[1]
    answers, real = padded_answers(teacher, candidates)
    answers, real = answers.to(device), real.to(device)
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
        ).logits
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
    shape = (len(candidates), count, -1)
    own = [
        token_log_probs(first, answers.view(shape)[:, :, 0]).view(*shape[:2], 1),
        token_log_probs(rest, answers[:, 1:]).view(shape),
    ]
    real = real.view(shape)
    return torch.cat(own, dim=2).masked_fill(~real, 0.0).sum(dim=2) / real.sum(dim=2)


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability float32 [B, T] of each token [B, T] under logits [B, T, W], or [B, 1, W] for all T alike."""
    precise = logits.float()
    chosen = precise.expand(-1, tokens.shape[1], -1).gather(2, tokens.unsqueeze(2)).squeeze(2)
    return chosen - precise.logsumexp(dim=2)


def padded_answers(teacher: GenerativeModel, candidates: Int64Array) -> tuple[Tensor, Tensor]:
    """Answers of the candidates [B, K], padded on the right, int64 [B·K, A], and which of their tokens are real."""
    rows = [torch.from_numpy(teacher.parts.answer(item)) for item in candidates.ravel().tolist()]
    answers = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=teacher.parts.titles.padding)
    length = torch.tensor([len(row) for row in rows])
    return answers, torch.arange(answers.shape[1]) < length.unsqueeze(1)

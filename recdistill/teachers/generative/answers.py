"""Answers of a generative teacher: free, constrained to the candidates' titles, or by the likelihood of each."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.teachers.generative.candidate_prompts import CandidatePrompts
from recdistill.teachers.generative.model import GenerativeModel
from recdistill.teachers.generative.reading import (
    Allowed,
    answer_logits_anew,
    answer_logits_with_cache,
    generated_anew,
    generated_with_cache,
    trusted_caches,
)
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

    def allowed(row: int, begun: list[int]) -> list[int]:
        return tries[row].allowed(begun)

    closing = teacher.parts.closing
    most = most_answer_tokens(teacher, candidates)
    written = generated(teacher, prompts, states, most, [closing], allowed).tolist()
    return np.array(
        [trie.place(tokens[: tokens.index(closing) + 1]) for trie, tokens in zip(tries, written, strict=True)],
        dtype=np.int64,
    )


def generated(
    teacher: GenerativeModel,
    prompts: CandidatePrompts,
    states: Tensor,
    most: int,
    ends: list[int],
    allowed: Allowed | None = None,
) -> Tensor:
    """Tokens int64 [B, at most ``most``] written greedily after the prompts, with each prompt's gate throughout.

    ``allowed`` gives the tokens open to a row after those that it has written; None opens all.
    """
    write = generated_with_cache if trusted_caches(teacher).writing else generated_anew
    return write(teacher, prompts, states, most, ends, allowed)


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

    The prompt is read once where its keys and values can be kept, and else for each of the K answers. Arguments as in
    `constrained_answers`.
    """
    read = answer_logits_with_cache if trusted_caches(teacher).repeating else answer_logits_anew
    count = candidates.shape[1]
    width = prompts.tokens.shape[1] + most_answer_tokens(teacher, candidates)
    step = max(1, REPEATED_TOKENS // (count * width))
    found = []
    for begin in range(0, len(prompts), step):
        rows = slice(begin, begin + step)
        answers, real = padded_answers(teacher, candidates[rows])
        answers, real = answers.to(teacher.item_table.device), real.to(teacher.item_table.device)
        first, rest = read(teacher, prompts.rows(rows), states[rows], answers)
        shape = (-1, count, answers.shape[1])
        own = [
            token_log_probs(first, answers.view(shape)[:, :, 0]).view(-1, count, 1),
            token_log_probs(rest, answers[:, 1:]).view(-1, count, answers.shape[1] - 1),
        ]
        real = real.view(shape)
        found.append(torch.cat(own, dim=2).masked_fill(~real, 0.0).sum(dim=2) / real.sum(dim=2))
    return torch.cat(found)


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

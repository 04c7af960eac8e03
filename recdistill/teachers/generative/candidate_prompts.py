"""Candidate prompts of a generative teacher (LLaRA; iLoRA, NeurIPS 2024): history, candidates, the next one asked for.

After each title stands its *marker*: the token of a comma, so that text alone reads as a list, or, injected, the
projected backbone embedding of the item in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.teachers.generative.prompt_templates import prompt_templates
from recdistill.teachers.ilora.titles import Int64Array, TitleTokens, tokenise_titles

PLACEHOLDER, CLOSING = ",", "\n"
NO_LABEL = -100  # as torch's cross-entropy leaves out
NO_ITEM = -1
USER = -2


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """Token ids that candidate prompts are put together from.

    Attributes:
        titles: the catalogue's, each beginning with a blank.
        templates: of each template the text before the history, between history and candidates, and after those.
        placeholder: at a marker, in a prompt of text alone.
        closing: after an answer, a newline.
        users: whether a user's marker stands before the history, in the last place of each template's head.
    """

    titles: TitleTokens
    templates: tuple[tuple[Int64Array, Int64Array, Int64Array], ...]
    placeholder: int
    closing: int
    users: bool = False

    def title(self, item: int) -> Int64Array:
        """Tokens of an item's title, int64 [n]."""
        return self.titles.tokens[self.titles.start[item] : self.titles.start[item + 1]]

    def answer(self, item: int) -> Int64Array:
        """Tokens of the answer that names an item: its title and the closing newline, int64 [n + 1]."""
        return np.append(self.title(item), self.closing)


@dataclass(frozen=True, eq=False)
class CandidatePrompts:
    """B prompts of T tokens at most, padded on one side.

    Attributes:
        tokens: int64 [B, T]; at a marker stands the placeholder.
        item: int64 [B, T], the item whose marker stands there, -2 at a user's, -1 elsewhere.
        real: bool [B, T], False at padding.
        labels: int64 [B, T], the answer's tokens where they stand, -100 elsewhere.
        users: the backbone's states before the histories [B, D], where prompts have a user's marker; None for zeros.
    """

    tokens: Tensor
    item: Tensor
    real: Tensor
    labels: Tensor
    users: Tensor | None = None

    def __len__(self) -> int:
        """B."""
        return len(self.tokens)

    def rows(self, rows: slice) -> "CandidatePrompts":
        """Some of the prompts, as wide as before."""
        users = None if self.users is None else self.users[rows]
        return CandidatePrompts(self.tokens[rows], self.item[rows], self.real[rows], self.labels[rows], users)


def prompt_tokens(tokenizer: Any, titles: Sequence[str], domain: str, users: bool = False) -> PromptTokens:
    """Tokens of a catalogue's candidate prompts in the words of a domain, with a user's marker where ``users``.

    Raises InputError where a title gives no token, or for an unknown domain.
    """

    def tokens(text: str, special: bool = False) -> Int64Array:
        return np.asarray(tokenizer(text, add_special_tokens=special)["input_ids"], dtype=np.int64)

    # Some tokenizers put a token of a blank before a text: the last one is the text's own.
    placeholder = int(tokens(PLACEHOLDER)[-1])
    of_user = np.full(int(users), placeholder)
    return PromptTokens(
        titles=tokenise_titles(tokenizer, titles),
        # Only the head of a prompt has the tokenizer's token of a beginning.
        templates=tuple(
            (np.append(tokens(head, True), of_user), tokens(middle), tokens(tail))
            for head, middle, tail in prompt_templates(domain)
        ),
        placeholder=placeholder,
        closing=int(tokens(CLOSING)[-1]),
        users=users,
    )


def training_prompts(
    parts: PromptTokens,
    histories: Sequence[Int64Array],
    candidates: Int64Array,
    template: Sequence[int],
    targets: Sequence[int],
    users: Tensor | None = None,
) -> CandidatePrompts:
    """Prompts with their answers, padded on the right; only the answer's tokens are labels.

    Args:
        parts: tokens.
        histories: B lists of items, each the history's last ones, oldest first.
        candidates: items int64 [B, K].
        template: B numbers of templates.
        targets: B items, the answers.
        users: the backbone's states before the histories [B, D].
    """
    asked = [asking(parts, *row) for row in zip(histories, candidates, template, strict=True)]
    answers = [parts.answer(target) for target in targets]
    tokens = [np.concatenate([prompt, answer]) for (prompt, _), answer in zip(asked, answers, strict=True)]
    items = [
        np.concatenate([item, np.full(len(answer), NO_ITEM)]) for (_, item), answer in zip(asked, answers, strict=True)
    ]
    labels = [
        np.concatenate([np.full(len(prompt), NO_LABEL), answer])
        for (prompt, _), answer in zip(asked, answers, strict=True)
    ]
    return replace(padded(parts, tokens, items, labels, left=False), users=users)


def answer_prompts(
    parts: PromptTokens,
    histories: Sequence[Int64Array],
    candidates: Int64Array,
    template: Sequence[int],
    users: Tensor | None = None,
) -> CandidatePrompts:
    """Prompts that wait for their answers, padded on the left; arguments as in `training_prompts`."""
    asked = [asking(parts, *row) for row in zip(histories, candidates, template, strict=True)]
    labels = [np.full(len(prompt), NO_LABEL) for prompt, _ in asked]
    prompts = padded(parts, [prompt for prompt, _ in asked], [item for _, item in asked], labels, left=True)
    return replace(prompts, users=users)


def asking(
    parts: PromptTokens, history: Int64Array, candidates: Int64Array, template: int
) -> tuple[Int64Array, Int64Array]:
    """Tokens of one prompt without its answer, and the item at each of its markers, int64 [T] each."""
    head, middle, tail = parts.templates[template]
    tokens, items = [head], [np.full(len(head), NO_ITEM)]
    if parts.users:
        items[0][-1] = USER
    for listed, after in ((history, middle), (candidates, tail)):
        for item in listed:
            title = parts.title(item)
            tokens += [title, np.array([parts.placeholder])]
            items += [np.full(len(title), NO_ITEM), np.array([item])]
        tokens.append(after)
        items.append(np.full(len(after), NO_ITEM))
    return np.concatenate(tokens), np.concatenate(items)


def padded(
    parts: PromptTokens, tokens: list[Int64Array], items: list[Int64Array], labels: list[Int64Array], left: bool
) -> CandidatePrompts:
    """Rows of unlike length side by side."""
    length = np.array([len(row) for row in tokens])
    place = np.arange(length.max())
    real = place >= (length.max() - length)[:, None] if left else place < length[:, None]

    def filled(rows: list[Int64Array], padding: int) -> Tensor:
        table = np.full(real.shape, padding, dtype=np.int64)
        table[real] = np.concatenate(rows)
        return torch.from_numpy(table)

    return CandidatePrompts(
        tokens=filled(tokens, parts.titles.padding),
        item=filled(items, NO_ITEM),
        real=torch.from_numpy(real),
        labels=filled(labels, NO_LABEL),
    )

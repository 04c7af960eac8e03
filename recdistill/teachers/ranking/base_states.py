"""What the base LLM reads in titles and in items' texts, before a teacher has learnt anything: read once and kept.

By the states of titles a ranking teacher's head scores items: it needs them whenever it is built, to be timed, trained
or loaded. With those of texts its learning of the items begins. They depend on the base and what is read alone.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from recdistill.data.downloads import cache_dir
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.titles import Int64Array, TitleTokens
from recdistill.training.checkpoint import read_checkpoint, write_checkpoint

FOLDER = "base_states"
#: Titles of a pass.
TITLE_ROWS = 64
#: What takes less is not kept, nor what is larger.
LEAST_SECONDS, MOST_BYTES = 1.0, 2**28


@dataclass(frozen=True)
class Base:
    """What names a base LLM's states beside what it reads.

    Attributes:
        fingerprint: of its weights.
        precision: of their numbers, and the kind of device: on another the states are rounded otherwise.
    """

    fingerprint: str
    precision: str

    def kept(self, read: Iterable[Int64Array], items: int, states: Callable[[], Tensor]) -> Tensor:
        """``states()`` [items, H], from the cache where those over the tokens ``read`` are kept there."""
        path = self.kept_in(read)
        found = read_checkpoint(path)
        if found is not None and len(found[0].get("states", ())) == items:
            return found[0]["states"]
        begun = time.monotonic()
        made = states()
        if time.monotonic() - begun >= LEAST_SECONDS and made.nbytes <= MOST_BYTES:
            # Where they cannot be kept they are read again next time.
            with suppress(OSError, SafetensorError):
                write_checkpoint(path, {"states": made}, {"base": self.fingerprint})
        return made

    def kept_in(self, read: Iterable[Int64Array]) -> Path:
        """The file of the states over these tokens."""
        digest = hashlib.sha256(f"{self.fingerprint} {self.precision}".encode())
        for part in read:
            digest.update(f"{len(part)} ".encode() + part.tobytes())
        return cache_dir() / FOLDER / f"{digest.hexdigest()[:20]}.safetensors"


def base_of(fingerprint: str, weight: Tensor) -> Base:
    """That of a base's digest, and of one of its weights as it is loaded."""
    return Base(fingerprint, f"{weight.dtype} {weight.device.type}")


def title_states(llm: BaseLLM, titles: TitleTokens) -> Tensor:
    """The base LLM's mean last hidden state over each title's tokens, float32 [V, H]."""
    read = titles.tokens, titles.start
    weight = next(llm.model.get_input_embeddings().parameters())
    base = base_of(llm.fingerprint, weight)
    return base.kept(read, len(titles.lengths), lambda: read_titles(llm, titles)).to(llm.model.device)


@torch.no_grad()
def read_titles(llm: BaseLLM, titles: TitleTokens) -> Tensor:
    """`title_states`, read by the LLM."""
    device = llm.model.device
    parts, batches = [], title_batches(titles)
    for items in batches:
        lengths = torch.from_numpy(titles.lengths)[items]
        tokens = torch.full((len(items), int(lengths.max())), titles.padding)
        for row, item in enumerate(items.tolist()):
            ids = titles.tokens[titles.start[item] : titles.start[item + 1]]
            tokens[row, : len(ids)] = torch.from_numpy(ids)
        hidden = llm.model(input_ids=tokens.to(device), use_cache=False)[0].float()
        real = torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)
        weight = (real / lengths.unsqueeze(1)).to(hidden.device)
        parts.append((hidden * weight.unsqueeze(-1)).sum(dim=1))
    return by_item(batches, parts)


def title_batches(titles: TitleTokens) -> tuple[Tensor, ...]:
    """Item ids, some at a time, those of titles of like length together: little of a batch is padding."""
    return torch.from_numpy(titles.lengths).sort(stable=True).indices.split(TITLE_ROWS)


def by_item(batches: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """Rows of all items in their order, from those of each batch."""
    return torch.cat(list(parts))[torch.cat(list(batches)).argsort().to(parts[0].device)]

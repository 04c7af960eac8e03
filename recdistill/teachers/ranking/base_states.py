"""What the base LLM reads in titles and in items' texts, before a teacher has learnt anything: read once and kept.

By the states of titles a ranking teacher's head scores items: it needs them whenever it is built, to be timed, trained
or loaded. With those of texts its learning of the items begins, and the view ``llm`` has the same. They depend on the
base and what is read alone.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

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

    def states_of(self, read: Iterable[Int64Array], items: int) -> "KeptStates":
        """Where the states of ``items`` over the tokens ``read`` are kept."""
        digest = hashlib.sha256(f"{self.fingerprint} {self.precision}".encode())
        for part in read:
            digest.update(f"{len(part)} ".encode() + part.tobytes())
        return KeptStates(cache_dir() / FOLDER / f"{digest.hexdigest()[:20]}.safetensors", items, self.fingerprint)


@dataclass(frozen=True)
class KeptStates:
    """A file of the cache for the base LLM's states of some texts.

    Attributes:
        path: of the file.
        items: texts.
        fingerprint: of the LLM's weights.
    """

    path: Path
    items: int
    fingerprint: str

    def read(self) -> "ReadStates | None":
        """The states; None where none are kept."""
        found = read_checkpoint(self.path)
        if found is None or len(found[0].get("states", ())) != self.items:
            return None
        return ReadStates(found[0]["states"], found[1].get("seconds"))

    def keep(self, states: Tensor, seconds: float) -> None:
        """Keep states that took so long, where it pays and can be; else they are read again next time."""
        if seconds >= LEAST_SECONDS and states.nbytes <= MOST_BYTES:
            with suppress(OSError, SafetensorError):
                write_checkpoint(self.path, {"states": states}, {"base": self.fingerprint, "seconds": seconds})


@dataclass(frozen=True, eq=False)
class ReadStates:
    """States that were kept.

    Attributes:
        states: [V, H].
        seconds: that reading them took; None of a file of versions that did not keep it.
    """

    states: Tensor
    seconds: float | None


def base_of(fingerprint: str, weight: Tensor) -> Base:
    """That of a base's digest, and of one of its weights as it is loaded."""
    return Base(fingerprint, f"{weight.dtype} {weight.device.type}")


def title_states(llm: BaseLLM, titles: TitleTokens) -> tuple[Tensor, float]:
    """The base LLM's mean last hidden state over each title's tokens, float32 [V, H].

    And the seconds that reading them took, though it was another time.
    """
    read = titles.tokens, titles.start
    weight = next(llm.model.get_input_embeddings().parameters())
    kept = base_of(llm.fingerprint, weight).states_of(read, len(titles.lengths))
    found = kept.read()
    if found is not None:
        return found.states.to(llm.model.device), found.seconds or 0.0
    started = time.monotonic()
    states = read_titles(llm, titles)
    seconds = time.monotonic() - started
    kept.keep(states, seconds)
    return states, seconds


@torch.no_grad()
def read_titles(llm: BaseLLM, titles: TitleTokens) -> Tensor:
    """The states of `title_states`, read by the LLM."""
    device = llm.model.device
    parts, batches = [], title_batches(titles)
    for items in under_bar(batches):
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


def under_bar(batches: Sequence[Tensor]) -> Iterator[Tensor]:
    """Batches of titles under a bar, where there are several."""
    total = sum(map(len, batches))
    with tqdm(total=total, desc="titles", unit="title", leave=False, disable=len(batches) < 2) as bar:
        for items in batches:
            yield items
            bar.update(len(items))


def title_batches(titles: TitleTokens) -> tuple[Tensor, ...]:
    """Item ids, some at a time, those of titles of like length together: little of a batch is padding."""
    return torch.from_numpy(titles.lengths).sort(stable=True).indices.split(TITLE_ROWS)


def by_item(batches: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """Rows of all items in their order, from those of each batch."""
    return torch.cat(list(parts))[torch.cat(list(batches)).argsort().to(parts[0].device)]

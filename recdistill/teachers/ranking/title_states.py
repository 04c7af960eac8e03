"""What the base LLM reads in each title, by which a ranking teacher's head scores items: read once and kept.

A teacher needs them whenever it is built: to be timed, trained, loaded. They depend on the base and the titles alone.
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from recdistill.data.downloads import cache_dir
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.titles import TitleTokens
from recdistill.training.checkpoint import read_checkpoint, write_checkpoint

FOLDER = "titles"
#: Titles of a pass.
TITLE_ROWS = 64
#: What takes less is not kept, nor what is larger.
LEAST_SECONDS, MOST_BYTES = 1.0, 2**28


def title_states(llm: BaseLLM, titles: TitleTokens) -> Tensor:
    """The base LLM's mean last hidden state over each title's tokens, float32 [V, H], from the cache where it is."""
    path = kept_in(llm, titles)
    kept = read_checkpoint(path)
    if kept is not None and kept[0].get("states", torch.empty(0)).shape == (len(titles.lengths), llm.hidden_size):
        return kept[0]["states"].to(llm.model.device)
    begun = time.monotonic()
    found = read_titles(llm, titles)
    if time.monotonic() - begun >= LEAST_SECONDS and found.nbytes <= MOST_BYTES:
        # Where they cannot be kept they are read again next time.
        with suppress(OSError, SafetensorError):
            write_checkpoint(path, {"states": found}, {"llm": llm.name})
    return found


def kept_in(llm: BaseLLM, titles: TitleTokens) -> Path:
    """The file of these titles' states; what else changes a number, as precision and device do, names another."""
    digest = hashlib.sha256(f"{llm.fingerprint} {llm.model.dtype} {llm.model.device.type}".encode())
    for part in (titles.tokens, titles.start):
        digest.update(part.tobytes())
    return cache_dir() / FOLDER / f"{digest.hexdigest()[:20]}.safetensors"


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

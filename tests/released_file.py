"""A SASRec in a file as iLoRA releases its own: a whole module, pickled, its classes where no reader has them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

LIBRARY = "SASRecModules_ori"


@contextmanager
def released_classes() -> Iterator[dict[str, type[nn.Module]]]:
    """The released classes under the names of their modules, for as long as it takes to pickle them."""
    library, script = ModuleType(LIBRARY), sys.modules["__main__"]
    names = {"SASRec": script, "MultiHeadAttention": library, "PositionwiseFeedForward": library}
    found = {}
    sys.modules[LIBRARY] = library
    for name, module in names.items():
        found[name] = type(name, (nn.Module,), {"__module__": module.__name__})
        setattr(module, name, found[name])
    try:
        yield found
    finally:
        del sys.modules[LIBRARY]
        delattr(script, "SASRec")


def write_released_sasrec(path: Path, num_items: int, size: int = 16, length: int = 10, seed: int = 0) -> Path:
    """Write a random one of ``num_items`` items, width ``size``, one head, and ``length`` positions."""
    with torch.random.fork_rng(), released_classes() as classes:
        torch.manual_seed(seed)
        attention, forward = classes["MultiHeadAttention"](), classes["PositionwiseFeedForward"]()
        attention.num_heads = 1
        for name in ("linear_q", "linear_k", "linear_v"):
            setattr(attention, name, nn.Linear(size, size))
        forward.w_1, forward.w_2 = nn.Conv1d(size, size, 1), nn.Conv1d(size, size, 1)
        forward.layer_norm = nn.LayerNorm(size)
        model = classes["SASRec"]()
        model.item_embeddings = nn.Embedding(num_items + 1, size)
        model.positional_embeddings = nn.Embedding(length, size)
        model.dropout = nn.Dropout(0.1)
        model.ln_1, model.ln_2, model.ln_3 = (nn.LayerNorm(size) for _ in range(3))
        model.mh_attn, model.feed_forward = attention, forward
        model.s_fc = nn.Linear(size, num_items)
        torch.save(model, path)
    return path

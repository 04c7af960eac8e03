"""Whether approximate search pays where a student's state is matched with a million item embeddings.

``python benchmarks/approximate_search.py`` makes vectors of items around centres, as embeddings of items that are
bought together lie, and states near items, and finds the ten items of the largest product: exactly, by one matrix
product and a selection as `ItemRecommender` does, and by faiss's inverted file (extra ``faiss``), whose lists are
probed more and more. It prints milliseconds a state, one at a time and in batches, in one thread of CPU time; the
recall of the exact ten; and how long the index takes to make. One JSON line last. Leaving out the items of a history,
``allowed_items`` and retired items come for nothing in the exact way; here they need more candidates than are asked
for, which ``--spare`` are fetched for.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

K = 10


def made_up(items: int, width: int, centres: int, states: int, seed: int) -> tuple[NDArray, NDArray]:
    """Item embeddings [V, D] around centres, and states [S, D] near items, float32."""
    random = np.random.default_rng(seed)
    middle = random.normal(size=(centres, width)).astype(np.float32)
    table = middle[random.integers(centres, size=items)]
    table += 0.7 * random.standard_normal((items, width), dtype=np.float32)
    near = table[random.integers(items, size=states)] + 0.5 * random.standard_normal((states, width), dtype=np.float32)
    return table, near


def exact(table: torch.Tensor, states: torch.Tensor) -> NDArray:
    """The items of the K largest products, [S, K]."""
    with torch.inference_mode():
        return (states @ table.T).topk(K, dim=1).indices.numpy()


def milliseconds(find: Callable[[NDArray], NDArray], states: NDArray, batch: int) -> tuple[float, NDArray]:
    """CPU milliseconds a state, found in batches, and what was found."""
    find(states[:batch])
    begun = time.thread_time()
    found = [find(states[place : place + batch]) for place in range(0, len(states), batch)]
    return (time.thread_time() - begun) * 1e3 / len(states), np.concatenate(found)


def recall(found: NDArray, right: NDArray) -> float:
    """Share of the right items that were found."""
    return float(np.mean([len(set(one[:K]) & set(other)) / K for one, other in zip(found, right, strict=True)]))


def main() -> None:
    import faiss

    parser = argparse.ArgumentParser(description="Whether approximate search pays over a million items.")
    for name, default, text in (
        ("items", 1_000_000, "V"),
        ("width", 64, "D"),
        ("centres", 5_000, "around which items lie"),
        ("states", 256, "searched for"),
        ("lists", 1024, "of the inverted file"),
        ("spare", 100, "items fetched beside those asked for"),
        ("seed", 0, "of the vectors"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    table, states = made_up(arguments.items, arguments.width, arguments.centres, arguments.states, arguments.seed)
    tensor = torch.from_numpy(table)
    alone, right = milliseconds(lambda given: exact(tensor, torch.from_numpy(given)), states, 1)
    together, _ = milliseconds(lambda given: exact(tensor, torch.from_numpy(given)), states, 16)
    print(f"exact: {alone:.2f} ms a state alone, {together:.2f} ms in batches of 16", flush=True)
    begun = time.thread_time()
    centres = faiss.IndexFlatIP(arguments.width)
    index = faiss.IndexIVFFlat(centres, arguments.width, arguments.lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 8
    index.train(table[: 40 * arguments.lists])
    index.add(table)
    build = time.thread_time() - begun
    result = {"items": arguments.items, "exact_ms": round(alone, 3), "exact_batch_ms": round(together, 3)}
    result["index_s"] = round(build, 1)
    print(f"index of {arguments.lists} lists: {build:.1f} s")
    for probes in (1, 4, 16, 64):
        index.nprobe = probes
        near, found = milliseconds(lambda given: index.search(given, K + arguments.spare)[1], states, 1)
        share = recall(found, right)
        print(f"{probes} lists probed: {near:.2f} ms a state alone, recall {share:.3f}", flush=True)
        result |= {f"ms_{probes}": round(near, 3), f"recall_{probes}": round(share, 4)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

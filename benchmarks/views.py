"""Time the views of an item's text: what each costs for all items of a data set, from an empty cache.

Run ``python benchmarks/views.py`` (``--help`` lists the choices). Every view reads the texts of the whole catalogue, as
the options' defaults make them; ``load_s`` is the model's loading, ``read_s`` all else, ``again_s`` the same from the
cache, and ``tokens`` what a language model read. The model files lie in the user's cache, the vectors in a folder of
their own. One JSON line for each view, as it comes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from recdistill.config import DataConfig
from recdistill.data.item_texts import item_texts
from recdistill.data.load import load_data
from recdistill.registry import VIEWS
from recdistill.views.build import build_view
from recdistill.views.model_view import ModelView
from recdistill.views.view import View, ViewContext

DEFAULT = "tfidf,sentence,llm:mean,llm:prompt,llm:echo"


def built(named: str, llm: str, cache: Path, device: str) -> View:
    """A view by ``name`` or ``llm:reading``."""
    name, _, reading = named.partition(":")
    VIEWS.get(name)
    own: dict[str, Any] = {"view_llm": llm} if name == "llm" else {}
    if reading:
        own["llm_reading"] = reading
    options = VIEWS.options(name)
    return build_view(
        name, options(**own) if options is not None else None, ViewContext(torch.device(device), cache=cache)
    )


def seconds_of(work: Any) -> tuple[float, Any]:
    """Time of a function's work, and its result."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def measured(named: str, texts: tuple[str, ...], trained: list[str], llm: str, device: str) -> dict[str, Any]:
    """What a view takes."""
    with tempfile.TemporaryDirectory() as folder:
        view = built(named, llm, Path(folder), device)
        load = seconds_of(view.model)[0] if isinstance(view, ModelView) else 0.0
        fit = seconds_of(lambda: view.fit(trained))[0]
        read, vectors = seconds_of(lambda: view.vectors(texts))
        again = seconds_of(lambda: view.vectors(texts))[0]
        return {
            "view": named,
            "texts": len(texts),
            "different": len(set(texts)),
            "size": vectors.shape[1],
            "load_s": round(load, 2),
            "read_s": round(fit + read, 2),
            "again_s": round(again, 2),
            "tokens": view.cost(texts).tokens,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the views of an item's text.")
    parser.add_argument("--views", default=DEFAULT, help=f"views, by commas (default {DEFAULT})")
    parser.add_argument("--llm", default="smollm2-135m", help="LLM of the view llm (default smollm2-135m)")
    parser.add_argument("--dataset", default="ml-100k", help="data set (default ml-100k)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = load_data(DataConfig(dataset=arguments.dataset))
    texts = item_texts(data.titles, data.item_columns)
    trained = [text for text, one in zip(texts, data.trained, strict=True) if one]
    for named in arguments.views.split(","):
        found = measured(named, texts, trained, arguments.llm, arguments.device)
        print(json.dumps(found | {"threads": arguments.threads, "device": arguments.device}), flush=True)


if __name__ == "__main__":
    main()

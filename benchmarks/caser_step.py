"""Time a training step of Caser, which computes its horizontal filters in one product, against convolutions.

Run ``python benchmarks/caser_step.py`` (``--help`` lists the sizes). Both start at the same weights and take turns at
training steps by cross-entropy, windows full. One JSON line last: median milliseconds of a step of each, and the median
of the ratios of neighbouring steps. Time it on idle cores: the load is printed.
"""

import argparse
import json
import os
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.students.caser import Caser
from recdistill.students.item_embedding import ItemEmbedding


class Convolving(Caser):
    """The same student by convolutions over its image, as the release computes it."""

    def forward(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        padding = torch.arange(self.max_length) >= length.unsqueeze(-1)
        image = self.items(history).masked_fill(padding.unsqueeze(-1), 0.0).transpose(1, 2)
        features = [F.relu(convolution(image)).amax(dim=-1) for convolution in self.horizontal]
        features.append(F.relu(self.vertical(image)).squeeze(-1))
        return self.to_item_space(self.dropout(torch.cat(features, dim=-1))).index_select(0, row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default, text in (
        ("items", 1682, "V"),
        ("batch", 512, "windows a step"),
        ("length", 50, "L, items a window"),
        ("hidden_size", 64, "D"),
        ("steps", 20, "timed steps of each"),
        ("threads", 0, "0 for torch's own number"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    models: dict[str, Caser] = {
        name: kind(
            ItemEmbedding(arguments.items, arguments.hidden_size),
            dropout=0.5,
            max_length=arguments.length,
            output="tied",
        )
        for name, kind in (("step", Caser), ("convolutions", Convolving))
    }
    models["convolutions"].load_state_dict(models["step"].state_dict())
    optimizers = {name: torch.optim.Adam(model.parameters(), fused=True) for name, model in models.items()}
    history = torch.randint(arguments.items, (arguments.batch, arguments.length))
    target = torch.randint(arguments.items, (arguments.batch,))
    length = torch.full((arguments.batch,), arguments.length)
    window = (history, length, torch.arange(arguments.batch), length - 1)

    def seconds(name: str) -> float:
        begin = time.perf_counter()
        _, logits = models[name].scored(*window)
        F.cross_entropy(logits, target).backward()
        optimizers[name].step()
        optimizers[name].zero_grad()
        return time.perf_counter() - begin

    # Timing means something only if both compute the same.
    for model in models.values():
        model.eval()
    torch.testing.assert_close(models["step"](*window), models["convolutions"](*window), atol=1e-5, rtol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.train()
    for turn in range(arguments.steps + 2):
        for name in models:
            taken = seconds(name)
            if turn > 1:
                times[name].append(taken)
    ratios = [slow / fast for fast, slow in zip(times["step"], times["convolutions"], strict=True)]
    print(f"{torch.get_num_threads()} threads, load {load:.1f} before the start, torch {torch.__version__}, float32")
    result = {f"{name}_ms": round(1e3 * statistics.median(found), 1) for name, found in times.items()}
    print(json.dumps(result | {"ratio": round(statistics.median(ratios), 2)}))


if __name__ == "__main__":
    main()

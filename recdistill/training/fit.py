"""The one training loop: a step function in, metrics out.

Epochs of batches; after each epoch a validation chooses the best weights and stops when none is better for long.
Everything it needs to go on after a kill is in one checkpoint file, and what it computes afterwards is what it
would have computed.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from recdistill.errors import InputError
from recdistill.training.checkpoint import optimizer_tensors, read_checkpoint, restore_optimizer, write_checkpoint

BatchType = TypeVar("BatchType")
Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Recipe(Generic[BatchType]):
    """What is trained, on what, and how long.

    Attributes:
        parameters: name to parameter or buffer, all that training changes.
        optimizer: over them, freshly built.
        batches: the batches of an epoch, the same for the same epoch.
        step: the losses of a batch, the one named ``total`` differentiable.
        num_batches: batches an epoch, for progress and ``learning_rate``.
        module: set to train mode before steps, and to eval mode before ``validate``.
        epochs: most of them.
        validate: metrics after an epoch; None trains all epochs and keeps the last weights.
        metric: the one of ``validate`` to maximise.
        patience: epochs without a better metric before stopping.
        begin_epoch: called before an epoch's first step, given the epoch; its metrics join the epoch's.
        memory: tensors that ``begin_epoch`` and ``step`` keep between calls; part of the checkpoint.
        learning_rate: share of the optimizer's rates at a step, given (steps done, steps in all).
        clip: greatest norm of the gradient; 0 does not clip.
        checkpoint_seconds: at most so long between checkpoints, and one after each epoch.
        label: what the progress bar says.
    """

    parameters: dict[str, Tensor]
    optimizer: Optimizer
    batches: Callable[[int], Iterable[BatchType]]
    step: Callable[[BatchType], dict[str, Tensor]]
    num_batches: int
    module: nn.Module
    epochs: int
    validate: Callable[[], Metrics] | None = None
    metric: str = "val/ndcg_at_10"
    patience: int = 1
    begin_epoch: Callable[[int], Metrics] | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    learning_rate: Callable[[int, int], float] | None = None
    clip: float = 0.0
    checkpoint_seconds: float = 30.0
    label: str = "train"


@dataclass
class Progress:
    """Where a training is; all of it is in the checkpoint."""

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = -1
    sums: dict[str, float] = field(default_factory=dict)
    begun: Metrics = field(default_factory=dict)
    best_metrics: Metrics = field(default_factory=dict)
    history: list[tuple[int, Metrics]] = field(default_factory=list)


def fit(recipe: Recipe[Any], checkpoint: Path, log: Callable[[Metrics, int], None]) -> Progress:
    """Train, leaving the best weights in ``recipe.parameters``.

    Args:
        recipe: what to do.
        checkpoint: file to go on from, where it exists, and to write; the caller removes it in the end.
        log: gets each epoch's metrics and the epoch, those before a kill again.

    Returns the final progress. Raises InputError where the loss is not finite.
    """
    progress, best = resume(recipe, checkpoint)
    for epoch, metrics in progress.history:
        log(metrics, epoch)
    base_rates = [group["lr"] for group in recipe.optimizer.param_groups]
    while progress.epoch < recipe.epochs and progress.epoch - progress.best_epoch <= recipe.patience:
        started = run_epoch(recipe, progress, best, checkpoint, base_rates)
        metrics = {f"train/{name}": total / progress.batch for name, total in progress.sums.items()}
        metrics |= progress.begun
        if recipe.validate is not None:
            recipe.module.eval()
            metrics |= recipe.validate()
            if metrics[recipe.metric] > progress.best:
                progress.best, progress.best_epoch = metrics[recipe.metric], progress.epoch
                progress.best_metrics = {name: metrics[name] for name in metrics if name.startswith("val/")}
                best.update({name: tensor.detach().clone() for name, tensor in recipe.parameters.items()})
        else:
            progress.best_epoch = progress.epoch
        progress.seconds += time.perf_counter() - started
        metrics["train/seconds"] = progress.seconds
        progress.history.append((progress.epoch, metrics))
        log(metrics, progress.epoch)
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
        save(recipe, progress, best, checkpoint)
    with torch.no_grad():
        for name, tensor in best.items():
            recipe.parameters[name].copy_(tensor)
    recipe.module.eval()
    return progress


def run_epoch(
    recipe: Recipe[Any], progress: Progress, best: dict[str, Tensor], checkpoint: Path, base_rates: list[float]
) -> float:
    """The epoch's remaining batches. Returns the time since which ``progress.seconds`` has not counted."""
    started = saved = time.perf_counter()
    if recipe.begin_epoch is not None and progress.batch == 0:
        recipe.module.eval()
        progress.begun = recipe.begin_epoch(progress.epoch)
    recipe.module.train()
    skipped = progress.batch
    bar = tqdm(total=recipe.num_batches, initial=skipped, desc=f"{recipe.label} {progress.epoch + 1}", leave=False)
    for position, batch in enumerate(recipe.batches(progress.epoch)):
        if position < skipped:
            continue
        if recipe.learning_rate is not None:
            share = recipe.learning_rate(progress.steps, recipe.epochs * recipe.num_batches)
            for group, rate in zip(recipe.optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * share
        losses = recipe.step(batch)
        losses["total"].backward()
        if recipe.clip:
            trained = [p for group in recipe.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, recipe.clip)
        recipe.optimizer.step()
        recipe.optimizer.zero_grad(set_to_none=True)
        for name, loss in losses.items():
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InputError(
                    f"{recipe.label}: {name} loss is {value} at step {progress.steps}; lower the learning rate"
                )
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.batch, progress.steps = progress.batch + 1, progress.steps + 1
        bar.update()
        now = time.perf_counter()
        if now - saved > recipe.checkpoint_seconds:
            progress.seconds += now - started
            started = saved = now
            save(recipe, progress, best, checkpoint)
    bar.close()
    return started


def save(recipe: Recipe[Any], progress: Progress, best: dict[str, Tensor], checkpoint: Path) -> None:
    """Write the checkpoint."""
    tensors = {f"parameter.{name}": tensor for name, tensor in recipe.parameters.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    tensors |= {f"memory.{name}": tensor for name, tensor in recipe.memory.items()}
    tensors |= optimizer_tensors(recipe.optimizer) | {"random": torch.get_rng_state()}
    write_checkpoint(checkpoint, tensors, vars(progress) | {"best": repr(progress.best)})


def resume(recipe: Recipe[Any], checkpoint: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Progress and best weights of the checkpoint, its state put into the recipe; a new start without one."""
    found = read_checkpoint(checkpoint)
    if found is None:
        return Progress(), {}
    tensors, values = found
    parts: dict[str, dict[str, Tensor]] = {"parameter": {}, "best": {}, "memory": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind in parts:
            parts[kind][rest] = tensor
    with torch.no_grad():
        for name, parameter in recipe.parameters.items():
            parameter.copy_(parts["parameter"][name])
    recipe.memory.update(parts["memory"])
    restore_optimizer(recipe.optimizer, tensors)
    torch.set_rng_state(tensors["random"])
    progress = Progress(**(values | {"best": float(values["best"])}))
    progress.history = [(epoch, metrics) for epoch, metrics in progress.history]
    return progress, parts["best"]

"""The training loop of students and teachers: given the losses of a batch, it trains and returns metrics.

It runs epochs of batches. After each epoch it validates; it keeps the best weights, or averages of them, and stops when
none were better for some epochs. One checkpoint file holds all that is needed to go on after a kill, with the same
results to the last bit.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from recdistill.errors import InputError
from recdistill.training.averaging import AveragedWeights, overwrite
from recdistill.training.checkpoint import optimizer_tensors, read_checkpoint, restore_optimizer, write_checkpoint
from recdistill.training.distributed import ALONE, Processes, SpacedDecision, groups_of
from recdistill.training.gradients import SummedGradients
from recdistill.training.loss_sums import LossSums, steps_between_looks
from recdistill.training.resources import peak_memory, reset_peak_memory
from recdistill.training.stopping import goes_on, smoothed

BatchType = TypeVar("BatchType", bound=Sized)
Metrics = dict[str, float]
# Steps between two measurements of the gradient's norm, which take a noticeable part of a small student's step.
NORM_EVERY = 10
NORM = "norm"
# The amount of a batch that is also summed over the training: a budget counts it, about.
READ = "tokens"


def samples_in(batch: Sized) -> dict[str, int]:
    """``{"samples": S}``."""
    return {"samples": len(batch)}


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Generic[BatchType]):
    """What is trained, with which batches and losses, and how long.

    Attributes:
        parameters: the parameters and buffers that training changes, by name.
        optimizer: over them, freshly built.
        batches: gives the batches of an epoch, the same ones each time it is called for that epoch.
        step: gives the losses of a batch by name; ``total`` is differentiated.
        num_batches: batches in an epoch, for the progress bar and ``learning_rate``.
        module: put into training mode before steps, and into evaluation mode before ``validate``.
        epochs: the most epochs.
        validate: gives metrics after an epoch; None trains all epochs and keeps the last weights.
        metric: the metric of ``validate`` to maximise.
        patience: epochs without a better metric before stopping; 0 trains all epochs.
        least_epochs: epochs before which it does not stop.
        smoothing: the metric is its mean over so many last epochs, to stop by and to choose the weights kept.
        ema_decay: the decay a step of averaged weights, which are then validated and kept; 0 for the weights
            themselves.
        begin_epoch: called with the epoch before its first step; the metrics it gives join the epoch's.
        memory: tensors that ``begin_epoch`` and ``step`` keep between calls; part of the checkpoint.
        learning_rate: gives the share of the optimizer's rates at a step, from (steps done, steps in all).
        clip: the greatest norm of the gradient; 0 does not clip.
        accumulation: batches in a step; its gradient is that of one batch of all their samples.
        processes: the processes that train together, all calling `fit`; the main one logs and writes checkpoints.
        divide: gives a process's part of a batch and its share of the samples, from (batch, index, count); needed
            where there are several processes.
        row_sparse: the trained tensors whose gradient is sparse.
        same_random: whether all processes draw the same random numbers, as one would, and what is to differ is drawn
            by `Processes.random_apart`; else each draws its own.
        size: counts what is in a batch, by unit, as samples or tokens; `fit` logs them per second.
        checkpoint_seconds: the longest time between checkpoints that cost little; one is also written after each epoch.
        checkpoint_spacing: after a checkpoint none is written for so many times the seconds that it took, but when the
            training ends; 0 for no such rest.
        label: text of the progress bar.
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
    least_epochs: int = 0
    smoothing: int = 1
    ema_decay: float = 0.0
    begin_epoch: Callable[[int], Metrics] | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    learning_rate: Callable[[int, int], float] | None = None
    clip: float = 0.0
    accumulation: int = 1
    processes: Processes = ALONE
    divide: Callable[[BatchType, int, int], tuple[BatchType, float]] | None = None
    row_sparse: list[Tensor] = field(default_factory=list)
    same_random: bool = False
    size: Callable[[BatchType], Mapping[str, int]] = samples_in
    checkpoint_seconds: float = 30.0
    checkpoint_spacing: float = 20.0
    label: str = "train"


@dataclass
class Progress:
    """How far a training has come, and its metrics so far; all of it is in the checkpoint."""

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = -1
    sums: dict[str, float] = field(default_factory=dict)
    amounts: dict[str, int] = field(default_factory=dict)
    step_seconds: float = 0.0
    norms: int = 0
    norm_sum: float = 0.0
    begun: Metrics = field(default_factory=dict)
    best_metrics: Metrics = field(default_factory=dict)
    history: list[tuple[int, Metrics]] = field(default_factory=list)


@dataclass
class Kept:
    """What is kept beside the weights in training.

    Attributes:
        best: the best weights so far, empty before the first validation and where nothing validates.
        averages: the averaged weights; None where none are asked for.
    """

    best: dict[str, Tensor] = field(default_factory=dict)
    averages: AveragedWeights | None = None

    @torch.no_grad()
    def keep_best(self, weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of these weights as the best, in the place of those before."""
        for name, tensor in weights.items():
            if name in self.best:
                self.best[name].copy_(tensor)
            else:
                self.best[name] = tensor.detach().clone()

    def weights(self) -> dict[str, Tensor]:
        """The weights that a finished training leaves: the best, or where nothing validated the last averages."""
        return self.best or ({} if self.averages is None else self.averages.tensors)


@dataclass
class CheckpointClock:
    """When checkpoints are written: those that take long are kept far apart.

    Attributes:
        spacing: how many times what the last one took passes before the next.
        saved: when the last one was written or, before the first, the training begun; by `time.perf_counter`.
        took: the seconds that it took.
    """

    spacing: float
    saved: float
    took: float = 0.0

    def due(self, now: float, seconds: float) -> bool:
        """Whether ``seconds`` have passed, and the last checkpoint's rest."""
        return now - self.saved > seconds and self.rested(now)

    def rested(self, now: float) -> bool:
        """Whether enough time has passed beside what the last checkpoint took."""
        return now - self.saved >= self.spacing * self.took

    def write(self, save: Callable[[], None]) -> None:
        """Write a checkpoint, timed."""
        begun = time.perf_counter()
        save()
        self.saved = time.perf_counter()
        self.took = self.saved - begun


def fit(plan: TrainingPlan[Any], checkpoint: Path, log: Callable[[Metrics, int], None]) -> Progress:
    """Train, and leave the best weights in ``plan.parameters``.

    Args:
        plan: what is trained, and how.
        checkpoint: file to go on from, where it exists, and to write; the caller removes it in the end.
        log: called with the metrics of each epoch and the epoch; after a kill also with those before it.

    Returns the final progress. Raises InputError where the loss is not finite.
    """
    reset_peak_memory(devices_of(plan))
    progress, kept = resume(plan, checkpoint)
    for epoch, metrics in progress.history if plan.processes.is_main else ():
        log(metrics, epoch)
    base_rates = [group["lr"] for group in plan.optimizer.param_groups]
    step = SummedGradients(plan.step, trained_by(plan.optimizer), plan.row_sparse, plan.processes)
    clock = CheckpointClock(plan.checkpoint_spacing, time.perf_counter())
    while unfinished(plan, progress):
        started = run_epoch(plan, step, progress, kept, checkpoint, base_rates, clock)
        metrics = {f"train/{name}": total / progress.batch for name, total in progress.sums.items()}
        metrics |= {f"train/{unit}_per_second": n / progress.step_seconds for unit, n in progress.amounts.items()}
        if READ in progress.amounts:
            before = progress.history[-1][1].get(f"train/{READ}", 0.0) if progress.history else 0.0
            metrics[f"train/{READ}"] = before + progress.amounts[READ]
        metrics |= {"train/gradient_norm": progress.norm_sum / progress.norms} if progress.norms else {}
        metrics |= progress.begun
        if plan.validate is not None:
            metrics |= validated(plan, progress, kept)
        else:
            progress.best_epoch = progress.epoch
        progress.seconds += time.perf_counter() - started
        metrics |= {"train/seconds": progress.seconds} | peak_memory(devices_of(plan))
        progress.history.append((progress.epoch, metrics))
        if plan.processes.is_main:
            log(metrics, progress.epoch)
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
        progress.amounts, progress.step_seconds = {}, 0.0
        progress.norms, progress.norm_sum = 0, 0.0
        # What follows a training may take long: a kill there must not cost its end.
        if plan.processes.agreed(clock.rested(time.perf_counter()) or not unfinished(plan, progress)):
            clock.write(lambda: save(plan, progress, kept, checkpoint))
    overwrite(plan.parameters, kept.weights())
    # Running statistics of batch norm are each process's own.
    plan.processes.align(plan.parameters.values())
    plan.module.eval()
    return progress


def unfinished(plan: TrainingPlan[Any], progress: Progress) -> bool:
    """Whether another epoch is trained."""
    return progress.epoch < plan.epochs and goes_on(
        progress.epoch, progress.best_epoch, patience=plan.patience, least_epochs=plan.least_epochs
    )


def validated(plan: TrainingPlan[Any], progress: Progress, kept: Kept) -> Metrics:
    """Metrics of the weights that would be kept; they are kept where the metric is the best so far."""
    assert plan.validate is not None
    plan.module.eval()
    with kept.averages.in_use() if kept.averages is not None else nullcontext():
        metrics = plan.validate()
        values = [before[plan.metric] for _, before in progress.history] + [metrics[plan.metric]]
        decisive = smoothed(values, plan.smoothing)
        if plan.smoothing > 1:
            metrics = metrics | {f"{plan.metric}_smoothed": decisive}
        if decisive > progress.best:
            progress.best, progress.best_epoch = decisive, progress.epoch
            progress.best_metrics = {name: metrics[name] for name in metrics if name.startswith("val/")}
            kept.keep_best(plan.parameters)
    return metrics


def trained_by(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that an optimizer changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def run_epoch(
    plan: TrainingPlan[Any],
    step: SummedGradients,
    progress: Progress,
    kept: Kept,
    checkpoint: Path,
    base_rates: list[float],
    clock: CheckpointClock,
) -> float:
    """Train on the epoch's remaining batches. Returns the time up to which ``progress.seconds`` counts."""
    started = time.perf_counter()
    if plan.begin_epoch is not None and progress.batch == 0:
        plan.module.eval()
        progress.begun = plan.begin_epoch(progress.epoch)
    plan.module.train()
    trained, sums, norms = trained_by(plan.optimizer), LossSums(), LossSums()
    look_every, decision = steps_between_looks(devices_of(plan)), SpacedDecision(plan.processes)
    batches = iter(plan.batches(progress.epoch))
    done = sum(1 for _ in islice(batches, progress.batch))
    bar = tqdm(
        total=plan.num_batches,
        initial=done,
        desc=f"{plan.label} {progress.epoch + 1}",
        leave=False,
        **plan.processes.bar_options,
    )
    before = time.perf_counter()
    for together in groups_of(batches, plan.accumulation):
        if plan.learning_rate is not None:
            steps = plan.epochs * -(-plan.num_batches // plan.accumulation)
            share = plan.learning_rate(progress.steps, steps)
            for group, rate in zip(plan.optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * share
        samples = sum(len(batch) for batch in together)
        for batch in together:
            with step.kept_back(last=batch is together[-1]):
                backward(plan, step, batch, len(batch) / samples, sums)
        step.sum_sparse()
        norm = gradient_norm(trained, plan.clip, progress.batch == 0 or progress.steps % NORM_EVERY == 0)
        if kept.averages is not None:
            kept.averages.begin_step()
        plan.optimizer.step()
        plan.optimizer.zero_grad(set_to_none=True)
        if kept.averages is not None:
            kept.averages.update(progress.steps)
        if norm is not None:
            progress.norms += 1
            norms.add({NORM: norm})
        if (progress.steps + 1) % look_every == 0:
            look(plan, progress, sums, norms)
        for unit, amount in (part for batch in together for part in plan.size(batch).items()):
            progress.amounts[unit] = progress.amounts.get(unit, 0) + amount
        progress.batch, progress.steps = progress.batch + len(together), progress.steps + 1
        bar.update(len(together))
        now = time.perf_counter()
        progress.step_seconds, before = progress.step_seconds + now - before, now
        if decision.agreed(clock.due(now, plan.checkpoint_seconds)):
            progress.seconds += now - started
            started = now
            # What is not finite is found before it is kept.
            look(plan, progress, sums, norms)
            clock.write(lambda: save(plan, progress, kept, checkpoint))
            before = time.perf_counter()
    look(plan, progress, sums, norms)
    bar.close()
    return started


def look(plan: TrainingPlan[Any], progress: Progress, sums: LossSums, norms: LossSums) -> None:
    """Move losses, over all processes, and norms from the device to the progress.

    Raises InputError where a loss is not finite.
    """
    progress.norm_sum += norms.take().get(NORM, 0.0)
    for name, value in plan.processes.sum_values(sums.take()).items():
        if not math.isfinite(value):
            raise InputError(f"{plan.label}: {name} loss is {value} at step {progress.steps}; lower the learning rate")
        progress.sums[name] = progress.sums.get(name, 0.0) + value


def backward(plan: TrainingPlan[Any], step: SummedGradients, batch: Any, weight: float, sums: LossSums) -> None:
    """Add ``weight`` times the gradient of this process's part of a batch, and its part of the losses to ``sums``."""
    share = 1.0
    if plan.divide is not None and plan.processes.count > 1:
        batch, share = plan.divide(batch, plan.processes.index, plan.processes.count)
    losses = step(batch)
    (weight * share * step.factor * losses["total"]).backward()
    sums.add(losses, share)


def gradient_norm(trained: list[Tensor], clip: float, measure: bool) -> Tensor | None:
    """Clip the gradients where ``clip`` is not 0. Returns their total norm before, a scalar.

    Returns None where nothing is clipped and ``measure`` is false.
    """
    if clip:
        return nn.utils.clip_grad_norm_(trained, clip)
    if not measure:
        return None
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    # Of a sparse gradient, the rows that are there, once each.
    return nn.utils.get_total_norm([one.coalesce().values() if one.is_sparse else one for one in gradients])


def devices_of(plan: TrainingPlan[Any]) -> set[torch.device]:
    """The devices of the parameters."""
    return {tensor.device for tensor in plan.parameters.values()}


def random_states(devices: set[torch.device]) -> dict[str, Tensor]:
    """States of the random number generators in use, the CPU's always, as ``random`` and ``random.cuda:0``."""
    cuda = {f"random.{device}": torch.cuda.get_rng_state(device) for device in devices if device.type == "cuda"}
    return {"random": torch.get_rng_state()} | cuda


def process_prefix(index: int) -> str:
    """What precedes the names of a process's random states in a checkpoint: nothing for the main process's."""
    return f"process.{index}." if index else ""


def restore_random_states(
    devices: set[torch.device], tensors: Mapping[str, Tensor], processes: Processes = ALONE, steps: int = 0
) -> None:
    """Set the random number generators of the devices in use to the states of `random_states` of this process.

    A process of which the checkpoint has none, as under a launch of more processes, gets a seed of its own.
    """
    own = process_prefix(processes.index)
    apart = f"{own}random" not in tensors
    prefix = "" if apart else own
    torch.set_rng_state(tensors[f"{prefix}random"])
    for device in devices:
        # A checkpoint of another device, or of a version that kept none, has no state for this one.
        if (state := tensors.get(f"{prefix}random.{device}")) is not None:
            torch.cuda.set_rng_state(state, device)
    if apart:
        processes.seed_apart(steps)


def save(plan: TrainingPlan[Any], progress: Progress, kept: Kept, checkpoint: Path) -> None:
    """Write the checkpoint, in the main process; all processes call this, for their random numbers are in it."""
    states = plan.processes.gathered(random_states(devices_of(plan)))
    if not plan.processes.is_main:
        return
    tensors = {f"parameter.{name}": tensor for name, tensor in plan.parameters.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in kept.best.items()}
    if kept.averages is not None:
        for kind, held in kept.averages.state().items():
            tensors |= {f"{kind}.{name}": tensor for name, tensor in held.items()}
    tensors |= {f"memory.{name}": tensor for name, tensor in plan.memory.items()}
    tensors |= optimizer_tensors(plan.optimizer)
    for index, state in enumerate(states):
        tensors |= {process_prefix(index) + name: tensor for name, tensor in state.items()}
    write_checkpoint(checkpoint, tensors, vars(progress) | {"best": repr(progress.best)})


def resume(plan: TrainingPlan[Any], checkpoint: Path) -> tuple[Progress, Kept]:
    """Put the checkpoint's state into the plan.

    Returns its progress and what it kept; those of a training that has not begun where there is no checkpoint.
    """
    found = read_checkpoint(checkpoint)
    averages = AveragedWeights(plan.parameters, plan.ema_decay, plan.row_sparse) if plan.ema_decay else None
    if found is None:
        if not plan.same_random:
            plan.processes.seed_apart(0)
        return Progress(), Kept(averages=averages)
    tensors, values = found
    parts: dict[str, dict[str, Tensor]] = {"parameter": {}, "best": {}, "average": {}, "settled": {}, "memory": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind in parts:
            parts[kind][rest] = tensor
    overwrite(plan.parameters, {name: parts["parameter"][name] for name in plan.parameters})
    if averages is not None:
        averages.restore(parts)
    plan.memory.update(parts["memory"])
    restore_optimizer(plan.optimizer, tensors)
    progress = Progress(**(values | {"best": float(values["best"])}))
    random = ALONE if plan.same_random else plan.processes
    restore_random_states(devices_of(plan), tensors, random, progress.steps)
    progress.history = [(epoch, metrics) for epoch, metrics in progress.history]
    return progress, Kept(parts["best"], averages)

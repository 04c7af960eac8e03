"""Time gated LoRA against plain LoRA of peft of the same rank, and against its formula computed expert by expert.

Run ``python benchmarks/gated_lora.py`` (``--help`` lists the sizes). Plain and gated passes over the same tokens take
turns, forward alone and forward with backward; every token has mixing weights of its own, as in packed prompts, and
the gate's own time is part of the gated passes. One JSON line last: medians in milliseconds, ``forward_over_plain``
and ``train_over_plain`` (medians of the ratios of neighbouring passes), the formula's over ours, and the MiB that each
keeps for its backward pass. Time it on idle cores: the load is printed.
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn

from recdistill.teachers.ilora.gate import build_gate
from recdistill.teachers.ilora.gated_lora import GatedLoRA, attach_gated_lora
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.teachers.ilora.token_layers import LLAMA_PROJECTIONS

STATE_SIZE, ALPHA = 64, 32.0
CPU = torch.device("cpu")


class Compared:
    """One base with plain LoRA, another with gated LoRA of the same weights, a gate and a batch of tokens."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        plain = load_llm(arguments.llm, CPU).model
        settings = LoraConfig(r=arguments.rank, lora_alpha=int(ALPHA), target_modules=list(LLAMA_PROJECTIONS))
        self.plain: nn.Module = get_peft_model(plain, settings)
        base = load_llm(arguments.llm, CPU).model
        self.gated: GatedLoRA = attach_gated_lora(
            base, rank=arguments.rank, alpha=ALPHA, dropout=0.0, experts=arguments.experts
        )
        own = dict(self.gated.model.named_parameters())
        with torch.no_grad():
            for name, parameter in self.plain.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.02 * torch.randn(parameter.shape))
                    own[name].copy_(parameter)
        self.gate = build_gate("linear", STATE_SIZE, arguments.experts)
        self.tokens = torch.randint(base.config.vocab_size, (arguments.batch, arguments.length))
        self.states = torch.randn(arguments.batch, arguments.length, STATE_SIZE)
        self.dtype = base.dtype

    def read(self, model: nn.Module, gated: bool) -> Tensor:
        """Last hidden states [B, T, H]."""
        if gated:
            self.gated.slot.set(self.gate(self.states))
        low = self.dtype != torch.float32
        with torch.autocast("cpu", self.dtype, enabled=low), disable_input_dtype_casting(model, low):
            return model(input_ids=self.tokens, use_cache=False)[0]

    def run(self, kind: str, train: bool) -> Tensor:
        """A pass, with its backward pass where ``train``; the states, without gradient."""
        model = self.plain if kind == "plain" else self.gated.model
        with by_formula(self.gated) if kind == "formula" else contextlib.nullcontext():
            with torch.set_grad_enabled(train):
                states = self.read(model, gated=kind != "plain")
            if train:
                states.float().square().mean().backward()
                for parameter in (*model.parameters(), *self.gate.parameters()):
                    parameter.grad = None
        return states.detach()


@contextlib.contextmanager
def by_formula(gated: GatedLoRA) -> Iterator[None]:
    """LoRA layers compute y = W x + α/(r/K) · Σ_k ω_k B_k A_k x as it is written."""
    layers: list[Any] = [gated.model.get_submodule(name) for name in gated.gated_layers]
    for layer in layers:
        layer.forward = partial(formula, layer, gated)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def formula(layer: Any, gated: GatedLoRA, inputs: Tensor) -> Tensor:
    """Each expert's update [B, T, out] by itself, all of them side by side [B, T, K, out], then their mixture."""
    slot = gated.slot
    down = layer.lora_A[gated.adapter].weight.chunk(slot.experts, dim=0)
    up = layer.lora_B[gated.adapter].weight.chunk(slot.experts, dim=1)
    updates = torch.stack([F.linear(F.linear(inputs, a), b) for a, b in zip(down, up, strict=True)], dim=2)
    # The slot holds K·ω, once for each row of an expert, and peft's scaling is α/r.
    weights = slot._scales[0][..., :: slot.rank // slot.experts].to(updates.dtype)
    mixed = torch.einsum("btk,btko->bto", weights, updates)
    return layer.base_layer(inputs) + layer.scaling[gated.adapter] * mixed


def milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)


def take_turns(compared: Compared, other: str, train: bool, seconds: float, least: int) -> dict[str, list[float]]:
    """Times of ``gated`` and of another kind, in turns: which goes first changes each time."""
    kinds = [other, "gated"]
    for kind in kinds:
        compared.run(kind, train)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    end = time.perf_counter() + seconds
    while len(times["gated"]) < least or time.perf_counter() < end:
        for kind in kinds:
            times[kind].append(milliseconds(lambda kind=kind: compared.run(kind, train)))  # type: ignore[misc]
        kinds.reverse()
    return times


def kept_for_backward(compared: Compared, kind: str) -> float:
    """MiB of the tensors that a pass keeps for its backward pass, weights aside, each storage once."""
    known = {p.untyped_storage().data_ptr() for m in (compared.plain, compared.gated.model) for p in m.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compared.run(kind, train=True)
    return sum(sizes.values()) / 2**20


def ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """Median of the ratios of neighbouring passes."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time gated LoRA against plain LoRA and against its formula.")
    parser.add_argument("--llm", default="smollm2-135m", help="alias, Hugging Face id or local path")
    parser.add_argument("--seconds", type=float, default=40, help="for each of four comparisons (default 40)")
    for name, default, text in (
        ("batch", 4, "B, prompts a pass"),
        ("length", 256, "T, tokens a prompt"),
        ("rank", 8, "r"),
        ("experts", 4, "K"),
        ("least", 3, "passes of each kind, at least"),
        ("threads", 0, "0 for torch's own number"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    compared = Compared(arguments)
    # Timing means something only if both compute the same.
    expected, found = compared.run("formula", train=False), compared.run("gated", train=False)
    error = float((found - expected).float().abs().mean() / expected.float().abs().mean())
    assert error < (1e-4 if compared.dtype == torch.float32 else 5e-2), error
    results: dict[str, float] = {}
    for train, name in ((False, "forward"), (True, "train")):
        for other in ("plain", "formula"):
            times = take_turns(compared, other, train, arguments.seconds, arguments.least)
            results[f"{name}_{other}_ms"] = round(statistics.median(times[other]), 1)
            if other == "plain":
                results[f"{name}_gated_ms"] = round(statistics.median(times["gated"]), 1)
                results[f"{name}_over_plain"] = round(ratio(times, "gated", "plain"), 4)
            else:
                results[f"{name}_formula_over_gated"] = round(ratio(times, "formula", "gated"), 2)
    kinds = ("plain", "gated", "formula")
    results |= {f"kept_{kind}_mib": round(kept_for_backward(compared, kind), 1) for kind in kinds}
    widest = max(compared.gated.model.get_submodule(name).out_features for name in compared.gated.gated_layers)  # type: ignore[type-var]
    size = torch.finfo(compared.dtype).bits // 8
    entries = arguments.batch * arguments.length
    print(f"{torch.get_num_threads()} threads, load {load:.1f} before the start, torch {torch.__version__}")
    print(
        f"{arguments.llm}, {compared.dtype}, {arguments.batch} prompts of {arguments.length} tokens, r {arguments.rank}"
    )
    print(
        f"formula's [B, T, K, out] of the widest layer: {entries * arguments.experts * widest * size / 2**20:.1f} MiB"
    )
    print(f"gated [B, T, r]: {entries * arguments.rank * size / 2**10:.1f} KiB")
    print(json.dumps({"batch": arguments.batch, "length": arguments.length} | results))


if __name__ == "__main__":
    main()

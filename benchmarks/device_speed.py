"""How busy a device is kept: student samples a second and share of time in kernels, teacher tokens a second.

``python benchmarks/device_speed.py --device cuda`` trains a SASRec by each loss over made-up histories, and a ranking
teacher over its LLM beside the bare LLM, which runs forward and backward over the same tokens with nothing around it.
One JSON line last: samples and tokens a second of wall-clock time, the share of a profiled stretch in which the device
ran a kernel or copied (of CUDA alone), the teacher's share of the bare model's speed, and the device's peak memory in
MiB. A step of the teacher has its optimizer, as in training; its tokens are counted before the clock runs. ``--tiny``
takes small sizes and an LLM of random weights, which shows that the script runs, not how fast anything is.
``--compile`` times the student alone, as it is, with ``bf16=true``, and with its encoder through torch.compile, once
with shapes that vary and once by CUDA graphs (``reduce-overhead``), and says how long it took to compile.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from growth import write_log  # in the same folder
from torch.autograd import DeviceType

from recdistill.config import DataConfig, StudentConfig, TeacherConfig
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.distillation.objective import build_objective
from recdistill.students import training
from recdistill.students.build import build_student, shape_of
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.teachers.ranking.lesson import training_batches
from recdistill.teachers.ranking.teacher import RankingTeacher
from recdistill.teachers.training import plan_of
from recdistill.testing.tiny_llm import tiny_base_llm
from recdistill.training.distributed import Processes

GOALS = {"teacher_share_of_bare": 0.8, "kernels_share": 0.7}
# Steps before the clock runs.
WARM_UP = 2


def made_up_data(folder: Any, interactions: int, items: int) -> SequenceData:
    """A log of a power law, split."""
    write_log(folder, interactions, items, 40.0, 0)
    names = {name: str(folder / f"{name}.parquet") for name in ("interactions", "items")}
    return load_data(DataConfig(dataset="csv", **names))


def wait(device: torch.device) -> None:
    """Wait for all kernels."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Wall-clock seconds of so many steps, behind ``WARM_UP`` others."""
    for _ in range(WARM_UP):
        step()
    wait(device)
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return time.perf_counter() - begun


def busy_seconds(events: Iterable[Any]) -> float:
    """Seconds in which a device did something, of a profile's ``events()``.

    Work that overlaps counts once, and what names a stretch of a program, or lies on the CPU, not at all.
    """
    works = [one for one in events if one.device_type != DeviceType.CPU and not one.is_user_annotation]
    busy, until = 0.0, float("-inf")
    for start, end in sorted((one.time_range.start, one.time_range.end) for one in works):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy / 1e6


def kernels_share(step: Callable[[], None], steps: int, device: torch.device) -> float | None:
    """Share of the time of so many steps in which the device was busy; None on a CPU."""
    if device.type != "cuda":
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        wait(device)
        seconds = time.perf_counter() - begun
    return busy_seconds(profile.events()) / seconds


def student_speed(
    data: SequenceData,
    loss: str,
    steps: int,
    device: torch.device,
    compiled: dict[str, Any] | None = None,
    *,
    bf16: bool = False,
) -> dict[str, float | None]:
    """Samples a second of a SASRec, and the share of time in kernels; ``compiled``: arguments of torch.compile."""
    config = StudentConfig(base_loss=loss, batch_size=512, bf16=bf16)  # type: ignore[arg-type]
    model = build_student(shape_of(config), data.num_items).to(device)
    count = torch.as_tensor(data.item_count)
    objective = build_objective(config, count, state_size=model.state_size, teacher=None).to(device)
    if compiled is not None:
        model.encoded = torch.compile(model.encoded, **compiled)  # type: ignore[method-assign]
    trained = torch.nn.ModuleDict({"student": model, "extra": objective}).train()
    optimizer = training.optimizer_of(config, trained)
    losses = training.loss_step(config, data, model, objective, None, device)
    epochs = map(training.student_batches(config, data, model.causal, device), range(10**6))
    drawn = (batch for epoch in epochs for batch in epoch)
    done = 0

    def step() -> None:
        nonlocal done
        batch = next(drawn)
        losses(batch)["total"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += len(batch)

    seconds_of(step, 1, device)
    done = 0
    # Some of the steps that are counted warmed up, and are not in the time.
    per_second = steps / seconds_of(step, steps, device) * done / (steps + WARM_UP)
    share = kernels_share(step, steps, device)
    return {f"{loss}_samples_per_s": round(per_second, 1), f"{loss}_kernels_share": share}


def compiled_speed(data: SequenceData, steps: int, device: torch.device) -> dict[str, float | None]:
    """A student's speed as it is, in bfloat16 and compiled, by way, and the seconds of all its steps and compiling."""
    found = student_speed(data, "ce", steps, device)
    ways: dict[str, dict[str, Any] | None] = {"bf16": None, "compiled": {"dynamic": True}}
    if device.type == "cuda":
        ways["graphs"] = {"mode": "reduce-overhead"}
    for name, arguments in ways.items():
        begun = time.perf_counter()
        speed = student_speed(data, "ce", steps, device, arguments, bf16=name == "bf16")
        found |= {key.replace("ce_", f"ce_{name}_"): value for key, value in speed.items()}
        found[f"ce_{name}_s"] = round(time.perf_counter() - begun, 1)
    return found


def teacher_speed(data: SequenceData, options: dict[str, Any], steps: int, device: torch.device) -> dict[str, float]:
    """Tokens a second of a teacher's training, and of its bare LLM over as many tokens."""
    config = TeacherConfig(device=device.type, **options)
    llm = load_llm(config.llm, device, load_in_4bit=config.load_in_4bit) if "llm" in options else tiny_base_llm()
    # Before the teacher puts its adapters into it.
    bare = bare_speed(llm, config.tokens_per_batch, steps, device)
    backbone = build_student(shape_of(StudentConfig()), data.num_items).to(device).eval().requires_grad_(False)
    teacher = RankingTeacher.build(config, llm, backbone, data)
    teacher.model.train()
    lesson = teacher.lesson()
    plan = plan_of(config, lesson, Processes(device=device), "teacher")
    trained = [parameter for group in plan.optimizer.param_groups for parameter in group["params"]]
    batches = list(islice(training_batches(teacher), WARM_UP + steps))
    prompts = (teacher.model.prompts(one.history, one.row, one.column) for one in batches[WARM_UP:])
    tokens = sum(one.num_tokens for one in prompts)
    drawn = iter(batches)

    def step() -> None:
        lesson.step(next(drawn))["total"].backward()
        torch.nn.utils.clip_grad_norm_(trained, plan.clip or float("inf"))
        plan.optimizer.step()
        plan.optimizer.zero_grad(set_to_none=True)

    of_teacher = tokens / seconds_of(step, steps, device)
    return {
        "teacher_tokens_per_s": round(of_teacher, 1),
        "bare_tokens_per_s": round(bare, 1),
        "teacher_share_of_bare": round(of_teacher / bare, 3),
    }


def bare_speed(llm: Any, tokens: int, steps: int, device: torch.device) -> float:
    """Tokens a second of the frozen LLM alone, forward, and backward to its input."""
    model = llm.model
    rows = max(1, tokens // 256)
    width = model.get_input_embeddings().weight.shape[1]
    given = torch.randn(rows, 256, width, device=device, dtype=model.dtype, requires_grad=True)

    def step() -> None:
        model(inputs_embeds=given).last_hidden_state.float().square().mean().backward()

    return rows * 256 * steps / seconds_of(step, steps, device)


def main() -> None:
    import tempfile
    from pathlib import Path

    parser = argparse.ArgumentParser(description="How busy a device is kept.")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="small sizes, an LLM of random weights")
    parser.add_argument("--llm", default="smollm2-135m", help="the teacher's, without --tiny")
    parser.add_argument("--load-in-4bit", action="store_true", help="the teacher's LLM in 4 bits (extra quantized)")
    parser.add_argument("--compile", action="store_true", help="a student alone, with and without torch.compile")
    parser.add_argument("--steps", type=int, default=30, help="timed (default 30)")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    sizes = (20_000, 500) if arguments.tiny else (1_000_000, 20_000)
    steps = min(arguments.steps, 3) if arguments.tiny else arguments.steps
    result: dict[str, Any] = {"device": arguments.device, "tiny": arguments.tiny}
    if device.type == "cuda":
        result["card"] = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as folder:
        data = made_up_data(Path(folder), *sizes)
    if arguments.compile:
        print(json.dumps(result | compiled_speed(data, steps, device)))
        return
    for loss in ("ce", "sampled"):
        result |= student_speed(data, loss, steps, device)
    options = {} if arguments.tiny else {"llm": arguments.llm, "load_in_4bit": arguments.load_in_4bit}
    result |= teacher_speed(data, options, steps, device)
    if device.type == "cuda":
        result["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

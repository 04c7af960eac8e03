"""A step of a teacher's contrast, the items' texts read in one row beside the same texts as padded rows.

``python benchmarks/contrast_step.py --threads 1`` on MovieLens-100K, texts of title, year and genres given twice. Both
compute the same batches, forward and backward, one after the other in turns. It prints how many tokens the texts have
and how many padded rows would, real tokens a second of both, the ratio, and how far losses and gradients are apart.
Seconds are of CPU in one thread, of the clock with more. One JSON line last.
"""

import argparse
import json
import time
from itertools import islice

import torch

from recdistill.config import StudentConfig, TeacherConfig
from recdistill.data.load import load_data
from recdistill.students.build import build_student, shape_of
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.teachers.ranking.contrast import contrast_lesson, states_of_samples
from recdistill.teachers.ranking.teacher import RankingTeacher

CPU = torch.device("cpu")


def parse_arguments() -> argparse.Namespace:
    defaults = TeacherConfig()
    parser = argparse.ArgumentParser(description="A contrast step over texts in one row and over padded rows.")
    parser.add_argument("--llm", default=defaults.llm, help="alias, Hugging Face id or local path")
    for name, default, text in (
        ("batches", 4, "timed batches, beside one that is not"),
        ("tokens_per_batch", defaults.tokens_per_batch, "LLM tokens of a batch"),
        ("threads", 0, "0 for torch's own number"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    config = TeacherConfig(
        llm=arguments.llm, tokens_per_batch=arguments.tokens_per_batch, contrast_token_budget=1, device="cpu"
    )
    data = load_data(config)
    torch.manual_seed(0)
    backbone = build_student(shape_of(StudentConfig()), data.num_items).eval().requires_grad_(False)
    teacher = RankingTeacher.build(config, load_llm(arguments.llm, CPU), backbone, data)
    lesson, texts = contrast_lesson(teacher, states_of_samples(teacher)), teacher.model.content.texts
    parameters = [parameter for group in lesson.groups for parameter in group["params"]]
    longest = teacher.model.longest_in_row
    assert longest > 0, f"{arguments.llm} reads no texts in one row"
    teacher.model.train()
    seconds, real, padded, apart = {"row": 0.0, "padded": 0.0}, 0, 0, [0.0, 0.0]
    for number, batch in enumerate(islice(lesson.batches(), arguments.batches + 1)):
        found = {}
        for way in ("row", "padded") if number % 2 else ("padded", "row"):
            teacher.model.longest_in_row = longest if way == "row" else 0.0
            teacher.model.zero_grad(set_to_none=True)
            started = clock()
            loss = lesson.step(batch)["total"]
            loss.backward()
            taken = clock() - started
            found[way] = loss.item(), torch.cat([parameter.grad.flatten() for parameter in parameters])
            # The first batch compiles products.
            seconds[way] += taken if number else 0.0
        (loss, gradient), (other, others) = found["row"], found["padded"]
        apart = [
            max(apart[0], abs(loss - other) / other),
            max(apart[1], float((gradient - others).norm() / others.norm())),
        ]
        lengths = texts.lengths[batch.items.numpy()]
        if number:
            real, padded = real + int(lengths.sum()), padded + len(lengths) * int(lengths.max())
    speeds = {way: real / taken for way, taken in seconds.items()}
    print(f"{arguments.llm}, torch {torch.__version__}, {torch.get_num_threads()} threads, {data.name}")
    print(f"{real:,} tokens of texts, {padded:,} in padded rows")
    ratio = speeds["row"] / speeds["padded"]
    print(f"{speeds['row']:.1f} tokens a second in one row, {speeds['padded']:.1f} padded: {ratio:.2f} times")
    print(f"apart by at most {apart[0]:.1e} of a loss and {apart[1]:.1e} of a gradient")
    print(json.dumps({f"{way}_tokens_per_s": round(speed, 1) for way, speed in speeds.items()}))


if __name__ == "__main__":
    main()

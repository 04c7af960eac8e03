"""The generative teacher of iLoRA on its own data: what its answers are worth before and after training, in three ways.

``python benchmarks/generative_answers.py FOLDER`` takes a folder that ``dataset=ilora`` reads, as that of Last.fm. It
trains a SASRec, then makes a generative teacher once without training and once with ``--token_budget`` tokens of it,
and has each answer in the three ways: every validation and test sequence, 20 candidates each, the same for all. Prints
ValidRatio and HitRatio@1 of the test sequences with their 95 % intervals, beside the SASRec's on the same candidates,
and one JSON line last. Nothing is kept.
"""

import argparse
import json
from dataclasses import replace

import torch

from recdistill.config import StudentConfig, TeacherConfig, changed, narrow
from recdistill.data.load import load_data
from recdistill.students.student import Student
from recdistill.students.training import fit_recommender
from recdistill.teachers.generative.teacher import GenerativeTeacher
from recdistill.teachers.training import train_teacher
from recdistill.training.recorder import NoRecorder

ANSWERS = ("free", "constrained", "likelihood")
SHARES = ("valid_ratio", "hit_ratio_at_1", "hit_ratio_at_1_of_all")
HISTORY = 10


def shown(metrics: dict[str, float], name: str) -> str:
    """A share and its interval."""
    low, value, high = (metrics[f"test/{name}{bound}"] for bound in ("_low", "", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def options(arguments: argparse.Namespace) -> TeacherConfig:
    """The teacher's options."""
    return TeacherConfig(
        dataset="ilora",
        interactions=arguments.folder,
        seed=arguments.seed,
        teacher="generative",
        llm=arguments.llm,
        domain=arguments.domain,
        teacher_history=HISTORY,
        token_budget=arguments.token_budget,
        tokens_per_batch=arguments.tokens_per_batch,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--token_budget", type=int, default=1_000_000)
    parser.add_argument("--tokens_per_batch", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=20, help="of the SASRec, at most")
    parser.add_argument("--llm", default="smollm2-135m")
    parser.add_argument("--domain", default="music")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own number")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = options(arguments)
    data = load_data(config)
    student = narrow(config, StudentConfig, max_length=HISTORY, epochs=arguments.epochs)
    backbone = fit_recommender(student, data, recorder=NoRecorder()).model
    assert isinstance(backbone, Student)
    backbone.requires_grad_(False)
    lines: list[list[str]] = []
    summary: dict[str, float] = {}
    metrics: dict[str, float] = {}
    for moment, budget in (("before", 0), ("after", arguments.token_budget)):
        made, _ = train_teacher(changed(config, token_budget=budget), data, backbone, recorder=NoRecorder())
        assert isinstance(made, GenerativeTeacher)
        for answer in ANSWERS:
            metrics = replace(made, config=changed(made.config, answer=answer)).answers().metrics
            shares = [shown(metrics, name) for name in SHARES]
            lines.append([f"{moment} training", answer, *shares, f"{metrics['ms_per_answer']:.0f}"])
            summary |= {f"{moment} {answer} {name}": round(metrics[f"test/{name}"], 4) for name in SHARES}
            summary[f"{moment} {answer} ms_per_answer"] = round(metrics["ms_per_answer"], 1)
    lines.append(["its SASRec", "", "", "", shown(metrics, "backbone_hit_ratio_at_1"), ""])
    summary["sasrec hit_ratio_at_1_of_all"] = round(metrics["test/backbone_hit_ratio_at_1"], 4)
    summary["token_budget"] = arguments.token_budget
    header = ["teacher", "answer", "ValidRatio", "HitRatio@1 of the valid", "HitRatio@1 of all", "ms an answer"]
    print()
    for line in [header, ["---"] * len(header), *lines]:
        print(f"| {' | '.join(line)} |")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

"""The generative teacher of iLoRA on its own data: what its answers are worth before and after training, in three ways.

``python benchmarks/generative_answers.py FOLDER`` takes a folder that ``dataset=ilora`` reads, as that of Last.fm. It
trains (or finds) a SASRec, then runs ``teacher`` with ``teacher=generative`` once without training and once with
``--token_budget`` tokens of it, and ``evaluate`` for the ways of answering: every test sequence, 20 candidates each,
the same for all. Prints ValidRatio and HitRatio@1 with their 95 % intervals, beside the SASRec's on the same
candidates, and one JSON line last.
"""

import argparse
import json

import torch

from recdistill.config import StudentConfig, EvaluateConfig, TeacherConfig
from recdistill.steps.backbone import backbone
from recdistill.steps.evaluate import evaluate_run
from recdistill.steps.teacher import teacher
from recdistill.runs.step_runs import entry_run

ANSWERS = ("free", "constrained", "likelihood")
SHARES = ("valid_ratio", "hit_ratio_at_1", "hit_ratio_at_1_of_all")
HISTORY = 10


def shown(metrics: dict[str, float], name: str) -> str:
    """A share and its interval."""
    low, value, high = (metrics[f"test/{name}{bound}"] for bound in ("_low", "", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--token_budget", type=int, default=1_000_000)
    parser.add_argument("--tokens_per_batch", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=20, help="of the SASRec, at most")
    parser.add_argument("--llm", default="smollm2-135m")
    parser.add_argument("--domain", default="music")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own number")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = {"dataset": "ilora", "interactions": arguments.folder, "seed": arguments.seed}
    lines, summary = [], {}
    with entry_run("generative answers"):
        frozen = backbone(StudentConfig(**data, max_length=HISTORY, epochs=arguments.epochs))
        for moment, budget in (("before", 0), ("after", arguments.token_budget)):
            made = teacher(
                TeacherConfig(
                    **data,
                    teacher="generative",
                    llm=arguments.llm,
                    domain=arguments.domain,
                    teacher_history=HISTORY,
                    backbone_run_id=frozen.run_id,
                    token_budget=budget,
                    tokens_per_batch=arguments.tokens_per_batch,
                    # What students would read is not asked for here.
                    outputs_token_budget=1,
                )
            )
            for answer in ANSWERS:
                metrics = evaluate_run(EvaluateConfig(run_id=made.run_id, answer=answer)).metrics()
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

"""Results of each step on tiny data, kept: where they change, the step's revision must change, too.

``python tests/test_revisions.py`` writes them anew, with the revisions of today.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_data import write_csv
from tiny_llm import write_tiny_llm
from workplace import Workplace, run_step

from recdistill.config.steps import REVISIONS

KEPT = Path(__file__).parent / "data" / "revisions.json"
#: What a run of each step logs that its revision answers for. Sums over many samples: a processor's rounding, which may
#: move a rank, does not move them far.
MEASURED = {
    "prepare": ("test/mrr", "val/mrr"),
    "backbone": ("train/total", "val/mrr", "test/mrr"),
    "teacher": ("train/total", "val/mrr", "test/mrr", "covered_share"),
    "distill": ("train/total", "train/ranking", "val/mrr", "test/mrr"),
}
TOLERANCE = 0.02


def results(folder: Path) -> dict[str, dict[str, float]]:
    """The steps on thirty users of a ring and the tiny llama."""
    (folder / "data").mkdir()
    (folder / "downloads").mkdir()
    options: dict[str, object] = {**write_csv(folder / "data")}
    teacher = {"llm": write_tiny_llm(folder / "llm"), "token_budget": 3000, "tokens_per_batch": 300, "top_n": 12}
    teacher |= {"teacher_window": 10, "teacher_history": 4}
    student = {"hidden_size": 16, "blocks": 1, "epochs": 3, "alpha": 0.1, "output_weight": 0.1, "candidate_topk": 5}
    place = Workplace(folder, folder / "downloads")
    found = {}
    with place.entered():
        assert run_step("prepare", **options) == 0
        assert run_step("teacher", **options, **teacher, sequence_embeddings=True) == 0
        run_id = place.newest("teacher").info.run_id
        assert (
            run_step("distill", **options, **teacher, **student, sequence_embeddings=True, teacher_run_id=run_id) == 0
        )
        for step, names in MEASURED.items():
            metrics = place.newest(step).data.metrics
            found[step] = {name: metrics[name] for name in names}
    return found


def test_results_change_only_with_the_revision(tmp_path: Path) -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    found = results(tmp_path)
    for step, metrics in found.items():
        assert kept[step]["revision"] == REVISIONS[step], f"write {KEPT.name} anew: python tests/{Path(__file__).name}"
        for name, value in metrics.items():
            assert value == pytest.approx(kept[step][name], rel=TOLERANCE), (
                f"{step}: {name} is no longer what revision {REVISIONS[step]} gave: raise REVISIONS[{step!r}] in "
                f"recdistill/config/steps.py, or find what moved it"
            )


def test_a_changed_result_is_seen() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    for step in MEASURED:
        for name in MEASURED[step]:
            assert kept[step][name] * (1 + 2 * TOLERANCE) != pytest.approx(kept[step][name], rel=TOLERANCE)


if __name__ == "__main__":
    os.environ["MLFLOW_EXPERIMENT_ID"] = "0"
    with tempfile.TemporaryDirectory() as scratch:
        written = {step: {"revision": REVISIONS[step], **metrics} for step, metrics in results(Path(scratch)).items()}
    KEPT.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")

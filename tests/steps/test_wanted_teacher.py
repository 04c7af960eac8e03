"""A loss term that reads the teacher's states has a teacher made that keeps them."""

import pytest
from small_data import write_csv
from workplace import Workplace, run_step

from recdistill.config import DistillConfig, TeacherConfig
from recdistill.steps.teacher import wanted_teacher


def test_the_teacher_keeps_its_states_where_they_are_read() -> None:
    assert wanted_teacher(DistillConfig()) == TeacherConfig()
    assert wanted_teacher(DistillConfig(output_weight=0.5)) == TeacherConfig(sequence_embeddings=True)
    assert wanted_teacher(DistillConfig(sequence_embeddings=True, force=True)) == TeacherConfig(
        sequence_embeddings=True
    )


@pytest.mark.slow
def test_an_output_loss_is_not_refused_after_the_teacher_was_trained(
    place: Workplace, tmp_path, tiny_llm_folder
) -> None:
    options = {**write_csv(tmp_path), "llm": tiny_llm_folder, "teacher_window": 8, "teacher_history": 3, "top_n": 10}
    options |= {"token_budget": 600, "tokens_per_batch": 200, "epochs": 1, "hidden_size": 8, "output_weight": 0.1}
    assert run_step("distill", **options) == 0
    assert place.newest("distill").data.metrics["train/output"] > 0

"""The whole path on thirty real users with the real SmolLM2, under a tiny budget."""

import mlflow
import pytest
from workplace import Workplace, make_downloads, ml100k_files, run_step

from recdistill.config import DataConfig
from recdistill.runs.step_runs import finished_run
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.teachers.ilora.llm_source import ALIASES

ITEMS, HIDDEN_SIZE = 1682, 576


@pytest.mark.slow
def test_ratings_to_distilled_student_over_smollm2(tmp_path_factory, capsys):
    files = [*ml100k_files(), ALIASES["smollm2-135m"]]
    place = Workplace(tmp_path_factory.mktemp("smollm2"), make_downloads(tmp_path_factory.mktemp("downloads"), files))
    with place.entered():
        options = {"max_users": 30, "token_budget": 3000, "outputs_token_budget": 3000, "epochs": 2, "top_n": 20}
        assert run_step("main", **options) == 0
        tags = mlflow.get_run(place.newest("distill").info.run_id).data.tags
        run = finished_run(tags["recdistill.teacher_run_id"], "teacher")
        data = data_of(DataConfig(max_users=30))
        outputs = teacher_outputs_of(run, data)
        assert (data.num_items, outputs.manifest.llm) == (ITEMS, "smollm2-135m")
        assert outputs.item_embedding.shape == (ITEMS, HIDDEN_SIZE)
        assert outputs.top_n == 20
        # 3,000 tokens of some 90,000.
        assert 0.01 < outputs.covered_share < 0.2
        assert (
            outputs.covered_share
            == run.metrics()["covered_share"]
            == place.newest("distill").data.metrics["teacher_covered_share"]
        )
        metrics = run.metrics()
        assert 0 < metrics["train/total"] < 12  # ln 1682 is 7.4
        assert all(0 <= value <= 1 for name, value in metrics.items() if "_at_" in name)
        assert "sasrec, distilled" in capsys.readouterr().out
        # The GGUF file is converted once, and the next teacher reads what is there.
        assert len(list((place.folder / "cache" / "llm").glob("SmolLM2-135M-Instruct*/model.safetensors"))) == 1

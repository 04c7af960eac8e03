"""iLoRA's released SASRec as a backbone: measured and kept as a trained one is, and a teacher's frozen one."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from released_file import write_released_sasrec
from small_data import ITEMS
from workplace import run_step

from recdistill.config import BaselineConfig, StudentConfig, TeacherConfig
from recdistill.errors import InputError
from recdistill.release.released_students import read_released_sasrec
from recdistill.steps.backbone import backbone
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.steps.teacher import teacher
from recdistill.students.build import load_student
from recdistill.students.measure import ranks_of


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_released_sasrec(tmp_path / "SASRec.pt", ITEMS)


def options(small_files: dict[str, str], released: Path, **changed: object) -> BaselineConfig:
    return BaselineConfig(**small_files, released=str(released), **changed)  # type: ignore[arg-type]


def test_it_is_kept_and_measured_and_not_trained(small_files, place, released):
    config = options(small_files, released)
    run, data = backbone(config), data_of(config)
    kept, model = load_student(run.artifact("student")), read_released_sasrec(released)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in kept.state_dict().items())
    for part, samples in (("val", data.validation), ("test", data.test)):
        ranks = ranks_of(model, samples, config.exclude_seen, torch.device("cpu"))
        assert pd.read_parquet(run.artifact("ranks") / f"{part}.parquet")["rank"].tolist() == ranks.tolist()
    found = mlflow.get_run(run.run_id)
    metrics = found.data.metrics
    assert {"test/ndcg_at_10", "val/mrr", "latency_ms", "ms_per_1000_recommendations"} <= set(metrics)
    assert not [name for name in metrics if name.startswith(("train/", "system/")) or "epoch" in name]
    assert "train_seconds" not in metrics
    # The parameters are what the file holds, not the defaults.
    shape = {"student": "sasrec", "hidden_size": "16", "blocks": "1", "heads": "1", "dropout": "0.1"}
    shape |= {"max_length": "10", "output": "linear"}
    assert shape.items() <= found.data.params.items()
    assert "not trained here" in found.data.tags["mlflow.note.content"]
    model = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model")
    assert len(model.predict(pd.DataFrame({"history": [["i1", "i2"]]}))["items"][0]) == 10


def test_the_same_file_finds_the_run_and_another_does_not(small_files, place, released):
    first = backbone(options(small_files, released))
    training = {"epochs": 3, "learning_rate": 0.1, "base_loss": "bce", "mask_seen": False}
    assert backbone(options(small_files, released, hidden_size=16, **training)).run_id == first.run_id
    assert backbone(options(small_files, released, exclude_seen=False)).run_id != first.run_id
    write_released_sasrec(released, ITEMS, seed=1)
    assert backbone(options(small_files, released)).run_id != first.run_id
    # It never stands for a trained student.
    trained = StudentConfig(**small_files, hidden_size=16, blocks=1, heads=1, max_length=10, output="linear", epochs=1)
    assert backbone(trained).run_id != first.run_id


def test_a_teacher_reads_its_states(taught, released):
    files = {name: taught.options[name] for name in ("dataset", "interactions", "items")}
    frozen = backbone(BaselineConfig(**files, released=str(released)))
    own = {"llm": str(taught.options["llm"]), "backbone_run_id": frozen.run_id, "token_budget": 300}
    config = TeacherConfig(**taught.options | own)
    run, data = teacher(config), data_of(config)
    assert mlflow.get_run(run.run_id).data.tags["recdistill.backbone_run_id"] == frozen.run_id
    assert len(teacher_outputs_of(run, data).sample) == data.num_trainable(config.exclude_seen)


def text(path: Path) -> None:
    path.write_text("no pickle")


def tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


def other_module(path: Path) -> None:
    torch.save(torch.nn.Linear(3, 3), path)


def missing(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (text, "is no pickled torch module"),
        (tensor, "it holds a tensor, not a module"),
        (other_module, "holds no released SASRec"),
        (missing, "No such file"),
    ],
)
def test_another_file_is_refused_in_one_line(small_files, place, released, capsys, spoil, said):
    spoil(released)
    assert run_step("backbone", **small_files, released=released) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert str(released) in error
    assert len(error.splitlines()) == 1
    run = place.newest()
    assert (run.info.status, run.data.tags["recdistill.failure"] in error) == ("FAILED", True)


def test_a_model_of_another_catalogue_is_refused(small_files, place, released):
    write_released_sasrec(released, ITEMS + 1)
    with pytest.raises(InputError, match=rf"^released={released}: is a SASRec of 41 items, this data has 40; give"):
        backbone(options(small_files, released))


@pytest.mark.parametrize("asked", [{"student": "gru4rec"}, {"hidden_size": 32}, {"output": "linear", "max_length": 7}])
def test_another_shape_is_refused(small_files, place, released, asked):
    name, value = next((name, value) for name, value in asked.items() if name != "output")
    with pytest.raises(InputError, match=f"^{name}={value}: the student in released=.* has .*; leave {name} out"):
        backbone(options(small_files, released, **asked))

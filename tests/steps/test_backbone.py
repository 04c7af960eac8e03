"""The undistilled student: what validation chooses, what is kept, and that it can be used."""

import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from workplace import run_step

from recdistill.config import StudentConfig, DataConfig, narrow
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.steps.backbone import backbone, key_of_backbone
from recdistill.steps.inputs import data_of
from recdistill.steps.student import masked, ranks_of, student_batches
from recdistill.students.build import load_student

SMALL = {"hidden_size": 16, "blocks": 1, "max_length": 8, "epochs": 8, "patience": 2, "dropout": 0.1, "batch_size": 16}


@pytest.fixture
def options(small_files, place):
    return small_files | SMALL


def test_the_kept_student_gives_the_ranks_and_metrics_of_the_best_epoch(options):
    config = StudentConfig(**options)
    run, data = backbone(config), data_of(config)
    student = load_student(run.artifact("student"))
    metrics, client = run.metrics(), MlflowClient()
    for part, samples in (("val", data.validation), ("test", data.test)):
        ranks = ranks_of(student, samples, config.exclude_seen, torch.device("cpu"))
        assert pd.read_parquet(run.artifact("ranks") / f"{part}.parquet")["rank"].tolist() == ranks.tolist()
        for name, value in metrics_from_ranks(ranks).items():
            assert metrics[f"{part}/{name}"] == pytest.approx(value, abs=1e-12)
    curve = {point.step: point.value for point in client.get_metric_history(run.run_id, "val/ndcg_at_10")}
    best = int(metrics["best_epoch"])
    last = max(curve)
    # The last point is that of the kept weights.
    assert curve[last] == curve[best] == max(curve.values())
    assert best == min(epoch for epoch, value in curve.items() if value == max(curve.values()))
    assert last == metrics["best_epoch"] + 1 + config.patience or last == config.epochs
    assert metrics["test/ndcg_at_10"] > 0.2  # items follow each other in a ring: this can be learnt
    assert metrics["train_seconds"] > 0
    assert metrics["ms_per_1000_recommendations"] > 0
    assert 0 < metrics["latency_ms"] < 1000


def test_test_is_measured_once_and_chooses_nothing(options):
    run = backbone(StudentConfig(**options))
    assert len(MlflowClient().get_metric_history(run.run_id, "test/ndcg_at_10")) == 1


@pytest.mark.parametrize("student", ["sasrec", "gru4rec", "caser"])
@pytest.mark.parametrize("base_loss", ["ce", "bce"])
def test_every_student_learns_under_every_loss(options, student, base_loss):
    config = StudentConfig(
        **options | {"student": student, "base_loss": base_loss, "epochs": 4, "learning_rate": 0.01}
    )
    run = backbone(config)
    losses = [point.value for point in MlflowClient().get_metric_history(run.run_id, "train/total")]
    assert losses[-1] < losses[0]
    assert load_student(run.artifact("student")).num_items == data_of(config).num_items


def test_the_softmax_leaves_out_whole_histories_where_rankings_do(options):
    config = StudentConfig(**options)
    data = data_of(config)
    train = data.train
    batch = next(student_batches(config, data, causal=True)(0))
    rows, items = masked(config, data, batch)
    assert (rows.diff() >= 0).all()
    longer = 0
    for row, sample in enumerate(batch.sample.tolist()):
        history = train.items[train.start[sample] : train.end[sample]].tolist()
        assert items[rows == row].tolist() == history
        longer += len(history) > config.max_length
    assert longer
    for changes in ({"mask_seen": False}, {"exclude_seen": False}, {"base_loss": "bce"}):
        assert masked(StudentConfig(**options | changes), data, batch) is None


def test_the_same_options_find_the_run_and_others_do_not(options):
    first = backbone(StudentConfig(**options))
    assert backbone(StudentConfig(**options)).run_id == first.run_id
    assert backbone(StudentConfig(**options, device="cpu")).run_id == first.run_id
    excluded = ({"exclude_seen": False}, {"mask_seen": False})
    for changes in (*excluded, {"seed": 2}, {"hidden_size": 8}, {"max_users": 20}, {"force": True}):
        assert backbone(StudentConfig(**options | changes)).run_id != first.run_id


def test_a_forced_run_is_the_same_to_the_last_bit(options):
    first = backbone(StudentConfig(**options))
    again = backbone(StudentConfig(**options, force=True))
    ours, theirs = (load_student(run.artifact("student")).state_dict() for run in (first, again))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_run_can_be_foretold(options):
    config = StudentConfig(**options)
    assert key_of_backbone(config, data_of(config).fingerprint) == backbone(config).key


@pytest.mark.parametrize("student", ["sasrec", "caser"])
@pytest.mark.parametrize("batch_size", [1, 3, 16, 1000])
def test_an_epoch_has_the_steps_its_batch_size_says(small_files, student, batch_size):
    config = StudentConfig(**small_files | SMALL | {"student": student, "batch_size": batch_size})
    data = data_of(config)
    for epoch in range(2):
        drawn = list(student_batches(config, data, causal=student != "caser")(epoch))
        assert len(drawn) == -(-len(data.train) // batch_size)
        assert sorted(torch.cat([batch.sample for batch in drawn]).tolist()) == list(range(len(data.train)))


def test_chronological_split(options):
    run = backbone(StudentConfig(**options, split="chronological"))
    table = pd.read_parquet(run.artifact("ranks") / "test.parquet")
    data = data_of(narrow(StudentConfig(**options, split="chronological"), DataConfig))
    assert len(table) == len(data.test)
    assert set(table.columns) == {"user", "item", "rank", "history_length", "item_count"}
    assert table["item_count"].tolist() == data.item_count[data.test.targets].tolist()


def test_from_the_command_line_the_step_has_the_users_own_run(options, place):
    assert run_step("backbone", **options) == 0
    runs = MlflowClient().search_runs(["0"])
    assert [run.data.tags["recdistill.step"] for run in runs] == ["backbone"]
    assert run_step("backbone", **options) == 0
    newest = place.newest()
    assert newest.data.tags["recdistill.reused_run_id"] == runs[0].info.run_id
    assert newest.data.metrics == runs[0].data.metrics

"""``recommend_spark``: the step around Spark; what Spark does is in tests/runs/test_spark_recommendations.py."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient

from recdistill.config import RecommendSparkConfig
from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError
from recdistill.runs.served_model import load_model, log_student_model, recommendations, register_student
from recdistill.runs.step_runs import step_run
from recdistill.steps.recommend_spark import recommend_spark
from recdistill.students.build import StudentShape, build_student

IDS = [str(item) for item in range(12)]
SHAPE = StudentShape("sasrec", 8, 0.1, 6, "tied", {"blocks": 1, "heads": 1})


@pytest.fixture
def spark():
    pytest.importorskip("pyspark", reason="needs pyspark: pip install 'recdistill[spark]'")
    if shutil.which("java") is None:
        pytest.skip("needs Java 17: install openjdk-17-jre-headless")
    yield
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is not None:
        session.stop()


@pytest.mark.slow
def test_a_table_of_whole_numbers_is_answered_as_by_the_model(place, spark):
    torch.manual_seed(0)
    catalogue = Catalogue(tuple(IDS), tuple(IDS), np.arange(12))
    table = pd.DataFrame({"user": ["a", "b", "c"], "day": [1, 2, 1], "history": [[1, 2], [3], []]})
    folder = place.folder / "histories"
    table.to_parquet(folder, partition_cols=["day"])
    options = {"histories": str(folder), "k": 4, "partition_by": "day", "master": "local[1]"}
    with step_run("recommend_spark", RecommendSparkConfig(**options), data="made up") as run:
        model = log_student_model(
            run.run_id, build_student(SHAPE, 12).eval(), SHAPE, catalogue=catalogue, exclude_seen=True
        )
    output = place.folder / "recommended"
    made = recommend_spark(RecommendSparkConfig(model=model, output=str(output), **options))
    found = pd.read_parquet(output).sort_values(["user", "rank"])
    histories = [[str(item) for item in items] for items in table["history"]]
    expected = recommendations(load_model(model), pd.DataFrame({"history": histories, "k": [4] * 3}))
    assert found.groupby("user")["item"].agg(list).tolist() == expected["items"].tolist()
    assert made.metrics()["recommend/histories"] == 3
    assert made.metrics()["recommend/recommendations"] == 12
    with pytest.raises(InputError, match="output="):
        recommend_spark(RecommendSparkConfig(model=model, output=str(output), **options))
    # The version to serve, by its alias, is the same model.
    MlflowClient().set_registered_model_alias("films", "champion", register_student(run.run_id, "films")[-1])
    champion = place.folder / "by the champion"
    again = recommend_spark(RecommendSparkConfig(model="models:/films@champion", output=str(champion), **options))
    assert MlflowClient().get_run(again.run_id).data.params["model"] == model
    by_alias = pd.read_parquet(champion).sort_values(["user", "rank"])
    pd.testing.assert_frame_equal(by_alias.reset_index(drop=True), found.reset_index(drop=True))


def test_what_is_missing_is_said_first():
    with pytest.raises(InputError, match="histories=: say where"):
        recommend_spark(RecommendSparkConfig(output="out"))
    with pytest.raises(InputError, match="output=: say where"):
        recommend_spark(RecommendSparkConfig(histories="in"))

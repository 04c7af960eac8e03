"""Recommendations on Spark: the answers of `recommend`, partitioned Parquet in and out, failed partitions retried."""

import shutil
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch

from recdistill.data.catalogue import Catalogue
from recdistill.data.histories import read_histories as table_of_recommend
from recdistill.data.text_columns import text
from recdistill.errors import InputError
from recdistill.runs import spark_recommendations as module
from recdistill.runs.served_model import load_model, log_student_model, recommendations
from recdistill.runs.spark_recommendations import (
    answer_of,
    asking_spark,
    check_partitions,
    check_spark,
    read_histories,
    reason_of,
    recommended,
    refuse_unknown_items,
    spark_session,
    write_partitions,
)
from recdistill.students.build import StudentShape, build_student

IDS = [f"item-{item}" for item in range(30)]
SHAPE = StudentShape("sasrec", 8, 0.1, 6, "tied", {"blocks": 1, "heads": 1})


@pytest.fixture
def address(client):
    """Of a model of random weights."""
    torch.manual_seed(0)
    run_id = client.create_run("0", tags={"recdistill.step": "distill"}).info.run_id
    catalogue = Catalogue(tuple(IDS), tuple(f"Amélie {item}" for item in range(30)), np.arange(30))
    return log_student_model(run_id, build_student(SHAPE, 30).eval(), SHAPE, catalogue=catalogue, exclude_seen=True)


@pytest.fixture(scope="module")
def spark():
    pytest.importorskip("pyspark", reason="needs pyspark: pip install 'recdistill[spark]'")
    if shutil.which("java") is None:
        pytest.skip("needs Java 17: install openjdk-17-jre-headless")
    session = spark_session("local[2,3]")
    yield session
    session.stop()


@pytest.fixture
def table(tmp_path):
    rows = [[IDS[row % 9], IDS[(3 * row + 1) % 30], "unknown"] for row in range(40)] + [[]]
    frame = pd.DataFrame({"user": [f"u{row}" for row in range(41)], "day": [row % 3 for row in range(41)]})
    frame["history"] = rows
    frame["k"] = [1 + row % 4 for row in range(40)] + [None]
    frame["exclude"] = [[IDS[row % 30]] if row % 2 else None for row in range(41)]
    frame["allowed_items"] = [IDS[:9] if row % 5 == 0 else None for row in range(41)]
    folder = tmp_path / "histories"
    frame.to_parquet(folder, partition_cols=["day"])
    return frame, folder


def expected_rows(address: str, frame: pd.DataFrame) -> list[tuple]:
    answers = recommendations(load_model(address), frame.assign(k=frame["k"].fillna(7)))
    return [
        (user, rank, item, title, pytest.approx(score, abs=1e-5), unknown, fallback)
        for user, items, titles, scores, unknown, fallback in zip(
            frame["user"], *(answers[name] for name in answers.columns), strict=True
        )
        for rank, (item, title, score) in enumerate(zip(items, titles, scores, strict=True), 1)
    ]


@pytest.mark.slow
def test_the_answers_are_those_of_recommend_though_a_partition_fails_once(address, spark, table, tmp_path):
    frame, folder = table
    read = read_histories(spark, str(folder), 7).repartition(4)

    def failing_once(parts):
        from pyspark import TaskContext

        context = TaskContext.get()
        if context.partitionId() == 1 and context.attemptNumber() == 0:
            (tmp_path / "failed").touch()
            raise RuntimeError("a partition that fails once")
        yield from parts

    failing = read.mapInPandas(failing_once, read.schema)
    rows = recommended(failing, answer_of(spark, failing, address))
    write_partitions(rows, str(tmp_path / "output"), ["day"])
    assert (tmp_path / "failed").exists()
    assert sorted(path.name for path in (tmp_path / "output").glob("day=*")) == ["day=0", "day=1", "day=2"]
    found = pd.read_parquet(tmp_path / "output")
    names = ["user", "rank", "item", "title", "score", "unknown_items", "fallback"]
    expected = expected_rows(address, frame)
    assert sorted(found[names].itertuples(index=False, name=None)) == sorted(expected, key=lambda row: row[:3])
    with pytest.raises(InputError, match="output="):
        write_partitions(rows, str(tmp_path / "output"), [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["double", "float", "bigint", "string"])
def test_ids_are_the_same_text_as_elsewhere(spark, tmp_path, kind):
    given = [[7, 50], [2], []] if kind == "bigint" else [["7", "x"]] if kind == "string" else [[7.0, 250.0], [2.0]]
    folder = str(tmp_path / "histories")
    spark.createDataFrame([(history,) for history in given], f"history array<{kind}>").write.parquet(folder)
    found = [row.history for row in read_histories(spark, folder, 5).collect()]
    expected = [list(map(text, history)) for history in given]
    assert sorted(map(str, found)) == sorted(map(str, expected))


@pytest.mark.slow
def test_bad_tables_are_refused_in_one_line(spark, tmp_path):
    from pyspark.sql.functions import lit

    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_histories(spark, str(tmp_path / "nowhere"), 10)
    pd.DataFrame({"user": ["a"]}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="has no column history; it has user"):
        read_histories(spark, str(tmp_path / "none.parquet"), 10)
    pd.DataFrame({"history": ["a"]}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(InputError, match="column history holds no lists"):
        read_histories(spark, str(tmp_path / "text.parquet"), 10)
    pd.DataFrame({"history": [[1, 2]], "rank": [1]}).to_parquet(tmp_path / "rank.parquet")
    frame = read_histories(spark, str(tmp_path / "rank.parquet"), 10)
    assert frame.first().history == ["1", "2"]
    assert frame.first().k == 10
    with pytest.raises(InputError, match="has a column 'rank'"):
        recommended(frame, lit(None))


NAN = float("nan")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"history": [["a"], ["b"], None]}, "history is None; give a list of item ids"),
        ({"history": [["a"], ["b"], ["c", None]]}, "history holds None; ids are text, or whole numbers"),
        ({"history": [[1.0], [2.0], [2.5]]}, "history holds .*2.5.*; ids are"),
        ({"history": [[1.0], [2.0], [NAN]]}, "history holds .*nan.*; ids are"),
        ({"history": [[1.0], [2.0], [2.0**60]]}, "history holds .*e.18.*; ids are"),
        ({"history": [[b"a"], [b"b"], [b"\xff"]]}, "history holds bytes that are no UTF-8 text; write text"),
        ({"history": [["a"]] * 3, "exclude": [["a"], None, [None]]}, "exclude holds None; ids are text"),
        ({"history": [["a"]] * 3, "allowed_items": [["a"], None, ["b", None]]}, "allowed_items holds None; ids are"),
    ],
)
def test_bad_lists_are_refused_before_a_student_is_asked_as_elsewhere(spark, tmp_path, columns, told):
    file = str(tmp_path / "t.parquet")
    pyarrow.parquet.write_table(pyarrow.table(columns | {"a `b`.c": ["x", "y", "z"]}), file)
    with pytest.raises(InputError, match=rf"^histories=.*: a row of t.parquet with a `b`\.c 'z': {told}"):
        read_histories(spark, file, 5)
    with pytest.raises(InputError, match=rf"^.*: row 3: {told}"):
        table_of_recommend(file)


@pytest.mark.slow
def test_lists_of_what_is_no_id_are_refused_by_their_type(spark, tmp_path):
    file = str(tmp_path / "t.parquet")
    for lists, kind in (([[True]], "boolean"), ([[["a"]]], "array<string>"), ([[Decimal("7.5")]], r"decimal\(2,1\)")):
        pyarrow.parquet.write_table(pyarrow.table({"history": lists}), file)
        with pytest.raises(InputError, match=f"column history holds lists of {kind}; ids are text, or whole numbers"):
            read_histories(spark, file, 5)
        with pytest.raises(InputError, match="row 1: history holds"):
            table_of_recommend(file)
    # Of a database.
    pyarrow.parquet.write_table(pyarrow.table({"history": [[Decimal("7")]]}), file)
    assert read_histories(spark, file, 5).first().history == ["7"]


def test_without_pyspark_or_java_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'recdistill\[spark\]'"):
        check_spark()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(InputError, match="needs Java 17"):
        check_spark()


def test_columns_to_partition_by_are_checked():
    check_partitions(["user", "day"], ["day"])
    with pytest.raises(InputError, match="partition_by=month: there is no such column; choose of user, day"):
        check_partitions(["user", "day"], ["month"])


def test_the_reason_is_the_line_of_python():
    of_python = (
        "Job aborted: org.apache.spark.PythonException: Traceback (most recent call last):\n"
        '  File "a.py", line 1, in f\n    raise KeyError("x")\nKeyError: \'x\'\n\nThe above exception\n\n'
        'Traceback (most recent call last):\n  File "a.py", line 2, in g\nmlflow.exceptions.MlflowException: k is 0\n'
        " SQLSTATE: 38000\n\tat org.apache.spark.api.python.Runner(Runner.scala:1)\nCaused by: x\n"
    )
    assert reason_of(of_python) == "mlflow.exceptions.MlflowException: k is 0"
    assert reason_of("An exception was thrown:\nTraceback (most recent call last):\n  File\nValueError: a\n") == (
        "ValueError: a"
    )
    of_java = "An error occurred while calling o7\n: Job aborted.\n\tat org.a\nCaused by: a\n\tat b\nCaused by: c: full"
    assert reason_of(of_java) == "c: full"
    assert reason_of("Job aborted\nmore") == "Job aborted"


@pytest.mark.slow
def test_what_failed_leaves_nothing_and_may_be_tried_again(spark, tmp_path, capfd):
    output = tmp_path / "output"
    rows = spark.createDataFrame([(1, "a")], "user bigint, item string")

    def failing(parts):
        raise RuntimeError("a partition that always fails")

    with pytest.raises(InputError, match=r"^output=.*output: Spark gave up \(RuntimeError: a partition that .*\)$"):
        write_partitions(rows.mapInPandas(failing, rows.schema), str(output), [])
    assert "at org.apache" not in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
    write_partitions(rows, str(output), [])
    assert pd.read_parquet(output)["item"].tolist() == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    with pytest.raises(InputError, match=r"^output=.*: is there already"):
        write_partitions(rows, str(output), [])


@pytest.mark.slow
def test_columns_of_any_name_are_kept(address, spark, tmp_path):
    names = ["user.id", "answer", "place", "found", "answer_", "Item", "K", "a `b`"]
    pd.DataFrame({name: [f"my {name}"] for name in names} | {"history": [[IDS[1]]]}).to_parquet(tmp_path / "t.parquet")
    frame = read_histories(spark, str(tmp_path / "t.parquet"), 2)
    write_partitions(recommended(frame, answer_of(spark, frame, address)), str(tmp_path / "output"), ["user.id"])
    found = pd.read_parquet(tmp_path / "output")
    assert len(found) == 2
    for name in names:
        assert set(found[name].astype(str)) == {f"my {name}"}


@pytest.mark.slow
@pytest.mark.parametrize("k", [[2.7, 1], ["x", "2"], [0, 1], [float("inf"), 1.0], [[1], [2]]])
def test_how_many_is_checked_as_elsewhere(spark, tmp_path, k):
    file = tmp_path / "t.parquet"
    pd.DataFrame({"history": [["a"]] * 2, "k": k}).to_parquet(file)
    with pytest.raises(InputError, match=r"^histories=.*: (k is .*|column k holds no numbers); give .*whole number"):
        read_histories(spark, str(file), 5)


@pytest.mark.slow
@pytest.mark.parametrize("k", [[3, None, 4], [" 3 ", "", None], [3.0, float("nan"), None]])
def test_how_many_is_read_as_elsewhere(spark, tmp_path, k):
    file = str(tmp_path / "t.parquet")
    pd.DataFrame({"history": [["a"]] * 3, "k": k}).to_parquet(file)
    expected = table_of_recommend(file)["k"].fillna(5).tolist()
    assert sorted(row.k for row in read_histories(spark, file, 5).collect()) == sorted(expected)


@pytest.mark.slow
def test_a_table_without_any_known_id_is_refused(address, spark, tmp_path):
    file = str(tmp_path / "t.parquet")

    def refused(*histories):
        pd.DataFrame({"history": list(histories)}).to_parquet(file)
        frame = read_histories(spark, file, 5)
        refuse_unknown_items(frame, answer_of(spark, frame, address), file, IDS)

    told = (
        r"^histories=.*: none of its 3 item ids is known to the model, which has ids as 'item-1'; a row begins with 'it"
    )
    with pytest.raises(InputError, match=told):
        refused(["itm-1", "itm-1"], [], ["itm-1"])
    refused(["itm-1"], [], [IDS[3]])
    refused([], [])
    with pytest.raises(InputError, match="holds no row"):
        refused()


@pytest.mark.slow
def test_what_spark_cannot_plan_is_one_line(spark):
    frame = spark.createDataFrame([(1,)], "user bigint")
    told = r"^histories=x: Spark cannot answer it \(.*nowhere.*\)$"
    with pytest.raises(InputError, match=told), asking_spark("histories=x: Spark cannot answer it"):
        frame.select("nowhere")

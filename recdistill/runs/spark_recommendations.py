"""Recommendations on Spark: a registered student as a function of columns, run by Spark in each partition.

Spark reads, distributes, retries and writes; the student is the model that MLflow serves, so that the answers are those
of `served_model.recommendations`. Needs the extra ``spark``, and Java 17 where Spark runs.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import mlflow

from recdistill.data.timestamps import EXACT_FLOAT
from recdistill.errors import InputError, one_line
from recdistill.runs.served_model import READ

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

ANSWER = "items array<string>, titles array<string>, scores array<double>, unknown_items bigint, fallback boolean"
#: Columns that the answer adds.
ADDED = ("rank", "item", "title", "score", "unknown_items", "fallback")
#: Attempts of a partition on one machine; a cluster has its own setting, spark.task.maxFailures.
LOCAL = "local[*,4]"


def check_spark() -> None:
    """Raise InputError where the extra or Java is missing."""
    if importlib.util.find_spec("pyspark") is None:
        raise InputError("recommend_spark: needs pyspark; pip install 'recdistill[spark]'")
    java = os.environ.get("JAVA_HOME")
    if not (java and os.path.isfile(os.path.join(java, "bin", "java"))) and shutil.which("java") is None:
        raise InputError("recommend_spark: needs Java 17, as Debian's openjdk-17-jre-headless; install it")


def spark_session(master: str = "") -> "SparkSession":
    """The session of spark-submit, or a new one. Raises InputError where Spark cannot start."""
    check_spark()
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    # Workers run this Python, not the first on the PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("recdistill recommend")
    if master or "PYSPARK_GATEWAY_PORT" not in os.environ:
        builder = builder.master(master or LOCAL)
    try:
        return builder.getOrCreate()
    except (PySparkException, RuntimeError, OSError) as error:
        raise InputError(f"master={master}: Spark does not start ({one_line(error, 200)})") from None


def read_histories(spark: "SparkSession", histories: str, k: int) -> "DataFrame":
    """A table of histories with the columns that a student reads, ids as text, ``k`` where there is none.

    Raises InputError where it cannot be read, or has no column ``history`` of lists.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import functions
    from pyspark.sql.types import ArrayType

    try:
        frame = spark.read.parquet(histories)
    except PySparkException as error:
        raise InputError(f"histories={histories}: cannot be read as Parquet ({one_line(error, 200)})") from None
    if "history" not in frame.columns:
        raise InputError(f"histories={histories}: has no column history; it has {', '.join(frame.columns) or 'none'}")
    for name in ("history", "exclude", "allowed_items"):
        if name in frame.columns:
            kind = frame.schema[name].dataType
            if not isinstance(kind, ArrayType):
                raise InputError(f"histories={histories}: column {name} holds no lists; give lists of item ids")
            frame = frame.withColumn(name, ids_as_text(functions.col(name), kind.elementType))
    given = functions.col("k").cast("bigint") if "k" in frame.columns else functions.lit(None).cast("bigint")
    return frame.withColumn("k", functions.coalesce(given, functions.lit(k).cast("bigint")))


def ids_as_text(ids: "Column", kind: "DataType") -> "Column":
    """Lists of ids of a type as lists of text: a whole float is the whole number that it stands for, as elsewhere."""
    from pyspark.sql import functions
    from pyspark.sql.types import DoubleType, FloatType

    if not isinstance(kind, DoubleType | FloatType):
        return ids.cast("array<string>")

    def text(value: "Column") -> "Column":
        whole = (value % 1 == 0) & (functions.abs(value) < EXACT_FLOAT)
        return functions.when(whole, value.cast("bigint").cast("string")).otherwise(value.cast("string"))

    return functions.transform(ids, text)


def recommended(spark: "SparkSession", frame: "DataFrame", model: str) -> "DataFrame":
    """One row a recommended item: the other columns of its history's row, then `ADDED`; lazily.

    Args:
        spark: the session.
        frame: of `read_histories`.
        model: address of a student's model.

    Raises:
        InputError: a column of the table is called as one of `ADDED` is.
    """
    from pyspark.sql import functions

    own = [name for name in frame.columns if name not in READ]
    if taken := [name for name in own if name in ADDED]:
        raise InputError(f"histories: has a column {taken[0]!r}, as the recommendations have; name it otherwise")
    answer = mlflow.pyfunc.spark_udf(spark, model, result_type=ANSWER, env_manager="local")
    read = [name for name in READ if name in frame.columns]
    answered = frame.withColumn("answer", answer(functions.struct(*read)))
    item = functions.posexplode(functions.arrays_zip("answer.items", "answer.titles", "answer.scores"))
    rows = answered.select(*own, "answer.unknown_items", "answer.fallback", item.alias("place", "found"))
    return rows.select(
        *own,
        (functions.col("place") + 1).alias("rank"),
        functions.col("found.items").alias("item"),
        functions.col("found.titles").alias("title"),
        functions.col("found.scores").alias("score"),
        "unknown_items",
        "fallback",
    )


def write_partitions(rows: "DataFrame", output: str, partition_by: Sequence[str]) -> None:
    """Write the rows as Parquet; they count when Spark has committed all of them.

    Raises InputError where something is there already, a column to partition by is missing, or a partition failed as
    often as Spark tries it.
    """
    from pyspark.errors import PySparkException

    check_partitions(rows.columns, partition_by)
    try:
        rows.write.mode("errorifexists").partitionBy(*partition_by).parquet(output)
    except Exception as error:
        if not isinstance(error, PySparkException) and type(error).__module__.partition(".")[0] != "py4j":
            raise
        raise InputError(f"output={output}: Spark gave up ({one_line(reason_of(error), 300)})") from None


def check_partitions(columns: Collection[str], partition_by: Sequence[str]) -> None:
    """Raise InputError for a column to partition by that the rows lack."""
    for name in partition_by:
        if name not in columns:
            raise InputError(f"partition_by={name}: there is no such column; choose of {', '.join(columns)}")


def reason_of(error: Any) -> str:
    """The line of Spark's message that says what went wrong in Python, where there is one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Exception: " in line and "org.apache" not in line), lines[0])

"""Recommendations on Spark: a registered student as a function of columns, run by Spark in each partition.

Spark reads, distributes, retries and writes; the student is the model that MLflow serves, so that the answers are those
of `served_model.recommendations`. Needs the extra ``spark``, and Java 17 where Spark runs.
"""

import importlib.util
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd

from recdistill.data.histories import ABSENT, LISTS, bad_k, how_many, none_known, text_ids
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
TRACE, CAUSE = "Traceback (most recent call last):", "Caused by: "


def check_spark() -> None:
    """Raise InputError where the extra or Java is missing."""
    if importlib.util.find_spec("pyspark") is None:
        raise InputError("recommend_spark: needs pyspark; pip install 'recdistill[spark]'")
    java = os.environ.get("JAVA_HOME")
    if not (java and os.path.isfile(os.path.join(java, "bin", "java"))) and shutil.which("java") is None:
        raise InputError("recommend_spark: needs Java 17, as Debian's openjdk-17-jre-headless; install it")


def spark_session(master: str = "") -> "SparkSession":
    """The session of spark-submit, the one that is running, or a new one. Raises InputError where Spark cannot start.

    A new one does not log, unless ``SPARK_CONF_DIR`` says how: a task that fails would fill the screen with a trace of
    Java at each try, and the last try's reason is the error's.
    """
    check_spark()
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    # Workers run this Python, not the first on the PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # As in every other reader two columns may differ by the case of their names alone.
    builder = SparkSession.builder.appName("recdistill recommend").config("spark.sql.caseSensitive", "true")
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if master or not submitted:
        builder = builder.master(master or LOCAL)
    logs = submitted or "SPARK_CONF_DIR" in os.environ or SparkSession.getActiveSession() is not None
    try:
        session = builder.getOrCreate()
        if not logs:
            session.sparkContext.setLogLevel("OFF")
        return session
    except (PySparkException, RuntimeError, OSError) as error:
        raise InputError(f"master={master}: Spark does not start ({one_line(error, 200)})") from None


@contextmanager
def asking_spark(begin: str) -> Iterator[None]:
    """What Spark refuses, in planning or in running, raised as InputError: one line that starts with ``begin``."""
    from pyspark.errors import PySparkException

    try:
        yield
    except Exception as error:
        if not isinstance(error, PySparkException) and type(error).__module__.partition(".")[0] != "py4j":
            raise
        raise InputError(f"{begin} ({one_line(reason_of(error), 300)})") from None


def read_histories(spark: "SparkSession", histories: str, k: int) -> "DataFrame":
    """A table of histories with the columns that a student reads, ids as text, ``k`` where there is none.

    Raises InputError, before any student is asked, where it cannot be read, has no row or no column ``history`` of
    lists, or where it has a list, an id or a ``k`` that `data.histories` refuses, too.
    """
    from pyspark.sql import functions

    with asking_spark(f"histories={histories}: cannot be read as Parquet"):
        frame = spark.read.parquet(histories)
        empty = frame.isEmpty()
    if "history" not in frame.columns:
        raise InputError(f"histories={histories}: has no column history; it has {', '.join(frame.columns) or 'none'}")
    if empty:
        raise InputError(f"histories={histories}: holds no row")
    kinds = {name: kind_of_ids(frame, histories, name) for name in LISTS if name in frame.columns}
    refuse_bad_lists(frame, histories, kinds)
    for name, kind in kinds.items():
        frame = frame.withColumn(name, ids_as_text(functions.col(name), kind))
    default = functions.lit(k).cast("bigint")
    return frame.withColumn(
        "k", functions.coalesce(given_k(frame, histories), default) if "k" in frame.columns else default
    )


def kind_of_ids(frame: "DataFrame", histories: str, column: str) -> "DataType":
    """The type of the values in a column of lists. Raises InputError for no lists, and for a type that no ids have."""
    from pyspark.sql import types

    kind = frame.schema[column].dataType
    if not isinstance(kind, types.ArrayType):
        raise InputError(f"histories={histories}: column {column} holds no lists; give lists of item ids")
    ids = kind.elementType
    # Whole numbers of a database come as decimals without a scale.
    whole = isinstance(ids, types.IntegralType) or (isinstance(ids, types.DecimalType) and ids.scale == 0)
    text = isinstance(ids, types.StringType | types.BinaryType)
    if not (whole or text or isinstance(ids, types.FloatType | types.DoubleType | types.NullType)):
        told = f"column {column} holds lists of {ids.simpleString()}; ids are text, or whole numbers"
        raise InputError(f"histories={histories}: {told}")
    return ids


def refuse_bad_lists(frame: "DataFrame", histories: str, kinds: Mapping[str, "DataType"]) -> None:
    """Raise InputError for a list that `data.histories` refuses; one filter by Spark's own functions, no Python.

    A table of Spark has no order and a row no number: the message names its file, and the first of its own columns.

    Args:
        frame: as Spark reads it.
        histories: where it was read, for the message.
        kinds: columns of lists, each with the type of their values.
    """
    from pyspark.sql import functions

    bad = functions.lit(False)
    for name, kind in kinds.items():
        # Null where there is no list.
        holds_bad = functions.exists(functions.col(name), no_id(kind))
        bad = bad | functions.coalesce(holds_bad, functions.lit(name not in ABSENT))
    own = [name for name in frame.columns if name not in READ][:1]
    shown = [functions.col(quoted(name)).cast("string").alias("own") for name in own]
    with asking_spark(f"histories={histories}: the lists of item ids cannot be read"):
        found = frame.filter(bad).select(functions.input_file_name().alias("file"), *shown, *kinds).first()
    if found is None:
        return
    place = f"histories={histories}: a row of {found['file'].rpartition('/')[2]}"
    place += f" with {own[0]} {found['own']!r}" if own else ""
    for name in kinds:
        value = found[name]
        items = [bytes(item) if isinstance(item, bytearray) else item for item in value] if value is not None else None
        text_ids(place, name, items)


def no_id(kind: "DataType") -> "Callable[[Column], Column]":
    """What says of a value in a list, of a type, whether it is none that `data.histories` takes for an id."""
    from pyspark.sql import functions
    from pyspark.sql.types import BinaryType, DoubleType, FloatType

    if isinstance(kind, BinaryType):
        return lambda item: item.isNull() | ~functions.is_valid_utf8(item)
    if isinstance(kind, DoubleType | FloatType):
        return lambda item: item.isNull() | ~is_whole(item)
    return lambda item: item.isNull()


def is_whole(value: "Column") -> "Column":
    """Whether a float stands for one whole number."""
    from pyspark.sql import functions

    whole: Column = (value % 1 == 0) & (functions.abs(value) < EXACT_FLOAT)
    return whole


def given_k(frame: "DataFrame", histories: str) -> "Column":
    """The column ``k`` of a table as whole numbers, null where empty. Raises InputError for another value in it."""
    from pyspark.sql import functions
    from pyspark.sql.types import BooleanType, NumericType, StringType

    kind = frame.schema["k"].dataType
    if not isinstance(kind, BooleanType | NumericType | StringType):
        raise InputError(f"histories={histories}: column k holds no numbers; give whole numbers of at least 1")
    given = functions.col("k") if isinstance(kind, StringType) else functions.col("k").cast("double")

    def bad(tables: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for table in tables:
            yield table[how_many(table["k"])[1]]

    def number(column: pd.Series) -> pd.Series:
        return how_many(column)[0]

    only = frame.select(given.alias("k"))
    with asking_spark(f"histories={histories}: column k cannot be read"):
        found = only.mapInPandas(bad, only.schema).first()
    if found is not None:
        raise InputError(f"histories={histories}: {bad_k(found['k'])}")
    if isinstance(kind, StringType):
        as_column: Any = functions.pandas_udf
        given = as_column(number, "double")(given)
    return functions.when(~functions.isnan(given), given).cast("bigint")


def ids_as_text(ids: "Column", kind: "DataType") -> "Column":
    """Lists of ids of a type as lists of text: a whole float is the whole number that it stands for, as elsewhere."""
    from pyspark.sql import functions
    from pyspark.sql.types import DoubleType, FloatType

    if not isinstance(kind, DoubleType | FloatType):
        return ids.cast("array<string>")

    def text(value: "Column") -> "Column":
        return functions.when(is_whole(value), value.cast("bigint").cast("string")).otherwise(value.cast("string"))

    return functions.transform(ids, text)


def answer_of(spark: "SparkSession", frame: "DataFrame", model: str) -> "Column":
    """What the student at an address answers to a row of `read_histories`: a struct as `ANSWER`."""
    from pyspark.sql import functions

    answer = mlflow.pyfunc.spark_udf(spark, model, result_type=ANSWER, env_manager="local")
    found: Column = answer(functions.struct(*(name for name in READ if name in frame.columns)))
    return found


def refuse_unknown_items(frame: "DataFrame", answer: "Column", histories: str, item_ids: Sequence[str]) -> None:
    """Raise InputError where the table has ids, and the model knows none of them; ends at the first that it knows.

    Args:
        frame: of `read_histories`.
        answer: of `answer_of`.
        histories: where it was read, for the message.
        item_ids: some of the ids that the model knows.
    """
    from pyspark.sql import functions

    given = frame.filter(functions.size("history") > 0)
    if given.select(answer["fallback"].alias("fallback")).filter(~functions.col("fallback")).first() is not None:
        return
    first = given.select("history").first()
    if first is not None:
        count = given.select(functions.explode("history")).count()
        raise none_known(histories, count, "a row", str(first["history"][0]), item_ids)


def recommended(frame: "DataFrame", answer: "Column") -> "DataFrame":
    """One row a recommended item: the other columns of its history's row, then `ADDED`; lazily.

    Args:
        frame: of `read_histories`.
        answer: of `answer_of`.

    Raises:
        InputError: a column of the table is called as one of `ADDED` is.
    """
    from pyspark.sql import functions

    own = own_columns(frame.columns)
    # Beside columns of a person, which may have any name.
    given, place, found = (free_name(name, frame.columns) for name in ("answer", "place", "found"))
    items = functions.arrays_zip(*(f"{given}.{name}" for name in ("items", "titles", "scores")))
    about = [f"{given}.{name}" for name in ("unknown_items", "fallback")]
    answered = frame.withColumn(given, answer)
    rows = answered.select(*own, *about, functions.posexplode(items).alias(place, found))
    return rows.select(
        *own,
        (functions.col(place) + 1).alias("rank"),
        functions.col(f"{found}.items").alias("item"),
        functions.col(f"{found}.titles").alias("title"),
        functions.col(f"{found}.scores").alias("score"),
        "unknown_items",
        "fallback",
    )


def own_columns(names: Sequence[str]) -> list[str]:
    """The columns that no student reads, each `quoted`. Raises InputError for one that is added.

    >>> own_columns(["user.id", "history", "k"])
    ['`user.id`']
    """
    own = [name for name in names if name not in READ]
    if taken := [name for name in own if name in ADDED]:
        raise InputError(f"histories: has a column {taken[0]!r}, as the recommendations have; name it otherwise")
    return list(map(quoted, own))


def quoted(name: str) -> str:
    """The name of a column as Spark's language has it, where a name may hold a point.

    >>> quoted("user.id")
    '`user.id`'
    """
    return "`{}`".format(name.replace("`", "``"))


def free_name(name: str, taken: Collection[str]) -> str:
    """A name that a table does not have.

    >>> free_name("answer", ["answer", "history"])
    'answer_'
    """
    while name in taken:
        name += "_"
    return name


def write_partitions(rows: "DataFrame", output: str, partition_by: Sequence[str]) -> None:
    """Write the rows as Parquet, which takes its name when Spark has committed all of it, and else is removed.

    Raises InputError where something is there already, a column to partition by is missing, or a partition failed as
    often as Spark tries it.
    """
    check_partitions(rows.columns, partition_by)
    spark = rows.sparkSession
    refuse_existing(spark, output)
    with asking_spark(f"output={output}: Spark gave up"):
        system, place = hadoop_place(spark, output)
        # Beside it: a file system renames only within itself. Readers of folders leave out what begins with a point.
        name = f".{place.getName()}.{uuid.uuid4().hex[:8]}.partial"
        partial = hadoop_path(spark, place.getParent(), name)
        try:
            rows.write.mode("errorifexists").partitionBy(*partition_by).parquet(partial.toString())
            # Another command may have been first: what is moved to a folder that is there lands inside of it.
            refuse_existing(spark, output)
            if not system.rename(partial, place):
                raise InputError(f"output={output}: cannot be written to; give another one")
        finally:
            # Where Spark itself is gone nothing can be removed.
            with suppress(Exception):
                system.delete(partial, True)


def refuse_existing(spark: "SparkSession", output: str) -> None:
    """Raise InputError where something is at the address to write to."""
    with asking_spark(f"output={output}: cannot be looked at"):
        system, place = hadoop_place(spark, output)
        there = system.exists(place)
    if there:
        raise InputError(f"output={output}: is there already; give another one, or remove it")


def hadoop_place(spark: "SparkSession", address: str) -> tuple[Any, Any]:
    """The file system of an address and its absolute path there, of Hadoop, as Spark itself has them."""
    path = hadoop_path(spark, address)
    system = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    return system, system.makeQualified(path)


def hadoop_path(spark: "SparkSession", *parts: Any) -> Any:
    """A path of Hadoop: of an address, or of a folder's path and a name in it."""
    machine: Any = spark.sparkContext._jvm
    return machine.org.apache.hadoop.fs.Path(*parts)


def check_partitions(columns: Collection[str], partition_by: Sequence[str]) -> None:
    """Raise InputError for a column to partition by that the rows lack."""
    for name in partition_by:
        if name not in columns:
            raise InputError(f"partition_by={name}: there is no such column; choose of {', '.join(columns)}")


def reason_of(error: Any) -> str:
    """The line of Spark's message that says what went wrong.

    Of a failure in Python it is the error after the last trace, else of Java the last cause, else the first line.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    traces = [place for place, line in enumerate(lines) if TRACE in line]
    after = [line for line in lines[traces[-1] + 1 :] if not line[0].isspace()] if traces else []
    causes = [line for line in lines if line.startswith(CAUSE)]
    return (after[0] if after else causes[-1].removeprefix(CAUSE) if causes else lines[0]).strip()

"""``recommend_spark``: what a finished student recommends for a table of histories, computed by Spark."""

import hashlib

from recdistill.config import changed
from recdistill.config.recommend_spark import RecommendSparkConfig
from recdistill.errors import InputError
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import address_of, example_items, load_model
from recdistill.runs.spark_recommendations import (
    answer_of,
    asking_spark,
    check_partitions,
    check_spark,
    read_histories,
    recommended,
    refuse_existing,
    refuse_unknown_items,
    spark_session,
    write_partitions,
)
from recdistill.runs.step_runs import step_run


def recommend_spark(config: RecommendSparkConfig) -> StepRun:
    """Rank items for each history, and write a row an item as partitioned Parquet; a run says what was made."""
    for name in ("histories", "output"):
        if not getattr(config, name):
            raise InputError(f"{name}=: say where; set {name}=<folder of Parquet>")
    check_spark()
    model = load_model(config.model)
    address = address_of(model)
    spark = spark_session(config.master)
    refuse_existing(spark, config.output)
    frame = read_histories(spark, config.histories, config.k)
    fingerprint = hashlib.sha256(config.histories.encode()).hexdigest()
    partition_by = [name.strip() for name in config.partition_by.split(",") if name.strip()]
    with asking_spark(f"histories={config.histories}: Spark cannot answer it"):
        answer = answer_of(spark, frame, address)
        rows = recommended(frame, answer)
        check_partitions(rows.columns, partition_by)
        refuse_unknown_items(frame, answer, config.histories, example_items(model))
    # The table may have changed under its name: there is no run to take in place of a new one.
    with step_run("recommend_spark", changed(config, model=address, force=True), data=fingerprint) as run:
        write_partitions(rows, config.output, partition_by)
        with asking_spark(f"output={config.output}: cannot be counted"):
            # By its columns: where nothing was recommended there is no file to tell them.
            count, histories = spark.read.schema(rows.schema).parquet(config.output).count(), frame.count()
        run.log_metrics({"recommend/histories": histories, "recommend/recommendations": count})
    print(f"{count:,} recommendations in {config.output}", flush=True)
    return run

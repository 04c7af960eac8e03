"""``recommend_spark``: what a finished student recommends for a table of histories, computed by Spark."""

import hashlib

from recdistill.config import changed
from recdistill.config.recommend_spark import RecommendSparkConfig
from recdistill.errors import InputError
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import address_of, load_model
from recdistill.runs.spark_recommendations import (
    check_spark,
    read_histories,
    recommended,
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
    address = address_of(load_model(config.model))
    spark = spark_session(config.master)
    frame = read_histories(spark, config.histories, config.k)
    fingerprint = hashlib.sha256(config.histories.encode()).hexdigest()
    partition_by = [name.strip() for name in config.partition_by.split(",") if name.strip()]
    # The table may have changed under its name: there is no run to take in place of a new one.
    with step_run("recommend_spark", changed(config, model=address, force=True), data=fingerprint) as run:
        write_partitions(recommended(spark, frame, address), config.output, partition_by)
        count = spark.read.parquet(config.output).count()
        run.log_metrics({"recommend/histories": frame.count(), "recommend/recommendations": count})
    print(f"{count:,} recommendations in {config.output}", flush=True)
    return run

"""``recommend``: what a finished student recommends for a file of histories."""

import hashlib
from pathlib import Path

import pandas as pd

from recdistill.config import RecommendConfig, changed
from recdistill.config.paths import place_to_write
from recdistill.data.histories import (
    FORMATS,
    read_histories,
    recommended_rows,
    refuse_unknown_items,
    write_recommendations,
)
from recdistill.errors import InputError
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import address_of, example_items, load_model, recommendations
from recdistill.runs.step_runs import step_run

KEPT = "recommendations/recommendations.parquet"


def recommend(config: RecommendConfig) -> StepRun:
    """Rank items for each history, keep them in the run, and write them to ``output``, a row an item."""
    output = output_path(config)
    table = read_histories(config.histories)
    table["k"] = (table["k"].fillna(config.k) if "k" in table else pd.Series(config.k, table.index)).astype("int64")
    model = load_model(config.model)
    fingerprint = hashlib.sha256(Path(config.histories).expanduser().read_bytes()).hexdigest()
    with step_run("recommend", changed(config, model=address_of(model)), data=fingerprint) as run:
        if not run.reused:
            answers = recommendations(model, table)
            refuse_unknown_items(config.histories, table, answers["unknown_items"], example_items(model))
            rows = recommended_rows(table, answers)
            counts = {"histories": len(table), "unknown_items": answers["unknown_items"].sum()}
            counts |= {"fallbacks": answers["fallback"].sum(), "recommendations": len(rows)}
            run.log_metrics({f"recommend/{name}": float(count) for name, count in counts.items()})
            run.log_folder(Path(KEPT).parent.name, lambda folder: keep(folder, rows))
    write_recommendations(pd.read_parquet(run.artifact(KEPT)), output)
    said = {name.partition("/")[2]: int(value) for name, value in run.metrics().items()}
    print(
        f"{said['recommendations']:,} recommendations for {said['histories']:,} histories in {output}; "
        f"{said['unknown_items']:,} unknown items skipped, {said['fallbacks']:,} histories without a known item"
    )
    return run


def output_path(config: RecommendConfig) -> Path:
    """Where to write to. Raises InputError, before any work, where that cannot be."""
    path = place_to_write(config, "output")
    if path.suffix not in FORMATS:
        raise InputError(f"output={config.output}: must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise InputError(f"output={config.output}: there is no folder {path.parent}; make it first")
    return path


def keep(folder: Path, rows: pd.DataFrame) -> None:
    """The artifact folder."""
    folder.mkdir()
    write_recommendations(rows, folder / Path(KEPT).name)

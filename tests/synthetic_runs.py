"""Finished evaluated runs as the steps leave them, without training: for tests and benchmarks of the store."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from recdistill.config import STEPS, config_of
from recdistill.config.lineage import key_parts


class Samples:
    """N targets of users, and ranks whose HR@10 is near 0.2, as on MovieLens-100K."""

    def __init__(self, users: int = 943, seed: int = 0, each: int = 1) -> None:
        generator = np.random.default_rng(seed)
        rows = users * each
        self.difficulty = generator.normal(4.3, 2.0, rows)
        self.table = pd.DataFrame(
            {
                "user": np.repeat([f"u{user}" for user in range(users)], each),
                "item": [f"i{item}" for item in generator.integers(500, size=rows)],
                "history_length": generator.integers(1, 200, rows),
                "item_count": generator.poisson(generator.gamma(0.8, 60, rows)),
            }
        )

    def ranks(self, seed: int, gain: float = 0.0, noise: float = 0.6) -> np.ndarray:
        """Ranks int64 [N]: each user's difficulty, less ``gain``, with a noise that is the training's."""
        drawn = np.random.default_rng(seed).normal(0, noise, len(self.difficulty))
        return np.clip(np.exp(self.difficulty - gain + drawn), 1, 1682).astype(np.int64)


def add_run(
    client: MlflowClient,
    samples: Samples,
    step: str,
    ranks: np.ndarray,
    *,
    tags: dict[str, str] | None = None,
    fingerprint: str = "f" * 64,
    status: str = "FINISHED",
    name: str = "",
    experiment: str = "0",
    parts: tuple[str, ...] = ("val", "test"),
    old: bool = False,
    spelt: dict[str, str] | None = None,
    **options: object,
) -> str:
    """Id of a new run of ``step`` with these ranks on ``parts``, and ``options`` that are not the defaults.

    An ``old`` run keeps no ``key.json``, as recdistill 0.1 did; ``spelt`` are parameters as a user wrote them.
    """
    config = config_of(STEPS[step], options)
    run = client.create_run(experiment, run_name=name or step)
    run_id = run.info.run_id
    own = {"recdistill.step": step, "recdistill.fingerprint": fingerprint, **(tags or {})}
    client.log_batch(
        run_id,
        metrics=[Metric("test/hr_at_10", float((ranks <= 10).mean()), run.info.start_time, 0)],
        params=[Param(option, str(value)) for option, value in (config.values() | (spelt or {})).items()],
        tags=[RunTag(tag, value) for tag, value in own.items()],
    )
    with tempfile.TemporaryDirectory() as folder:
        kept = {"config.json": config.values()}
        if not old:
            kept["key.json"] = key_parts(step, config, fingerprint)
        for file, values in kept.items():
            (Path(folder) / file).write_text(json.dumps(values))
        if parts:
            (Path(folder) / "ranks").mkdir()
        for part in parts:
            samples.table.assign(rank=ranks).to_parquet(Path(folder) / "ranks" / f"{part}.parquet")
        client.log_artifacts(run_id, folder)
    client.set_terminated(run_id, status)
    return run_id

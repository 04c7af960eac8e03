"""The data of a run as MLflow inputs, one for train, validation and test: name, digest, schema and profile."""

import json
from typing import Any

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset
from mlflow.types import ColSpec, DataType, Schema

from recdistill.data.sequences import SequenceData
from recdistill.runs.outbox import post
from recdistill.runs.writes import Write

DIGEST_LENGTH = 32
#: Each part, by its name in metrics, and what it is for.
CONTEXTS = {"train": "training", "val": "validation", "test": "test"}
#: Of an MLflow data set.
FIELDS = ("name", "digest", "source_type", "source", "schema", "profile")
SCHEMA = Schema(
    [ColSpec(DataType.string, "user"), ColSpec(DataType.string, "item"), ColSpec(DataType.long, "timestamp")]
)


class SplitDataset(MetaDataset):
    """What MLflow shows of a part of a `SequenceData`; its digest is the head of the fingerprint.

    Args:
        data: the data set.
        part: of `CONTEXTS`.
    """

    def __init__(self, data: SequenceData, part: str) -> None:
        samples = {"train": data.train, "val": data.validation, "test": data.test}[part]
        self._profile = {
            "users": len(data.user_ids),
            "items": data.num_items,
            "samples": len(samples),
            "split": data.split,
            "part": CONTEXTS[part],
            "fingerprint": data.fingerprint,
        }
        source = CodeDatasetSource(tags={"dataset": data.name, "split": data.split})
        name, digest = measured_on(data)[part]
        super().__init__(source=source, name=name, digest=digest, schema=SCHEMA)

    @property
    def profile(self) -> dict[str, Any]:
        """Sizes, split and fingerprint."""
        return self._profile

    def to_dict(self) -> dict[str, str]:
        """What MLflow stores: that of `MetaDataset`, and the profile."""
        return super().to_dict() | {"profile": json.dumps(self.profile)}

    def entity(self) -> Dataset:
        """For ``MlflowClient.log_inputs``."""
        return self._to_mlflow_entity()


def measured_on(data: SequenceData) -> dict[str, tuple[str, str]]:
    """Name and digest of the MLflow data set of each part, by the part's name in metrics: train, val, test."""
    return {part: (f"{data.name} {part}", data.fingerprint[:DIGEST_LENGTH]) for part in CONTEXTS}


def log_data(run_id: str, data: SequenceData) -> None:
    """Log the parts of the data as inputs of the run, in one call."""
    given = []
    for part, context in CONTEXTS.items():
        entity = SplitDataset(data, part).entity()
        given.append({name: getattr(entity, name) for name in FIELDS} | {"context": context})
    post(Write("inputs", run_id, {"datasets": given}))

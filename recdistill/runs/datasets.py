"""The data of a run as an MLflow input: name, digest, schema and profile."""

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
#: Of an MLflow data set.
FIELDS = ("name", "digest", "source_type", "source", "schema", "profile")
SCHEMA = Schema(
    [ColSpec(DataType.string, "user"), ColSpec(DataType.string, "item"), ColSpec(DataType.long, "timestamp")]
)


class SplitDataset(MetaDataset):
    """What MLflow shows of a `SequenceData`; its digest is the head of the fingerprint."""

    def __init__(self, data: SequenceData) -> None:
        self._profile = {
            "users": len(data.user_ids),
            "items": data.num_items,
            "training_samples": len(data.train),
            "validation_samples": len(data.validation),
            "test_samples": len(data.test),
            "split": data.split,
            "fingerprint": data.fingerprint,
        }
        source = CodeDatasetSource(tags={"dataset": data.name, "split": data.split})
        super().__init__(source=source, name=data.name, digest=data.fingerprint[:DIGEST_LENGTH], schema=SCHEMA)

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


def log_data(run_id: str, data: SequenceData) -> None:
    """Log the data as an input of the run."""
    entity = SplitDataset(data).entity()
    post(Write("input", run_id, {name: getattr(entity, name) for name in FIELDS}))

"""A short training of a seed of a student. Imported by worker processes too."""

import hashlib

import numpy as np

from recdistill.config import BaselineConfig, DataConfig
from recdistill.data.interactions import Interactions
from recdistill.data.load import split_data
from recdistill.students.training import fit_recommender
from recdistill.training.recorder import NoRecorder


def digest_of_seed(seed: int) -> str:
    """SHA-256 of the weights of a SASRec that was trained with dropout for two epochs."""
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(20), 12)
    data = split_data(
        Interactions(
            user=user,
            item=random.integers(25, size=len(user)),
            timestamp=np.tile(np.arange(12), 20),
            user_ids=tuple(map(str, range(20))),
            item_ids=tuple(map(str, range(25))),
            titles=tuple(map(str, range(25))),
            source="drawn",
        ),
        DataConfig(),
    )
    config = BaselineConfig(hidden_size=8, max_length=6, batch_size=16, epochs=2, dropout=0.2, seed=seed)
    model = fit_recommender(config, data, recorder=NoRecorder()).model
    return hashlib.sha256(b"".join(one.numpy().tobytes() for one in model.state_dict().values())).hexdigest()

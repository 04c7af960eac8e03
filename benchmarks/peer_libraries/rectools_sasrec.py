"""SASRec of RecTools, for `benchmarks/peers.py`; runs in an environment with it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from measurement import (
    BLOCKS,
    DROPOUT,
    HEADS,
    HIDDEN,
    LENGTH,
    WINDOWS,
    Training,
    callback_of,
    parse_arguments,
    peak_mib,
    print_line,
    read_split,
)
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    seed_everything(arguments.seed)
    split = read_split(arguments.data)
    user = np.repeat(np.arange(len(split.train)), [len(items) for items in split.train])
    moment = np.concatenate([np.arange(len(items)) for items in split.train])
    columns = {Columns.User: user, Columns.Item: np.concatenate(split.train), Columns.Weight: 1}
    table = pd.DataFrame(columns | {Columns.Datetime: pd.Timestamp("2000-01-01") + pd.to_timedelta(moment, unit="s")})

    # A window in the library's numbers: 0 pads it on its left.
    def score(histories: Sequence[np.ndarray]) -> np.ndarray:
        known = pd.Series(model.data_preparator.get_known_items_sorted_internal_ids(), known_items())
        windows = np.zeros((len(histories), LENGTH), dtype=np.int64)
        for row, items in enumerate(histories):
            found = known.reindex(items).dropna().to_numpy(np.int64)[-LENGTH:]
            windows[row, LENGTH - len(found) :] = found
        network = model.lightning_model.torch_model.eval()
        with torch.no_grad():
            vectors = network.item_model.get_all_embeddings()
            states = network.encode_sessions({"x": torch.from_numpy(windows)}, vectors)[:, -1]
            found = (states @ vectors.T).numpy()
        scores = np.full((len(histories), split.num_items), -np.inf, dtype=np.float32)
        scores[:, known.index.to_numpy(np.int64)] = found[:, known.to_numpy()]
        return scores

    def known_items() -> np.ndarray:
        return np.asarray(model.data_preparator.get_known_item_ids(), dtype=np.int64)

    training = Training(
        arguments.seconds,
        arguments.patience,
        score,
        lambda: model.lightning_model.torch_model.state_dict(),
        split,
    )
    clocked = callback_of(Callback, training, lambda batch: int((batch["y"] != 0).sum()))
    model = SASRecModel(
        n_blocks=BLOCKS,
        n_heads=HEADS,
        n_factors=HIDDEN,
        dropout_rate=DROPOUT,
        session_max_len=LENGTH,
        batch_size=WINDOWS,
        loss="softmax",
        get_trainer_func=lambda: Trainer(
            max_epochs=-1,
            accelerator="cpu",
            devices=1,
            callbacks=[clocked],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ),
    )
    before = peak_mib()
    # The trainer is copied by `fit`, its callback with it: the clock must stay one.
    type(clocked).__deepcopy__ = lambda self, memory: self
    model.fit(Dataset.construct(table))
    training.end_epoch()
    model.lightning_model.torch_model.load_state_dict(training.kept)
    settings = f"dropout {DROPOUT}, Adam 0.001, one window a user, all but its last {LENGTH + 1} items left out"
    print_line(training, before, len(known_items()), ("rectools", "torch", "numpy"), settings)


if __name__ == "__main__":
    main()

"""SASRec of RecBole, for `benchmarks/peers.py`; runs in an environment with it."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import (
    BLOCKS,
    DROPOUT,
    HEADS,
    HIDDEN,
    LENGTH,
    WINDOWS,
    Split,
    Training,
    parse_arguments,
    peak_mib,
    print_line,
    read_split,
)
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

NAME = "log"


class Clocked:
    """The batches of an epoch, up to the end of the time."""

    def __init__(self, batches: Any, training: Training) -> None:
        self.batches, self.training = batches, training

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield batch
            # Comes back after the step.
            if not self.training.step(len(batch)):
                return


def write_atomic(split: Split, folder: Path) -> None:
    """Write the log as RecBole's atomic file, the validation and test items of each user last."""
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, (items, last) in enumerate(zip(split.test_histories, split.test, strict=True)):
        lines += [f"{user}\t{item}\t{moment}" for moment, item in enumerate([*items, last])]
    (folder / NAME).mkdir()
    (folder / NAME / f"{NAME}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


def config_of(folder: Path, seed: int) -> Config:
    """Options: those of the library but for the layout, one thread, and the split."""
    options = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "train_neg_sample_args": None,
        "train_batch_size": WINDOWS,
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "hidden_size": HIDDEN,
        "n_layers": BLOCKS,
        "n_heads": HEADS,
        "hidden_dropout_prob": DROPOUT,
        "attn_dropout_prob": DROPOUT,
        "loss_type": "CE",
        "seed": seed,
        "use_gpu": False,
        "show_progress": False,
    }
    return Config(model="SASRec", dataset=NAME, config_dict=options)


def main() -> None:
    arguments = parse_arguments()
    arguments.data = arguments.data.resolve()
    split = read_split(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        write_atomic(split, Path(folder))
        # Its options are read from the command line too, and its logs are written to the current folder.
        sys.argv = sys.argv[:1]
        os.chdir(folder)
        train(arguments, split, config_of(Path(folder), arguments.seed))


def train(arguments: Any, split: Split, config: Config) -> None:
    """Train by the library's own epochs, and print the line."""
    init_seed(config["seed"], config["reproducibility"])
    torch.set_num_threads(1)
    dataset = create_dataset(config)
    batches, _, _ = data_preparation(config, dataset)
    network = get_model("SASRec")(config, batches.dataset)
    trainer = Trainer(config, network)
    tokens = np.array([0, *dataset.field2id_token["item_id"][1:].astype(np.int64)])
    number = np.zeros(split.num_items, dtype=np.int64)
    number[tokens[1:]] = np.arange(1, len(tokens))

    def score(histories: Sequence[np.ndarray]) -> np.ndarray:
        windows = np.zeros((len(histories), LENGTH), dtype=np.int64)
        for row, items in enumerate(histories):
            windows[row, : min(LENGTH, len(items))] = number[items[-LENGTH:]]
        lengths = np.array([min(LENGTH, len(items)) for items in histories])
        batch = {"item_id_list": torch.from_numpy(windows), "item_length": torch.from_numpy(lengths)}
        network.eval()
        with torch.no_grad():
            found = network.full_sort_predict(Interaction(batch)).numpy()
        scores = np.full((len(histories), split.num_items), -np.inf, dtype=np.float32)
        scores[:, tokens[1:]] = found[:, 1:]
        return scores

    training = Training(arguments.seconds, arguments.patience, score, network.state_dict, split)
    before = peak_mib()
    training.start()
    goes_on = True
    while goes_on:
        trainer._train_epoch(Clocked(batches, training), training.epochs)
        goes_on = training.end_epoch()
    network.load_state_dict(training.kept)
    settings = (
        f"dropout {DROPOUT}, Adam 0.001, every prefix a window of one target, {WINDOWS} a batch, "
        f"{config['inner_size']} units within a block"
    )
    print_line(training, before, len(tokens) - 1, ("recbole", "torch", "numpy"), settings)


if __name__ == "__main__":
    main()

"""SASRec of this package, for `benchmarks/peers.py`: as it trains by default, or in the layout of the others."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from measurement import (
    BLOCKS,
    DROPOUT,
    HEADS,
    HIDDEN,
    LENGTH,
    WINDOWS,
    Training,
    parse_arguments,
    peak_mib,
    print_line,
    read_split,
)

from recdistill.config import DataConfig, StudentConfig
from recdistill.data.batches import Batch
from recdistill.data.batches import batches as batches_of
from recdistill.data.load import load_data
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.students.build import shape_of
from recdistill.students.training import student_plan
from recdistill.training.fit import fit
from recdistill.training.recorder import NoRecorder


class TimeUpError(Exception):
    """The time is up, or the patience."""


def one_window(data: SequenceData) -> SequenceData:
    """The data with the last targets of each user alone, as many as one window answers, and nothing before it."""
    train = data.train
    end = np.zeros(len(data.user_ids), dtype=np.int64)
    np.maximum.at(end, train.user, train.end)
    begin = np.maximum(train.start, end[train.user] - LENGTH)
    kept = train.end > begin
    return replace(data, train=Samples(train.items, begin[kept], train.end[kept], train.user[kept]))


def whole_windows(data: SequenceData, seed: int, epoch: int) -> Iterator[Batch]:
    """An epoch of 128 windows a batch, each with all targets of its user: in a new order, but never cut elsewhere."""
    user, size = data.train.user, np.bincount(data.train.user, minlength=len(data.user_ids))
    place = np.random.default_rng([seed, epoch]).permutation(len(size))
    order = np.lexsort((data.train.end, place[user]))
    return batches_of(
        data.train.subset(order),
        length=LENGTH,
        batch_size=WINDOWS * len(user) // int((size > 0).sum()),
        stride=LENGTH,
        padding_id=data.padding_id,
        seed=seed,
        epoch=epoch,
        shuffle=False,
    )


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    split = read_split(arguments.data)
    where = {"interactions": str(arguments.data), "items": str(arguments.data.with_name("items.csv"))}
    data = load_data(DataConfig(dataset="csv", split="leave-one-out", **where))
    sizes = {"hidden_size": HIDDEN, "max_length": LENGTH, "blocks": BLOCKS, "heads": HEADS}
    if arguments.layout == "theirs":
        data = one_window(data)
        config = StudentConfig(
            **sizes,
            dropout=DROPOUT,
            learning_rate=0.001,
            mask_seen=False,
            window_stride=LENGTH,
            seed=arguments.seed,
            epochs=10**6,
            patience=0,
            ema_decay=0.0,
        )
        settings = f"dropout {config.dropout}, Adam {config.learning_rate}, one window a user, no mask of seen items"
    else:
        # No library averages its weights, which would be more than a faster step.
        config = StudentConfig(**sizes, seed=arguments.seed, epochs=10**6, patience=0, ema_decay=0.0)
        settings = (
            f"dropout {config.dropout}, Adam {config.learning_rate}, every prefix, seen items masked, "
            f"{config.batch_size} targets a batch"
        )
    recorder = NoRecorder()
    network, plan = student_plan(config, data, shape_of(config), None, recorder)
    # Items are numbered by the file of items, as in the split.
    assert data.item_ids == tuple(map(str, range(split.num_items)))

    def score(histories: Sequence[np.ndarray]) -> np.ndarray:
        windows = np.full((len(histories), LENGTH), data.padding_id, dtype=np.int64)
        for row, items in enumerate(histories):
            windows[row, : min(LENGTH, len(items))] = items[-LENGTH:]
        lengths = np.array([min(LENGTH, len(items)) for items in histories])
        with torch.no_grad():
            return network.scores(torch.from_numpy(windows), torch.from_numpy(lengths)).numpy()

    training = Training(arguments.seconds, arguments.patience, score, network.state_dict, split)

    def batches(epoch: int):  # type: ignore[no-untyped-def]
        theirs = arguments.layout == "theirs"
        for batch in whole_windows(data, arguments.seed, epoch) if theirs else plan.batches(epoch):
            yield batch
            # Comes back after the step.
            if not training.step(len(batch)):
                return

    def validate() -> dict[str, float]:
        if not training.end_epoch():
            raise TimeUpError
        return {plan.metric: training.best}

    before = peak_mib()
    training.start()
    try:
        fit(replace(plan, batches=batches, validate=validate), recorder.work / "student.safetensors", lambda *_: None)
    except TimeUpError:
        network.load_state_dict(training.kept)
    network.eval()
    classes = int(data.trained.sum()) if config.mask_untrained else data.num_items
    print_line(training, before, classes, ("recdistill", "torch", "numpy"), settings)


if __name__ == "__main__":
    main()

"""SASRec of RePlay, for `benchmarks/peers.py`; runs in an environment with it."""

from collections.abc import Sequence

import lightning
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
    callback_of,
    parse_arguments,
    peak_mib,
    print_line,
    read_split,
)
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.sequential import SasRec
from torch.utils.data import DataLoader

ITEM = "item_id"


def padded(histories: Sequence[np.ndarray], length: int, padding: int) -> torch.Tensor:
    """The last items of histories, padded on the left: int64 [n, length]."""
    windows = np.full((len(histories), length), padding, dtype=np.int64)
    for row, items in enumerate(histories):
        windows[row, length - min(length, len(items)) :] = items[-length:]
    return torch.from_numpy(windows)


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    lightning.seed_everything(arguments.seed)
    split = read_split(arguments.data)
    padding = split.num_items
    schema = TensorSchema(
        TensorFeatureInfo(
            name=ITEM,
            is_seq=True,
            padding_value=padding,
            cardinality=split.num_items,
            embedding_dim=HIDDEN,
            feature_type=FeatureType.CATEGORICAL,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, ITEM)],
        )
    )
    network = SasRec.from_params(
        schema,
        embedding_dim=HIDDEN,
        num_heads=HEADS,
        num_blocks=BLOCKS,
        max_sequence_length=LENGTH,
        dropout=DROPOUT,
    )
    windows = padded([items for items in split.windows if len(items) > 1], LENGTH + 1, padding)

    def collate(rows: list[torch.Tensor]) -> dict[str, object]:
        whole = torch.stack(rows)
        read, target = whole[:, :-1], whole[:, 1:]
        return {
            "feature_tensors": {ITEM: read},
            "padding_mask": read != padding,
            "positive_labels": target.unsqueeze(-1),
            # Only places that read an item have a loss.
            "target_padding_mask": ((target != padding) & (read != padding)).unsqueeze(-1),
        }

    def score(histories: Sequence[np.ndarray]) -> np.ndarray:
        read = padded(histories, LENGTH, padding)
        network.eval()
        with torch.no_grad():
            return network(feature_tensors={ITEM: read}, padding_mask=read != padding)["logits"].numpy()

    training = Training(arguments.seconds, arguments.patience, score, network.state_dict, split)
    clocked = callback_of(lightning.Callback, training, lambda batch: int(batch["target_padding_mask"].sum()))
    trainer = lightning.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        callbacks=[clocked],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = peak_mib()
    trainer.fit(LightningModule(network), DataLoader(windows, WINDOWS, shuffle=True, collate_fn=collate))
    training.end_epoch()
    network.load_state_dict(training.kept)
    settings = f"dropout {DROPOUT}, Adam 0.001, one window a user, batches cut by this program"
    print_line(training, before, split.num_items, ("replay-rec", "torch", "numpy"), settings)


if __name__ == "__main__":
    main()

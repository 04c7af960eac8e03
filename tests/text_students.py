"""Small students whose item embeddings start from vectors of texts."""

import torch

from recdistill.students.item_embedding import ItemEmbedding
from recdistill.students.text_vectors import TextVectors
from recdistill.training.recorder import NoRecorder

SMALL = {"hidden_size": 8, "max_length": 8, "epochs": 2, "patience": 0, "dropout": 0.1, "batch_size": 64}
SMALL |= {"item_init": "views", "views": "tfidf", "device": "cpu", "learning_rate": 0.01}


def texts_of(num_items: int, size: int = 5, untrained: tuple[int, ...] = (2, 7)) -> TextVectors:
    trained = torch.ones(num_items, dtype=torch.bool)
    trained[list(untrained)] = False
    return TextVectors(torch.randn(num_items, size, generator=torch.Generator().manual_seed(9)), trained)


def of_data(data) -> TextVectors:
    return TextVectors(texts_of(data.num_items).vectors, torch.as_tensor(data.trained))


def moved(items: ItemEmbedding) -> ItemEmbedding:
    with torch.no_grad():
        for parameter in items.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        items.embedding.weight[-1] = 0
    return items


class KilledRecorder(NoRecorder):
    """A recorder with a folder of its own, in which a training dies when it logs the epoch ``dies_at``."""

    def __init__(self, folder, dies_at=None):
        self.folder, self.dies_at = folder, dies_at

    @property
    def work(self):
        return self.folder

    def log_metrics(self, metrics, step=0):
        if step == self.dies_at:
            raise KeyboardInterrupt

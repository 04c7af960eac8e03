import pytest
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceData
from recdistill.evaluation.part_metrics import part_metrics
from recdistill.students import measure as module
from recdistill.students.measure import latency_of, measure, metrics_of, ranked
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape

CPU = torch.device("cpu")


class NextInTheRing(Recommender):
    """Scores the item after the last one highest, the one after that next."""

    def __init__(self, max_length: int = 3) -> None:
        super().__init__(42, max_length)
        self.widths: list[int] = []

    def scores(self, history: Tensor, length: Tensor) -> Tensor:
        self.widths.append(history.shape[1])
        last = history[torch.arange(len(history)), length - 1]
        return -((torch.arange(42) - last[:, None] - 1) % 42).float()


def test_ranks_and_best_items_are_those_of_the_scores(ring_data: SequenceData) -> None:
    samples, model = ring_data.test, NextInTheRing()
    found = ranked(model, samples, exclude_seen=False, device=CPU, keep=2)
    last = torch.as_tensor(samples.items[samples.end - 1])
    target = torch.as_tensor(samples.targets)
    assert found.ranks.tolist() == ((target - last - 1) % 42 + 1).tolist()
    assert found.best.tolist() == torch.stack([(last + 1) % 42, (last + 2) % 42], dim=1).tolist()
    assert not model.training


def test_seen_items_are_left_out_of_the_ranking(ring_data: SequenceData) -> None:
    samples = ring_data.test
    best = ranked(NextInTheRing(), samples, exclude_seen=True, device=CPU, keep=5).best
    for sample, items in enumerate(best.tolist()):
        history = samples.items[samples.start[sample] : samples.end[sample]].tolist()
        assert not set(items) & (set(history) - {int(samples.targets[sample])})


def test_test_is_ranked_once_and_all_is_kept(ring_data: SequenceData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(model, samples, *rest, **options):
        seen.append(samples)
        return ranked(model, samples, *rest, **options)

    monkeypatch.setattr(module, "ranked", watched)
    model, shape = NextInTheRing(), StudentShape("gru4rec", 8, 0.1, 3, "tied")
    fitted = measure(model, shape, ring_data, CPU, exclude_seen=True, measured={"train_seconds": 2.0})
    assert sum(samples is ring_data.test for samples in seen) == 1
    assert (fitted.model, fitted.shape, fitted.progress) == (model, shape, None)
    assert fitted.measured.keys() == {"train_seconds", "ms_per_1000_recommendations", "latency_ms"}
    assert fitted.measured["train_seconds"] == 2.0
    assert (len(fitted.validation.ranks), fitted.test.best.shape) == (len(ring_data.validation), (30, 10))
    parts = (("val", fitted.validation), ("test", fitted.test))
    expected = [part_metrics(part, found, ring_data, exclude_seen=True) for part, found in parts]
    assert fitted.metrics == expected[0] | expected[1]
    assert fitted.metrics.items() >= metrics_of("test", fitted.test.ranks).items()
    assert metrics_of("val", torch.tensor([1, 20]))["val/hr_at_10"] == 0.5


def test_latency_is_of_one_history_without_its_padding(ring_data: SequenceData) -> None:
    model = NextInTheRing(max_length=20)
    assert 0 < latency_of(model, ring_data.test, CPU) < 1000
    lengths = (ring_data.test.end - ring_data.test.start).tolist()
    assert len(model.widths) == module.LATENCY_HISTORIES
    assert set(model.widths) <= set(lengths)

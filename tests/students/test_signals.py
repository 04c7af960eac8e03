import math
from collections.abc import Callable

import pytest
import torch

from recdistill.data.sequences import SequenceData
from recdistill.students.build import StudentShape, build_student
from recdistill.students.signals import signals_of_student
from recdistill.students.student import Student


def student(name: str, shape: Callable[..., StudentShape]) -> Student:
    model = build_student(shape(name, max_length=20), 42)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return model


@pytest.mark.parametrize("name", ["gru4rec", "caser"])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_signals_by_loops(
    name: str, exclude_seen: bool, ring_data: SequenceData, shape: Callable[..., StudentShape]
) -> None:
    model, train = student(name, shape).train(), ring_data.train
    eligible = torch.arange(len(train)) % 7 == 0
    ranking = torch.randint(0, 42, (len(train), 3))
    signals, log_probs = signals_of_student(model, ring_data, eligible, ranking, 5, exclude_seen)
    assert (signals.seed, signals.target.tolist()) == (5, train.targets.tolist())
    assert signals.item_count.tolist() == ring_data.item_count.tolist()
    for sample in range(len(train)):
        if not eligible[sample]:
            assert signals.student_loss[sample] == signals.student_entropy[sample] == 0
            assert log_probs[sample].tolist() == [0, 0, 0]
            continue
        history = train.items[train.start[sample] : train.end[sample]].tolist()
        target, candidates = int(train.targets[sample]), ranking[sample].tolist()
        with torch.no_grad():
            scores = model.scores(torch.tensor([history]), torch.tensor([len(history)]))[0].double().tolist()
        left = [item for item in range(42) if not exclude_seen or item not in history or item in (target, *candidates)]
        total = math.fsum(math.exp(scores[item]) for item in left)
        shares = [math.exp(scores[item]) / total for item in left]
        assert signals.student_loss[sample].item() == pytest.approx(math.log(total) - scores[target], abs=1e-4)
        assert signals.student_entropy[sample].item() == pytest.approx(
            -math.fsum(share * math.log(share) for share in shares), abs=1e-4
        )
        expected = [scores[item] - math.log(total) for item in candidates]
        assert log_probs[sample].tolist() == pytest.approx(expected, abs=1e-4)


def test_before_a_teacher_there_are_no_candidates(ring_data: SequenceData, shape: Callable[..., StudentShape]) -> None:
    every = torch.ones(len(ring_data.train), dtype=torch.bool)
    none = torch.empty(len(every), 0, dtype=torch.int64)
    signals, log_probs = signals_of_student(student("sasrec", shape), ring_data, every, none, 0, True)
    assert log_probs.shape == (len(every), 0)
    assert bool((signals.student_loss > 0).all())


def test_pieces_of_the_samples_do_not_matter(
    ring_data: SequenceData, shape: Callable[..., StudentShape], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = student("sasrec", shape)
    every = torch.ones(len(ring_data.train), dtype=torch.bool)
    ranking = torch.zeros(len(every), 1, dtype=torch.int64)
    whole, whole_log_probs = signals_of_student(model, ring_data, every, ranking, 0, True)
    monkeypatch.setattr("recdistill.students.signals.MOST_SCORES", 42 * 12)
    parts, log_probs = signals_of_student(model, ring_data, every, ranking, 0, True)
    torch.testing.assert_close(parts.student_entropy, whole.student_entropy, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_probs, whole_log_probs, atol=1e-5, rtol=1e-5)

"""Grounded ranks of a generative teacher against a loop."""

import numpy as np
import pytest
import torch
from small_teachers import history_of
from tiny_generative import generative_teacher

from recdistill.teachers.generative.ranks import grounded_ranks
from recdistill.teachers.generative.teacher import GenerativeTeacher


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_grounded_ranks_are_those_of_a_loop(data, backbone, model, monkeypatch, exclude_seen):
    teacher = generative_teacher(data, backbone, model, exclude_seen=exclude_seen, popularity_adjustment=0.5)
    # A title that is written in part: its neighbours are near, and none is exactly it.
    texts = {sample: f"Film of the {sample}" for sample in range(len(data.test))}

    def written(self, samples, batch, candidates, states):
        return [texts[sample] for sample in batch.sample.tolist()], np.zeros(len(batch), dtype=np.int64)

    monkeypatch.setattr(GenerativeTeacher, "written", written)
    titles = teacher.model.embed_texts(data.titles)
    count = torch.as_tensor(data.item_count).float()
    popularity = (count - count.min()) / (count.max() - count.min())
    validation, test, seconds = grounded_ranks(teacher, None)
    assert seconds > 0
    assert len(validation.ranks) == len(data.validation)
    for sample, target in enumerate(data.test.targets.tolist()):
        distance = (titles - teacher.model.embed_texts([texts[sample]])).norm(dim=1)
        distance = (distance - distance.min()) / (distance.max() - distance.min()) * (1 + popularity) ** -0.5
        left_out = set(history_of(data.test, sample)) if exclude_seen else set()
        order = [item for item in distance.argsort().tolist() if item not in left_out]
        assert test.ranks[sample] == (data.num_items + 1 if target in left_out else 1 + order.index(target))
        assert test.best[sample].tolist() == order[:10]
        among = [item for item in order if item in data.new_test]
        expected = 0 if target not in data.new_test else data.num_items + 1 if target in left_out else 0
        assert test.among[sample] == (1 + among.index(target) if target in among else expected)

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import InputError
from recdistill.students.build import StudentShape, build_recommender
from recdistill.students.recommender import ClosedForm
from recdistill.students.serving import ItemRecommender, Recommendation, device_of_model

NUM_ITEMS, LENGTH = 20, 6
IDS = [f"i{item}" for item in range(NUM_ITEMS)]
COUNTS = [(7 * item) % 11 for item in range(NUM_ITEMS)]


def student(name="sasrec"):
    torch.manual_seed(0)
    model = build_recommender(StudentShape(name, 8, 0.1, LENGTH, "tied"), NUM_ITEMS)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())):
            tensor += 0.3 * torch.randn(tensor.shape)
    return model.eval()


def one_by_one(model, history, k, left_out):
    """The ranking of one history by its own forward pass."""
    window = torch.tensor([history if isinstance(model, ClosedForm) else history[-LENGTH:]])
    length = torch.tensor([window.shape[1]])
    with torch.no_grad():
        scores = model.scores(window, length)[0]
    order = [item for item in scores.argsort(descending=True).tolist() if item not in left_out]
    return order[:k], [scores[item].item() for item in order[:k]]


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "caser", "esasrec", "ease"])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_batch_is_each_history_alone(name, exclude_seen):
    model = student(name)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 12, (30,), generator=generator).tolist()
    histories = [torch.randint(NUM_ITEMS, (length,), generator=generator).tolist() for length in lengths]
    wanted = [1 + row % 5 for row in range(30)]
    banned = [[row % NUM_ITEMS] for row in range(30)]
    found = ItemRecommender(model, IDS, COUNTS, exclude_seen).recommend(
        [[IDS[item] for item in history] for history in histories],
        wanted,
        [[IDS[item] for item in items] for items in banned],
    )
    for answer, history, k, items in zip(found, histories, wanted, banned, strict=True):
        expected, scores = one_by_one(model, history, k, items + (history if exclude_seen else []))
        assert answer.items == expected
        assert answer.scores == pytest.approx(scores, abs=1e-5)
        assert (answer.unknown, answer.fallback) == (0, False)


def test_a_recommender_on_a_gpu_gets_ids_there(monkeypatch):
    model, seen = student(), []
    expected = ItemRecommender(model, IDS, COUNTS).recommend([["i3", "i5"], ["i7"]], [4, 4], [["i1"], []])

    class OnGpu:
        """As a tensor on a GPU is: no other one takes part in what it computes."""

        def __init__(self, ids):
            self.ids = ids

        def cpu(self):
            return self.ids

    def moved(self, *arguments, **named):
        return OnGpu(self) if arguments == (torch.device("cuda:0"),) else to_of(self, *arguments, **named)

    def scores(history, length):
        seen.append((history, length))
        return OnGpu(scores_of(history.ids, length.ids))

    to_of, scores_of = torch.Tensor.to, model.scores
    monkeypatch.setattr(torch.Tensor, "to", moved)
    monkeypatch.setattr(model, "scores", scores)
    monkeypatch.setattr("recdistill.students.serving.device_of_model", lambda found: torch.device("cuda:0"))
    found = ItemRecommender(model, IDS, COUNTS).recommend([["i3", "i5"], ["i7"]], [4, 4], [["i1"], []])
    assert found == expected
    assert all(isinstance(one, OnGpu) for given in seen for one in given)


def test_where_a_recommender_lies_is_told_by_its_tensors():
    assert device_of_model(student().to("meta")) == torch.device("meta")
    assert device_of_model(student("ease")) == torch.device("cpu")


def test_chunks_do_not_matter(monkeypatch):
    recommender = ItemRecommender(student(), IDS, COUNTS)
    histories = [IDS[: 1 + row % 9] for row in range(40)]
    whole = recommender.recommend(histories, [4] * 40, [[]] * 40)
    monkeypatch.setattr("recdistill.students.serving.ROWS", 3)
    parts = recommender.recommend(histories, [4] * 40, [[]] * 40)
    assert [answer.items for answer in whole] == [answer.items for answer in parts]


def test_unknown_items_are_skipped_and_counted():
    recommender = ItemRecommender(student(), IDS, COUNTS)
    clean, mixed = recommender.recommend([["i3", "i5"], ["new", "i3", "i5", "newer"]], [5, 5], [[], ["newest"]])
    assert mixed.items == clean.items
    assert (clean.unknown, mixed.unknown, mixed.fallback) == (0, 2, False)


@pytest.mark.parametrize("history", [[], ["new", "newer"]])
def test_no_known_item_gets_the_most_popular_ones(history):
    order = sorted(range(NUM_ITEMS), key=lambda item: (-COUNTS[item], item))
    banned = order[1]
    (answer,) = ItemRecommender(student(), IDS, COUNTS).recommend([history], [3], [[IDS[banned]]])
    expected = [order[0], order[2], order[3]]
    assert answer == Recommendation(expected, [float(COUNTS[item]) for item in expected], len(history), True)


def test_fewer_items_than_asked_for_where_no_more_are_left():
    recommender = ItemRecommender(student(), IDS, COUNTS)
    seen, fallback = recommender.recommend([IDS[:18], []], [50, 50], [["i19"], IDS[1:]])
    assert seen.items == [18]
    assert fallback.items == [0]


@settings(max_examples=25)
@given(st.lists(st.lists(st.sampled_from([*IDS, "new"]), max_size=9), max_size=6), st.integers(1, NUM_ITEMS + 2))
def test_answers_are_in_order_without_repeats_or_seen_items(histories, k):
    for history, answer in zip(
        histories, RECOMMENDER.recommend(histories, [k] * len(histories), [[]] * len(histories)), strict=True
    ):
        assert answer.scores == sorted(answer.scores, reverse=True)
        assert len(set(answer.items)) == len(answer.items) <= k
        assert not {IDS[item] for item in answer.items} & set(history)
        assert answer.unknown == history.count("new")


RECOMMENDER = ItemRecommender(student(), IDS, COUNTS)


def test_ids_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="19 item ids and 20 counts for a student of 20 items"):
        ItemRecommender(student(), IDS[:-1], COUNTS)


IMPORTED = """
import sys, recdistill.students.build, recdistill.students.serving
from recdistill.registry import STUDENTS
for name in STUDENTS.names():
    STUDENTS.get(name)
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("recdistill", "mlflow", "pandas", "scipy")))
"""


def test_what_a_served_model_ships_is_little():
    """A model in MLflow has a copy of these files; what they import must come with them."""
    found = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True).stdout.split()
    rooms = {name for name in found if not name.startswith(("recdistill.students", "recdistill.config"))}
    assert rooms == {
        "recdistill",
        "recdistill.distillation",
        "recdistill.distillation.output_layer",
        "recdistill.distillation.projection",
        "recdistill.errors",
        "recdistill.freed_memory",
        "recdistill.registry",
        "recdistill.training",
        "recdistill.training.row_gradients",
    }
    unwanted = {"measure", "training", "selection", "signals", "catalogue_file"}
    assert not unwanted & {name.removeprefix("recdistill.students.") for name in found}


@given(
    allowed=st.lists(st.none() | st.lists(st.integers(0, NUM_ITEMS - 1), max_size=6), min_size=4, max_size=4),
    retired=st.sets(st.integers(0, NUM_ITEMS - 1), max_size=NUM_ITEMS - 1),
    histories=st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=8), min_size=4, max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_what_is_allowed_and_not_retired_is_ranked_as_without_them(allowed, retired, histories):
    texts = [[IDS[item] for item in history] for history in histories]
    only = [None if items is None else [IDS[item] for item in items] for items in allowed]
    whole = ItemRecommender(student(), IDS, COUNTS).recommend(texts, [NUM_ITEMS] * 4, [[]] * 4)
    served = ItemRecommender(student(), IDS, COUNTS, retired=retired)
    found = served.recommend(texts, [NUM_ITEMS] * 4, [[]] * 4, only)
    for answer, before, items in zip(found, whole, allowed, strict=True):
        kept = [one for one in before.items if one not in retired and (items is None or one in items)]
        assert answer.items == kept
        assert answer.scores == pytest.approx([before.scores[before.items.index(one)] for one in kept])
        assert answer.fallback == before.fallback

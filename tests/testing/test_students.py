"""Every recommender keeps its contract, and a broken one is told why it does not."""

import pytest
import torch
import torch.nn.functional as F
from registered_parts import registries_restored
from torch import nn

from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.ease import EASEOptions
from recdistill.students.esasrec import ESASRecOptions
from recdistill.students.recommender import ClosedForm
from recdistill.students.student import Student, gather_states
from recdistill.testing import check_student


@pytest.mark.parametrize("name", STUDENTS.names())
def test_every_registered_recommender(name):
    check_student(name)
    check_student(STUDENTS.get(name))


def test_other_options_than_the_defaults():
    check_student("esasrec", ESASRecOptions(blocks=1, heads=4, expansion=1))
    check_student("ease", EASEOptions(ease_penalty=1.0))


class Mean(Student):
    """A state is the mean of the item embeddings so far, mapped."""

    causal = True

    def __init__(self, items, dropout, max_length, output):
        super().__init__(items, items.hidden_size, max_length, output)
        self.map = nn.Linear(items.hidden_size, items.hidden_size)

    def forward(self, history, length, row, column):
        self._check_length(history)
        return self.map(gather_states(self.means(history, length), row, column))

    def means(self, history, length):
        return self.items(history).cumsum(1) / torch.arange(1, history.shape[1] + 1).unsqueeze(1)


class WholeWindow(Mean):
    """Reads all of a window for each of its samples."""

    def means(self, history, length):
        real = (torch.arange(history.shape[1]) < length.unsqueeze(1)).unsqueeze(2)
        mean = (self.items(history) * real).sum(1, keepdim=True) / length.view(-1, 1, 1)
        return mean.expand(-1, history.shape[1], -1)


class NotCausal(WholeWindow):
    causal = False


class ReadsPadding(Mean):
    causal = False

    def means(self, history, length):
        return self.items(history).sum(1, keepdim=True).expand(-1, history.shape[1], -1)


class DividesByWidth(Mean):
    def means(self, history, length):
        return self.items(history).cumsum(1) / history.shape[1]


class CentresOnTheBatch(Mean):
    def forward(self, history, length, row, column):
        states = super().forward(history, length, row, column)
        return states - states.mean(0)


class FromTheEnd(Mean):
    """Weighs an item by its distance from the last item of the window."""

    def means(self, history, length):
        away = length.unsqueeze(1) - torch.arange(history.shape[1])
        return (self.items(history) * away.unsqueeze(2)).cumsum(1)


class Detached(Mean):
    def forward(self, history, length, row, column):
        self._check_length(history)
        states = gather_states(self.means(history, length), row, column)
        return F.linear(states, self.map.weight.detach(), self.map.bias)


class OwnTable(Mean):
    """Takes the item table without what a teacher adds."""

    def means(self, history, length):
        return self.items.embedding(history).cumsum(1)


class AlwaysDropsOut(Mean):
    def forward(self, history, length, row, column):
        return F.dropout(super().forward(history, length, row, column), training=True)


class OutsideTheState(Mean):
    def __init__(self, items, dropout, max_length, output):
        super().__init__(items, dropout, max_length, output)
        self.shift = torch.randn(items.hidden_size)

    def forward(self, history, length, row, column):
        return super().forward(history, length, row, column) + self.shift


class AlwaysTheSame(Mean):
    def logits(self, states):
        return super().logits(states) * 0 + 1


class NotFinite(Mean):
    def means(self, history, length):
        return super().means(history, length) / 0


class PaddingToo(Mean):
    def logits(self, states):
        return F.linear(states, self.items.padded_table())


class IgnoresRows(Mean):
    def forward(self, history, length, row, column):
        return super().forward(history, length, torch.arange(len(history)), length - 1)


class AnyLength(Mean):
    def _check_length(self, history):
        pass


class TooFewPositions(AnyLength):
    def __init__(self, items, dropout, max_length, output):
        super().__init__(items, dropout, max_length, output)
        self.positions = nn.Embedding(max_length, items.hidden_size)

    def means(self, history, length):
        return super().means(history, length) + self.positions(torch.arange(history.shape[1]))


class IgnoresTheLast(Mean):
    def means(self, history, length):
        return F.pad(super().means(history, length), (0, 0, 1, 0))[:, :-1]


class DoesNotSay(Mean):
    causal = None


class DrawsMoreWithATeacher(Mean):
    def __init__(self, items, dropout, max_length, output):
        super().__init__(items, dropout, max_length, output)
        if items.injected:
            torch.rand(1)


class OthersWithATeacher(Mean):
    def __init__(self, items, dropout, max_length, output):
        super().__init__(items, dropout, max_length, output)
        if items.injected:
            nn.init.zeros_(self.map.bias)


class OtherConstructor(Mean):
    def __init__(self, items, size):
        super().__init__(items, 0.0, size, "tied")


class OtherLength(Mean):
    def __init__(self, items, dropout, max_length, output):
        super().__init__(items, dropout, max_length + 1, output)


class OwnScores(Mean):
    def scores(self, history, length):
        return super().scores(history, length).softmax(dim=1)


class Batched(Mean):
    batches_seeds = True


class LooksAtValues(Mean):
    batches_seeds = True

    def means(self, history, length):
        found = super().means(history, length)
        return found if bool(found.abs().amax() > 0) else found + 1


class KeepsATable(Mean):
    batches_seeds = True

    def __init__(self, items, dropout, max_length, output):
        super().__init__(items, dropout, max_length, output)
        self.kept = [self.map.weight]

    def means(self, history, length):
        return super().means(history, length) @ self.kept[0].T


class ScoresBatched(Mean):
    batches_seeds = True

    def logits(self, states):
        return 2 * super().logits(states)


@pytest.mark.parametrize("kind", [Mean, NotCausal, Batched])
def test_a_new_student_in_a_few_lines(kind):
    with registries_restored():
        STUDENTS.register("mean", gradient=True)(kind)
        check_student("mean")
        check_student(kind)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (WholeWindow, "is registered as causal, but items from position 1 on change the state of an earlier one"),
        (ReadsPadding, "what stands at the padding changes a score; read only the first `length` items"),
        (DividesByWidth, "the width of the padding changes a score"),
        (CentresOnTheBatch, "the width of the padding changes a score|the other histories of a batch change a score"),
        (FromTheEnd, "the state inside a window is not that of the prefix alone"),
        (Detached, r"no gradient reaches map\.weight \(output tied\); use each parameter"),
        (OwnTable, "with its teacher's embedding folded into the item table it gives other scores"),
        (AlwaysDropsOut, "nothing may be random in evaluation mode"),
        (OutsideTheState, "saved and loaded it gives other scores; keep all .* in parameters and persistent buffers"),
        (AlwaysTheSame, "gives every item the same score"),
        (NotFinite, "a score is NaN or infinite"),
        (PaddingToo, r"scores of 6 histories are \[6, 41\]; give \[6, 40\]"),
        (IgnoresRows, r"sample s is not answered from window row\[s\]"),
        (AnyLength, r"takes a window above max_length; call self\._check_length"),
        (TooFewPositions, r"a window above max_length raises IndexError; call self\._check_length"),
        (IgnoresTheLast, "another last item of the history changes no score"),
        (DoesNotSay, "does not say whether it is causal"),
        (DrawsMoreWithATeacher, "draws other random numbers than without"),
        (OthersWithATeacher, "changes the initial value of other parameters"),
        (OtherConstructor, r"cannot be built .*; its constructor takes \(items, dropout, max_length, output\)"),
        (OtherLength, "num_items and max_length are 40 and 11, not 40 and 10"),
        (LooksAtValues, r"`torch.func.vmap` does not take its forward \(.*\); let no tensor's value decide"),
        (KeepsATable, "two seeds as one batched model have other states or gradients than each alone"),
        (ScoresBatched, "says that seeds can be batched, but makes scores of its own"),
        (OwnScores, "`scores` are not the logits of the states"),
    ],
)
def test_a_broken_student_is_told(kind, said):
    with registries_restored():
        STUDENTS.register("broken", gradient=True)(kind)
        with pytest.raises(AssertionError, match=f"broken: .*({said})"):
            check_student("broken")


def test_a_registration_that_does_not_fit_is_told():
    with pytest.raises(AssertionError, match=r"Mean: is not registered; write @STUDENTS\.register"):
        check_student(Mean)
    with registries_restored():
        with pytest.raises(InputError, match="student 'mean': is registered without gradient; give gradient=True or"):
            STUDENTS.register("mean")(Mean)
        STUDENTS.register("mean", gradient=False)(Mean)
        with pytest.raises(AssertionError, match=r"is no subclass of ClosedForm; derive it .* with gradient=True"):
            check_student("mean")


class Popular(ClosedForm):
    """The same items for everyone, by the number of training targets."""

    def __init__(self, num_items, max_length, options):
        super().__init__(num_items, max_length, options)
        self.register_buffer("count", torch.zeros(num_items))

    @classmethod
    def fit(cls, data, options, seed):
        model = cls(data.num_items, 1, options)
        model.count += torch.from_numpy(cls.counted(data))
        return model

    @staticmethod
    def counted(data):
        return data.item_count

    def scores(self, history, length):
        return self.count.repeat(len(history), 1)


class LooksAtTheTest(Popular):
    @staticmethod
    def counted(data):
        return data.item_count + data.test.targets.mean()


class DrawsAtRandom(Popular):
    @staticmethod
    def counted(data):
        return torch.rand(data.num_items).numpy()


class ChangesTheData(Popular):
    @staticmethod
    def counted(data):
        data.train.items.sort()
        return data.item_count


class ForgetsTheCount(Popular):
    @classmethod
    def fit(cls, data, options, seed):
        model = super().fit(data, options, seed)
        model.found = model.count.clone()
        model.count.zero_()
        return model

    def scores(self, history, length):
        return getattr(self, "found", self.count + torch.arange(self.num_items)).repeat(len(history), 1)


class IsTrained(Popular):
    def __init__(self, num_items, max_length, options):
        super().__init__(num_items, max_length, options)
        self.weight = nn.Parameter(torch.zeros(num_items))


class GivesAnother(Popular):
    @classmethod
    def fit(cls, data, options, seed):
        return Popular(data.num_items, 1, options)


class CountsPadding(Popular):
    @classmethod
    def fit(cls, data, options, seed):
        model = super().fit(data, options, seed)
        model.max_length = 10
        return model

    def scores(self, history, length):
        return self.count + history.clamp(max=self.num_items - 1).sum(1, keepdim=True) * torch.arange(self.num_items)


def test_a_new_closed_form_recommender_in_a_few_lines():
    with registries_restored():
        STUDENTS.register("popular", gradient=False)(Popular)
        check_student("popular")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (LooksAtTheTest, "other validation and test targets change it; fit to `data.train` alone"),
        (DrawsAtRandom, "fitted twice to the same data with the same seed it differs"),
        (ChangesTheData, "`fit` changes the data; work on a copy"),
        (ForgetsTheCount, "saved and loaded it gives other scores"),
        (IsTrained, "has parameters, which gradients would train"),
        (GivesAnother, "`fit` gives a Popular; give the fitted recommender"),
        (CountsPadding, "what stands at the padding changes a score"),
    ],
)
def test_a_broken_closed_form_recommender_is_told(kind, said):
    with registries_restored():
        STUDENTS.register("broken", gradient=False)(kind)
        with pytest.raises(AssertionError, match=f"broken: {said}"):
            check_student("broken")


def test_the_global_random_state_is_left_as_it_was():
    before = torch.get_rng_state()
    check_student("gru4rec")
    check_student("itemknn")
    assert torch.equal(torch.get_rng_state(), before)

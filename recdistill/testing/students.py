"""Checks of a recommender: whoever writes one calls `check_student` on it and learns what to mend."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError, one_line
from recdistill.registry import STUDENTS
from recdistill.students.build import build_recommender, load_recommender, save_recommender
from recdistill.students.recommender import ClosedForm, Recommender
from recdistill.students.shape import OUTPUTS, StudentShape
from recdistill.students.student import Student, scores_by_layer
from recdistill.students.text_vectors import TextVectors
from recdistill.students.together import Encoder, encode, stacked_parameters

NUM_ITEMS, LENGTH, HIDDEN_SIZE, TEACHER_SIZE, TEXT_SIZE = 40, 10, 16, 24, 5
#: Lengths of the histories that scores are compared on.
LENGTHS = (1, 2, 4, 7, 9, 10)


def check_student(student: str | type[Recommender], options: Any = None) -> None:
    """Check that a recommender keeps its contract, on a small catalogue.

    What stands at the padding, the width of the padding and the other histories of a batch change no score; a causal
    student looks at nothing that comes later; saved and loaded it scores the same; a teacher's embedding changes
    nothing at weight 0 and can be folded in; embeddings that start from texts are read everywhere, and items without
    a training target have nothing else; gradients reach every parameter; where it says that `torch.func.vmap` takes it,
    two batched models have the states of each alone. A closed-form recommender is fitted to
    the training interactions alone, and the same each time.

    Args:
        student: the name of a registered recommender, or the registered class.
        options: instance of its options dataclass; None for its defaults.

    Raises:
        AssertionError: the recommender breaks the contract; the message says how, and what to change.
    """
    name = _name_of(student)
    kind = STUDENTS.part(name)
    by_gradient = STUDENTS.declaration(name).about["gradient"]
    base: type[Recommender] = Student if by_gradient else ClosedForm
    is_one = isinstance(kind, type) and issubclass(kind, base)
    assert is_one, (
        f"{name}: is registered with gradient={by_gradient}, but is no subclass of {base.__name__}; derive it from "
        f"{base.__name__}, or register it with gradient={not by_gradient}"
    )
    own = {} if options is None else asdict(options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if not by_gradient:
            _check_closed_form(name, kind, StudentShape(name, HIDDEN_SIZE, 0.1, LENGTH, "tied", own))
            return
        for output in OUTPUTS:
            shape = StudentShape(name, HIDDEN_SIZE, 0.1, LENGTH, output, own)
            _check_states(name, shape)
            _check_gradients(name, shape)
            _check_teacher(name, shape)
            _check_saving(name, shape)
            _check_texts(name, shape)
            if vars(kind).get("batches_seeds"):
                _check_batched(name, shape)


def _name_of(student: str | type[Recommender]) -> str:
    if isinstance(student, str):
        return student
    try:
        return STUDENTS.name_of(student)
    except KeyError:
        raise AssertionError(
            f'{student.__name__}: is not registered; write @STUDENTS.register("its name", gradient=True) above it'
        ) from None


# Small inputs.


def _windows(longest: int = LENGTH) -> tuple[Tensor, Tensor]:
    """Right-padded histories [6, 10] of `LENGTHS`, cut to ``longest``, and their lengths."""
    length = torch.tensor(LENGTHS).clamp(max=longest)
    history = torch.randint(0, NUM_ITEMS, (len(length), LENGTH), generator=torch.Generator().manual_seed(3))
    history = history.masked_fill(torch.arange(LENGTH) >= length[:, None], NUM_ITEMS)
    return history[:, :longest], length


def _teacher_embedding() -> Tensor:
    return torch.randn(NUM_ITEMS, TEACHER_SIZE, generator=torch.Generator().manual_seed(1))


def _texts() -> TextVectors:
    """Vectors of the items' texts; every third item has no training target."""
    vectors = torch.randn(NUM_ITEMS, TEXT_SIZE, generator=torch.Generator().manual_seed(4))
    return TextVectors(vectors, torch.arange(NUM_ITEMS) % 3 > 0)


def _built(
    name: str, shape: StudentShape, ed_weight: float = 0.0, given: bool = True, texts: TextVectors | None = None
) -> Student:
    """A student with its initial parameters, a teacher's embedding and items' texts given to it or not."""
    try:
        model = build_recommender(shape, NUM_ITEMS, _teacher_embedding() if given else None, ed_weight, texts=texts)
    except TypeError as error:
        raise AssertionError(
            f"{name}: cannot be built ({error}); its constructor takes (items, dropout, max_length, output) and its "
            "own options by name"
        ) from error
    assert isinstance(model, Student)
    return model


def _moved(name: str, shape: StudentShape, ed_weight: float = 0.0, texts: TextVectors | None = None) -> Student:
    """A student in evaluation mode, its parameters moved off their initial values."""
    model = _built(name, shape, ed_weight, texts=texts)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.items.embedding.weight[NUM_ITEMS] = 0.0
    return model.eval()


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-5, rtol=1e-4)


# Every recommender.


def _check_scores(name: str, model: Recommender, longest: int) -> None:
    """Scores of histories of up to ``longest`` items are finite, of the right shape, and those of each alone."""
    history, length = _windows(longest)
    with torch.no_grad():
        found = model.scores(history, length)
        assert found.shape == (len(length), NUM_ITEMS), (
            f"{name}: scores of {len(length)} histories are {list(found.shape)}; give [{len(length)}, {NUM_ITEMS}], "
            "one for each item and none for the padding"
        )
        assert bool(found.isfinite().all()), (
            f"{name}: a score is NaN or infinite; divide and take logarithms only of what cannot be 0"
        )
        assert bool((found != found[:, :1]).any(dim=1).all()), (
            f"{name}: gives every item the same score; ties count against a recommender, so it would never be right"
        )
        assert torch.equal(model.scores(history, length), found), (
            f"{name}: scores the same histories otherwise when asked again; nothing may be random in evaluation mode "
            "(dropout only where self.training)"
        )
        other = (history + 7 * torch.arange(history.shape[1])) % NUM_ITEMS
        assert _close(model.scores(torch.where(history == NUM_ITEMS, other, history), length), found), (
            f"{name}: what stands at the padding changes a score; read only the first `length` items of a history"
        )
        short = length <= 4
        assert _close(model.scores(history[short, :4], length[short]), found[short]), (
            f"{name}: the width of the padding changes a score; it must not matter how long the other histories of a "
            "batch are"
        )
        alone = [model.scores(history[one : one + 1], length[one : one + 1]) for one in range(len(length))]
        assert _close(torch.cat(alone), found), (
            f"{name}: the other histories of a batch change a score; normalise and sort within each history only"
        )


def _score_alike(one: Recommender, other: Recommender, exactly: bool = True) -> bool:
    history, length = _windows(one.max_length)
    with torch.no_grad():
        found, expected = one.scores(history, length), other.scores(history, length)
    return torch.equal(found, expected) if exactly else _close(found, expected)


def _check_saved(name: str, model: Recommender, loaded: Recommender) -> None:
    assert _score_alike(loaded, model), (
        f"{name}: saved and loaded it gives other scores; keep all that it learns or draws in parameters and "
        "persistent buffers, and build it from its shape alone"
    )


# Students.


def _check_states(name: str, shape: StudentShape) -> None:
    """States depend on the history, and on what they may depend on only."""
    model = _moved(name, shape, 0.3)
    causal = getattr(type(model), "causal", None)
    assert isinstance(causal, bool), (
        f"{name}: does not say whether it is causal; set `causal = True` in the class where the state at a position "
        "depends on the items up to it only, else False"
    )
    assert (model.num_items, model.max_length) == (NUM_ITEMS, LENGTH), (
        f"{name}: num_items and max_length are {model.num_items} and {model.max_length}, not {NUM_ITEMS} and "
        f"{LENGTH}; hand on to super().__init__ what it is given"
    )
    _check_scores(name, model, LENGTH)
    history, length = _windows()
    last = length - 1
    with torch.no_grad():
        states = model(history, length, torch.arange(len(length)), last)
        assert states.shape == (len(length), model.state_size), (
            f"{name}: {len(length)} states are {list(states.shape)}; give [S, state_size], here state_size "
            f"{model.state_size}"
        )
        assert _close(model.scores(history, length), model.logits(states)), (
            f"{name}: `scores` are not the logits of the states at the last items; leave `scores` as it is"
        )
        row = torch.tensor([5, 0, 3])
        assert _close(model(history, length, row, last[row]), states[row]), (
            f"{name}: sample s is not answered from window row[s]; gather the states at (row, column)"
        )
        other = history[-1:].clone()
        other[0, -1] = (other[0, -1] + 1) % NUM_ITEMS
        assert not _close(model.scores(other, length[-1:]), model.scores(history[-1:], length[-1:])), (
            f"{name}: another last item of the history changes no score; a student reads its history"
        )
    _check_too_long(name, model)
    if causal:
        _check_causal(name, model)


def _check_too_long(name: str, model: Student) -> None:
    history = torch.zeros(1, LENGTH + 1, dtype=torch.int64)
    try:
        model(history, torch.tensor([LENGTH + 1]), torch.tensor([0]), torch.tensor([LENGTH]))
    except InputError:
        return
    except Exception as error:
        raise AssertionError(
            f"{name}: a window above max_length raises {type(error).__name__}; call self._check_length(history) first"
        ) from error
    raise AssertionError(f"{name}: takes a window above max_length; call self._check_length(history) first")


def _check_causal(name: str, model: Student) -> None:
    """Later items change no earlier state, and one window answers all its prefixes."""
    history, length = _windows()
    windows, full = history[-1:], length[-1:]
    row, column = torch.zeros(LENGTH, dtype=torch.int64), torch.arange(LENGTH)
    with torch.no_grad():
        before = model(windows, full, row, column)
        for place in range(1, LENGTH):
            changed = windows.clone()
            changed[0, place:] = (changed[0, place:] + 1) % NUM_ITEMS
            after = model(changed, full, row, column)
            assert _close(after[:place], before[:place]), (
                f"{name}: is registered as causal, but items from position {place} on change the state of an earlier "
                "one; mask what comes later, or set `causal = False`"
            )
        rows = torch.cat([torch.full((size,), window) for window, size in enumerate(LENGTHS)])
        columns = torch.cat([torch.arange(size) for size in LENGTHS])
        prefixes = history[rows].masked_fill(torch.arange(LENGTH) > columns[:, None], NUM_ITEMS)
        alone = model(prefixes, columns + 1, torch.arange(len(rows)), columns)
        assert _close(model(history, length, rows, columns), alone), (
            f"{name}: is causal, but the state inside a window is not that of the prefix alone; a position's state may "
            "not depend on the window's length or on its place from the end"
        )


def _check_gradients(name: str, shape: StudentShape) -> None:
    """A loss of the logits reaches every parameter, with and without a teacher's embedding."""
    for ed_weight in (0.0, 0.3):
        model = _moved(name, shape, ed_weight).train()
        history, length = _windows()
        _, logits = model.scored(history, length, torch.arange(len(length)), length - 1)
        logits.square().sum().backward()
        without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not without, (
            f"{name}: no gradient reaches {', '.join(without)} (output {shape.output}); use each parameter in "
            "`forward`, undetached, or make it a buffer"
        )


def _check_teacher(name: str, shape: StudentShape) -> None:
    """With ed_weight 0 the student is the one without a teacher, and injection changes no other parameter."""
    built, after = [], []
    for ed_weight, given in ((0.0, False), (0.0, True), (0.3, True)):
        torch.manual_seed(5)
        built.append(_built(name, shape, ed_weight, given).state_dict())
        after.append(torch.rand(3))
    plain, zero, injected = built
    assert _same(plain, zero), (
        f"{name}: a teacher's embedding of weight 0 changes it; read items through `items` alone, which weighs it"
    )
    assert _same(plain, {one: injected[one] for one in plain if one in injected}), (
        f"{name}: a teacher's embedding changes the initial value of other parameters; draw the same numbers with "
        "and without it"
    )
    assert all(torch.equal(drawn, after[0]) for drawn in after), (
        f"{name}: building it with a teacher's embedding draws other random numbers than without; draw the same"
    )


def _check_texts(name: str, shape: StudentShape) -> None:
    """Embeddings from texts change no other initial value, are causal as others, and learn where they may."""
    torch.manual_seed(5)
    plain = _built(name, shape).state_dict()
    torch.manual_seed(5)
    started = _built(name, shape, texts=_texts()).state_dict()
    others = [one for one in plain if one != "items.embedding.weight"]
    assert _same({one: plain[one] for one in others}, {one: started[one] for one in others}), (
        f"{name}: texts of the items change the initial value of other parameters; draw the same numbers with and "
        "without them"
    )
    for ed_weight in (0.0, 0.3):
        model = _moved(name, shape, ed_weight, _texts())
        _check_scores(name, model, LENGTH)
        if type(model).causal:
            _check_causal(name, model)
        history, length = _windows()
        _, logits = model.train().scored(history, length, torch.arange(len(length)), length - 1)
        logits.square().sum().backward()
        without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not without, (
            f"{name}: with items' texts no gradient reaches {', '.join(without)}; read items through `items` alone"
        )
        gradient = model.items.embedding.weight.grad
        assert gradient is not None
        assert not bool(gradient[:-1][~_texts().trained].any()), (
            f"{name}: an item without a training target gets an embedding beside its text's; read items through "
            "`items` alone"
        )
        with tempfile.TemporaryDirectory() as folder:
            save_recommender(folder, model.eval(), shape, fold=True)
            assert _score_alike(load_recommender(folder), model, exactly=False), (
                f"{name}: with its texts' embeddings written into the item table it gives other scores; read items "
                "through `items` alone"
            )


def _check_saving(name: str, shape: StudentShape) -> None:
    """Saved and loaded afresh it scores the same, injected or folded."""
    with tempfile.TemporaryDirectory() as folder:
        for ed_weight in (0.0, 0.3):
            model = _moved(name, shape, ed_weight)
            save_recommender(folder, model, shape)
            _check_saved(name, model, load_recommender(folder, _teacher_embedding() if ed_weight else None))
            save_recommender(folder, model, shape, fold=True)
            assert _score_alike(load_recommender(folder), model, exactly=False), (
                f"{name}: with its teacher's embedding folded into the item table it gives other scores; read items "
                "through `items` alone, which adds the teacher's embedding"
            )


def _check_batched(name: str, shape: StudentShape) -> None:
    """Two students as one batched model have the states, output layers and gradients of each alone."""
    models = [Encoder(_moved(name, replace(shape, dropout=0.0), 0.3, _texts())) for _ in range(2)]
    assert scores_by_layer(type(models[0].student)), (
        f"{name}: says that seeds can be batched, but makes scores of its own; leave `logits` and `scored` as they "
        "are, or set `batches_seeds = False`"
    )
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(0.9)
    history, length = _windows()
    alone = [model.train()(history, length) for model in models]
    slopes = [torch.randn(one.shape, generator=torch.Generator().manual_seed(5)) for one in alone[0]]
    own = [
        torch.autograd.grad(each, list(model.parameters()), slopes) for each, model in zip(alone, models, strict=True)
    ]
    try:
        leaves = stacked_parameters(models)
        found = encode(models[0], leaves, torch.stack([history] * 2), torch.stack([length] * 2))
        learnt = torch.autograd.grad(found, list(leaves.values()), [one.expand(2, *one.shape) for one in slopes])
    except Exception as error:
        raise AssertionError(
            f"{name}: `torch.func.vmap` does not take its forward ({one_line(error)}); let no tensor's value "
            "decide what is computed, or set `batches_seeds = False`"
        ) from error
    pairs = [*zip(found, zip(*alone, strict=True), strict=True), *zip(learnt, zip(*own, strict=True), strict=True)]
    assert all(
        torch.allclose(one, torch.stack(each), rtol=1e-3, atol=1e-4 * max(1.0, float(one.detach().abs().amax())))
        for one, each in pairs
    ), (
        f"{name}: two seeds as one batched model have other states or gradients than each alone; read parameters "
        "through the module alone, or set `batches_seeds = False`"
    )


# Closed-form recommenders.


def _data(held_out: int = 0) -> SequenceData:
    """Thirty users of up to 11 items, the last two of each held out; ``held_out`` shifts those by so many items."""
    random = np.random.default_rng(0)
    size = random.integers(7, LENGTH + 1, size=30)
    size[0] = LENGTH + 1
    stop = np.cumsum(size)
    start = stop - size
    items = random.integers(NUM_ITEMS, size=stop[-1])
    for end in (stop - 2, stop - 1):
        items[end] = (items[end] + held_out) % NUM_ITEMS
    everyone = np.arange(len(size))
    user = np.repeat(everyone, size - 3)
    target = np.concatenate([np.arange(first + 1, last - 2) for first, last in zip(start, stop, strict=True)])
    return SequenceData(
        name="check_student",
        split="leave-one-out",
        num_items=NUM_ITEMS,
        titles=tuple(f"title {item}" for item in range(NUM_ITEMS)),
        item_ids=tuple(f"item {item}" for item in range(NUM_ITEMS)),
        user_ids=tuple(f"user {one}" for one in everyone),
        train=Samples(items, start[user], target, user),
        validation=Samples(items, start, stop - 2, everyone),
        test=Samples(items, start, stop - 1, everyone),
        fingerprint="",
    )


def _fitted(name: str, kind: type[ClosedForm], shape: StudentShape, data: SequenceData) -> ClosedForm:
    items = data.train.items.copy()
    model = kind.fit(data, shape.own(), seed=1)
    assert isinstance(model, kind), f"{name}: `fit` gives a {type(model).__name__}; give the fitted recommender"
    assert np.array_equal(data.train.items, items), f"{name}: `fit` changes the data; work on a copy"
    return model.eval()


def _check_closed_form(name: str, kind: type[ClosedForm], shape: StudentShape) -> None:
    """It is fitted to the training interactions alone, the same each time, and scores as every recommender."""
    model = _fitted(name, kind, shape, _data())
    assert not list(model.parameters()), (
        f"{name}: has parameters, which gradients would train; keep what `fit` computes in buffers "
        "(self.register_buffer)"
    )
    learnt = model.state_dict()
    torch.rand(3)
    assert _same(learnt, _fitted(name, kind, shape, _data()).state_dict()), (
        f"{name}: fitted twice to the same data with the same seed it differs; draw random numbers from a generator "
        "of the seed"
    )
    assert _same(learnt, _fitted(name, kind, shape, _data(held_out=5)).state_dict()), (
        f"{name}: other validation and test targets change it; fit to `data.train` alone (see "
        "students.interactions.interaction_matrix)"
    )
    _check_scores(name, model, min(model.max_length, LENGTH))
    with tempfile.TemporaryDirectory() as folder:
        save_recommender(folder, model, replace(shape, max_length=model.max_length))
        _check_saved(name, model, load_recommender(folder))

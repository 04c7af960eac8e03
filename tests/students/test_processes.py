"""Students in two processes: the losses, gradients, curves and weights of one, to rounding."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from registered_parts import registries_restored
from safetensors.torch import load_file
from student_processes import Case, member, read, run_processes, teacher_of, train
from torch import Tensor

from recdistill.config import DistillConfig
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS
from recdistill.students.shape import shape_of
from recdistill.students.training import check_student, student_plan
from recdistill.training.distributed import ALONE, Processes
from recdistill.training.recorder import NoRecorder

SMALL = {"hidden_size": 16, "max_length": 8, "epochs": 3, "patience": 3, "dropout": 0.0, "batch_size": 32}
ALL = {"lam": 0.7, "alpha": 0.2, "ed_weight": 0.3, "candidate_topk": 4}
FEW = {"negatives": 12}


def case(student: str, base_loss: str, name: str = "", distilled: bool = True, **options: object) -> Case:
    few = FEW if base_loss in ("sampled", "gbce") else {}
    epochs = options.pop("train", (2,))
    own = SMALL | {"student": student, "base_loss": base_loss} | (ALL if distilled else {}) | few | options
    return Case(name or f"{student}-{base_loss}", own, distilled, epochs)  # type: ignore[arg-type]


CASES = [
    *(case(student, loss) for student in ("sasrec", "gru4rec", "caser") for loss in ("ce", "bce", "sampled")),
    case("sasrec", "ce", "undistilled", distilled=False),
    case("sasrec", "gbce", "gbce"),
    case("esasrec", "sampled", "popularity", negative_sampling="popularity"),
    case("sasrec", "sampled", "linear", output="linear", weight_decay=0.01),
    case("sasrec", "ce", "kl", ranking_loss="kl", mask_untrained=True),
    case("gru4rec", "ce", "states", output_weight=0.5),
    case("sasrec", "ce", "selected", selection_policy="uncertainty", selection_fraction=0.5, refresh_interval=1),
    case("sasrec", "sampled", "averaged", ema_decay=0.9, schedule="cosine", smoothing=2),
    # One window a batch: the second process has none of its own.
    case("sasrec", "ce", "one-window", batch_size=4),
    case("sasrec", "bce", "resumed", train=(1, 2)),
    case("sasrec", "ce", "dropout", dropout=0.3),
]
NAMES = [one.name for one in CASES]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, ring_data: SequenceData) -> Path:
    """Where two processes have trained all cases."""
    folder = tmp_path_factory.mktemp("together")
    run_processes(2, member, CASES, ring_data, folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, ring_data: SequenceData) -> Path:
    """Where one process has."""
    folder = tmp_path_factory.mktemp("alone")
    for one in CASES:
        train(Case(one.name, one.options, one.distilled, one.epochs[-1:]), ring_data, folder / one.name, ALONE)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in CASES if not one.options["dropout"]], ids=lambda one: one.name)
def test_two_processes_train_as_one(one: Case, together: Path, alone: Path) -> None:
    found, expected = (load_file(folder / one.name / "gradients-0.safetensors") for folder in (together, alone))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-7, rtol=2e-5, msg=lambda said, name=name: name + said)
    assert sum(float(gradient.abs().sum()) > 0 for gradient in expected.values()) > 3
    curves = [read(folder, one)[0] for folder in (together, alone)]
    assert len(curves[0]) == len(curves[1]) == one.epochs[-1]
    for ours, theirs in zip(*curves, strict=True):
        names = [name for name in theirs if name.startswith(("train/", "val/"))]
        names = [name for name in names if "second" not in name]
        assert {"train/total", "train/base", "val/ndcg_at_10"} <= set(names)
        assert {name: ours[name] for name in names} == pytest.approx({n: theirs[n] for n in names}, rel=2e-4, abs=2e-4)
    weights = [read(folder, one)[1] for folder in (together, alone)]
    for name, weight in weights[1].items():
        # Adam makes steps of tiny gradients large: a bias of keys, which no softmax sees, has rounding alone to follow.
        if name in expected and float(expected[name].abs().max()) < 1e-6:
            continue
        assert float((weights[0][name] - weight).abs().median()) < 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("one", CASES, ids=NAMES)
def test_processes_end_with_the_same_weights_and_the_main_one_alone_writes(one: Case, together: Path) -> None:
    (curve, weights, own), (unlogged, others, silent) = (read(together, one, index) for index in (0, 1))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    assert curve
    assert unlogged == []
    assert set(own["tags"]) == {"loss_path"}
    assert silent["tags"] == {}
    assert silent["files"] == []
    assert bool(own["files"]) == (one.name == "selected")


@pytest.mark.slow
def test_with_dropout_processes_draw_other_masks_of_the_same_distribution(together: Path, alone: Path) -> None:
    (one,) = [one for one in CASES if one.options["dropout"]]
    found, expected = (load_file(folder / one.name / "gradients-0.safetensors") for folder in (together, alone))
    assert not torch.equal(found["loss.total"], expected["loss.total"])
    curves = [[epoch["train/total"] for epoch in read(folder, one)[0]] for folder in (together, alone)]
    assert curves[0] == pytest.approx(curves[1], rel=0.03)


@pytest.mark.slow
def test_a_training_of_two_processes_goes_on_in_one(
    together: Path, alone: Path, tmp_path: Path, ring_data: SequenceData
) -> None:
    first = case("sasrec", "bce", "first", train=(1,))
    run_processes(2, member, [first], ring_data, tmp_path)
    train(Case("first", first.options, True, (2,)), ring_data, tmp_path / "first", ALONE)
    (resumed,) = [one for one in CASES if one.name == "resumed"]
    names = ("train/total", "val/ndcg_at_10")
    found, expected = (
        [[epoch[name] for name in names] for epoch in read(folder, one)[0]]
        for folder, one in ((tmp_path, first), (alone, resumed))
    )
    assert len(found) == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4, abs=2e-4)


def test_masks_depend_on_process_and_step_and_leave_the_shared_numbers(ring_data: SequenceData) -> None:
    drawn, after = [], []
    for index, number in ((0, 0), (1, 0), (0, 1)):
        torch.manual_seed(3)
        with Processes(index, 2).random_apart(7, number):
            drawn.append(tuple(torch.rand(4).tolist()))
        after.append(tuple(torch.rand(4).tolist()))
    torch.manual_seed(3)
    assert set(after) == {tuple(torch.rand(4).tolist())}
    assert len({*drawn, *after}) == 4


@pytest.fixture
def whole_term() -> Iterator[None]:
    """A loss term of a user's that says nothing of samples."""
    with registries_restored():

        @LOSS_TERMS.register("whole", help="weight of the largest logit of a batch", needs_logits=True)
        def whole(logits: Tensor, target: Tensor, states: Tensor, teacher: object) -> Tensor:
            return logits.max()

        yield


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"release_compat": True, "base_loss": "bce"}, "release_compat=true: mixes all samples of a batch"),
        ({"whole_weight": 0.5}, "whole_weight=0.5: processes divide a batch, and the loss term is not registered with"),
    ],
)
def test_losses_that_are_no_means_over_samples_are_refused(
    options: dict[str, object], said: str, ring_data: SequenceData, whole_term: None
) -> None:
    config = DistillConfig(**SMALL | ALL | options)
    check_student(config, ring_data.num_items)
    for refused in (
        lambda: check_student(config, ring_data.num_items, Processes(0, 2)),
        lambda: student_plan(
            config, ring_data, shape_of(config), teacher_of(ring_data), NoRecorder(), processes=Processes(0, 2)
        ),
    ):
        with pytest.raises(InputError, match=said):
            refused()

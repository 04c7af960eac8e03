from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from recdistill.errors import InputError
from recdistill.release.released_students import load_released, read_released_sasrec
from recdistill.students.build import StudentShape, build_student
from recdistill.students.sasrec import SASRec
from recdistill.students.student import Student

TESTS = Path(__file__).parents[1]
RELEASED_SASREC = TESTS.parents[1] / "shared" / "data" / "ilora_released" / "SASRec_movielens.pt"


def parity(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(TESTS / "parity" / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


OPTIONS: dict[str, tuple[str, dict[str, int]]] = {
    "sasrec": ("sasrec", {"blocks": 1, "heads": 1}),
    "gru": ("gru4rec", {"blocks": 1}),
    "caser": ("caser", {"filters": 4}),
}


def build(name: str, tensors: dict[str, Tensor], ed_weight: float) -> Student:
    num_items, length = tensors["in.item_text_embedding"].shape[0], tensors["in.seq"].shape[1]
    student, options = OPTIONS[name]
    shape = StudentShape(student, 16, 0.1, length, "linear", options)
    return build_student(shape, num_items, tensors["in.item_text_embedding"], ed_weight)


def states(model: Student, tensors: dict[str, Tensor]) -> Tensor:
    length = tensors["in.length"]
    return model(tensors["in.seq"], length, torch.arange(len(length)), length - 1)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("injected", [False, True])
@pytest.mark.parametrize("name", ["sasrec", "gru", "caser"])
def test_student_gives_the_released_logits(name: str, injected: bool, grad: bool) -> None:
    tensors, metadata = parity(f"student_{name}")
    model = build(name, tensors, float(metadata["ed_weight"]) if injected else 0.0).eval()
    load_released(model, tensors)
    with torch.set_grad_enabled(grad):
        found = model.logits(states(model, tensors))
    expected = tensors["out.logits_injected" if injected else "out.logits"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    other = tensors["out.logits" if injected else "out.logits_injected"]
    assert (found - other).abs().max() > 1e-3


def test_names_may_come_without_prefix() -> None:
    tensors, _ = parity("student_gru")
    prefixed, bare = build("gru", tensors, 0.0), build("gru", tensors, 0.0)
    load_released(prefixed, tensors)
    load_released(bare, {name.removeprefix("w."): tensor for name, tensor in tensors.items()})
    assert all(torch.equal(a, b) for a, b in zip(prefixed.parameters(), bare.parameters(), strict=True))


def test_padding_row_is_loaded_as_zero() -> None:
    tensors, _ = parity("student_gru")
    tensors["w.item_embeddings.weight"][40] = 1.0
    model = build("gru", tensors, 0.0)
    load_released(model, tensors)
    assert model.items.embedding.weight[40].eq(0).all()
    assert tensors["w.item_embeddings.weight"][40].eq(1).all()


def test_missing_and_misshapen_tensors_are_refused_and_nothing_is_loaded() -> None:
    tensors, _ = parity("student_sasrec")
    model = build("sasrec", tensors, 0.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    missing = {name: tensor for name, tensor in tensors.items() if name != "w.ln_3.bias"}
    with pytest.raises(InputError, match=r"lack ln_3\.bias for last_norm\.bias"):
        load_released(model, missing)
    with pytest.raises(InputError, match=r"s_fc\.weight is \[39, 16\]"):
        load_released(model, tensors | {"w.s_fc.weight": tensors["w.s_fc.weight"][:39]})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_two_blocks_have_no_released_weights() -> None:
    tensors, _ = parity("student_sasrec")
    model = build_student(StudentShape("sasrec", 16, 0.0, 10, "linear", {"blocks": 2, "heads": 1}), 40)
    with pytest.raises(InputError, match="build the student as it was released"):
        load_released(model, tensors)


def test_a_student_that_was_not_released_is_refused() -> None:
    class Other(SASRec):
        pass

    tensors, _ = parity("student_sasrec")
    model = build("sasrec", tensors, 0.0)
    model.__class__ = Other
    with pytest.raises(InputError, match="Other has no released weights; give one of SASRec, GRU4Rec, Caser"):
        load_released(model, tensors)


def test_movielens_weights_give_released_states_and_logits() -> None:
    tensors, _ = parity("released_sasrec_movielens")
    shape = StudentShape("sasrec", 64, 0.1, 10, "linear", {"blocks": 1, "heads": 1})
    model = build_student(shape, 1682).eval()
    load_released(model, tensors)
    torch.testing.assert_close(states(model, tensors), tensors["out.h_seq"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.logits(states(model, tensors)), tensors["out.logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not RELEASED_SASREC.exists(), reason="shared data absent")
def test_pickled_sasrec_gives_released_states_and_logits() -> None:
    tensors, _ = parity("released_sasrec_movielens")
    random_state = torch.get_rng_state()
    model = read_released_sasrec(RELEASED_SASREC)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (model.num_items, model.max_length, model.training) == (1682, 10, False)
    torch.testing.assert_close(states(model, tensors), tensors["out.h_seq"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.logits(states(model, tensors)), tensors["out.logits"], atol=1e-4, rtol=1e-4)

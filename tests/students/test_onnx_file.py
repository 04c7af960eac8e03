"""A recommender as an ONNX model: the same scores for any batch and history length."""

import importlib.util

import pytest
import torch

from recdistill.errors import InputError
from recdistill.students import onnx_file
from recdistill.students.build import StudentShape, build_recommender
from recdistill.students.item_map import ItemMap
from recdistill.students.mapped import Interleaving, NewItemMap, with_new_items
from recdistill.students.onnx_file import check_onnx, histories, largest_difference, write_onnx

ITEMS, LENGTH = 20, 6


def made(name: str, output: str = "tied"):
    torch.manual_seed(0)
    shape = StudentShape(name, 8, 0.1, LENGTH, output)
    model = build_recommender(shape, ITEMS)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())):
            if tensor.isfinite().all():
                tensor += 0.3 * torch.randn(tensor.shape)
    return shape, model.eval()


@pytest.fixture
def onnx():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", ["sasrec", "esasrec", "gru4rec", "caser", "ease", "itemknn"])
def test_scores_are_the_recommenders_own(tmp_path, onnx, name):
    _, model = made(name)
    assert write_onnx(tmp_path / "student.onnx", model) <= 1e-5
    assert [one.name for one in tmp_path.iterdir()] == ["student.onnx"]


def test_so_are_those_of_new_items_and_of_an_own_output_layer(tmp_path, onnx):
    shape, student = made("sasrec")
    item_map = NewItemMap(
        ItemMap(torch.randn(5, 8).double(), torch.randn(8).double()), None, Interleaving(0.5, 1.0), {}, {}
    )
    mapped = with_new_items(student, shape, torch.tensor([3, 17]), torch.randn(2, 5), item_map)
    assert write_onnx(tmp_path / "mapped.onnx", mapped) <= 1e-5
    assert write_onnx(tmp_path / "linear.onnx", made("sasrec", "linear")[1]) <= 1e-5


def test_another_model_is_told_apart(tmp_path, onnx):
    _, model = made("sasrec")
    path = tmp_path / "student.onnx"
    write_onnx(path, model)
    with torch.no_grad():
        model.items.embedding.weight[2] += 1
    assert largest_difference(path, model) > 1e-3


def test_scores_that_differ_are_refused_and_nothing_is_left(tmp_path, onnx, monkeypatch):
    monkeypatch.setattr(onnx_file, "largest_difference", lambda *_: 2e-5)
    with pytest.raises(InputError, match=r"scores would differ by 2\.0e-05"):
        write_onnx(tmp_path / "student.onnx", made("sasrec")[1])
    assert not list(tmp_path.iterdir())


def test_histories_are_padded_on_the_right():
    items, length = histories(made("sasrec")[1], 3, 4)
    assert length.tolist() == [4, 3, 2]
    assert (items == ITEMS).sum(dim=1).tolist() == [0, 1, 2]


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx and onnxruntime; pip install 'recdistill\[onnx\]'"):
        check_onnx()

"""Two students are trained side by side where there are threads for both, with the numbers of one after the other."""

import os
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
import torch
from kinds_data import QUICK, write_data

from recdistill.config import BaselineConfig, MapItemsConfig, changed
from recdistill.errors import InputError
from recdistill.runs.step_runs import entry_run
from recdistill.steps import side_by_side
from recdistill.steps.backbone import backbone
from recdistill.steps.map_items import map_items
from recdistill.steps.side_by_side import trained_side_by_side

SMALL = {"hidden_size": 16, "blocks": 1, "heads": 1, "epochs": 2, "device": "cpu"}


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each of both processes then has one, and room: a process of tests is larger than that of a command."""
    monkeypatch.setattr(side_by_side, "free_memory", lambda: 1 << 40)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def students(small_files: dict[str, Any], **options: Any) -> tuple[BaselineConfig, BaselineConfig]:
    """The options of two."""
    first = BaselineConfig(**small_files, **SMALL, **options)
    return first, changed(first, seed=2)


@pytest.mark.slow
def test_the_other_student_is_trained_meanwhile(place, small_files, two_threads, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    first, other = students(small_files, force=True)
    threads = []

    def here():
        threads.append(torch.get_num_threads())
        return backbone(first)

    with entry_run("main"):
        parent = mlflow.active_run().info.run_id
        run, options, made = trained_side_by_side(here, other, parent)
        assert made
        assert options == changed(other, force=False)
        found = backbone(options)
        assert found.reused
        assert not run.reused
        # No process is started for what is there.
        _, _, anew = trained_side_by_side(lambda: run, options, parent)
        assert not anew
        torch.set_num_threads(1)
        again = backbone(other)
    assert (threads, torch.get_num_threads()) == ([1], 1)
    assert mlflow.get_run(found.run_id).data.tags["mlflow.parentRunId"] == parent
    timed = ("train_seconds", "ms_per_1000_recommendations", "epoch_seconds", "step_ms")
    numbers = [
        {name: value for name, value in one.metrics().items() if name.startswith(("val", "test"))}
        for one in (found, again)
    ]
    assert numbers[0] == numbers[1]
    assert not set(timed) & set(numbers[0])
    assert "TQDM_DISABLE" not in os.environ


@pytest.mark.slow
def test_what_the_other_process_raises_is_raised_where_its_student_is_asked_for(place, small_files, two_threads):
    first, other = students(small_files)
    other = changed(other, learning_rate=1e30)

    def both():
        run, options, made = trained_side_by_side(lambda: backbone(first), other, mlflow.active_run().info.run_id)
        assert not made
        assert options == other
        assert run.metrics()
        backbone(options)

    with pytest.raises(InputError, match="diverged"), entry_run("main"):
        both()


@pytest.mark.slow
def test_maps_are_made_meanwhile_and_found_and_one_that_fails_is_raised_where_it_is_asked_for(place, two_threads):
    options = QUICK | write_data(place.folder)
    texts = MapItemsConfig(**options)
    first = BaselineConfig(**{name: value for name, value in options.items() if name != "views"})
    with entry_run("main"):
        parent = mlflow.active_run().info.run_id
        mapped = changed(texts, student_run_id=backbone(first).run_id)
        wrong = changed(texts, student_run_id="none")
        here, other = changed(first, seed=2), changed(first, seed=3)
        _, other, made = trained_side_by_side(lambda: backbone(here), other, parent, [wrong, mapped])
        assert made
        assert backbone(other).reused
        assert map_items(mapped).reused
    with pytest.raises(InputError, match="student_run_id=none"), entry_run("main"):
        map_items(wrong)


def test_an_error_here_ends_the_other_process(place, small_files, two_threads):
    _, other = students(small_files)

    def here():
        raise InputError("no")

    with pytest.raises(InputError, match="no"), entry_run("main"):
        trained_side_by_side(here, changed(other, epochs=5000), mlflow.active_run().info.run_id)
    assert torch.get_num_threads() == 2


def test_where_memory_is_short_one_is_trained_after_the_other(place, small_files, two_threads, monkeypatch):
    monkeypatch.setattr(side_by_side, "free_memory", lambda: 1 << 20)
    first, other = students(small_files)
    with entry_run("main"):
        _, _, made = trained_side_by_side(lambda: backbone(first), other, mlflow.active_run().info.run_id)
    assert not made


def test_with_one_thread_one_is_trained_after_the_other(place, small_files):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    first, other = students(small_files)
    with entry_run("main"):
        _, options, made = trained_side_by_side(lambda: backbone(first), other, mlflow.active_run().info.run_id)
        assert not made
        assert not backbone(options).reused
    torch.set_num_threads(before)

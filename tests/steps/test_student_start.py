"""``init_from`` and ``refit``: students that start from yesterday's, and students for serving."""

import csv
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from kinds_data import QUICK, write_data
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file, save_file
from workplace import copied_workplace, run_step

import recdistill as rd
from recdistill.config import (
    AddItemsConfig,
    BaselineConfig,
    CompareConfig,
    EvaluateConfig,
    MainConfig,
    MapItemsConfig,
    RetireItemsConfig,
    changed,
)
from recdistill.data.load import FILTERS
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.runs.served_model import load_model, student_folder
from recdistill.steps.add_items import add_items
from recdistill.steps.backbone import backbone
from recdistill.steps.compare import compare
from recdistill.steps.evaluate import evaluate
from recdistill.steps.inputs import data_of, frozen_student
from recdistill.steps.map_items import map_items
from recdistill.steps.retire_items import retire_items
from recdistill.steps.student_start import (
    CONSTANT,
    KeptStudent,
    StudentStart,
    learnt_items,
    student_start,
    whole_path_contents,
)
from recdistill.students.build import load_recommender
from recdistill.students.catalogue_file import CATALOGUE_FILE, read_catalogue
from recdistill.students.mapped import MAP_FILE, MappedStudent

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory, downloads):
    with copied_workplace(tmp_path_factory.mktemp("student_start") / "place", downloads) as made:
        yield made


@pytest.fixture(scope="module")
def options(place):
    given = QUICK | write_data(place.folder) | {"epochs": 4, "new_items": 0.0}
    del given["views"]
    return given


@pytest.fixture(scope="module")
def yesterday(options):
    return backbone(BaselineConfig(**options))


@pytest.fixture(scope="module")
def today(options, place):
    """The same data after a day: two films came, which two users have seen."""
    folder = place.folder / "today"
    folder.mkdir()
    paths = {name: folder / Path(options[name]).name for name in ("interactions", "items")}
    rows = [("u0", "n1", 50), ("u1", "n1", 51), ("u1", "n2", 52), ("u2", "n2", 53), ("u2", "n1", 54)]
    lines = [("n2", "Number 102", "Crime"), ("n1", "Number 101", "Jazz")]
    for name, more in (("interactions", rows), ("items", lines)):
        paths[name].write_text(Path(options[name]).read_text())
        with paths[name].open("a", newline="") as file:
            csv.writer(file).writerows(more)
    return options | {name: str(path) for name, path in paths.items()}


def table_by_id(run, data):
    return dict(zip(data.item_ids, frozen_student(run, CPU).item_table(), strict=True))


def test_training_goes_on_from_yesterday_s_student(yesterday, options, today):
    config = BaselineConfig(**today | {"learning_rate": 1e-9, "epochs": 1}, init_from=yesterday.run_id)
    run = backbone(config)
    assert not run.reused
    data = data_of(config)
    before, after = table_by_id(yesterday, data_of(BaselineConfig(**options))), table_by_id(run, data)
    assert set(after) - set(before) == {"n1", "n2"}
    assert all(torch.allclose(after[item], before[item], atol=1e-6) for item in before)
    assert after["n1"].any()
    assert MlflowClient().get_run(run.run_id).data.tags["recdistill.student_run_id"] == yesterday.run_id
    assert backbone(config).reused
    fresh = backbone(changed(config, init_from=""))
    assert fresh.run_id != run.run_id
    compared = compare(CompareConfig(runs=f"{run.run_id},{fresh.run_id}", baseline=fresh.run_id, resamples=100))
    assert "earlier student" in (compared.artifact("comparison") / "comparison.csv").read_text()


def test_new_items_start_from_their_texts_where_yesterday_s_student_has_a_map(yesterday, today):
    mapped = map_items(MapItemsConfig(student_run_id=yesterday.run_id, views="tfidf", device="cpu"))
    config = BaselineConfig(**today | {"learning_rate": 1e-9, "epochs": 1}, init_from=mapped.run_id)
    after = table_by_id(backbone(config), data_of(config))
    drawn = table_by_id(backbone(changed(config, init_from=yesterday.run_id)), data_of(config))
    assert not torch.allclose(after["n1"], drawn["n1"])
    jazz, crime = (torch.stack([after[f"i{one}"] for one in range(kind, 60, 4)]).mean(dim=0) for kind in (3, 0))
    assert torch.nn.functional.cosine_similarity(after["n1"] - crime, jazz - crime, dim=0) > 0


def test_a_map_that_was_trained_goes_on(options, today):
    texts = {"item_init": "views", "views": "tfidf"}
    first = backbone(BaselineConfig(**options | texts))
    config = BaselineConfig(**today | texts | {"learning_rate": 1e-9, "epochs": 1}, init_from=first.run_id)
    run = backbone(config)
    before, after = load_recommender(first.artifact("student")), load_recommender(run.artifact("student"))
    assert isinstance(after, MappedStudent)
    torch.testing.assert_close(after.new_item_map.map.weight, before.new_item_map.map.weight, atol=1e-6, rtol=0)
    old, new = table_by_id(first, data_of(BaselineConfig(**options | texts))), table_by_id(run, data_of(config))
    assert all(torch.allclose(new[item], old[item], atol=1e-5) for item in old)
    with pytest.raises(InputError, match=r"^views=sentence: the student of init_from=.* reads tfidf"):
        backbone(changed(config, views="sentence"))
    plain = backbone(BaselineConfig(**options))
    with pytest.raises(InputError, match=r"^item_init=views: the student of init_from=.* has no map"):
        backbone(changed(config, init_from=plain.run_id))


def renamed(options, folder, change):
    """The same options over other files: ``change`` gives an item's id and title from what they were."""
    given = dict(options)
    for name in ("interactions", "items"):
        head, *rows = (row.split(",") for row in Path(options[name]).read_text().splitlines())
        place = head.index("item")
        for row in rows:
            old = row[place]
            row[place] = change(old, "")[0]
            if name == "items":
                row[1] = change(old, row[1])[1]
        given[name] = str(folder / f"{name}.csv")
        Path(given[name]).write_text("\n".join(map(",".join, [head, *rows])) + "\n")
    return given


def test_a_student_of_unrelated_items_is_refused_in_one_line(yesterday, options, tmp_path, capsys):
    config = BaselineConfig(**options | {"epochs": 1}, init_from=yesterday.run_id)
    others = renamed(options, tmp_path, lambda item, title: (f"film-{item}", title))
    said = rf"^init_from={yesterday.run_id}: has none of the 60 items, as 'film-i0'; its own are such as 'i0'; give a"
    with pytest.raises(InputError, match=said):
        backbone(changed(config, **{name: others[name] for name in ("interactions", "items")}))
    # Another shop, whose items have numbers, too.
    others = renamed(options, tmp_path, lambda item, title: (item, f"Thing {int(item[1:]) + 1}"))
    with pytest.raises(InputError, match=r"60 of 60 items of the same id have another title, as 'i0', 'Thing 1' here"):
        backbone(changed(config, **{name: others[name] for name in ("interactions", "items")}))
    # The same items under longer names.
    others = renamed(options, tmp_path, lambda item, title: (item, f"{title} (2024)"))
    capsys.readouterr()
    backbone(changed(config, **{name: others[name] for name in ("interactions", "items")}))
    assert f"init_from={yesterday.run_id}: 60 of 60 items matched by id\n" in capsys.readouterr().out


def test_how_many_items_are_known_is_said(yesterday, today, capsys):
    backbone(BaselineConfig(**today | {"epochs": 1, "seed": 9}, init_from=yesterday.run_id))
    assert f"init_from={yesterday.run_id}: 60 of 62 items matched by id\n" in capsys.readouterr().out


def test_a_key_tells_where_an_earlier_map_has_a_constant(options, tmp_path):
    texts = {"item_init": "views", "views": "tfidf"}
    run = backbone(BaselineConfig(**options | texts))
    config = BaselineConfig(**options | texts, init_from=run.run_id)
    data = data_of(config)
    plain = KeptStudent(run.run_id, student_folder(run.run_id)[0])
    assert plain.contents(config) == {"earlier student": plain.digest}
    assert whole_path_contents(config, data)["earlier student"] == plain.digest
    # As one has it that a teacher's vectors were injected into.
    folder = tmp_path / "student"
    shutil.copytree(plain.folder, folder)
    tensors = load_file(folder / MAP_FILE)
    save_file(tensors | {"bias": torch.ones_like(tensors["bias"])}, folder / MAP_FILE)
    with_constant = KeptStudent("models:/films/1", folder)
    assert with_constant.contents(config) == {"earlier student": with_constant.digest} | CONSTANT
    assert with_constant.contents(changed(config, item_init="random", views="")).keys() == {"earlier student"}
    assert with_constant.earlier(config, data).text_map.bias.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 8}, r"^hidden_size=8: the student of init_from=\w+ has 16; give that, or start anew"),
        ({"student": "sasrec"}, r"^student=sasrec: the student of init_from=\w+ has gru4rec"),
        ({"init_from": "c" * 32}, r"^init_from=c+: no model at"),
        ({"student": "ease", "hidden_size": 64}, r"^init_from=\w+: ease is not trained by gradient"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused_in_one_line(yesterday, options, change, message):
    with pytest.raises(InputError, match=message):
        backbone(BaselineConfig(**options | {"init_from": yesterday.run_id} | change))


@pytest.fixture(scope="module")
def refitted(options, place):
    given = options | {"item_init": "views", "views": "tfidf", "refit": True, "register": "served", "seed": 5}
    assert run_step("backbone", **given) == 0
    # The run that it refits began after it, within it.
    return mlflow.get_run(place.newest("backbone").data.tags["mlflow.parentRunId"])


def test_a_refit_is_the_user_s_run_and_measures_nothing(refitted, options):
    tags, metrics = refitted.data.tags, refitted.data.metrics
    assert tags["recdistill.refit"] == "true"
    assert not [name for name in metrics if name.startswith(("test/", "val/"))]
    data = data_of(BaselineConfig(**options))
    assert metrics["refit/samples"] == len(data.train) + len(data.validation) + len(data.test)
    first = mlflow.get_run(tags["recdistill.refitted_run_id"])
    assert metrics["refit/epochs"] == first.data.metrics["best_epoch"] + 1
    assert "test/ndcg_at_10" in first.data.metrics
    assert first.data.tags["mlflow.parentRunId"] == refitted.info.run_id
    assert "refitted for serving" in tags["mlflow.note.content"]


def test_a_refit_is_served_and_takes_new_items(refitted, tmp_path):
    answer = load_model("models:/served/1").predict({"history": [["i3", "i7"]], "k": [5]})
    assert len(answer["items"][0]) == 5
    path = tmp_path / "new.csv"
    path.write_text("item,title,kind\nq1,Number 200,Jazz\n")
    added = add_items(AddItemsConfig(model="models:/served/1", items=str(path), device="cpu"))
    assert load_recommender(added.artifact("student")).num_items == 61


def test_a_refit_that_python_keeps_says_so_still(refitted, options, tmp_path):
    first, found = refitted.data.tags["recdistill.refitted_run_id"], rd.load_run(refitted.info.run_id)
    found.save(tmp_path)
    assert read_catalogue(tmp_path)[0].refit_of == first
    with mlflow.start_run():
        address = found.log_model()
    with pytest.raises(InputError, match=rf"^init_from={address}: was trained on all .*; give {first}, "):
        backbone(BaselineConfig(**options, seed=8, init_from=address))


@pytest.mark.parametrize("given", ["the run", "its model", "its model with more items"])
def test_a_measured_student_does_not_start_from_one_that_knows_what_is_held_out(refitted, options, given, tmp_path):
    name = refitted.info.run_id if given == "the run" else "models:/served/1"
    if given == "its model with more items":
        path = tmp_path / "new.csv"
        path.write_text("item,title,kind\nq2,Number 201,Jazz\n")
        name = add_items(AddItemsConfig(model=name, items=str(path), register="apart", device="cpu")).run_id
    texts = {"item_init": "views", "views": "tfidf", "seed": 6}
    first = refitted.data.tags["recdistill.refitted_run_id"]
    with pytest.raises(InputError, match=rf"^init_from={name}: was trained on all .*; give {first}, .* or refit=true"):
        backbone(BaselineConfig(**options | texts, init_from=name))
    # A refit starts from it; what measures that refit starts from what was measured before.
    again = backbone(BaselineConfig(**options | texts, init_from=name, refit=True))
    tags = mlflow.get_run(again.run_id).data.tags
    measured = mlflow.get_run(tags["recdistill.refitted_run_id"])
    assert measured.data.params["init_from"] == first
    assert "test/ndcg_at_10" in measured.data.metrics


def test_a_measured_student_does_not_start_from_one_of_another_split(yesterday, options):
    other = BaselineConfig(**options | {"holdout": 0.3, "init_from": yesterday.run_id})
    said = (
        rf"^init_from={yesterday.run_id}: held out split=user-holdout holdout=0\.1, this run .* holdout=0\.3, so that"
    )
    with pytest.raises(InputError, match=said):
        backbone(other)
    with pytest.raises(InputError, match=r"this run split=leave-one-out, so that"):
        backbone(changed(other, split="leave-one-out"))


@pytest.mark.parametrize("given", [{"min_item_interactions": 4}, {"k_core": 3}, {"max_users": 20}])
def test_a_measured_student_does_not_start_from_one_of_other_filters(yesterday, options, given):
    config = BaselineConfig(**options | given, init_from=yesterday.run_id)
    ((name, value),) = given.items()
    said = rf"^init_from={yesterday.run_id}: held out split=.* {name}=0, this run .* {name}={value}, so that it may be"
    with pytest.raises(InputError, match=said):
        backbone(config)


def test_the_filters_of_a_student_of_before_are_those_of_its_run(yesterday, options, tmp_path):
    few = BaselineConfig(**options | {"k_core": 3, "epochs": 1})
    path = tmp_path / "out.csv"
    path.write_text("item\ni3\n")
    run = backbone(few)
    retired = retire_items(RetireItemsConfig(model=run.run_id, items=str(path)))
    for number, run_id in enumerate((run.run_id, retired.run_id)):
        folder = tmp_path / str(number) / "artifacts" / "student"
        shutil.copytree(student_folder(run_id)[0].parents[1], tmp_path / str(number))
        catalogue = folder / CATALOGUE_FILE
        values = json.loads(catalogue.read_text())
        assert values["splitting"]["k_core"] == 3
        values["splitting"] = {name: one for name, one in values["splitting"].items() if name not in FILTERS}
        catalogue.write_text(json.dumps(values))
        # By its run's id, and by what the model says of its run.
        for name in (run_id, "models:/films/1"):
            assert KeptStudent(name, folder).splitting["k_core"] == 3
            with pytest.raises(InputError, match=r"k_core=3, this run .* k_core=0"):
                KeptStudent(name, folder).check_measurable(changed(few, k_core=0), data_of(changed(few, k_core=0)))
            KeptStudent(name, folder).check_measurable(few, data_of(few))
    # Of one whose run is gone nothing is known.
    (folder.parents[1] / "MLmodel").unlink()
    gone = KeptStudent("models:/films/1", folder)
    assert gone.splitting == {"split": "user-holdout", "holdout": 0.1}
    gone.check_measurable(few, data_of(few))


def test_a_key_tells_where_items_are_targets_of_repeats_alone(options):
    items = np.array([3, 0, 1, 1, 2])
    train = Samples(items, np.array([0, 2, 2]), np.array([1, 3, 4]), np.array([0, 1, 1]))
    data = SequenceData("x", "leave-one-out", 4, tuple("abcd"), tuple("0123"), ("u", "v"), train, train, train, "f")
    config = BaselineConfig()
    assert learnt_items(config, data)
    assert student_start(config, data).contents == learnt_items(config, data)
    for other in ({"exclude_seen": False}, {"mask_untrained": False}, {"student": "ease"}):
        assert learnt_items(BaselineConfig(**other), data) == {}
    assert learnt_items(BaselineConfig(mask_untrained=False, item_init="views"), data)
    # The data of these tests have none: keys are as before.
    plain = BaselineConfig(**options)
    assert student_start(plain, data_of(plain)).contents == StudentStart().contents == {}


def test_a_measured_student_does_not_start_from_one_that_was_trained_on_its_new_items(yesterday, options):
    drawn = BaselineConfig(**options | {"new_items": 0.2, "epochs": 1})
    with pytest.raises(InputError, match=r"was trained on \d+ of the \d+ items that are new here \(new_items=0\.2"):
        backbone(changed(drawn, init_from=yesterday.run_id))
    same = backbone(drawn)
    assert backbone(changed(drawn, init_from=same.run_id, seed=2)).metrics()["test/new/mrr"] >= 0
    with pytest.raises(InputError, match=r"new_items_seed=2\), as "):
        backbone(changed(drawn, init_from=same.run_id, new_items_seed=2))


def test_items_that_were_retired_before_are_named(yesterday, options, tmp_path, capsys):
    path = tmp_path / "out.csv"
    path.write_text("item\ni3\ni5\n")
    without = retire_items(RetireItemsConfig(model=yesterday.run_id, items=str(path)))
    backbone(BaselineConfig(**options, init_from=without.run_id))
    assert "2 items that were retired there are recommended again, as 'i3'" in capsys.readouterr().out


def test_a_refit_is_in_no_comparison(refitted, yesterday):
    run_id = refitted.info.run_id
    with pytest.raises(InputError, match=rf"^runs={run_id}: was trained on all interactions"):
        compare(CompareConfig(runs=f"{run_id},{yesterday.run_id}"))
    with pytest.raises(InputError, match=r"was trained on all interactions"):
        evaluate(EvaluateConfig(run_id=run_id))
    with pytest.raises(InputError, match=r"^student_run_id=\w+: was trained on all interactions"):
        map_items(MapItemsConfig(student_run_id=run_id, views="tfidf", device="cpu"))
    for kind in (MainConfig, MapItemsConfig):
        with pytest.raises(InputError, match=r"^refit=true: leaves nothing to measure on"):
            kind(refit=True)


def test_the_refitted_student_learns_what_was_held_out(refitted, options):
    data = data_of(BaselineConfig(**options))
    held_out = np.setdiff1d(np.concatenate([data.validation.targets, data.test.targets]), np.flatnonzero(data.trained))
    found = load_recommender(mlflow.artifacts.download_artifacts(f"runs:/{refitted.info.run_id}/student"))
    assert not set(held_out.tolist()) & set(found.new_items.tolist())

import pytest

from recdistill.config import AddItemsConfig, MapItemsConfig
from recdistill.config.lineage import compared_settings, run_key
from recdistill.errors import InputError


def test_the_run_of_the_student_is_no_part_of_what_makes_two_runs_one_recommender():
    one, other = MapItemsConfig(student_run_id="a" * 32), MapItemsConfig(seed=2)
    settings = [compared_settings(MapItemsConfig, config.values(), {}) for config in (one, other)]
    assert settings[0] == settings[1]
    assert {"views", "item_text", "warm_cost", "item_map", "student", "hidden_size"} <= settings[0].keys()


@pytest.mark.parametrize(
    "change", [{"views": "tfidf"}, {"item_text": "title"}, {"warm_cost": 0.05}, {"tfidf_words": 1}]
)
def test_views_texts_and_costs_make_another_run(change):
    upstream = {"backbone": "key"}
    before = run_key("map_items", MapItemsConfig(), "data", upstream)
    assert run_key("map_items", MapItemsConfig(**change), "data", upstream) != before
    assert run_key("map_items", MapItemsConfig(device="cpu", register="x"), "data", upstream) == before


def test_mistakes_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"^views=: names no view"):
        MapItemsConfig(views="")
    with pytest.raises(InputError, match=r"^warm_cost=2.0: must be at most 1"):
        MapItemsConfig(warm_cost=2.0)
    with pytest.raises(InputError, match=r"^item_map=nearest: must be one of ridge"):
        MapItemsConfig(item_map="nearest")


def test_the_content_of_new_items_counts_and_not_their_path(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("item,title\n1,One\n")
    keys = {
        run_key("add_items", AddItemsConfig(model="m", items=str(tmp_path / one)), "d") for one in ("a.csv", "b.csv")
    }
    assert len(keys) == 1
    (tmp_path / "b.csv").write_text("item,title\n2,Two\n")
    keys.add(run_key("add_items", AddItemsConfig(model="m", items=str(tmp_path / "b.csv")), "d"))
    assert len(keys) == 2

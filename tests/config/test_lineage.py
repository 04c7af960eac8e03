"""What a result depends on follows from the roles of options, for every option of every step."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from recdistill.config import (
    STEPS,
    UPSTREAM,
    BaselineConfig,
    DistillConfig,
    MainConfig,
    MapItemsConfig,
    SweepConfig,
    TeacherConfig,
    changed,
    narrow,
)
from recdistill.config.base import Config, option_table
from recdistill.config.lineage import (
    chosen,
    compared_settings,
    key_parts,
    near_key,
    own_options,
    plugin_contents,
    run_key,
    searchable,
)
from recdistill.config.option import Option
from recdistill.config.steps import REVISIONS
from recdistill.config.views import view_options
from recdistill.errors import InputError
from recdistill.registry import STUDENTS, Declaration

# With these, every option has another valid value.
VARIED = {
    "selection_policy": "random",
    "selection_fraction": 0.5,
    "outputs_token_budget": 1000,
    "base_loss": "bce",
    "lora_rank": 8,
    "experts": 4,
}
OTHER = {
    "experts": 2,
    "lora_rank": 16,
    "lora_dropout": 0.5,
    "selection_policy": "uncertainty",
    "base_loss": "ce",
    "ranking_loss": "kl",
    "baselines": "ease",
    "new_items": 0.2,
    "ema_decay": 0.5,
    "most_cells": 3,
    "time_budget": "20m",
}


def base(kind: type[Config], one: Option, **more: object) -> Config:
    """Options from which ``one`` can be changed alone."""
    values = {name: value for name, value in VARIED.items() if name in option_table(kind)}
    if one.parts and not one.name.endswith("_weight"):
        name, equals, part = one.parts[-1].partition("=")
        values |= {name: part} if equals else {one.parts[-1].partition(">")[0]: 1.0}
    if one.name == "policy_file":
        values["policy_file"] = __file__
    if one.name == "promote" and "register" in option_table(kind):
        values["register"] = "a student"
    if step_reads_views(kind) and one.name in view_options():
        values |= {"item_init": "views"} | ({"views": part} if one.parts else {})
    return kind(**values | more)


def step_reads_views(kind: type[Config]) -> bool:
    """Whether the options of views are there for ``item_init=views`` alone."""
    return "item_init" in option_table(kind) and kind is not MapItemsConfig


def is_read(one: Option) -> bool:
    """Whether a file must lie where the option says, which is part of what is made."""
    return bool(one.metadata["content"]) and one.metadata["path"] == "read"


def another(config: Config, one: Option) -> Config:
    """The same options with another value of ``one``."""
    value = config.value(one.name)
    if one.name in OTHER:
        other = OTHER[one.name]
    elif one.choices:
        other = next(name for name in one.choices if name not in (value, "custom"))
    elif one.type is bool:
        other = not value
    elif one.type in (int, float):
        most = one.metadata["most"]
        other = one.type(value / 2) if most is not None and value * 2 + 1 > most else one.type(value * 2 + 1)
    else:
        other = f"{value}x"
    return changed(config, **{one.name: other})


# An option of one choice has no other value yet.
EVERY = [(step, name) for step in STEPS for name, one in option_table(STEPS[step]).items() if len(one.choices) != 1]
# Steps that measure refuse to refit; worth registers no student.
EVERY = [(step, name) for step, name in EVERY if name != "refit" or step in ("backbone", "distill")]
EVERY = [one for one in EVERY if one not in (("worth", "promote"), ("worth", "register"))]
# Of a file to read the content counts, whatever its role; see below.
READ = {step: [name for name, one in option_table(STEPS[step]).items() if is_read(one)] for step in STEPS}
EVERY = [(step, name) for step, name in EVERY if name not in READ[step]]


@pytest.mark.parametrize(("step", "name"), EVERY)
def test_what_an_option_changes_follows_from_its_role(step: str, name: str) -> None:
    kind = STEPS[step]
    one = option_table(kind)[name]
    before = base(kind, one)
    after = another(before, one)
    assert before.values() != after.values()
    if name not in own_options(kind):
        # It only finds or makes the run before, whose key is part of this one's.
        earlier = UPSTREAM[step]
        assert run_key(step, before, "data", {earlier: "k"}) == run_key(step, after, "data", {earlier: "k"})
        before, after, step = narrow(before, STEPS[earlier]), narrow(after, STEPS[earlier]), earlier
    upstream = {UPSTREAM[step]: "k"} if step in UPSTREAM else {}
    keys = [run_key(step, config, "data", upstream) for config in (before, after)]
    near = [near_key(step, config, "data") for config in (before, after)]
    settings = [compared_settings(STEPS[step], config.values(), {}) for config in (before, after)]
    same = (keys[0] == keys[1], settings[0] == settings[1], near[0] == near[1])
    expected = {
        "data": (False, False, False),
        "result": (False, False, False),
        "budget": (False, False, True),
        "seed": (False, True, True),
        "place": (True, True, True),
        "upstream": (bool(upstream), True, True),
    }
    assert same == expected[one.role]


@pytest.mark.parametrize("step", STEPS)
def test_data_upstream_and_revision_are_in_the_key(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = STEPS[step]()
    first = run_key(step, config, "data", {"before": "a"})
    assert run_key(step, config, "data", {"before": "a"}) == first
    assert run_key(step, config, "other data", {"before": "a"}) != first
    assert run_key(step, config, "data", {"before": "b"}) != first
    monkeypatch.setitem(REVISIONS, step, REVISIONS[step] + 1)
    assert run_key(step, config, "data", {"before": "a"}) != first


def test_a_step_that_runs_others_has_their_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_key("main", MainConfig(), "data")
    monkeypatch.setitem(REVISIONS, "teacher", REVISIONS["teacher"] + 1)
    assert run_key("main", MainConfig(), "data") != first
    assert run_key("prepare", STEPS["prepare"](), "data")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in STEPS.values() for name, one in own_options(kind).items() if one.metadata["content"]],
)
def test_of_a_path_the_content_counts_and_not_the_place(kind: type[Config], name: str, tmp_path: Path) -> None:
    def of(file: str, text: str) -> dict[str, object]:
        path = tmp_path / file / "file.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return chosen(base(kind, option_table(kind)[name], **{name: str(path)}), ("result",))

    here, there, other = of("a", "x"), of("b", "x"), of("c", "y")
    assert here == there
    assert here != other
    assert not any(str(tmp_path) in str(value) for value in here.values())


def test_a_name_that_is_no_path_counts_as_it_is() -> None:
    assert chosen(TeacherConfig(llm="some/model"), ("result",))["llm"] == "some/model"


@pytest.mark.parametrize(("step", "name"), [(step, name) for step in STEPS for name in READ[step]])
def test_a_file_that_is_not_there_is_refused(step: str, name: str) -> None:
    """Else the run that had none is found."""
    config = base(STEPS[step], option_table(STEPS[step])[name], **{name: "nope.parquet"})
    kind = STEPS[step] if name in own_options(STEPS[step], config.values()) else STEPS[UPSTREAM[step]]
    with pytest.raises(InputError, match=rf"^{name}=nope.parquet: no such file"):
        run_key(step, narrow(config, kind), "data")


def test_options_of_parts_that_are_not_in_use_are_in_no_key() -> None:
    parts = key_parts("distill", DistillConfig(student="gru4rec"), "data", {"teacher": "k"})
    assert "heads" not in parts["options"]
    assert "output_loss" not in parts["options"]
    assert parts["options"]["blocks"] == 2
    # So a new student with options of its own makes no old run unfindable.
    assert set(parts["options"]) <= set(option_table(DistillConfig))


def test_distillation_leaves_the_teacher_to_its_own_key() -> None:
    own = own_options(DistillConfig)
    assert {"lam", "epochs", "mask_seen", "seed", "blocks"} <= set(own)
    assert own.keys().isdisjoint({"llm", "gate", "token_budget", "packing", "query_policy"})
    assert {"llm", "gate", "lam"} <= set(own_options(MainConfig))


def test_a_teacher_that_ranks_all_users_has_the_key_that_it_had_before_there_was_a_choice() -> None:
    keys = {run_key("teacher", TeacherConfig(ranked_users=users), "data", {"backbone": "b"}) for users in (0, 5, 9)}
    assert len(keys) == 3
    assert "ranked_users" in TeacherConfig().unread()
    assert "ranked_users" not in TeacherConfig(ranked_users=5).unread()


def test_dealing_out_a_teachers_answers_reads_the_query_policy() -> None:
    def key(**options: Any) -> str:
        return run_key("distill", DistillConfig(teacher_run_id="t", **options), "data", {"teacher": "k"})

    # Asking a teacher is in the teacher's own key.
    assert key(query_policy="uncertainty") == key(query_policy="random") == key()
    shares = {
        policy: key(query_policy=policy, query_share=0.25) for policy in ("random", "uncertainty", "popularity_inverse")
    }
    assert len({*shares.values(), key()}) == 4
    config = DistillConfig(query_policy="uncertainty", query_share=0.25)
    assert near_key("distill", config, "data") != near_key("distill", changed(config, query_policy="random"), "data")
    own = [
        compared_settings(DistillConfig, changed(config, query_policy=p).values(), {})
        for p in ("random", "uncertainty")
    ]
    assert own[0] != own[1]
    assert "query_policy" not in compared_settings(DistillConfig, DistillConfig().values(), {})


def test_prices_count_where_they_bound_what_is_bought() -> None:
    def key(**options: Any) -> str:
        return run_key("teacher", TeacherConfig(teacher="endpoint", endpoint_model="m", **options), "data")

    assert key(price_prompt=1) == key(price_prompt=10)
    assert key(price_prompt=1, cost_budget=2) != key(price_prompt=10, cost_budget=2)
    distilled = [DistillConfig(teacher="endpoint", endpoint_model="m", cost_budget=2, price_prompt=p) for p in (1, 10)]
    assert len({run_key("distill", one, "data", {"teacher": "k"}) for one in distilled}) == 1


def test_what_was_wrong_before_is_made_again() -> None:
    parts = key_parts("distill", DistillConfig(base_loss="sampled"), "data")
    assert parts["options"]["mended"] == "losses over shared negatives"
    for config in (DistillConfig(), DistillConfig(base_loss="sampled", lam=0.0), BaselineConfig(base_loss="sampled")):
        assert "mended" not in key_parts("distill", config, "data")["options"]


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        (TeacherConfig, [{"columns": "user:u,item:i"}, {"columns": " user:u , item:i"}]),
        (TeacherConfig, [{"teacher_text": "title,genres"}, {"teacher_text": "title, genres "}]),
        (MapItemsConfig, [{"item_text": "title,genres"}, {"item_text": "title ,genres"}]),
        (MainConfig, [{"cheap_views": "sentence+tfidf"}, {"cheap_views": "tfidf, sentence"}]),
        (MainConfig, [{"baselines": "itemknn,ease"}, {"baselines": "itemknn, ease"}]),
        (DistillConfig, [{"lam": 1.0}, {"lam": 1}]),
    ],
)
def test_spellings_of_a_value_are_one_run(kind: type[Config], spellings: list[dict[str, Any]]) -> None:
    step = next(step for step in STEPS if STEPS[step] is kind)
    assert len({run_key(step, kind(**one), "data") for one in spellings}) == 1


def test_a_sweep_searches_results_and_budgets_alone() -> None:
    names = searchable(DistillConfig)
    assert {
        "lam",
        "alpha",
        "ed_weight",
        "temperature",
        "selection_policy",
        "student",
        "heads",
        "gate",
        "epochs",
    } <= set(names)
    assert set(names).isdisjoint({"seed", "dataset", "split", "max_users", "device", "register", "teacher_run_id"})
    assert searchable(SweepConfig)


def test_the_code_of_a_users_baseline_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run_key("main", MainConfig(), "data")
    mine = tmp_path / "mine.py"
    mine.write_text("SIGN = 1")
    # Read first: the registry knows its own from here on.
    assert "ease" in STUDENTS.names()
    declared = Declaration("mine", "mine", mine, about={"gradient": False})
    monkeypatch.setattr(STUDENTS, "_declared", {**STUDENTS._known(), "mine": declared})
    assert run_key("main", MainConfig(), "data") == plain
    config = MainConfig(baselines="ease,mine")
    assert set(plugin_contents(config)) == {"student mine"}
    before = run_key("main", config, "data")
    mine.write_text("SIGN = -1")
    assert run_key("main", config, "data") != before


def test_keys_are_short_and_stable() -> None:
    key = run_key("prepare", STEPS["prepare"](), "data")
    assert len(key) == 20
    assert hashlib.sha256(key.encode()).hexdigest() != key

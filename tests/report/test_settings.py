"""Settings out of what runs keep, and the labels that they give."""

import pytest

from recdistill.config import STEPS, DistillConfig
from recdistill.config.lineage import key_parts
from recdistill.report.settings import EVALUATED_STEPS, digests_of, labels, settings_of


def values(**changes):
    return DistillConfig(**changes).values()


def test_seed_device_data_and_run_ids_are_no_settings():
    changes = {"seed": 7, "device": "cpu", "force": True, "teacher_run_id": "abc", "backbone_run_id": "def"}
    changes |= {"dataset": "csv", "interactions": "here.csv", "max_users": 5, "split": "chronological"}
    assert settings_of("distill", values(**changes)) == settings_of("distill", values())


@pytest.mark.parametrize(
    "changes",
    [
        {"lam": 0.7}, {"hidden_size": 32}, {"experts": 2}, {"student": "caser"}, {"mask_seen": False},
        {"exclude_seen": False}, {"blocks": 1}, {"token_budget": 5}, {"packing": False}, {"output_weight": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_every_other_option_of_a_student_and_its_teacher_is_one(changes):
    assert settings_of("distill", values(**changes)) != settings_of("distill", values())


def test_an_option_that_a_run_lacks_has_its_default():
    older = {name: value for name, value in values().items() if name not in ("lam", "gradient_clip")}
    assert settings_of("distill", older) == settings_of("distill", values())


def test_an_option_that_is_no_more_is_no_setting():
    assert settings_of("distill", values() | {"once": 5}) == settings_of("distill", values())


def test_the_teacher_run_counts_not_what_the_student_says_of_it():
    teacher = settings_of("teacher", {"experts": 2})
    found = settings_of("distill", values(experts=8), upstream=teacher)
    assert found["teacher.experts"] == 2
    assert found["teacher.backbone.student"] == "sasrec"
    assert "experts" not in found


def test_each_step_has_settings():
    assert {step for step in EVALUATED_STEPS if settings_of(step, {})} == set(EVALUATED_STEPS)
    assert settings_of("prepare", {}) == {"exclude_seen": True}


def digests(step, config):
    return digests_of(step, config.values(), key_parts(step, config, "f" * 64))


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path):
    found = []
    for folder, text in (("a", "one"), ("b", "one"), ("c", "two")):
        path = tmp_path / folder / "sasrec.pt"
        path.parent.mkdir()
        path.write_text(text)
        config = STEPS["backbone"](released=str(path))
        found.append(settings_of("backbone", config.values(), digests("backbone", config)))
    assert found[0] == found[1]
    assert found[0] != found[2]
    first, last = labels(["backbone"] * 2, [found[0], found[2]])
    assert first == f"backbone released content={found[0]['released content'][:8]}"
    assert first != last


def test_another_revision_of_the_results_is_another_recommender():
    config = DistillConfig()
    parts = key_parts("distill", config, "f" * 64)
    assert "revision" not in digests_of("distill", config.values(), parts | {"revision": [1]})
    assert digests_of("distill", config.values(), parts | {"revision": [2]}) == {"revision": "2"}


def test_options_of_a_part_that_is_not_here_count_as_the_run_kept_them():
    parts = key_parts("backbone", STEPS["backbone"](), "f" * 64)
    parts["options"] |= {"student mean": "0" * 64, "mean_window": 5}
    found = settings_of("backbone", {"student": "mean", "mean_window": 5}, digests_of("backbone", {}, parts))
    assert (found["student mean"], found["mean_window"]) == ("0" * 64, 5)


def test_what_a_closed_form_does_not_read_is_no_setting():
    kind = STEPS["backbone"]
    plain, other = kind(student="ease"), kind(student="ease", hidden_size=8, epochs=2, mask_seen=False)
    found = settings_of("backbone", plain.values())
    assert found == {"student": "ease", "exclude_seen": True, "ease_penalty": 100.0}
    assert settings_of("backbone", other.values()) == found
    assert settings_of("backbone", kind(student="ease", ease_penalty=3.0).values()) != found
    sasrec = settings_of("backbone", kind().values())
    assert labels(["backbone"] * 2, [found, sasrec])[0] == "backbone student=ease"


def test_options_of_parts_that_are_not_in_use_are_no_settings():
    """Runs of 0.1 kept them all."""
    caser = settings_of("backbone", {"student": "caser", "blocks": 5, "heads": 1})
    assert caser == settings_of("backbone", STEPS["backbone"](student="caser").values())
    assert "blocks" not in caser
    assert settings_of("distill", values() | {"output_loss": "cosine"}) == settings_of("distill", values())
    assert settings_of("distill", values(output_weight=0.1))["output_loss"]


def test_where_no_digest_was_kept_the_path_stands_for_the_file():
    old = {"released": "files/sasrec.pt", "student": "sasrec"}
    found = settings_of("backbone", old, digests_of("backbone", old, None))
    assert found["released content"] == "files/sasrec.pt"
    trained = old | {"released": ""}
    assert "released content" not in settings_of("backbone", trained, digests_of("backbone", trained, None))


def test_the_files_of_data_are_no_setting_of_a_recommender():
    parts = key_parts("prepare", STEPS["prepare"](), "f" * 64)
    parts["options"] |= {"data source mine": "0" * 64, "split mine": "1" * 64}
    assert settings_of("prepare", {}, digests_of("prepare", {}, parts)) == {"exclude_seen": True}


def test_labels_hold_what_tells_apart_within_a_step():
    settings = [{"lam": 0.5, "student": "sasrec"}, {"lam": 0.7, "student": "sasrec"}, {}]
    assert labels(["distill", "distill", "prepare"], settings) == ["distill lam=0.5", "distill lam=0.7", "popularity"]


def test_a_setting_that_one_has_alone_tells_apart_only_where_nothing_chose_it():
    settings = [{"student": "sasrec", "blocks": 2}, {"student": "ease", "ease_penalty": 5.0}]
    assert labels(["backbone"] * 2, settings) == ["backbone student=sasrec", "backbone student=ease"]
    settings = [{"student": "sasrec"}, {"student": "sasrec", "released content": "0" * 64}]
    assert labels(["backbone"] * 2, settings) == ["backbone", "backbone released content=00000000"]


def test_a_long_label_counts_the_rest():
    one, other = ({f"option{number}": value for number in range(9)} for value in (1.0, True))
    assert labels(["distill", "distill"], [one, {**other, "option0": False}])[0].endswith("option0=1")
    other = {name: 2.0 for name in one}
    assert labels(["distill", "distill"], [one, other])[1].endswith("option5=2 and 3 more")

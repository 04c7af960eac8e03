from dataclasses import asdict

from recdistill.report.settings import OWN_SETTINGS, labels, settings_of
from recdistill.config import DistillConfig


def text(**changes):
    return {name: str(value) for name, value in (asdict(DistillConfig()) | changes).items()}


def test_seed_device_and_run_ids_are_no_settings():
    changes = {"seed": 7, "device": "cuda", "force": True, "teacher_run_id": "abc", "backbone_run_id": "def"}
    assert settings_of("distill", text(**changes)) == settings_of("distill", text())


def test_every_other_option_of_a_student_and_its_teacher_is_one():
    plain = settings_of("distill", text())
    assert settings_of("distill", text(lam=0.7)) != plain
    assert settings_of("distill", text(hidden_size=32)) != plain
    assert settings_of("distill", text(experts=2)) != plain
    assert settings_of("distill", text(student="caser")) != plain


def test_two_spellings_of_a_value_are_one():
    assert settings_of("distill", text(lam="0.50", epochs="60.0", release_compat="FALSE")) == settings_of(
        "distill", text(lam=0.5, epochs=60, release_compat=False)
    )


def test_an_option_that_a_run_lacks_has_its_default():
    older = {name: value for name, value in text().items() if name != "lam"}
    assert settings_of("distill", older) == settings_of("distill", text())


def test_the_teacher_run_counts_not_what_the_student_says_of_it():
    teacher = settings_of("teacher", {"experts": "2"})
    found = settings_of("distill", text(experts=8), teacher)
    assert found["teacher.experts"] == 2
    assert found["teacher.backbone.student"] == "sasrec"


def test_each_step_has_settings():
    assert {step for step in OWN_SETTINGS if settings_of(step, {})} == {"backbone", "teacher", "distill"}


def test_labels_hold_what_tells_apart_within_a_step():
    settings = [{"lam": 0.5, "student": "sasrec"}, {"lam": 0.7, "student": "sasrec"}, {}]
    assert labels(["distill", "distill", "prepare"], settings) == ["distill lam=0.5", "distill lam=0.7", "popularity"]


def test_a_long_label_counts_the_rest():
    one, other = ({f"option{number}": value for number in range(9)} for value in (1.0, True))
    assert labels(["distill", "distill"], [one, {**other, "option0": False}])[0].endswith("option0=1")
    other = {name: 2.0 for name in one}
    assert labels(["distill", "distill"], [one, other])[1].endswith("option5=2 and 3 more")

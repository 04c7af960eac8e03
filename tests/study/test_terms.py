"""Which language models' terms stand below a table."""

from recdistill.config import DistillConfig, MapItemsConfig, TeacherConfig
from recdistill.data.pinned_models import LLMS, SENTENCE_MODELS, joined_terms, terms_of
from recdistill.study.terms import terms_of_rows
from recdistill.study.worth import report

GEMMA, SMOLLM, MINILM = LLMS["gemma3-270m"].terms, LLMS["smollm2-135m"].terms, SENTENCE_MODELS["minilm"].terms


def test_teachers_and_views_bring_the_terms_of_their_models_once_each() -> None:
    rows = [
        TeacherConfig(llm="gemma3-270m"),
        TeacherConfig(llm="gemma3-270m", seed=2),
        MapItemsConfig(views="tfidf"),
        MapItemsConfig(views="llm+sentence", view_llm="smollm2-135m"),
    ]
    said = terms_of_rows(rows)
    assert [said.count(terms) for terms in (GEMMA, SMOLLM, MINILM)] == [1, 1, 1]
    assert terms_of_rows(rows[2:3]) == ""


def test_models_of_a_path_and_teachers_behind_a_server_bring_none() -> None:
    behind = TeacherConfig(teacher="endpoint", endpoint="http://127.0.0.1:9", endpoint_model="any", llm="gemma3-270m")
    assert terms_of_rows([TeacherConfig(llm="some/model"), behind]) == ""
    # A distilled student's teacher is a row of its own; its views are its own.
    assert terms_of_rows([DistillConfig(llm="gemma3-270m")]) == ""
    student = DistillConfig(llm="gemma3-270m", item_init="views", views="llm", view_llm="smollm2-135m")
    assert terms_of_rows([student]) == SMOLLM


def test_terms_are_joined_each_once() -> None:
    assert terms_of("gemma3-270m", "no-alias", "gemma3-270m") == GEMMA
    assert joined_terms(SMOLLM, "", GEMMA, SMOLLM) == f"{SMOLLM} {GEMMA}"


def test_they_stand_below_the_answer_of_worth() -> None:
    assert report([], None, 1, GEMMA).endswith(f"\nMade with language models: {GEMMA}\n")
    assert "language models:" not in report([], None, 1)

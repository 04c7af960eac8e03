"""Names of sentence encoders: those that can be none are refused before anything is fetched."""

from pathlib import Path

import pytest

from recdistill.errors import InputError
from recdistill.views.sentence_source import check_sentence_name, sentence_folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is empty"),
        ("./nowhere", "no such folder"),
        ("minilmm", r"there is no such alias \(nearest: minilm\)"),
    ],
)
def test_names_that_can_be_no_encoder(name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^sentence_model={name}: {said}"):
        check_sentence_name(name)


def test_folders_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no folder with a config.json"):
        check_sentence_name(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    check_sentence_name(str(tmp_path))
    assert sentence_folder(str(tmp_path)) == str(tmp_path)
    with pytest.raises(InputError, match=r"is no folder with a config.json"):
        check_sentence_name(str(tmp_path / "config.json"))
    check_sentence_name("minilm")
    check_sentence_name("sentence-transformers/all-MiniLM-L6-v2")
    assert sentence_folder("some/encoder") == "some/encoder"

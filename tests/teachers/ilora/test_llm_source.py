"""Names of LLMs: aliases, and the terms that each brings."""

import pytest

from recdistill.data.pinned_models import LLMS, terms_of
from recdistill.errors import InputError
from recdistill.teachers.ilora.llm_source import check_llm_name


@pytest.mark.parametrize("alias", LLMS)
def test_an_alias_brings_its_terms(alias: str) -> None:
    check_llm_name(alias)
    assert terms_of(alias) == LLMS[alias].terms


def test_the_terms_name_the_licence() -> None:
    assert "Gemma Terms of Use found at ai.google.dev/gemma/terms" in terms_of("gemma3-270m")
    assert "Apache 2.0" in terms_of("smollm2-135m")


@pytest.mark.parametrize("llm", ["google/gemma-3-270m", "/a/folder", "gemma3", ""])
def test_another_llm_has_terms_of_its_own(llm: str) -> None:
    assert terms_of(llm) == ""


@pytest.mark.parametrize(("llm", "nearest"), [("gemma3-270M", "gemma3-270m"), ("gemma-270m", "gemma3-270m")])
def test_a_name_that_is_nearly_an_alias_is_refused(llm: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf"llm={llm}: there is no such alias \(nearest: {nearest}\)"):
        check_llm_name(llm)

import pytest

from recdistill.errors import InputError
from recdistill.teachers.generative.prompt_templates import DOMAINS, TEMPLATES, prompt_templates


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_domain_has_several_templates_in_its_own_words(domain):
    found = prompt_templates(domain)
    assert len(set(found)) == len(TEMPLATES) >= 3
    for head, middle, tail in found:
        text = head + middle + tail
        assert DOMAINS[domain].person in text
        assert DOMAINS[domain].thing in text
        assert DOMAINS[domain].name in tail
        assert not set("{}[]") & set(text)
        # A title begins with a blank: one more would be another token.
        assert not head.endswith(" ")
        assert not middle.endswith(" ")
        assert tail.endswith(":")


def test_domains_differ():
    assert len({prompt_templates(domain) for domain in DOMAINS}) == len(DOMAINS)


def test_an_unknown_domain_is_refused():
    with pytest.raises(InputError, match="domain=books: must be one of item, movie, music, game"):
        prompt_templates("books")

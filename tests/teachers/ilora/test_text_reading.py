"""The tokens that an LLM is given of a text, and those whose states are its vector."""

from typing import get_args, get_type_hints

import numpy as np
import pytest
from tiny_llm import tiny_tokenizer

from recdistill.teachers.ilora.text_reading import TEMPLATES, TextReader, begin_tokens
from recdistill.teachers.ranking.teacher import RankingOptions
from recdistill.views.llm import LLMOptions


def tokens(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"] if text else []


@pytest.mark.parametrize("reading", TEMPLATES)
def test_a_text_stands_where_the_template_has_it(reading: str) -> None:
    before, between, after = map(tokens, TEMPLATES[reading])
    own = tokens(" Toy Story")
    ids, read = TextReader(tiny_tokenizer(), reading, 100)("Toy Story")
    expected = [0, *before, *own, *between, *own] if between else [0, *before, *own, *after]
    assert ids == expected
    assert read == (1 if after else len(own))


@pytest.mark.parametrize("reading", TEMPLATES)
@pytest.mark.parametrize("context", [None, 60, 1])
def test_long_texts_are_cut_and_each_keeps_a_token(reading: str, context: int | None) -> None:
    read = TextReader(tiny_tokenizer(), reading, 7, context)
    ids, count = read("word " * 90)
    template = 1 + sum(len(tokens(part)) for part in TEMPLATES[reading])
    copies = 2 if reading == "echo" else 1
    assert template + copies <= len(ids) <= template + 7 * copies
    assert context is None or len(ids) <= max(context, template + copies)
    assert count >= 1


@pytest.mark.parametrize("reading", TEMPLATES)
def test_all_texts_lie_one_after_another(reading: str) -> None:
    read = TextReader(tiny_tokenizer(), reading, 100)
    texts = ["A", "Toy Story", "", "A"]
    found = read.all(texts)
    for place, text in enumerate(texts):
        ids, count = read(text)
        np.testing.assert_array_equal(found.tokens[found.start[place] : found.start[place + 1]], ids)
        assert found.read[place] == count
    assert found.lengths.sum() == len(found.tokens)
    assert found.padding == tiny_tokenizer().pad_token_id


def test_a_begin_token_is_the_tokenizers_or_the_padding() -> None:
    assert begin_tokens(tiny_tokenizer(begin=True)) == [0]
    assert begin_tokens(tiny_tokenizer()) == [0]


def test_both_options_name_every_reading() -> None:
    for options, name in ((LLMOptions, "llm_reading"), (RankingOptions, "teacher_reading")):
        assert set(get_args(get_type_hints(options)[name])) == set(TEMPLATES)

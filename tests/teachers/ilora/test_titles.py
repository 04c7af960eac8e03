import numpy as np
import pytest
from tiny_llm import tiny_tokenizer

from recdistill.errors import InputError
from recdistill.teachers.ilora.titles import INSTRUCTION, MAX_TITLE_TOKENS, plain_title, tokenise_titles

TITLES = ["Toy Story (1995)", "A", "Amélie 🎬", "Star Wars (1977)"]


def text_of(tokenizer, titles, item):
    return tokenizer.decode(titles.tokens[titles.start[item] : titles.start[item + 1]])


def test_each_title_is_its_own_tokens_after_a_blank():
    tokenizer = tiny_tokenizer()
    titles = tokenise_titles(tokenizer, TITLES)
    assert [text_of(tokenizer, titles, item) for item in range(4)] == [f" {title}" for title in TITLES]
    assert tokenizer.decode(titles.instruction) == INSTRUCTION
    assert titles.lengths.tolist() == [len(tokenizer(f" {title}")["input_ids"]) for title in TITLES]
    assert (titles.start[0], titles.start[-1]) == (0, len(titles.tokens))
    assert {array.dtype for array in (titles.tokens, titles.start, titles.instruction)} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("title", "plain"),
    [
        ("Toy Story (1995)", "Toy Story"),
        ("Net, The (1995)", "The Net"),
        ("Shanghai Triad (Yao a yao) (1995)", "Shanghai Triad (Yao a yao)"),
        ("Farewell to Arms, A", "A Farewell to Arms"),
        ("Me, Myself and I", "Me, Myself and I"),
        ("1984 (1984)", "1984"),
        ("2001: A Space Odyssey", "2001: A Space Odyssey"),
        ("(1995)", "(1995)"),
    ],
)
def test_a_plain_title_is_as_it_is_spoken(title: str, plain: str) -> None:
    assert plain_title(title) == plain


def test_a_title_does_not_depend_on_its_neighbours():
    tokenizer = tiny_tokenizer()
    alone = tokenise_titles(tokenizer, [TITLES[2]])
    among = tokenise_titles(tokenizer, TITLES)
    assert among.tokens[among.start[2] : among.start[3]].tolist() == alone.tokens.tolist()


def test_a_long_title_is_cut():
    tokenizer = tiny_tokenizer()
    titles = tokenise_titles(tokenizer, ["Q!" * 60, "A"])
    whole = tokenizer(" " + "Q!" * 60)["input_ids"]
    assert len(whole) > MAX_TITLE_TOKENS
    assert titles.tokens[: titles.start[1]].tolist() == whole[:MAX_TITLE_TOKENS]
    assert text_of(tokenizer, titles, 1) == " A"


def test_special_tokens_stand_in_the_instruction_only():
    tokenizer = tiny_tokenizer(begin=True)
    titles = tokenise_titles(tokenizer, TITLES)
    assert titles.instruction[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in titles.tokens
    assert titles.instruction[1:].tolist() == tokenise_titles(tiny_tokenizer(), TITLES).instruction.tolist()


def test_a_title_without_tokens_is_named():
    class Deaf:
        pad_token_id = 0

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [[] if "B" in one else [1] for one in text] if isinstance(text, list) else [1]}

    with pytest.raises(InputError, match="title 'B' gives no token") as caught:
        tokenise_titles(Deaf(), ["A", "B"])
    assert "\n" not in str(caught.value)


def test_padding_is_the_tokenizers():
    tokenizer = tiny_tokenizer()
    assert tokenise_titles(tokenizer, TITLES).padding == tokenizer.pad_token_id

"""Every family of causal LLMs that transformers can build small is a teacher, or is refused in one line beforehand."""

from pathlib import Path

import pytest
from family_trials import family_config, family_data, try_family, write_family
from tiny_families import FAMILIES, NOT_SMALL

from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError

ENCODES = "its states look at later tokens, as an encoder's do"
TWO_PARTS = "does not read tokens alone"
OF_TOKENS = "reads no embeddings in place of tokens"
NO_MODEL = "transformers has no model of this configuration"
NO_TOKENS = "predicts no tokens, as teacher=generative needs"

#: What is refused of a family, as (ranking, generative); empty is taken.
REFUSED: dict[str, tuple[str, str]] = {
    # Decoders of an encoder and a decoder: transformers gives their states with the encoder alone.
    **dict.fromkeys(("bart", "bigbird_pegasus", "mbart", "mvp", "plbart"), (ENCODES, "")),
    **dict.fromkeys(("blenderbot", "blenderbot-small", "marian", "pegasus", "whisper"), (TWO_PARTS, "")),
    "prophetnet": (TWO_PARTS, "none of its linear layers reads the tokens"),
    "trocr": ("get_input_embeddings", ""),
    # They look ahead within a prompt.
    **dict.fromkeys(("cpmant", "xlnet"), (ENCODES, ENCODES)),
    # They route, or embed once more, by the tokens themselves.
    **dict.fromkeys(("deepseek_v4", "gemma4", "gemma4_text"), (OF_TOKENS, OF_TOKENS)),
    # Heads over another model's states.
    "gemma4_unified_assistant": (TWO_PARTS, TWO_PARTS),
    # Of bytes in patches, which the configuration gives no one size of states.
    "blt": ("names no size of its states", "names no size of its states"),
    # In training they read texts of whole chunks alone.
    "reformer": (OF_TOKENS, OF_TOKENS),
    # transformers saves the configuration of a part that none of its classes builds.
    **dict.fromkeys(("emu3", "mllama"), (NO_MODEL, NO_TOKENS)),
}

#: Tried in the quick tests: tokens as one list, fused experts, a text configuration within another, a cache that keeps
#: states, and one that is refused.
QUICK = ("opt", "mixtral", "gemma3", "lfm2", "deepseek_v4")


@pytest.fixture(scope="module")
def data() -> SequenceData:
    return family_data()


def try_both(family: str, data: SequenceData, folder: Path) -> None:
    llm = write_family(family, folder / "llm")
    expected = dict(zip(("ranking", "generative"), REFUSED.get(family, ("", "")), strict=True))
    for kind, said in expected.items():
        work = folder / kind
        work.mkdir()
        if said:
            with pytest.raises(InputError) as caught:
                family_config(llm, kind)
            assert "\n" not in str(caught.value)
            assert said in str(caught.value)
        else:
            try_family(family_config(llm, kind), data, work)


@pytest.mark.parametrize("family", [name for name in QUICK if name in FAMILIES])
def test_a_family_is_a_teacher_or_refused(family: str, data: SequenceData, tmp_path: Path) -> None:
    try_both(family, data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in QUICK and name not in NOT_SMALL])
def test_every_other_family_too(family: str, data: SequenceData, tmp_path: Path) -> None:
    try_both(family, data, tmp_path)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in NOT_SMALL])
def test_what_is_left_out_cannot_be_built(family: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=NOT_SMALL[family]):
        write_family(family, tmp_path)

"""Prompts against the LLM's positions: the longest one is found exactly, and refused before training."""

from types import SimpleNamespace
from typing import Any

import pytest
from small_teachers import small, small_backbone
from tiny_llm import tiny_base_llm, tiny_tokenizer

from recdistill.config import TeacherConfig, changed
from recdistill.data.batches import batches
from recdistill.errors import InputError
from recdistill.teachers.ilora.titles import tokenise_titles
from recdistill.teachers.ranking.packing import one_prompt_a_sample, packed_prompts
from recdistill.teachers.ranking.prompt_length import check_prompts, check_window, longest_prompt
from recdistill.teachers.ranking.teacher import RankingTeacher


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small data set and its titles, as a teacher has them."""
    data = small(tmp_path_factory.mktemp("data"))
    return SimpleNamespace(data=data, model=SimpleNamespace(titles=tokenise_titles(tiny_tokenizer(), data.titles)))


def parts(scored: Any) -> tuple[Any, ...]:
    return scored.data.train, scored.data.validation, scored.data.test


@pytest.mark.parametrize(("window", "context", "stride"), [(12, 4, 1), (12, 4, 6), (5, 5, 1), (3, 10, 1), (50, 10, 31)])
def test_no_prompt_is_longer_and_one_is_as_long(scored: Any, window: int, context: int, stride: int) -> None:
    count = min(window, stride + context - 1)
    found = []
    for samples in parts(scored):
        # A window of each sample alone, and windows that samples share.
        for shared in (1, stride):
            for batch in batches(
                samples, length=window, batch_size=64, stride=min(shared, window), padding_id=scored.data.padding_id,
                seed=0, epoch=0, shuffle=False,
            ):  # fmt: skip
                titles = scored.model.titles
                packed = packed_prompts(titles, batch.history, batch.row, batch.column, context + stride - shared)
                found.append(int(packed.length.max()))
    assert max(found) == longest_prompt(scored.model.titles, parts(scored), count)


def test_one_prompt_a_sample(scored: Any) -> None:
    found = []
    for samples in parts(scored):
        for batch in batches(
            samples, length=8, batch_size=64, stride=1, padding_id=scored.data.padding_id, seed=0, epoch=0
        ):
            prompts = one_prompt_a_sample(scored.model.titles, batch.history, batch.row, batch.column, 4)
            found.append(int(prompts.length.max()))
    assert max(found) == longest_prompt(scored.model.titles, parts(scored), 4)


def teacher(scored: Any, config: TeacherConfig, window: int = 50) -> Any:
    packed = max(1, min(config.value("teacher_window"), window) - config.teacher_history + 1)
    stride = packed if config.value("packing") else 1
    return SimpleNamespace(**vars(scored), config=config, window=window, stride=stride)


@pytest.mark.parametrize("packing", [True, False])
def test_the_advice_fits_and_one_title_more_does_not(scored: Any, packing: bool) -> None:
    config = TeacherConfig(llm="tiny", teacher_history=4, teacher_window=12, packing=packing)
    titles = scored.model.titles
    longest = longest_prompt(titles, parts(scored), 12 if packing else 4)
    check_prompts(teacher(scored, config), longest)
    check_prompts(teacher(scored, config), None)
    limits = {longest_prompt(titles, parts(scored), count): count for count in range(1, 12 if packing else 4)}
    for limit, fitting in limits.items():
        with pytest.raises(InputError) as refused:
            check_prompts(teacher(scored, config), limit)
        name = "teacher_window" if packing else "teacher_history"
        lower = "teacher_history and teacher_window" if packing and fitting < 4 else name
        assert str(refused.value) == (
            f"{name}={config.value(name)}: makes prompts of up to {longest} tokens, and llm=tiny reads {limit}; "
            f"set {lower} to {fitting} at most"
        )
        advised = changed(config, **dict.fromkeys(lower.split(" and "), fitting))
        check_prompts(teacher(scored, advised), limit)
    with pytest.raises(InputError, match="llm=tiny: reads 5 tokens, and a title alone takes more"):
        check_prompts(teacher(scored, config), 5)


def test_a_teacher_is_refused_before_it_is_trained(scored: Any) -> None:
    llm = tiny_base_llm()
    llm.model.config.max_position_embeddings = 200
    config = TeacherConfig(llm="tiny", teacher_history=4, teacher_window=10)
    with pytest.raises(InputError, match=r"^teacher_window=10: makes prompts of up to \d+ tokens, .* reads 200; set"):
        RankingTeacher.build(config, llm, small_backbone(scored.data), scored.data)


def test_what_never_fits_is_refused_by_the_options_alone(scored: Any) -> None:
    config = TeacherConfig(llm="tiny", teacher_history=4, teacher_window=12)
    check_window(config, 50, None)
    check_window(config, 50, 24)
    check_window(config, 8, 16)
    with pytest.raises(InputError) as refused:
        check_window(config, 50, 23)
    assert str(refused.value) == (
        "teacher_window=12: makes prompts of 24 tokens or more, and llm=tiny reads 23; set teacher_window to 11 at most"
    )
    check_window(changed(config, teacher_window=11), 50, 23)
    with pytest.raises(InputError, match="set teacher_history and teacher_window to 3 at most"):
        check_window(config, 50, 7)
    # It refuses nothing that would fit.
    assert longest_prompt(scored.model.titles, parts(scored), 12) > 24

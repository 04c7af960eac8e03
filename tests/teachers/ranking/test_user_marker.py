"""Prompts of a ranking teacher that begin with the user: the backbone's state of what came before the titles."""

from pathlib import Path

import pytest
import torch
from small_teachers import small, small_backbone, tiny_teacher
from tiny_llm import tiny_base_llm
from tiny_ranking import COLUMN, HISTORY, ITEMS, ROW, SHAPE, TITLES, ask, close, fresh, states_of, tables, trained

from recdistill.teachers.ranking.model import load_ranking_model


@torch.no_grad()
def hidden_alone(teacher, sample: int) -> torch.Tensor:
    """The last state of a sample's prompt, put together token by token; the gates are uniform."""
    row, column = int(ROW[sample]), int(COLUMN[sample])
    first = max(0, column - SHAPE.context + 1)
    words = teacher.llm.get_input_embeddings()
    titles = teacher.titles
    before = states_of(HISTORY[row : row + 1, :first])[0, -1] if first else torch.zeros(teacher.item_table.shape[1])
    parts = [words(torch.from_numpy(titles.instruction[:-1])), teacher.user_projector(before[None])]
    for item in HISTORY[row, first : column + 1].tolist():
        parts += [words(torch.from_numpy(titles.tokens[titles.start[item] : titles.start[item + 1]]))]
        parts += [teacher.projector(teacher.item_table[item][None])]
    teacher.slot.set(torch.full((1, 4), 0.25))
    return teacher.llm(inputs_embeds=torch.cat(parts)[None], use_cache=False)[0][0, -1]


def with_uniform_gate(teacher):
    with torch.no_grad():
        for parameter in teacher.gate.parameters():
            parameter.zero_()
    return teacher


@pytest.mark.parametrize("packing", [True, False])
def test_a_prompt_begins_with_the_state_before_its_titles(packing: bool) -> None:
    teacher = with_uniform_gate(trained(packing=packing, encode_users=True))
    if packing:
        # One sample a window: its prompt then begins where that of the sample alone does.
        for sample in range(len(ROW)):
            row = ROW[sample : sample + 1]
            _, hidden = ask(teacher, HISTORY[row], torch.tensor([0]), COLUMN[sample : sample + 1])
            close(hidden[0], hidden_alone(teacher, sample))
        return
    _, hidden = ask(teacher)
    for sample in range(len(ROW)):
        close(hidden[sample], hidden_alone(teacher, sample))


def test_the_state_before_is_read_and_only_where_it_is_asked_for() -> None:
    moved = states_of(HISTORY)
    # Window 0 has samples at columns 3, 5 and 6: its prompt has titles from column 1 on.
    moved[0, 0] = torch.randn(moved.shape[2], generator=torch.Generator().manual_seed(9))
    for users in (True, False):
        teacher = with_uniform_gate(trained(residual=False, encode_users=users))
        _, hidden = ask(teacher)
        _, other = ask(teacher, states=moved)
        changed = (hidden - other).abs().amax(dim=1) > 1e-4
        assert changed.tolist() == ((ROW == 0) & users).tolist()


@pytest.mark.parametrize("packing", [True, False])
def test_a_later_item_changes_no_earlier_score(packing: bool) -> None:
    teacher = trained(packing=packing, encode_users=True)
    before, _ = ask(teacher)
    for changed in range(1, HISTORY.shape[1]):
        history = HISTORY.clone()
        history[0, changed] = 13
        after, _ = ask(teacher, history)
        earlier = (ROW != 0) | (changed > COLUMN)
        close(after[earlier], before[earlier])


def test_off_it_is_the_teacher_of_before_and_on_one_token_longer() -> None:
    off, on = fresh(), fresh(encode_users=True)
    assert off.user_projector is None
    own = dict(on.named_parameters())
    for name, parameter in off.named_parameters():
        if not name.startswith("head."):
            assert torch.equal(parameter, own[name]), name
    assert len(on.titles.instruction) == len(off.titles.instruction) + 1
    assert torch.equal(off.prompts(HISTORY, ROW, COLUMN).length + 1, on.prompts(HISTORY, ROW, COLUMN).length)


def test_it_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    teacher = trained(encode_users=True)
    logits, _ = teacher(HISTORY, ROW, COLUMN, states_of(HISTORY))
    logits.square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in teacher.user_projector.parameters())
    assert {name for name in teacher.trained() if name.startswith("user_projector.")} == {
        f"user_projector.{part}" for part in ("inner.weight", "inner.bias", "outer.weight", "outer.bias", "scale")
    }
    teacher.save(tmp_path / "teacher")
    loaded = load_ranking_model(tmp_path / "teacher", tiny_base_llm(), TITLES, tables())
    assert loaded.shape.encode_users
    close(ask(loaded)[0], logits.detach())
    assert torch.equal(teacher.item_embedding(), loaded.item_embedding())
    assert teacher.item_embedding().shape[0] == ITEMS


def test_a_teacher_of_the_option_scores_the_whole_step(tmp_path: Path) -> None:
    data = small(tmp_path, users=9)
    backbone = small_backbone(data)
    on, off = (tiny_teacher(data, backbone, encode_users=users) for users in (True, False))
    batch = next(on.batches(data.train, shuffle=False))
    assert on.num_tokens(data.train, batch) > off.num_tokens(data.train, batch)
    validation, test, _ = on.ranks()
    assert (len(validation.ranks), len(test.ranks)) == (len(data.validation), len(data.test))

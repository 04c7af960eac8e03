import pytest
import torch
import torch.nn.functional as F

from recdistill.teachers.ranking.head import RankingHead

SAMPLES, ITEMS, STATE, HIDDEN, CONTENT = 6, 20, 8, 32, 5


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(1)
    return {
        "table": torch.randn(ITEMS, STATE, generator=generator),
        "bias": torch.randn(ITEMS, generator=generator),
        "titles": 3 + 2 * torch.randn(ITEMS, HIDDEN, generator=generator),
        "hidden": torch.randn(SAMPLES, HIDDEN, generator=generator),
        "state": torch.randn(SAMPLES, STATE, generator=generator),
    }


def head_of(parts, bias=True, residual=True, content=CONTENT):
    return RankingHead(HIDDEN, parts["table"], parts["bias"] if bias else None, parts["titles"], residual, content)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("content", [CONTENT, 0])
def test_a_fresh_residual_head_is_the_backbone_exactly(parts, bias, content):
    logits = head_of(parts, bias, content=content)(parts["hidden"], parts["state"])
    assert torch.equal(logits, F.linear(parts["state"], parts["table"], parts["bias"] if bias else torch.zeros(ITEMS)))


def test_a_head_without_residual_reads_nothing_of_the_backbones_state(parts):
    head = head_of(parts, residual=False)
    logits = head(parts["hidden"], parts["state"])
    assert torch.equal(logits, head(parts["hidden"], torch.zeros_like(parts["state"])))
    assert logits.std() > 0
    assert torch.equal(head.item_bias, torch.zeros(ITEMS))


@pytest.mark.parametrize("residual", [True, False])
def test_scores_are_those_of_the_formula(parts, residual):
    head = head_of(parts, residual=residual)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    logits = head(parts["hidden"], parts["state"])
    titles = (parts["titles"] - parts["titles"].mean(0)) / parts["titles"].std(0)
    hidden = F.layer_norm(parts["hidden"], (HIDDEN,), head.norm.weight, head.norm.bias)
    for sample in range(SAMPLES):
        query = head.query.weight @ hidden[sample] + head.query.bias
        if residual:
            query = query + parts["state"][sample]
        wanted = head.content_query.weight @ hidden[sample] + head.content_query.bias
        for item in range(ITEMS):
            key = head.content_key.weight @ titles[item] / HIDDEN**0.5
            score = parts["table"][item] @ query + wanted @ key + (parts["bias"][item] if residual else 0.0)
            torch.testing.assert_close(logits[sample, item], score, atol=1e-4, rtol=1e-4)


def test_the_tables_are_neither_trained_nor_saved(parts):
    head = head_of(parts)
    assert set(head.state_dict()) == {name for name, _ in head.named_parameters()}
    assert {"item_table", "item_bias", "titles"} == {name for name, _ in head.named_buffers()}
    before = parts["table"].clone()
    head.item_table += 1
    assert torch.equal(parts["table"], before)


def test_training_leaves_the_zero_start(parts):
    head = head_of(parts)
    start = {name: parameter.detach().clone() for name, parameter in head.named_parameters()}
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(3):
        F.cross_entropy(head(parts["hidden"], parts["state"]), torch.arange(SAMPLES)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert [name for name, parameter in head.named_parameters() if torch.equal(parameter, start[name])] == []


def test_hidden_states_in_bfloat16_give_float32_scores(parts):
    logits = head_of(parts)(parts["hidden"].bfloat16(), parts["state"])
    assert logits.dtype == torch.float32


def test_an_entry_alike_in_all_titles_is_harmless(parts):
    parts["titles"][:, 3] = 7.0
    head = head_of(parts)
    assert head.titles.isfinite().all()
    assert torch.equal(head.titles[:, 3], torch.zeros(ITEMS))

"""The generative teacher over the tiny llama: its loss by hand, what it trains, saved and loaded."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from tiny_generative import (
    CANDIDATES,
    HISTORIES,
    STATE,
    TARGETS,
    TEMPLATE,
    TITLES,
    fresh,
    item_table,
    states,
    tiny_causal_llm,
    tiny_causal_model,
    trained,
    waiting,
    with_answers,
)

from recdistill.errors import InputError
from recdistill.teachers.generative.candidate_prompts import asking
from recdistill.teachers.generative.model import TEXT_ROWS, build_generative_model, load_generative_model


@torch.no_grad()
def loss_of_each_answer(teacher, injected=True):
    """Token losses of each answer, its prompt read alone, token by token as a loop."""
    words, found = teacher.llm.get_input_embeddings(), []
    for row, target in enumerate(TARGETS):
        tokens, items = asking(teacher.parts, HISTORIES[row], CANDIDATES[row], TEMPLATE[row])
        answer = torch.from_numpy(teacher.parts.answer(target))
        inputs = [
            words(torch.tensor(token)) if item < 0 or not injected else teacher.projector(teacher.item_table[item])
            for token, item in zip(tokens, items, strict=True)
        ]
        embedded = torch.cat([torch.stack(inputs), words(answer)]).unsqueeze(0)
        teacher.slot.set(teacher.gate(states()[row : row + 1]))
        logits = teacher.llm(inputs_embeds=embedded).logits[0, len(tokens) - 1 : -1]
        found.append(F.cross_entropy(logits, answer, reduction="none"))
    return found


@pytest.mark.parametrize("injected", [True, False])
@pytest.mark.parametrize("changes", [{}, {"gate_per_layer": True}, {"gate": "mlp", "domain": "game"}])
def test_the_loss_is_the_mean_over_the_answers_tokens(injected, changes):
    teacher = trained(**changes)
    with torch.no_grad():
        loss = teacher(with_answers(teacher), states(), injected)
    expected = torch.cat(loss_of_each_answer(teacher, injected)).mean()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=0)


def test_markers_gate_and_text_all_matter():
    teacher = trained()
    with torch.no_grad():
        prompts = with_answers(teacher)
        loss = teacher(prompts, states())
        assert (teacher(prompts, states(), injected=False) - loss).abs() > 2e-3
        assert (teacher(prompts, states().flip(0)) - loss).abs() > 2e-3
        other = torch.where(prompts.item == int(CANDIDATES[0, 0]), int(CANDIDATES[0, 1]), prompts.item)
        assert (teacher(replace(prompts, item=other), states()) - loss).abs() > 2e-3


def test_what_stands_in_the_padding_is_never_read():
    teacher = trained()
    prompts = with_answers(teacher)
    assert not bool(prompts.real.all())
    with torch.no_grad():
        other = replace(prompts, tokens=prompts.tokens.masked_fill(~prompts.real, 17))
        torch.testing.assert_close(teacher(other, states()), teacher(prompts, states()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("injected", [True, False])
def test_text_alone_trains_all_but_the_projector(dtype, injected):
    teacher = trained(dtype).train()
    teacher(with_answers(teacher), states(), injected).backward()
    reached = {name for name, parameter in teacher.named_parameters() if parameter.grad is not None}
    assert {name.partition(".")[0] for name in reached} == {"gate", "llm"} | ({"projector"} if injected else set())
    wanted = {name for name, parameter in teacher.named_parameters() if parameter.requires_grad}
    assert reached == {name for name in wanted if injected or not name.startswith("projector.")}
    assert [name for name in reached if name.startswith("llm.") and ".lora_" not in name] == []
    for name, parameter in teacher.named_parameters():
        if name in reached:
            assert parameter.dtype == torch.float32
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_a_bfloat16_base_is_near_the_float32_one():
    precise, low = trained(), trained(torch.bfloat16)
    with torch.no_grad():
        losses = [float(teacher(with_answers(teacher), states())) for teacher in (precise, low)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_steps_move_what_is_trained_and_lower_the_loss():
    teacher = fresh().train()
    start = {name: parameter.detach().clone() for name, parameter in teacher.named_parameters()}
    optimizer = torch.optim.Adam([p for p in teacher.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(4):
        loss = teacher(with_answers(teacher), states())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    moved = {name for name, parameter in teacher.named_parameters() if not torch.equal(parameter, start[name])}
    assert moved == {name for name in teacher.trained() if name in start}


def test_untrained_and_on_text_alone_it_is_the_base():
    teacher = fresh().eval()
    prompts = with_answers(teacher)
    base = tiny_causal_model()
    with torch.no_grad():
        logits = base(input_ids=prompts.tokens).logits[:, :-1]
        expected = F.cross_entropy(logits.flatten(0, 1), prompts.labels[:, 1:].flatten())
        torch.testing.assert_close(teacher(prompts, states(), injected=False), expected, atol=1e-5, rtol=1e-5)


def test_the_gates_of_the_last_samples_can_be_looked_at():
    teacher = trained(gate_per_layer=True)
    teacher(with_answers(teacher), states())
    assert teacher.sample_gates.shape == (3, 2, 4)
    assert not teacher.sample_gates.requires_grad
    torch.testing.assert_close(teacher.sample_gates.sum(dim=-1), torch.ones(3, 2))


@torch.no_grad()
def test_a_text_is_embedded_by_the_base_at_its_last_token():
    teacher, base = trained(), tiny_causal_model().model
    texts = [*TITLES, "", "Something else, 1987"] * (TEXT_ROWS // len(TITLES) + 1)
    found = teacher.embed_texts(texts)
    assert len(found) == len(texts) > TEXT_ROWS
    for place in (0, 2, len(TITLES) + 1, TEXT_ROWS - 1, TEXT_ROWS, len(texts) - 1):
        ids = teacher.tokenizer(texts[place])["input_ids"] or [teacher.parts.closing]
        expected = base(input_ids=torch.tensor([ids]))[0][0, -1]
        torch.testing.assert_close(found[place], expected, atol=1e-5, rtol=1e-4)
    # The adapter is back, and can be trained.
    assert all(p.requires_grad for name, p in teacher.named_parameters() if ".lora_" in name)


@pytest.mark.parametrize("changes", [{}, {"gate": "resnet"}, {"gate_per_layer": True, "domain": "music"}])
def test_saved_and_loaded_over_a_fresh_base_it_is_the_same(tmp_path: Path, changes):
    teacher = trained(**changes)
    teacher.save(tmp_path / "teacher")
    torch.manual_seed(1)
    loaded = load_generative_model(tmp_path / "teacher", tiny_causal_llm(), TITLES, item_table())
    assert not loaded.training
    assert loaded.shape == teacher.shape
    with torch.no_grad():
        assert torch.equal(loaded(with_answers(loaded), states()), teacher(with_answers(teacher), states()))
        assert torch.equal(loaded.embed_texts(TITLES), teacher.embed_texts(TITLES))
    assert torch.equal(waiting(loaded).tokens, waiting(teacher).tokens)


def test_files_hold_no_weight_of_the_base(tmp_path: Path):
    teacher = trained()
    teacher.save(tmp_path)
    names, values = set(), 0
    for path in tmp_path.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                names.add(name)
                values += file.get_tensor(name).numel()
    assert {name for name in names if ".lora_" not in name and not name.startswith(("gate.", "projector."))} == set()
    assert values == sum(tensor.numel() for tensor in teacher.trained().values())


def test_a_teacher_that_does_not_fit_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere: no readable generative teacher"):
        load_generative_model(tmp_path / "nowhere", tiny_causal_llm(), TITLES, item_table())
    trained().save(tmp_path)
    other = replace(tiny_causal_llm(), name="other", fingerprint="0" * 64)
    with pytest.raises(InputError, match="was trained over tiny, not over this other"):
        load_generative_model(tmp_path, other, TITLES, item_table())
    with pytest.raises(InputError, match="do not fit this backbone"):
        load_generative_model(tmp_path, tiny_causal_llm(), TITLES, item_table(size=STATE * 2))
    (tmp_path / "teacher.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="no readable generative teacher") as caught:
        load_generative_model(tmp_path, tiny_causal_llm(), TITLES, item_table())
    assert "\n" not in str(caught.value)


def test_an_unknown_domain_or_gate_is_refused():
    for changes, said in (({"domain": "books"}, "domain=books"), ({"gate": "nonsense"}, "gate 'nonsense'")):
        with pytest.raises(InputError, match=said):
            fresh(**changes)
    with pytest.raises(InputError, match="no multiple of 3 experts"):
        build_generative_model(tiny_causal_llm(), replace(fresh().shape, experts=3), TITLES, item_table())

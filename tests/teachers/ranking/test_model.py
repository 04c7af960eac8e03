"""Ranking teacher over the tiny llama: nothing of the future, the same answers packed and apart, saved and loaded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from tiny_llm import tiny_base_llm
from tiny_ranking import (
    COLUMN,
    HISTORY,
    ITEMS,
    LENGTH,
    ROW,
    SHAPE,
    STATE,
    TITLES,
    ask,
    close,
    fresh,
    states_of,
    tables,
    trained,
)
from torch import Tensor

from recdistill.errors import InputError
from recdistill.teachers.ilora.documents import BLOCK
from recdistill.teachers.ranking.base_states import TITLE_ROWS
from recdistill.teachers.ranking.model import (
    BackboneTables,
    RankingModel,
    build_ranking_model,
    load_ranking_model,
)


def gates_given(teacher: RankingModel, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """A list that gets the gate weights of every pass from now on."""
    given: list[Tensor] = []
    set_weights = teacher.slot.set
    monkeypatch.setattr(teacher.slot, "set", lambda *own: given.append(own[0]) or set_weights(*own))
    return given


def test_plain_titles_are_read_for_those_with_a_year(tmp_path: Path) -> None:
    plain, shape = [f"The Net {item}" for item in range(ITEMS)], replace(SHAPE, plain_titles=True)
    dated = [f"Net {item}, The (19{item:02})" for item in range(ITEMS)]
    read, expected = (build_ranking_model(tiny_base_llm(), shape, names, tables()) for names in (dated, plain))
    assert read.titles.tokens.tolist() == expected.titles.tokens.tolist()
    assert torch.equal(read.head.titles, expected.head.titles)
    read.save(tmp_path / "teacher")
    loaded = load_ranking_model(tmp_path / "teacher", tiny_base_llm(), dated, tables())
    assert loaded.titles.tokens.tolist() == expected.titles.tokens.tolist()
    as_they_are = build_ranking_model(tiny_base_llm(), SHAPE, dated, tables())
    assert as_they_are.titles.tokens.tolist() != expected.titles.tokens.tolist()


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_a_later_item_changes_no_earlier_score(packing: bool, residual: bool) -> None:
    teacher = trained(packing=packing, residual=residual)
    before, hidden = ask(teacher)
    for changed in range(1, LENGTH):
        history = HISTORY.clone()
        history[0, changed] = 13  # its title is longer or shorter: later tokens move
        after, hidden_after = ask(teacher, history)
        earlier = (ROW != 0) | (changed > COLUMN)
        close(after[earlier], before[earlier])
        close(hidden_after[earlier], hidden[earlier])
        for sample in (~earlier).nonzero().squeeze(1).tolist():
            inside = packing or changed > COLUMN[sample] - SHAPE.context
            assert (hidden_after[sample] - hidden[sample]).abs().max() > 1e-3 or not inside


def test_a_later_state_changes_no_earlier_score() -> None:
    teacher, states = trained(residual=False), states_of(HISTORY)
    before, _ = ask(teacher)
    for changed in range(1, LENGTH):
        moved = states.clone()
        moved[0, changed:] = torch.randn(LENGTH - changed, STATE)
        after, _ = ask(teacher, states=moved)
        earlier = (ROW != 0) | (changed > COLUMN)
        assert torch.equal(after[earlier], before[earlier])
        assert bool(((after - before).abs().amax(dim=1) > 1e-4)[~earlier].all())


def test_packed_gates_are_those_of_each_tokens_own_item() -> None:
    teacher, states = trained(residual=False), states_of(HISTORY)
    before, _ = ask(teacher)
    moved = states.clone()
    moved[0, 4] = torch.randn(STATE)  # a boundary inside the window that no sample is asked at
    after, _ = ask(teacher, states=moved)
    changed = (after - before).abs().amax(dim=1) > 1e-4
    assert changed.tolist() == ((ROW == 0) & (COLUMN >= 4)).tolist()


def test_packed_gates_are_uniform_at_the_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, states = trained(), states_of(HISTORY)
    teacher.longest_in_row = 0
    given = gates_given(teacher, monkeypatch)
    ask(teacher)
    prompts = teacher.prompts(HISTORY, ROW, COLUMN)
    instruction = len(teacher.titles.instruction)
    for (rows, width), weights in zip(prompts.by_length(), given, strict=True):
        assert weights.shape == (len(rows), width, SHAPE.experts)
        assert torch.equal(weights[:, :instruction], torch.full((len(rows), instruction, 4), 0.25))
        for place, row in enumerate(rows.tolist()):
            for token in range(instruction, int(prompts.length[row])):
                own = teacher.gate(states[row, prompts.column[row, token]])
                close(weights[place, token], own)


@pytest.mark.parametrize("packing", [True, False])
def test_in_one_row_each_token_has_the_weights_of_its_prompt(packing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, states = trained(packing=packing), states_of(HISTORY)
    given = gates_given(teacher, monkeypatch)
    ask(teacher)
    prompts, uniform = teacher.prompts(HISTORY, ROW, COLUMN), torch.full((SHAPE.experts,), 0.25)
    row = prompts.in_one_row()
    (weights,) = given
    assert weights.shape == (1, len(row.tokens), SHAPE.experts)
    assert len(row.tokens) % BLOCK == 0
    for place in range(int(prompts.length.sum())):
        prompt, column = int(row.prompt[place]), int(row.column[place])
        if packing:
            own = uniform if column < 0 else teacher.gate(states[prompt, column])
        else:
            own = teacher.gate(states[ROW[prompt], COLUMN[prompt]])
        close(weights[0, place], own)


def test_packed_is_each_sample_asked_alone_with_the_same_context() -> None:
    teacher, states = trained(), states_of(HISTORY)
    together, hidden = ask(teacher)
    for sample, (row, column) in enumerate(zip(ROW.tolist(), COLUMN.tolist(), strict=True)):
        first = max(0, int(COLUMN[row == ROW].min()) - SHAPE.context + 1)
        teacher.shape = replace(SHAPE, context=column - first + 1)
        alone = ask(teacher, HISTORY[row : row + 1], torch.tensor([0]), torch.tensor([column]), states[row : row + 1])
        close(alone[0][0], together[sample])
        close(alone[1][0], hidden[sample])


def test_one_prompt_a_sample_has_its_sequences_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, states = trained(packing=False, residual=False), states_of(HISTORY)
    teacher.longest_in_row = 0
    given = gates_given(teacher, monkeypatch)
    before, _ = ask(teacher)
    prompts = teacher.prompts(HISTORY, ROW, COLUMN)
    own = teacher.gate(states[ROW, COLUMN])
    for (rows, _), weights in zip(prompts.by_length(), given, strict=True):
        close(weights, own[rows])
    moved = torch.randn_like(states)
    moved[ROW, COLUMN] = states[ROW, COLUMN]
    assert torch.equal(ask(teacher, states=moved)[0], before)


def test_one_prompt_a_sample_is_the_llm_over_that_prompt_alone() -> None:
    teacher, states = trained(packing=False), states_of(HISTORY)
    logits, hidden = ask(teacher)
    embedding = teacher.llm.get_input_embeddings()
    for sample, (row, column) in enumerate(zip(ROW.tolist(), COLUMN.tolist(), strict=True)):
        parts = [embedding(torch.from_numpy(teacher.titles.instruction))]
        for item in HISTORY[row, max(0, column - SHAPE.context + 1) : column + 1].tolist():
            start, end = teacher.titles.start[item : item + 2]
            parts.append(embedding(torch.from_numpy(teacher.titles.tokens[start:end])))
            parts.append(teacher.projector(teacher.item_table[item]).unsqueeze(0))
        teacher.slot.set(teacher.gate(states[row, column]).unsqueeze(0))
        with torch.no_grad():
            expected = teacher.llm(inputs_embeds=torch.cat(parts).unsqueeze(0))[0][0, -1]
            close(hidden[sample], expected)
            close(logits[sample], teacher.head(expected.unsqueeze(0), states[row, column].unsqueeze(0))[0])


@pytest.mark.parametrize("packing", [True, False])
def test_a_permuted_batch_is_answered_in_its_order(packing: bool) -> None:
    teacher = trained(packing=packing)
    logits, hidden = ask(teacher)
    order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    windows = torch.tensor([2, 0, 1])
    place = torch.empty(3, dtype=torch.int64).index_put((windows,), torch.arange(3))
    permuted = ask(teacher, HISTORY[windows], place[ROW[order]], COLUMN[order])
    close(permuted[0], logits[order])
    close(permuted[1], hidden[order])


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_fresh_residual_teacher_is_its_backbone(packing: bool, bias: bool) -> None:
    backbone, states = tables(bias), states_of(HISTORY)
    logits, _ = ask(fresh(packing=packing, backbone=backbone).eval())
    assert torch.equal(logits, F.linear(states[ROW, COLUMN], backbone.output, backbone.bias))


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("per_layer", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_reach_gate_projector_lora_and_head_alone(packing: bool, per_layer: bool, dtype: torch.dtype) -> None:
    teacher = trained(dtype, packing=packing, gate_per_layer=per_layer).train()
    states = states_of(HISTORY).requires_grad_()
    logits, hidden = teacher(HISTORY, ROW, COLUMN, states)
    assert (logits.dtype, hidden.dtype) == (torch.float32, torch.float32)
    F.cross_entropy(logits, torch.arange(len(ROW))).backward()
    reached = {name for name, parameter in teacher.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, parameter in teacher.named_parameters() if parameter.requires_grad}
    assert {name.partition(".")[0] for name in reached} == {"gate", "projector", "llm", "head"}
    assert [name for name in reached if name.startswith("llm.") and ".lora_" not in name] == []
    for name, parameter in teacher.named_parameters():
        if name in reached:
            assert parameter.dtype == torch.float32
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_a_bfloat16_base_is_near_the_float32_one() -> None:
    precise, low = (ask(trained(dtype, residual=False))[0] for dtype in (torch.float32, torch.bfloat16))
    assert (low - precise).abs().mean() < 0.05 * precise.std()


def test_three_steps_move_all_that_is_trained_and_nothing_else() -> None:
    teacher = fresh().train()
    start = {name: parameter.detach().clone() for name, parameter in teacher.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    optimizer = torch.optim.Adam([p for p in teacher.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(teacher(HISTORY, ROW, COLUMN, states_of(HISTORY))[0], torch.arange(len(ROW)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    moved = {name for name, parameter in teacher.named_parameters() if not torch.equal(parameter, start[name])}
    assert moved == {name for name in teacher.trained() if name in start}
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in teacher.named_buffers())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("packing", "longest_in_row"), [(True, 0), (True, 1000), (False, 0), (False, 1000)])
def test_checkpointed_gradients_are_the_plain_ones_for_less_memory(
    dtype: torch.dtype, packing: bool, longest_in_row: int
) -> None:
    gradients, kept = [], []
    for checkpointed in (False, True):
        teacher = trained(dtype, packing=packing, dropout=0.2).train()
        teacher.longest_in_row = longest_in_row
        # Prompts of several lengths: the slot holds other weights when the first ones are computed again.
        assert len(teacher.prompts(HISTORY, ROW, COLUMN).by_length()) > 1 or not packing
        if checkpointed:
            teacher.enable_gradient_checkpointing()
        own = {p.untyped_storage().data_ptr() for p in teacher.parameters()}
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, own=own, sizes=sizes) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        torch.manual_seed(2)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = F.cross_entropy(teacher(HISTORY, ROW, COLUMN, states_of(HISTORY))[0], torch.arange(len(ROW)))
        kept.append(sum(sizes.values()))
        loss.backward()
        gradients.append({name: p.grad for name, p in teacher.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        assert torch.equal(gradients[1][name], gradient), name
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gate": "resnet"},
        {"gate": "topk", "gate_options": {"gate_kept": 2}},
        {"gate_per_layer": True},
        {"packing": False, "residual": False, "gate": "mlp", "gate_per_layer": True},
    ],
)
def test_saved_and_loaded_over_a_fresh_base_it_is_the_same(tmp_path: Path, changes: dict) -> None:
    teacher = trained(**changes).train()
    teacher(HISTORY, ROW, COLUMN, states_of(HISTORY))  # moves the running statistics of batch norm
    teacher.eval().save(tmp_path / "teacher")
    torch.manual_seed(1)
    loaded = load_ranking_model(tmp_path / "teacher", tiny_base_llm(), TITLES, tables())
    assert not loaded.training
    assert loaded.shape == teacher.shape
    for own, expected in zip(ask(loaded), ask(teacher), strict=True):
        assert torch.equal(own, expected)
    assert torch.equal(loaded.item_embedding(), teacher.item_embedding())


def test_a_teacher_saved_before_gates_had_options_is_loaded(tmp_path: Path) -> None:
    teacher = trained(gate="topk")
    teacher.save(tmp_path)
    settings = json.loads((tmp_path / "teacher.json").read_text())
    assert settings["shape"].pop("gate_options") == {}
    (tmp_path / "teacher.json").write_text(json.dumps(settings))
    loaded = load_ranking_model(tmp_path, tiny_base_llm(), TITLES, tables())
    assert torch.equal(ask(loaded)[0], ask(teacher)[0])
    assert loaded.gate.kept == 1
    settings["shape"]["gate_options"] = {"kept": 2}
    (tmp_path / "teacher.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="gate 'topk' has no option kept"):
        load_ranking_model(tmp_path, tiny_base_llm(), TITLES, tables())


def test_files_hold_no_weight_of_the_base(tmp_path: Path) -> None:
    teacher = trained()
    teacher.save(tmp_path)
    names, values = set(), 0
    for path in tmp_path.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                names.add(name)
                values += file.get_tensor(name).numel()
    assert {
        name for name in names if ".lora_" not in name and not name.startswith(("gate.", "projector.", "head."))
    } == set()
    assert values == sum(tensor.numel() for tensor in teacher.trained().values())
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".safetensors", ".json", ".md"}


def test_a_bfloat16_teacher_opens_over_a_float32_base(tmp_path: Path) -> None:
    teacher = trained(torch.bfloat16)
    teacher.save(tmp_path)
    loaded = load_ranking_model(tmp_path, tiny_base_llm(), TITLES, tables())
    precise, low = ask(loaded)[0], ask(teacher)[0]
    assert (low - precise).abs().mean() < 0.05 * precise.std()


def test_a_teacher_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no readable teacher"):
        load_ranking_model(tmp_path / "nowhere", tiny_base_llm(), TITLES, tables())
    teacher = trained()
    teacher.save(tmp_path)
    other = tiny_base_llm()
    with torch.no_grad():
        other.model.get_input_embeddings().weight += 1
    other = replace(other, name="other", fingerprint="0" * 64)
    with pytest.raises(InputError, match="was trained over tiny, not over this other"):
        load_ranking_model(tmp_path, other, TITLES, tables())
    with pytest.raises(InputError, match="do not fit this backbone"):
        load_ranking_model(tmp_path, tiny_base_llm(), TITLES, tables(size=STATE * 2))
    (tmp_path / "teacher.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="no readable teacher") as caught:
        load_ranking_model(tmp_path, tiny_base_llm(), TITLES, tables())
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_item_embedding_is_the_state_after_the_title_alone_at_the_uniform_gate() -> None:
    many = [f"Film {item} {'again ' * (item % 4)}" for item in range(TITLE_ROWS + 5)]
    generator = torch.Generator().manual_seed(4)
    wide = BackboneTables(*(torch.randn(len(many), STATE, generator=generator) for _ in range(2)))
    torch.manual_seed(0)
    teacher = build_ranking_model(tiny_base_llm(), SHAPE, many, wide).eval()
    for name, parameter in teacher.named_parameters():
        if ".lora_" in name:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    embedding = teacher.item_embedding()
    assert embedding.shape == (len(many), teacher.llm.config.hidden_size)
    assert embedding.dtype == torch.float32
    words = teacher.llm.get_input_embeddings()
    for item in (0, 3, TITLE_ROWS - 1, TITLE_ROWS, TITLE_ROWS + 4):
        start, end = teacher.titles.start[item : item + 2]
        prompt = [teacher.titles.instruction, teacher.titles.tokens[start:end]]
        parts = [words(torch.from_numpy(part)) for part in prompt] + [teacher.projector(wide.items[item : item + 1])]
        teacher.slot.set(torch.full((1, 4), 0.25))
        close(embedding[item], teacher.llm(inputs_embeds=torch.cat(parts).unsqueeze(0))[0][0, -1])


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="rank 8 is no multiple of 3 experts"):
        fresh(experts=3)
    with pytest.raises(InputError, match="gate 'nonsense' is unknown"):
        fresh(gate="nonsense")


@pytest.mark.parametrize("packing", [True, False])
def test_layers_with_copies_of_a_gate_are_the_shared_gate(packing: bool) -> None:
    shared, own = trained(packing=packing), trained(packing=packing, gate_per_layer=True)
    with torch.no_grad():
        weights = shared.trained()
        for name, parameter in own.trained().items():
            layer = name.removeprefix("gate.gates.").partition(".")[2]
            parameter.copy_(weights[f"gate.{layer}" if name.startswith("gate.") else name])
    assert len(own.gate.gates) == 2
    for found, expected in zip(ask(own), ask(shared), strict=True):
        close(found, expected)
    close(own.item_embedding(), shared.item_embedding())
    with torch.no_grad():
        own.gate.gates[1].linear.weight.neg_()
    assert (ask(own)[1] - ask(shared)[1]).abs().max() > 1e-3


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("per_layer", [True, False])
def test_sample_gates_are_those_of_the_samples_own_states(packing: bool, per_layer: bool) -> None:
    teacher, states = trained(packing=packing, gate_per_layer=per_layer), states_of(HISTORY)
    ask(teacher)
    close(teacher.sample_gates, teacher.gate(states[ROW, COLUMN]))
    assert teacher.sample_gates.shape == (len(ROW), 2, 4) if per_layer else (len(ROW), 4)
    assert not teacher.sample_gates.requires_grad


@pytest.mark.parametrize("packing", [True, False])
def test_prompts_of_all_lengths_together_are_answered_alike(packing: bool) -> None:
    teacher = trained(packing=packing)
    teacher.longest_in_row = 0
    apart = ask(teacher)
    passes = []
    teacher.llm.register_forward_hook(lambda *_: passes.append(1))
    for teacher.in_one_pass, teacher.longest_in_row in ((True, 0), (False, float("inf"))):
        for found, expected in zip(ask(teacher), apart, strict=True):
            close(found, expected)
    assert len(passes) == 2


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("packing", [True, False])
def test_gradients_in_one_row_are_those_of_padded_rows(packing: bool, per_layer: bool) -> None:
    found = []
    for longest_in_row in (0, float("inf")):
        teacher = trained(packing=packing, gate_per_layer=per_layer, encode_users=True).train()
        teacher.longest_in_row = longest_in_row
        F.cross_entropy(teacher(HISTORY, ROW, COLUMN, states_of(HISTORY))[0], torch.arange(len(ROW))).backward()
        found.append({name: one.grad for name, one in teacher.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert any("user_projector" in name for name in found[0])
    for name, gradient in found[0].items():
        close(found[1][name], gradient)

"""Ranks and outputs of a teacher against loops over single samples; what a kill leaves; what a budget buys."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_data import write_csv
from tiny_llm import tiny_base_llm

from recdistill.config import TeacherConfig
from recdistill.data.load import load_data
from recdistill.data.samples import Samples
from recdistill.distill.selection import QUERY_POLICIES, query
from recdistill.steps import teacher_scoring
from recdistill.steps.results import KEPT
from recdistill.steps.selection import signals_of_student
from recdistill.steps.teacher import scorer_of, shape_of, tables_of, training_batches
from recdistill.steps.teacher_scoring import joined, make_outputs, ranks_of_samples
from recdistill.students.build import StudentShape, build_student
from recdistill.teachers.ranking.packing import one_prompt_a_sample, packed_prompts
from recdistill.teachers.ranking.model import build_ranking_model
from recdistill.teachers.ilora.titles import TitleTokens

CONTEXT, WINDOW, LENGTH = 3, 8, 12
OPTIONS = {"teacher_history": CONTEXT, "teacher_window": WINDOW, "top_n": 6, "tokens_per_batch": 200}


class KilledError(Exception):
    pass


class PlainTeacher:
    """Scores that a loop can repeat: a sum over the last three items of a history, whatever window they stand in."""

    def __init__(self, num_items, packing=True):
        generator = torch.Generator().manual_seed(3)
        self.shape = SimpleNamespace(packing=packing)
        lengths = 1 + np.arange(num_items) % 4
        start = np.concatenate([[0], np.cumsum(lengths)])
        self.titles = TitleTokens(np.ones(start[-1], dtype=np.int64), start, np.arange(5), 0)
        self.table = torch.randn(num_items, num_items, generator=generator)
        self.embedding = 4 + torch.randn(num_items, 7, generator=generator)
        self.calls = 0
        self.tokens = 0
        self.kill_at = None

    def eval(self):
        return self

    def prompts(self, history, row, column):
        lay_out = packed_prompts if self.shape.packing else one_prompt_a_sample
        return lay_out(self.titles, history, row, column, CONTEXT)

    def scores(self, items):
        weights = torch.tensor([0.2, 0.5, 1.0])[-len(items[-CONTEXT:]) :]
        return (weights.unsqueeze(1) * self.table[list(items[-CONTEXT:])]).sum(dim=0)

    def __call__(self, history, row, column, states):
        assert states.shape[:2] == history.shape
        if self.calls == self.kill_at:
            raise KilledError
        self.calls += 1
        self.tokens += self.prompts(history, row, column).num_tokens
        places = zip(row.tolist(), column.tolist(), strict=True)
        logits = torch.stack([self.scores(history[r, : c + 1].tolist()) for r, c in places])
        return logits, logits[:, :4] * 2

    def item_embedding(self):
        return self.embedding


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(teacher_scoring, "TOKENS_A_BATCH", 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(params=["leave-one-out", "chronological"])
def data(request, folder):
    files = write_csv(folder)
    return load_data(**files, split=request.param)


@pytest.fixture
def backbone(data):
    torch.manual_seed(0)
    shape = StudentShape("sasrec", hidden_size=8, blocks=1, heads=1, dropout=0.0, max_length=LENGTH, output="tied")
    return build_student(shape, data.num_items).eval()


def config_of(**changes):
    return TeacherConfig(**(OPTIONS | changes))


def scorer_over(data, backbone, **changes):
    config = config_of(**changes)
    return scorer_of(config, PlainTeacher(data.num_items, config.packing), backbone, data)


def history_of(samples, sample):
    return samples.items[samples.start[sample] : samples.end[sample]].tolist()


def seen_by(samples, sample, exclude_seen):
    return set(history_of(samples, sample)) if exclude_seen else set()


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("packing", [True, False])
def test_ranks_are_those_of_a_loop(data, backbone, exclude_seen, packing):
    scorer = scorer_over(data, backbone, exclude_seen=exclude_seen, packing=packing)
    validation, test, seconds = ranks_of_samples(scorer)
    assert seconds > 0
    for found, samples in ((validation, data.validation), (test, data.test)):
        assert len(found.ranks) == len(samples)
        assert found.best.shape == (len(samples), KEPT)
        for sample, target in enumerate(samples.targets.tolist()):
            scores = scorer.teacher.scores(history_of(samples, sample))
            left_out = seen_by(samples, sample, exclude_seen) | {target}
            better = [item for item in range(data.num_items) if item not in left_out and scores[item] >= scores[target]]
            assert found.ranks[sample] == 1 + len(better)
            kept = sorted(set(range(data.num_items)) - (left_out - {target}), key=lambda item: -scores[item])[:KEPT]
            assert found.best[sample].tolist() == kept


def test_ranks_of_the_llm_are_those_of_each_prompt_alone(folder):
    data = load_data(**write_csv(folder), max_users=8)
    shape = StudentShape("sasrec", hidden_size=8, blocks=1, heads=1, dropout=0.0, max_length=30, output="tied")
    torch.manual_seed(0)
    student, config = build_student(shape, data.num_items).eval(), config_of()
    teacher = build_ranking_model(tiny_base_llm(), shape_of(config), data.titles, tables_of(student)).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape)
    scorer = scorer_of(config, teacher, student, data)
    found = ranks_of_samples(scorer)
    teacher.shape = shape_of(config_of(packing=False, teacher_history=CONTEXT))
    for part, (of_part, samples) in enumerate(zip(found[:2], (data.validation, data.test), strict=True)):
        for sample, target in enumerate(samples.targets.tolist()):
            history = torch.tensor([history_of(samples, sample)])
            last = torch.tensor([history.shape[1] - 1])
            states = student(
                history, last + 1, torch.zeros_like(torch.arange(history.shape[1])), torch.arange(history.shape[1])
            )
            # Packed, with a token's own gate; a test sample's prompt has the title before its validation's, too.
            teacher.shape = shape_of(config_of(teacher_history=CONTEXT + part))
            with torch.no_grad():
                logits = teacher(history, torch.tensor([0]), last, states.unsqueeze(0))[0][0]
            left_out = seen_by(samples, sample, True) | {target}
            margin = torch.tensor(
                [logits[item] - logits[target] for item in range(data.num_items) if item not in left_out]
            )
            assert of_part.ranks[sample] == 1 + int((margin >= 0).sum()) or float(margin.abs().min()) < 1e-4


@pytest.mark.parametrize("shared", [True, False])
def test_joined_is_both_in_order_of_user_and_time(shared):
    items = np.arange(100, 112)
    first = Samples(items, [0, 6, 0], [3, 8, 4], [0, 1, 0])
    second = Samples(items if shared else items + 50, [6, 0], [9, 5], [1, 0])
    both, order = joined(first, second)
    expected = [(history_of(s, i), int(s.targets[i]), int(s.user[i])) for s in (first, second) for i in range(len(s))]
    found = [(history_of(both, i), int(both.targets[i]), int(both.user[i])) for i in range(len(both))]
    assert [found[place] for place in np.argsort(order)] == expected
    assert [expected[place] for place in order] == found
    starts = list(zip(both.start, both.end, strict=True))
    assert starts == sorted(starts)
    assert len(both.items) == (12 if shared else 24)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("packing", [True, False])
def test_outputs_are_those_of_a_loop(data, backbone, tmp_path, exclude_seen, packing):
    config = config_of(exclude_seen=exclude_seen, packing=packing, sequence_embeddings=True)
    scorer = scorer_over(data, backbone, exclude_seen=exclude_seen, packing=packing)
    outputs = make_outputs(scorer, config, "plain", tmp_path)
    assert outputs.sample.tolist() == list(range(len(data.train)))
    assert (outputs.covered_share, outputs.top_n) == (1.0, 6)
    for sample in range(len(data.train)):
        scores = scorer.teacher.scores(history_of(data.train, sample))
        seen = seen_by(data.train, sample, exclude_seen)
        log_probs = scores.clone()
        log_probs[list(seen)] = -torch.inf
        log_probs = log_probs.log_softmax(dim=0)
        best = sorted((item for item in range(data.num_items) if item not in seen), key=lambda item: -scores[item])[:6]
        assert outputs.ranking[sample].tolist() == best
        torch.testing.assert_close(outputs.distance[sample], -log_probs[best])
        torch.testing.assert_close(outputs.sequence_embedding[sample], scores[:4] * 2)
    assert bool((outputs.distance.diff(dim=1) >= 0).all())
    assert not any(
        set(outputs.ranking[sample].tolist()) & seen_by(data.train, sample, exclude_seen) for sample in outputs.sample
    )


def test_the_manifest_says_whose_outputs_they_are(data, backbone, tmp_path):
    manifest = make_outputs(scorer_over(data, backbone), config_of(), "plain", tmp_path).manifest
    assert (manifest.fingerprint, manifest.llm, manifest.split) == (data.fingerprint, "plain", data.split)
    assert (manifest.num_items, manifest.num_samples) == (data.num_items, len(data.train))


def test_item_embeddings_are_centred_and_of_length_one(data, backbone, tmp_path):
    scorer = scorer_over(data, backbone)
    embedding = make_outputs(scorer, config_of(), "plain", tmp_path).item_embedding
    centred = scorer.teacher.embedding - scorer.teacher.embedding.mean(dim=0)
    torch.testing.assert_close(embedding, centred / centred.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("budget", [150, 500, 900])
def test_a_budget_is_kept_and_its_share_is_said(data, backbone, tmp_path, budget, packing):
    config = config_of(outputs_token_budget=budget, packing=packing)
    scorer = scorer_over(data, backbone, packing=packing)
    outputs = make_outputs(scorer, config, "plain", tmp_path / "small")
    assert scorer.teacher.tokens <= budget or scorer.teacher.calls == 1
    assert 0 < len(outputs.sample) < len(data.train)
    assert scorer.teacher.tokens > 0.4 * budget
    assert outputs.covered_share == len(outputs.sample) / len(data.train)
    larger = make_outputs(
        scorer, config_of(outputs_token_budget=2 * budget, packing=packing), "plain", tmp_path / "large"
    )
    assert set(outputs.sample.tolist()) <= set(larger.sample.tolist())


@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_says_which_samples_a_budget_buys(data, backbone, tmp_path, seed):
    config = config_of(outputs_token_budget=500, seed=seed)
    first = make_outputs(scorer_over(data, backbone), config, "plain", tmp_path / "first")
    again = make_outputs(scorer_over(data, backbone), config, "plain", tmp_path / "again")
    other = make_outputs(
        scorer_over(data, backbone), config_of(outputs_token_budget=500, seed=3), "plain", tmp_path / "o"
    )
    assert torch.equal(first.sample, again.sample)
    assert not torch.equal(first.sample, other.sample)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_what_training_scores_has_no_seen_items_but_all_targets(data, backbone, exclude_seen):
    scorer = scorer_over(data, backbone, exclude_seen=exclude_seen)
    repeated = 0
    for batch in scorer.batches(data.train, scorer.stride, shuffle=True):
        scores = torch.randn(len(batch), data.num_items).requires_grad_()
        found = scorer.exclude(scores.clone(), data.train, batch.sample, batch.target)
        for row, sample in enumerate(batch.sample.tolist()):
            out = seen_by(data.train, sample, exclude_seen)
            repeated += int(batch.target[row]) in out
            out -= {int(batch.target[row])}
            assert set(found[row].isinf().nonzero().squeeze(1).tolist()) == out
        loss = torch.nn.functional.cross_entropy(found, batch.target)
        assert loss.isfinite()
        (slope,) = torch.autograd.grad(loss, scores)
        assert (slope[found.isinf()] == 0).all()
    assert repeated or not exclude_seen


@pytest.mark.parametrize("policy", [name for name in QUERY_POLICIES if name not in ("all", "random")])
@pytest.mark.parametrize("budget", [1, 500])
def test_a_query_policy_asks_for_the_samples_it_wants(data, backbone, tmp_path, policy, budget):
    config = config_of(query_policy=policy, outputs_token_budget=budget)
    scorer = scorer_over(data, backbone)
    outputs = make_outputs(scorer, config, "plain", tmp_path)
    everything = torch.ones(len(data.train), dtype=torch.bool)
    none_yet = torch.zeros(len(data.train), 0, dtype=torch.int64)
    signals, _ = signals_of_student(backbone, data, everything, none_yet, config.seed, exclude_seen=True)
    wanted, scored = query(policy, signals, len(data.train)), len(outputs.sample)
    assert set(outputs.sample.tolist()) == set(wanted[:scored].tolist())

    def cost(count: int) -> int:
        read = scorer.batches(data.train, scorer.stride, shuffle=False, index=wanted[:count].numpy())
        return sum(scorer.num_tokens(data.train, batch) for batch in read)

    # One more would not fit.
    assert scored == 1 or cost(scored) <= budget
    assert cost(scored + 1) > budget


@pytest.mark.parametrize("budget", [0, 900])
@pytest.mark.parametrize("killed_at", [1, 3, 4])
@pytest.mark.parametrize("damaged", [False, True])
def test_killed_scoring_goes_on_and_ends_the_same(data, backbone, tmp_path, monkeypatch, budget, killed_at, damaged):
    monkeypatch.setattr(teacher_scoring, "SHARD_SECONDS", -1.0)
    config = config_of(outputs_token_budget=budget, sequence_embeddings=True)
    undisturbed = scorer_over(data, backbone)
    expected = make_outputs(undisturbed, config, "plain", tmp_path / "whole")
    killed = scorer_over(data, backbone)
    killed.teacher.kill_at = killed_at
    with pytest.raises(KilledError):
        make_outputs(killed, config, "plain", tmp_path / "killed")
    shards = sorted((tmp_path / "killed").glob("shard-*"))
    assert len(shards) == killed_at
    if damaged:
        shards[-1].write_bytes(shards[-1].read_bytes()[:-9])
    resumed = scorer_over(data, backbone)
    outputs = make_outputs(resumed, config, "plain", tmp_path / "killed")
    assert resumed.teacher.calls == undisturbed.teacher.calls - killed_at + damaged
    for name in ("sample", "ranking", "distance", "item_embedding", "sequence_embedding"):
        assert torch.equal(getattr(outputs, name), getattr(expected, name))


def test_more_candidates_than_items_are_harmless(data, backbone, tmp_path):
    outputs = make_outputs(scorer_over(data, backbone), config_of(top_n=10_000), "plain", tmp_path)
    assert outputs.top_n == data.num_items
    assert bool(outputs.distance.isfinite().all())
    seen = seen_by(data.train, len(data.train) - 1, True)
    assert set(outputs.ranking[-1, -len(seen) :].tolist()) == seen


def test_a_window_never_reaches_a_held_out_item(data, backbone):
    """No training prompt holds a title that comes at or after its last sample's target."""
    scorer = scorer_over(data, backbone)
    for batch in scorer.batches(data.train, scorer.stride, shuffle=True):
        for sample, row, column in zip(batch.sample.tolist(), batch.row.tolist(), batch.column.tolist(), strict=True):
            read = batch.history[row, : column + 1].tolist()
            assert read == history_of(data.train, sample)[-len(read) :]
            assert len(read) >= min(CONTEXT, len(history_of(data.train, sample)))
        last = {int(row): int(batch.column[batch.row == row].max()) for row in batch.row}
        assert all(int(batch.length[row]) == column + 1 for row, column in last.items())


@pytest.mark.parametrize("packing", [True, False])
def test_training_costs_about_the_tokens_of_its_budget(folder, packing):
    data = load_data(**write_csv(folder, users=60))
    torch.manual_seed(0)
    shape = StudentShape("sasrec", hidden_size=8, blocks=1, heads=1, dropout=0.0, max_length=LENGTH, output="tied")
    scorer = scorer_over(data, build_student(shape, data.num_items), packing=packing)
    config, steps, tokens = config_of(packing=packing), 50, 0
    for batch, _ in zip(training_batches(config, data, scorer), range(steps), strict=False):
        tokens += scorer.teacher.prompts(batch.history, batch.row, batch.column).num_tokens
    assert tokens == pytest.approx(steps * config.tokens_per_batch, rel=0.15)

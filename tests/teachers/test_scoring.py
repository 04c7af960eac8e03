"""Outputs of a teacher against loops over single samples; what a budget pays for; scoring that goes on after a kill."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_teachers import KilledError, PlainModel, config_of, plain_teacher, seen_by, small, small_backbone

from recdistill.config import base
from recdistill.config.option import option
from recdistill.distillation.selection import query
from recdistill.registry import POLICIES
from recdistill.students.signals import signals_of_student
from recdistill.teachers import shards as module
from recdistill.teachers.ranking import teacher as ranking
from recdistill.teachers.scoring import Asking, expected_samples, make_outputs
from recdistill.teachers.shards import Shards, shared_batches
from recdistill.training.distributed import ALONE


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(ranking, "TOKENS_A_BATCH", 100)


@pytest.fixture(scope="module", params=["leave-one-out", "chronological"])
def data(request, tmp_path_factory):
    return small(tmp_path_factory.mktemp("data"), split=request.param)


@pytest.fixture(scope="module")
def backbone(data):
    return small_backbone(data)


def taught(data, exclude_seen):
    """The training samples to learn from: those whose target their history lacks, where seen items are left out."""
    targets = data.train.targets.tolist()
    return [sample for sample, target in enumerate(targets) if target not in seen_by(data.train, sample, exclude_seen)]


def test_a_teacher_that_is_asked_again_does_not_read_the_items_again(data, backbone, tmp_path, monkeypatch):
    teacher = plain_teacher(data, backbone, outputs_token_budget=100)
    first = make_outputs(teacher, teacher.config, tmp_path / "first")
    for name in ("text_states", "item_embedding"):
        monkeypatch.delattr(PlainModel, name)
    asked = config_of(outputs_token_budget=200, query_policy="uncertainty")
    again = make_outputs(teacher, asked, tmp_path / "again", Asking(backbone, first))
    both = first.with_more(again)
    assert len(both.sample) == len(first.sample) + len(again.sample) > len(first.sample)
    for name in ("item_embedding", "item_view"):
        assert torch.equal(getattr(again, name), getattr(first, name))
        assert torch.equal(getattr(both, name), getattr(first, name))


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("packing", [True, False])
def test_outputs_are_those_of_a_loop(data, backbone, tmp_path, exclude_seen, packing):
    teacher = plain_teacher(data, backbone, exclude_seen=exclude_seen, packing=packing, sequence_embeddings=True)
    outputs = make_outputs(teacher, teacher.config, tmp_path)
    wanted = taught(data, exclude_seen)
    assert outputs.sample.tolist() == wanted
    assert (outputs.covered_share, outputs.top_n) == (len(wanted) / len(data.train), 6)
    for place, sample in enumerate(wanted):
        scores = teacher.model.scores(data.train.items[data.train.start[sample] : data.train.end[sample]].tolist())
        seen = seen_by(data.train, sample, exclude_seen)
        log_probs = scores.clone()
        log_probs[list(seen)] = -torch.inf
        log_probs = log_probs.log_softmax(dim=0)
        best = sorted((item for item in range(data.num_items) if item not in seen), key=lambda item: -scores[item])[:6]
        assert outputs.ranking[place].tolist() == best
        torch.testing.assert_close(outputs.distance[place], -log_probs[best])
        torch.testing.assert_close(outputs.sequence_embedding[place], scores[:4] * 2)
    assert bool((outputs.distance.diff(dim=1) >= 0).all())
    assert not any(
        set(ranking) & seen_by(data.train, sample, exclude_seen)
        for sample, ranking in zip(wanted, outputs.ranking.tolist(), strict=True)
    )


def test_the_manifest_says_whose_outputs_they_are(data, backbone, tmp_path):
    teacher = plain_teacher(data, backbone)
    manifest = make_outputs(teacher, teacher.config, tmp_path).manifest
    assert (manifest.fingerprint, manifest.llm, manifest.split) == (data.fingerprint, "plain", data.split)
    assert (manifest.num_items, manifest.num_samples) == (data.num_items, len(data.train))
    assert (manifest.teacher, manifest.confidence) == ("ranking", teacher.confidence)


def test_item_embeddings_are_centred_and_of_length_one(data, backbone, tmp_path):
    teacher = plain_teacher(data, backbone)
    embedding = make_outputs(teacher, teacher.config, tmp_path).item_embedding
    centred = teacher.model.embedding - teacher.model.embedding.mean(dim=0)
    torch.testing.assert_close(embedding, centred / centred.norm(dim=1, keepdim=True))


def test_a_student_can_be_trained_on_the_outputs_as_they_are(data, backbone, tmp_path):
    teacher = plain_teacher(data, backbone, sequence_embeddings=True)
    outputs = make_outputs(teacher, teacher.config, tmp_path)
    for name in ("sample", "ranking", "distance", "item_embedding", "sequence_embedding"):
        assert not getattr(outputs, name).is_inference(), name
    weight = torch.ones(outputs.item_embedding.shape[1], requires_grad=True)
    (outputs.item_embedding @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, outputs.item_embedding.sum(dim=0))


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("budget", [150, 500, 900])
def test_a_budget_is_kept_and_its_share_is_said(data, backbone, tmp_path, budget, packing):
    config = config_of(outputs_token_budget=budget, packing=packing)
    teacher = plain_teacher(data, backbone, packing=packing)
    outputs = make_outputs(teacher, config, tmp_path / "small")
    assert teacher.model.tokens <= budget or teacher.model.calls == 1
    assert 0 < len(outputs.sample) < len(data.train)
    assert teacher.model.tokens > 0.4 * budget
    assert outputs.covered_share == len(outputs.sample) / len(data.train)
    larger = make_outputs(teacher, config_of(outputs_token_budget=2 * budget, packing=packing), tmp_path / "large")
    assert set(outputs.sample.tolist()) <= set(larger.sample.tolist())


@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_says_which_samples_a_budget_buys(data, backbone, tmp_path, seed):
    config, other_seed = (config_of(outputs_token_budget=500, seed=one) for one in (seed, 3))
    first, again, other = (
        make_outputs(plain_teacher(data, backbone), one, tmp_path / str(place))
        for place, one in enumerate((config, config, other_seed))
    )
    assert torch.equal(first.sample, again.sample)
    assert not torch.equal(first.sample, other.sample)


@pytest.mark.parametrize("packing", [True, False])
def test_the_bar_counts_the_samples_that_the_budget_pays_for(data, backbone, tmp_path, monkeypatch, packing):
    totals, counted = [], []
    tqdm = module.tqdm

    def noting(*, total, **options):
        bar = tqdm(total=total, **options)
        if options["desc"] != "teacher outputs":
            return bar
        totals.append(total)
        update = bar.update
        monkeypatch.setattr(bar, "update", lambda n: counted.append(n) or update(n))
        return bar

    monkeypatch.setattr(module, "tqdm", noting)
    teacher = plain_teacher(data, backbone, packing=packing)
    samples = len(data.train)
    for budget, query_policy in ((0, "random"), (900, "random"), (900, "uncertainty"), (10**9, "random")):
        totals.clear(), counted.clear()
        config = config_of(outputs_token_budget=budget, query_policy=query_policy, packing=packing)
        scored = len(make_outputs(teacher, config, tmp_path / f"{budget} {query_policy}").sample)
        assert sum(counted) == scored
        if budget == 900 and query_policy == "random":
            assert totals == [pytest.approx(scored, rel=0.4)]
            assert totals[0] < samples
        else:
            assert totals == [scored]
    assert expected_samples(teacher, config_of(outputs_token_budget=1, packing=packing), None) == 1


@pytest.mark.parametrize("policy", [name for name in POLICIES.names(queries=True) if name not in ("random", "custom")])
@pytest.mark.parametrize("budget", [1, 500])
def test_a_query_policy_asks_for_the_samples_it_wants(data, backbone, tmp_path, policy, budget):
    config = config_of(query_policy=policy, outputs_token_budget=budget)
    teacher = plain_teacher(data, backbone)
    outputs = make_outputs(teacher, config, tmp_path)
    everything = torch.zeros(len(data.train), dtype=torch.bool)
    everything[taught(data, True)] = True
    none_yet = torch.zeros(len(data.train), 0, dtype=torch.int64)
    signals, _ = signals_of_student(backbone, data, everything, none_yet, config.seed, exclude_seen=True)
    wanted, scored = query(policy, signals, len(data.train)), len(outputs.sample)
    assert set(outputs.sample.tolist()) == set(wanted[:scored].tolist())

    def cost(count: int) -> int:
        read = teacher.batches(data.train, shuffle=False, index=wanted[:count].numpy())
        return sum(teacher.num_tokens(data.train, batch) for batch in read)

    # One more would not fit.
    assert scored == 1 or cost(scored) <= budget
    assert scored == len(wanted) or cost(scored + 1) > budget


def test_a_users_file_can_be_the_query_policy(data, backbone, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def policy(signals):\n    return -signals.target.float()\n")
    config = config_of(query_policy="custom", policy_file=str(file), outputs_token_budget=500)
    outputs = make_outputs(plain_teacher(data, backbone), config, tmp_path / "work")
    targets = np.sort(data.train.targets[taught(data, True)])
    assert sorted(data.train.targets[outputs.sample.numpy()]) == targets[: len(outputs.sample)].tolist()


@dataclass(frozen=True, kw_only=True)
class WantedOptions:
    """Own options of a query policy."""

    wanted_item: int = option(0, "the item to ask about")


def test_a_query_policy_has_its_options(data, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(POLICIES, "_declared", dict(POLICIES._known()))
    monkeypatch.setattr(base, "_tables", {})

    @POLICIES.register("wanted", options=WantedOptions, queries=True)
    def wanted(signals, options):
        return (signals.target == options.wanted_item).float()

    item = int(np.bincount(data.train.targets).argmax())
    config = config_of(query_policy="wanted", wanted_item=item, outputs_token_budget=100)
    outputs = make_outputs(plain_teacher(data, backbone), config, tmp_path)
    assert len(outputs.sample) > 0
    assert set(data.train.targets[outputs.sample.numpy()]) == {item}


@pytest.mark.parametrize("budget", [0, 900])
@pytest.mark.parametrize("killed_at", [1, 3, 4])
@pytest.mark.parametrize("damaged", [False, True])
def test_killed_scoring_goes_on_and_ends_the_same(data, backbone, tmp_path, monkeypatch, budget, killed_at, damaged):
    monkeypatch.setattr(module, "SHARD_SECONDS", -1.0)
    config = config_of(outputs_token_budget=budget, sequence_embeddings=True)
    undisturbed = plain_teacher(data, backbone)
    expected = make_outputs(undisturbed, config, tmp_path / "whole")
    killed = plain_teacher(data, backbone)
    killed.model.kill_at = killed_at
    with pytest.raises(KilledError):
        make_outputs(killed, config, tmp_path / "killed")
    shards = sorted((tmp_path / "killed").glob("shard-*"))
    assert len(shards) == killed_at
    if damaged:
        shards[-1].write_bytes(shards[-1].read_bytes()[:-9])
    resumed = plain_teacher(data, backbone)
    outputs = make_outputs(resumed, config, tmp_path / "killed")
    assert resumed.model.calls == undisturbed.model.calls - killed_at + damaged
    for name in ("sample", "ranking", "distance", "item_embedding", "sequence_embedding"):
        assert torch.equal(getattr(outputs, name), getattr(expected, name))


@pytest.mark.parametrize("late", [False, True])
def test_killed_ranking_goes_on_and_ends_the_same(data, backbone, tmp_path, monkeypatch, late):
    monkeypatch.setattr(module, "SHARD_SECONDS", -1.0)
    undisturbed, killed, resumed = (plain_teacher(data, backbone) for _ in range(3))
    expected = undisturbed.ranks()
    killed_at = undisturbed.model.calls - 1 if late else 1
    killed.model.kill_at = killed_at
    with pytest.raises(KilledError):
        killed.ranks(tmp_path)
    assert len(list(tmp_path.glob("shard-*"))) == killed_at
    found = resumed.ranks(tmp_path)
    assert resumed.model.calls == undisturbed.model.calls - killed_at
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert torch.equal(one.ranks, other.ranks)
        assert torch.equal(one.best, other.best)
        assert torch.equal(one.among, other.among)
    assert found[2] > 0


def test_more_candidates_than_items_are_harmless(data, backbone, tmp_path):
    outputs = make_outputs(plain_teacher(data, backbone), config_of(top_n=10_000), tmp_path)
    assert outputs.top_n == data.num_items
    assert bool(outputs.distance.isfinite().all())
    seen = seen_by(data.train, int(outputs.sample[-1]), True)
    assert set(outputs.ranking[-1, -len(seen) :].tolist()) == seen


def test_shards_of_all_processes_are_one_result(tmp_path):
    for process in range(2):
        shards = Shards(tmp_path, process)
        for place in range(process, 6, 2):
            shards.add(place, {"sample": torch.tensor([place])})
            if place < 4:
                shards.write()
        shards.write()
    # Under any number of processes it goes on with what is missing.
    (tmp_path / "shard-001-00001.safetensors").write_bytes(b"cut short")
    again = Shards(tmp_path, 0)
    assert again.done == {0, 1, 2, 4, 5}
    again.add(3, {"sample": torch.tensor([3])})
    again.write()
    assert again.read()["sample"].sort().values.tolist() == list(range(6))


def test_batches_that_are_done_are_left_out(data, backbone):
    batches = list(plain_teacher(data, backbone).batches(data.train, shuffle=False))
    found = list(shared_batches(ALONE, batches, "some", len(data.train), done={0, 2}))
    assert [place for place, _, _ in found] == [place for place in range(len(batches)) if place not in (0, 2)]
    assert all(batch is batches[place] and wanted for place, batch, wanted in found)

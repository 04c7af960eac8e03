import dataclasses
import importlib.metadata
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.config import DistillConfig
from recdistill.data.pinned_models import LLMS
from recdistill.errors import InputError
from recdistill.teachers.outputs import (
    CONFIDENCE,
    MANIFEST_FILE,
    Manifest,
    TeacherOutputs,
    answers_of,
    read_teacher_outputs,
    write_teacher_outputs,
)

ITEMS, SAMPLES, COVERED, CANDIDATES = 12, 9, 5, 4


def make(**changes) -> TeacherOutputs:
    generator = torch.Generator().manual_seed(0)
    values = {
        "manifest": Manifest(fingerprint="ab" * 32, llm="some-llm", num_items=ITEMS, num_samples=SAMPLES),
        "sample": torch.tensor([0, 2, 3, 7, 8]),
        "ranking": torch.stack([torch.randperm(ITEMS, generator=generator)[:CANDIDATES] for _ in range(COVERED)]),
        "distance": torch.rand(COVERED, CANDIDATES, generator=generator),
        "item_embedding": torch.randn(ITEMS, 6, generator=generator),
    }
    return TeacherOutputs(**(values | changes))


@pytest.mark.parametrize("with_sequences", [True, False])
def test_written_and_read_is_the_same(tmp_path: Path, with_sequences: bool) -> None:
    manifest = Manifest(
        fingerprint="cd" * 32,
        llm="some-llm",
        num_items=ITEMS,
        num_samples=SAMPLES,
        split="leave-one-out",
        teacher="generative",
        confidence="L2, small is sure",
        versions={"torch": "1.0"},
    )
    outputs = make(manifest=manifest, sequence_embedding=torch.randn(COVERED, 3) if with_sequences else None)
    write_teacher_outputs(tmp_path / "new" / "outputs", outputs)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["outputs"]
    found = read_teacher_outputs(tmp_path / "new" / "outputs", fingerprint="cd" * 32)
    assert found.manifest == manifest
    for name in ("sample", "ranking", "distance", "item_embedding", "sequence_embedding"):
        expected = getattr(outputs, name)
        assert expected is None or torch.equal(getattr(found, name), expected), name
    assert (found.sequence_embedding is None) == (not with_sequences)
    # Written again, it replaces what was there.
    write_teacher_outputs(tmp_path / "new" / "outputs", make())
    assert read_teacher_outputs(tmp_path / "new" / "outputs").manifest == make().manifest


def test_the_manifest_says_what_the_outputs_are(tmp_path: Path) -> None:
    write_teacher_outputs(tmp_path / "outputs", make())
    described = json.loads((tmp_path / "outputs" / MANIFEST_FILE).read_text())
    assert described["teacher"] == "ranking"
    assert described["confidence"] == CONFIDENCE
    assert described["versions"]["torch"] == importlib.metadata.version("torch")
    assert (described["top_n"], described["covered"]) == (CANDIDATES, COVERED)
    assert described["covered_share"] == pytest.approx(COVERED / SAMPLES)
    assert (make().top_n, make().covered_share) == (CANDIDATES, COVERED / SAMPLES)


def test_the_manifest_names_the_terms_of_an_llm_with_an_alias(tmp_path: Path) -> None:
    terms = LLMS["gemma3-270m"].terms
    for llm, said in (("gemma3-270m", terms), ("some/model", "")):
        write_teacher_outputs(tmp_path / "outputs", make(manifest=dataclasses.replace(make().manifest, llm=llm)))
        assert json.loads((tmp_path / "outputs" / MANIFEST_FILE).read_text())["terms"] == said
        assert TeacherOutputs.load(tmp_path / "outputs").manifest.terms == said


def test_a_manifest_of_four_fields_is_read_and_claims_no_versions(tmp_path: Path) -> None:
    write_teacher_outputs(tmp_path / "outputs", make())
    path = tmp_path / "outputs" / MANIFEST_FILE
    described = json.loads(path.read_text())
    path.write_text(json.dumps({name: described[name] for name in ("fingerprint", "llm", "num_items", "num_samples")}))
    manifest = read_teacher_outputs(tmp_path / "outputs").manifest
    assert manifest == dataclasses.replace(make().manifest, versions={})


@pytest.mark.parametrize("with_sequences", [True, False])
def test_answers_lay_out_the_first_candidates_by_sample(with_sequences: bool) -> None:
    states = torch.randn(COVERED, 3) if with_sequences else None
    outputs = make(sequence_embedding=states)
    answers = outputs.answers(2)
    assert answers.covered.nonzero().flatten().tolist() == [0, 2, 3, 7, 8]
    assert torch.equal(answers.ranking[answers.covered], outputs.ranking[:, :2])
    assert torch.equal(answers.distance[answers.covered], outputs.distance[:, :2])
    assert answers.ranking[~answers.covered].eq(0).all()
    assert answers.ranking.shape == answers.distance.shape == (SAMPLES, 2)
    assert torch.equal(answers.item_embedding, outputs.item_embedding)
    assert torch.equal(answers.sample, outputs.sample)
    assert (answers.llm, answers.covered_share) == ("some-llm", COVERED / SAMPLES)
    batch = answers.batch(torch.tensor([7, 3]), torch.tensor([True, True]), "cpu")
    assert torch.equal(batch.candidates, outputs.ranking[[3, 2], :2])
    if states is None:
        assert answers.sequence_embedding is None
    else:
        assert batch.sequence_embedding is not None
        assert torch.equal(batch.sequence_embedding, states[[3, 2]])
    with pytest.raises(InputError, match=r"candidate_topk=5: the teacher kept 4"):
        outputs.answers(5)


@given(seed=st.integers(0, 10**6), topk=st.integers(1, CANDIDATES), most=st.integers(0, ITEMS))
def test_answers_among_some_items_are_the_first_of_them_and_then_the_others(seed: int, topk: int, most: int) -> None:
    outputs, draw = make(), torch.Generator().manual_seed(seed)
    among = torch.zeros(ITEMS, dtype=torch.bool)
    among[torch.randperm(ITEMS, generator=draw)[:most]] = True
    answers = outputs.answers(topk, among)
    for row, sample in enumerate(outputs.sample.tolist()):
        ranked = list(zip(outputs.ranking[row].tolist(), outputs.distance[row].tolist(), strict=True))
        expected = [pair for pair in ranked if among[pair[0]]] + [pair for pair in ranked if not among[pair[0]]]
        found = zip(answers.ranking[sample].tolist(), answers.distance[sample].tolist(), strict=True)
        assert list(found) == expected[:topk]
    assert torch.equal(outputs.answers(topk, torch.ones_like(among)).ranking, outputs.answers(topk).ranking)


@pytest.mark.parametrize(
    ("options", "offered"), [({}, False), ({"new_candidates": True}, True), ({"mask_untrained": False}, True)]
)
def test_items_without_a_training_target_are_taught_where_they_are_asked_for(
    options: dict[str, bool], offered: bool
) -> None:
    untrained = int(make().ranking[0, 0])
    data: Any = SimpleNamespace(learnt=lambda exclude_seen: np.arange(ITEMS) != untrained)
    config = DistillConfig(candidate_topk=2, **options)
    answers = answers_of(config, make(), data)
    assert bool((answers.ranking[answers.covered] == untrained).any()) == offered


def test_save_and_load_are_the_folder_of_the_functions(tmp_path: Path) -> None:
    make().save(tmp_path / "outputs")
    found = TeacherOutputs.load(tmp_path / "outputs", make().manifest.fingerprint)
    assert torch.equal(found.ranking, read_teacher_outputs(tmp_path / "outputs").ranking)
    with pytest.raises(InputError, match="made for data abababababab, not 012345"):
        TeacherOutputs.load(tmp_path / "outputs", "012345")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample": torch.tensor([0, 2, 3, 7])}, "do not fit"),
        ({"distance": torch.rand(COVERED, 3)}, "do not fit"),
        ({"item_embedding": torch.rand(ITEMS - 1, 6)}, "do not fit 12 items"),
        ({"sequence_embedding": torch.rand(COVERED - 1, 6)}, "do not fit"),
        ({"sample": torch.tensor([0, 2, 3, 7, 9])}, r"not in 0\.\.8"),
        ({"sample": torch.tensor([-1, 2, 3, 7, 8])}, r"not in 0\.\.8"),
        ({"sample": torch.tensor([0, 3, 2, 7, 8])}, "ascending and distinct"),
        ({"sample": torch.tensor([0, 2, 2, 7, 8])}, "ascending and distinct"),
        ({"ranking": torch.full((COVERED, CANDIDATES), ITEMS)}, r"not in 0\.\.11"),
        ({"ranking": torch.full((COVERED, CANDIDATES), -1)}, r"not in 0\.\.11"),
        ({"distance": torch.full((COVERED, CANDIDATES), torch.inf)}, "distance holds NaN or infinity"),
        ({"item_embedding": torch.full((ITEMS, 6), torch.nan)}, "item_embedding holds NaN"),
        ({"sequence_embedding": torch.full((COVERED, 6), torch.nan)}, "sequence_embedding holds NaN"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_files_of_other_data_and_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    with pytest.raises(InputError, match="no readable teacher outputs"):
        read_teacher_outputs(folder)
    write_teacher_outputs(folder, make())
    with pytest.raises(InputError, match="made for data abababababab, not 0123456789ab"):
        read_teacher_outputs(folder, fingerprint="0123456789abcdef")
    described = (folder / MANIFEST_FILE).read_text()
    for broken in ("{", "[]", json.dumps({"llm": "x"}), described.replace('"num_items": 12', '"num_items": "x"')):
        (folder / MANIFEST_FILE).write_text(broken)
        with pytest.raises(InputError, match="outputs"):
            read_teacher_outputs(folder)
    (folder / MANIFEST_FILE).write_text(described)
    (folder / "teacher_outputs.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="no readable teacher outputs"):
        read_teacher_outputs(folder)


def test_a_small_catalogue_has_fewer_candidates_than_are_asked_for() -> None:
    manifest = Manifest(fingerprint="data", llm="tiny", num_items=3, num_samples=2)
    outputs = TeacherOutputs(
        manifest=manifest,
        sample=torch.tensor([0, 1]),
        ranking=torch.tensor([[2, 0, 1], [1, 2, 0]]),
        distance=torch.tensor([[0.1, 0.2, 0.3]] * 2),
        item_embedding=torch.ones(3, 4),
    )
    assert outputs.answers(10).ranking.shape == (2, 3)
    fewer = dataclasses.replace(outputs, ranking=outputs.ranking[:, :2], distance=outputs.distance[:, :2])
    with pytest.raises(InputError, match="candidate_topk=3: the teacher kept 2"):
        fewer.answers(10)


def test_answers_of_other_packages_are_of_the_same_teacher() -> None:
    """A teacher may be asked again after an upgrade."""
    first = make()
    later = make(
        manifest=dataclasses.replace(first.manifest, versions={"torch": "99"}), sample=torch.tensor([1, 4, 5, 6]),
        ranking=first.ranking[:4], distance=first.distance[:4],
    )  # fmt: skip
    whole = first.with_more(later)
    assert whole.sample.tolist() == list(range(SAMPLES))
    assert whole.manifest == first.manifest
    with pytest.raises(InputError, match="are of two teachers"):
        first.with_more(dataclasses.replace(later, manifest=dataclasses.replace(later.manifest, llm="other")))

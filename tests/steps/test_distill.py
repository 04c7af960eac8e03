"""A distillation's run: what it keeps, what the options change, and that without a teacher's terms it is its twin."""

from dataclasses import replace
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from recdistill.config import DistillConfig, ExportConfig, StudentConfig, TeacherConfig, narrow
from recdistill.data.all_interactions import all_as_training
from recdistill.data.samples import Samples
from recdistill.errors import InputError
from recdistill.registry import POLICIES, STUDENTS
from recdistill.runs.step_runs import finished_run
from recdistill.steps import distill as module
from recdistill.steps import teacher_overlap as overlap_module
from recdistill.steps.backbone import backbone
from recdistill.steps.distill import distill
from recdistill.steps.export import export
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.steps.student_start import StudentStart
from recdistill.steps.teacher import teacher
from recdistill.steps.teacher_overlap import OWN, TWIN, teacher_overlaps
from recdistill.students.build import load_student
from recdistill.students.measure import ranks_of
from recdistill.teachers.outputs import write_teacher_outputs
from recdistill.training.distributed import ALONE

STUDENT = {"hidden_size": 16, "blocks": 1, "max_length": 8, "epochs": 3, "dropout": 0.1, "batch_size": 64}
PLAIN = {"lam": 0.0, "alpha": 0.0, "ed_weight": 0.0}


@pytest.fixture
def config_of(taught):
    """Options of a small student, taught by the place's teacher."""

    def make(**changes):
        files = {name: taught.options[name] for name in ("dataset", "interactions", "items")}
        options = files | STUDENT | {"teacher_run_id": taught.run_id} | changes
        if options.get("student") == "caser":
            del options["blocks"]  # of the others
        return DistillConfig(**options)

    return make


def weights(run):
    return load_student(run.artifact("student")).state_dict()


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def curve(run, name):
    return [point.value for point in MlflowClient().get_metric_history(run.run_id, name)]


@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
def test_without_the_teachers_terms_it_is_the_undistilled_student_to_the_last_bit(config_of, student):
    config = config_of(student=student, **PLAIN)
    assert same(weights(distill(config)), weights(backbone(narrow(config, StudentConfig))))


@pytest.mark.parametrize(
    "changes", [{"lam": 0.5}, {"alpha": 0.5}, {"ed_weight": 0.5}, {"lam": 0.5, "ranking_loss": "kl"}]
)
def test_each_term_changes_the_student(config_of, changes):
    plain, changed = (weights(distill(config_of(**PLAIN | more))) for more in ({}, changes))
    assert plain.keys() == changed.keys()
    assert not same(plain, changed)


@pytest.mark.parametrize("held_out_alone", [True, False])
def test_a_refit_is_taught_what_it_learns_the_held_out_items_with_it(config_of, monkeypatch, held_out_alone):
    config = config_of(refit=True)
    data = data_of(config)
    item = int(data.test.targets[~data.test.target_seen][0])
    if held_out_alone:
        train, kept = data.train, data.train.targets != item
        cut = Samples(train.items, train.start[kept], train.end[kept], train.user[kept])
        data = replace(data, train=cut)
    else:
        # Training has seen every item that is held out.
        data = replace(data, validation=data.train, test=data.train)
    asked, refits = [], []

    def answers(candidate_topk, among):
        asked.append(among)
        return SimpleNamespace(shuffled=lambda how, seed: "answers")

    outputs = SimpleNamespace(answers=answers, manifest=SimpleNamespace(terms=""))
    monkeypatch.setattr(module, "distill", lambda config: None)
    monkeypatch.setattr(module, "refit", lambda *args, **options: refits.append((args[4], options["teacher"])))
    module.refitted(config, data, None, outputs, StudentStart(), ALONE)
    ((start, taught),) = refits
    assert taught == "answers"
    assert asked[0].tolist() == all_as_training(data).learnt(config.exclude_seen).tolist()
    assert bool(asked[0][item])
    # Refits of before are found where nothing has changed for them.
    assert start.contents == (module.HELD_OUT_TAUGHT if held_out_alone else {})
    unmasked = module.start_of_refit(replace(config, mask_untrained=False), data, StudentStart())
    assert unmasked.contents == {}


def test_the_kept_student_needs_no_teacher(config_of):
    config = config_of()
    run, data = distill(config), data_of(config)
    student = load_student(run.artifact("student"))
    for part, samples in (("val", data.validation), ("test", data.test)):
        kept = pd.read_parquet(run.artifact("ranks") / f"{part}.parquet")["rank"].tolist()
        ours = ranks_of(student, samples, True, torch.device("cpu")).tolist()
        # Folding the projection into the table rounds otherwise: a near tie may turn.
        assert sum(a != b for a, b in zip(kept, ours, strict=True)) <= 1


def test_losses_and_share_are_logged_each_epoch(config_of):
    config = config_of(base_loss="bce")
    run, data = distill(config), data_of(config)
    for name in ("train/total", "train/base", "train/dro", "train/ranking", "train/distilled_share", "val/ndcg_at_10"):
        values = curve(run, name)
        assert len(values) >= 3, name
        assert all(value >= 0 for value in values)
    # The teacher scored all that there is to learn from: targets that their histories have teach nothing.
    trainable = data.num_trainable(config.exclude_seen) / len(data.train)
    assert curve(run, "train/distilled_share") == pytest.approx([trainable] * 3)
    assert run.metrics()["teacher_covered_share"] == trainable < 1
    assert [file.path for file in MlflowClient().list_artifacts(run.run_id, "selection")] == []


def test_a_description_says_where_the_gain_is_that_of_dro_too(taught, config_of):
    outputs = teacher_outputs_of(finished_run(taught.run_id, "teacher"), data_of(config_of()))
    run = SimpleNamespace(metrics=lambda: {"test/ndcg_at_10": 0.2})
    for alpha, said in ((0.0, "(+0.0%, one seed)"), (0.5, "(+0.0%, of distillation and DRO together, one seed)")):
        config = config_of(alpha=alpha)
        assert said in module.described(config, data_of(config), outputs, run, 3, run)


CUSTOM = """
from recdistill.distillation.selection import SelectionSignals

def policy(signals: SelectionSignals):
    return -signals.student_loss + 0 * signals.distance[:, 0]
"""


def test_a_policy_of_ones_own_selects(config_of, tmp_path):
    file = tmp_path / "easy.py"
    file.write_text(CUSTOM)
    options = {"selection_policy": "custom", "selection_fraction": 0.3, "epochs": 1, "policy_file": str(file)}
    run = distill(config_of(**options))
    (kept,) = run.artifact("selection").iterdir()
    easy = load_file(kept)["sample"]
    file.write_text(CUSTOM.replace("-signals.student_loss", "signals.student_loss"))
    again = distill(config_of(**options))
    assert again.run_id != run.run_id
    (kept,) = again.artifact("selection").iterdir()
    assert not set(easy.tolist()) & set(load_file(kept)["sample"].tolist())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policy = 3", "defines no function"),
        ("1 / 0", r"cannot be run \(ZeroDivisionError"),
        ("def policy(:", r"cannot be run \(SyntaxError"),
    ],
)
def test_a_policy_file_without_a_policy_is_refused(config_of, taught, tmp_path, text, said):
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(InputError, match=f"policy_file={file}: {said}"):
        distill(config_of(selection_policy="custom", selection_fraction=0.3, policy_file=str(file)))
    # A teacher says so before it trains.
    asked = {"query_policy": "custom", "policy_file": str(file), "outputs_token_budget": 500, "llm": "/no such llm"}
    with pytest.raises(InputError, match=f"policy_file={file}: {said}"):
        teacher(TeacherConfig(**(taught.options | asked)))
    with pytest.raises(InputError, match=r"selection_policy=custom: give policy_file"):
        config_of(selection_policy="custom", selection_fraction=0.3)


@pytest.mark.parametrize("policy", [name for name in POLICIES.names() if name != "custom"])
def test_a_policy_keeps_its_share_and_chooses_again(config_of, policy):
    config = config_of(selection_policy=policy, selection_fraction=0.3, refresh_interval=2, epochs=4, patience=4)
    run, data = distill(config), data_of(config)
    chosen = sorted(run.artifact("selection").iterdir())
    assert [path.name for path in chosen] == ["epoch-000.safetensors", "epoch-002.safetensors"]
    count = round(0.3 * data.num_trainable(config.exclude_seen))
    for path in chosen:
        sample = load_file(path)["sample"]
        assert len(sample) == len(sample.unique()) == count
        assert 0 <= int(sample.min()) <= int(sample.max()) < len(data.train)
    assert curve(run, "train/distilled_share") == pytest.approx([count / len(data.train)] * 4)
    assert 0 <= curve(run, "train/selection_overlap")[-1] <= 1


def test_a_teacher_that_covers_a_part_teaches_that_part(taught, config_of):
    options = taught.options | {"llm": str(taught.options["llm"]), "outputs_token_budget": 5000}
    partial = teacher(TeacherConfig(**options))
    run = distill(config_of(teacher_run_id=partial.run_id))
    share, data = partial.metrics()["covered_share"], data_of(config_of())
    assert 0 < share < data.num_trainable(True) / len(data.train)
    assert run.metrics()["teacher_covered_share"] == share
    assert curve(run, "train/distilled_share") == pytest.approx([share] * 3)


def test_teacher_states_are_distilled_where_they_were_kept(taught, config_of, monkeypatch):
    run = distill(config_of(output_weight=0.5))
    assert curve(run, "train/output")[-1] < curve(run, "train/output")[0]
    assert weights(run).keys() == weights(distill(config_of())).keys()  # the layer between the states is not kept
    outputs = teacher_outputs_of(finished_run(taught.run_id, "teacher"), data_of(config_of()))
    monkeypatch.setattr(module, "teacher_outputs_of", lambda *_: replace(outputs, sequence_embedding=None))
    with pytest.raises(InputError, match=r"output_weight=0.5: this teacher kept no sequence embeddings"):
        distill(config_of(output_weight=0.5, seed=9))


def test_more_candidates_than_the_teacher_kept_are_refused(config_of):
    with pytest.raises(InputError, match="candidate_topk=13: the teacher kept 12"):
        distill(config_of(candidate_topk=13))


def test_its_twin_is_named_with_what_was_gained(config_of):
    config = config_of(seed=4)
    alone = distill(config)
    assert "no undistilled run of the same settings" in mlflow.get_run(alone.run_id).data.tags["mlflow.note.content"]
    twin = backbone(narrow(config, StudentConfig))
    config = config_of(seed=4, force=True)
    tags = mlflow.get_run(distill(config).run_id).data.tags
    assert tags["recdistill.twin_run_id"] == twin.run_id
    assert f"undistilled {twin.metrics()['test/ndcg_at_10']:.4f}" in tags["mlflow.note.content"]


def test_the_same_options_find_the_run_and_options_of_the_teacher_do_not_matter(config_of):
    first = distill(config_of())
    assert distill(config_of()).run_id == first.run_id
    assert distill(config_of(lora_rank=16, token_budget=5, llm="another")).run_id == first.run_id
    for changes in ({"lam": 0.4}, {"seed": 2}, {"selection_fraction": 0.5}, {"force": True}):
        assert distill(config_of(**changes)).run_id != first.run_id


def test_a_teacher_in_dllm2rec_files_teaches_the_same(taught, config_of, tmp_path):
    # Of samples whose targets are in their histories there are no rankings.
    with pytest.raises(InputError, match=r"the teacher covers 218 of 243 training samples"):
        export(ExportConfig(teacher_run_id=taught.run_id, folder=str(tmp_path)))
    export(ExportConfig(teacher_run_id=taught.run_id, folder=str(tmp_path), allow_partial=True))
    from_run = distill(config_of())
    from_files = distill(config_of(teacher_run_id="", teacher_files=str(tmp_path)))
    assert from_files.run_id != from_run.run_id
    assert same(weights(from_run), weights(from_files))
    with pytest.raises(InputError, match="teacher_files, teacher_run_id: give one of them"):
        distill(config_of(teacher_files=str(tmp_path)))


@pytest.mark.slow
def test_a_teacher_in_files_of_our_own_teaches_the_same(taught, config_of, tmp_path):
    """A folder of teacher outputs, as a run or ``TeacherOutputs.save`` leaves it, wherever it lies."""
    data, folder = data_of(config_of()), tmp_path / "outputs"
    outputs = teacher_outputs_of(finished_run(taught.run_id, "teacher"), data)
    write_teacher_outputs(folder, outputs)
    # The teacher's states of samples come with these, which DLLM2Rec's files do not hold.
    from_run, from_files = (
        distill(config_of(output_weight=0.3, **where))
        for where in ({}, {"teacher_run_id": "", "teacher_files": str(folder)})
    )
    assert from_files.run_id != from_run.run_id
    assert same(weights(from_run), weights(from_files))
    tags = mlflow.get_run(from_files.run_id).data.tags
    assert "recdistill.teacher_run_id" not in tags
    assert outputs.manifest.llm in tags["mlflow.note.content"]
    # What lies in the folder counts, and not where it lies.
    moved = folder.rename(tmp_path / "moved")
    again = {"output_weight": 0.3, "teacher_run_id": "", "teacher_files": str(moved)}
    assert distill(config_of(**again)).run_id == from_files.run_id
    write_teacher_outputs(moved, replace(outputs, distance=outputs.distance + 1))
    assert distill(config_of(**again, epochs=1)).key != from_files.key


def test_teacher_files_of_other_data_are_refused(taught, config_of, tmp_path):
    outputs = teacher_outputs_of(finished_run(taught.run_id, "teacher"), data_of(config_of()))
    write_teacher_outputs(tmp_path / "outputs", outputs)
    other = config_of(teacher_run_id="", teacher_files=str(tmp_path / "outputs"), max_users=20)
    with pytest.raises(InputError, match=f"outputs: made for data {outputs.manifest.fingerprint[:12]}, not ") as caught:
        distill(other)
    assert data_of(other).fingerprint[:12] in str(caught.value)
    (tmp_path / "outputs" / "teacher_outputs.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="no readable teacher outputs"):
        distill(config_of(teacher_run_id="", teacher_files=str(tmp_path / "outputs")))


def test_released_losses_can_be_reproduced(config_of):
    ours, released = (distill(config_of(base_loss="bce", release_compat=compat)) for compat in (False, True))
    assert curve(ours, "train/ranking")[0] != curve(released, "train/ranking")[0]


def test_a_loss_that_is_not_finite_ends_the_run_with_the_reason(config_of, taught):
    with pytest.raises(InputError, match="lower the learning rate"):
        distill(config_of(learning_rate=1e30, seed=77))
    failed = taught.place.newest("distill")
    assert failed.info.status == "FAILED"
    assert "lower the learning rate" in failed.data.tags["recdistill.failure"]


def test_a_report_sees_every_epoch_and_may_end_the_run(config_of, taught):
    seen = []
    distill(config_of(seed=5), report=lambda epoch, metrics: seen.append((epoch, metrics["val/ndcg_at_10"])))
    assert [epoch for epoch, _ in seen] == [0, 1, 2]

    def stop(epoch, metrics):
        raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        distill(config_of(seed=6), report=stop)
    assert taught.place.newest("distill").info.status == "FAILED"


def head_of(student, samples, sample):
    """The ten items that a student ranks first after a sample's history."""
    history = torch.from_numpy(samples.items[None, samples.start[sample] : samples.end[sample]].copy())
    window = history[:, -student.max_length :]
    last = torch.tensor([window.shape[1]])
    with torch.no_grad():
        scores = student.logits(student(window, last, torch.tensor([0]), last - 1))[0]
    seen = set(history[0].tolist()) - {int(samples.targets[sample])}
    return set(sorted(set(range(len(scores))) - seen, key=lambda item: -scores[item])[:10])


def test_the_overlap_with_the_teacher_is_that_of_a_loop(config_of, taught):
    twin = backbone(narrow(config_of(seed=12), StudentConfig))
    run, data = distill(config_of(seed=12)), data_of(config_of())
    outputs = teacher_outputs_of(finished_run(taught.run_id, "teacher"), data)
    note = mlflow.get_run(run.run_id).data.tags["mlflow.note.content"]
    for of, name in ((run, OWN), (twin, TWIN)):
        student = load_student(of.artifact("student"))
        shared = [
            len(set(outputs.ranking[row, :10].tolist()) & head_of(student, data.train, sample)) / 10
            for row, sample in enumerate(outputs.sample.tolist())
        ]
        # Folding the projection into the table rounds otherwise: a near tie may turn.
        assert run.metrics()[name] == pytest.approx(sum(shared) / len(shared), abs=1e-3)
        assert f"{run.metrics()[name]:.1%}" in note
    assert run.metrics()[OWN] > run.metrics()[TWIN]


@pytest.mark.slow
def test_the_overlap_is_measured_on_some_samples_the_same_for_all(config_of, taught, monkeypatch):
    seen = []

    def ranked(model, samples, *rest, **options):
        seen.append(samples.end.tolist())
        return overlap_module_ranked(model, samples, *rest, **options)

    overlap_module_ranked = overlap_module.ranked
    monkeypatch.setattr(overlap_module, "ranked", ranked)
    monkeypatch.setattr(overlap_module, "MOST_SAMPLES", 20)
    for seed in (13, 14):
        distill(config_of(seed=seed))
    assert len(seen) == 2
    assert seen[0] == seen[1] == sorted(set(seen[0]))
    assert len(seen[0]) == 20


def test_a_teacher_that_kept_few_items_has_no_overlap_at_ten(config_of, taught):
    data = data_of(config_of())
    outputs = teacher_outputs_of(finished_run(taught.run_id, "teacher"), data)
    short = replace(outputs, ranking=outputs.ranking[:, :9], distance=outputs.distance[:, :9])
    student = load_student(distill(config_of()).artifact("student"))
    assert teacher_overlaps(student, None, data, short, True, torch.device("cpu")) == {}
    assert teacher_overlaps(student, None, data, outputs, True, torch.device("cpu")).keys() == {OWN}


def test_a_trial_of_a_sweep_is_spared_what_only_people_look_at(config_of):
    run = distill(config_of(seed=15), report=lambda epoch, metrics: None)
    assert not {OWN, TWIN} & run.metrics().keys()
    kept = {file.path for file in MlflowClient().list_artifacts(run.run_id)}
    assert {"ranks", "student"} <= kept
    assert not {"figures", "recommendations"} & kept

import pytest

from recdistill.errors import InputError
from recdistill.report.compared import check_comparable, groups_of


def test_runs_that_differ_by_the_seed_alone_are_one_group(make_run):
    runs = [make_run("a"), make_run("b", seed=2), make_run("c", settings={"lam": 0.7}), make_run("d", step="backbone")]
    groups = groups_of(runs)
    assert [[run.run_id for run in group.runs] for group in groups] == [["a", "b"], ["c"], ["d"]]


def test_a_run_that_was_made_again_is_no_further_seed(make_run):
    runs = [
        make_run("a", key="1"),
        make_run("b", seed=2, key="2"),
        make_run("again", key="1"),
        make_run("c", settings={}),
    ]
    runs.append(make_run("d", settings={"lam": 0.7}, baseline_id="a"))
    groups = groups_of(runs)
    assert [[run.run_id for run in group.runs] for group in groups] == [["again", "b"], ["c"], ["d"]]
    # What was held against the earlier one is held against the group.
    assert groups[2].baseline == 0
    # Where that is all that is asked for, the two are compared.
    assert len(groups_of([make_run("a", key="1"), make_run("again", key="1")])) == 2
    # The same seed from another teacher's is another one.
    assert len(groups_of([make_run("a", key="1"), make_run("b", key="2"), make_run("c", settings={})])[0].runs) == 2


def test_a_whole_run_stands_for_a_trial_that_was_made_after_it(make_run):
    runs = [make_run("whole", key="1"), make_run("trial", key="1", whole=False), make_run("c", settings={})]
    assert [[run.run_id for run in group.runs] for group in groups_of(runs)] == [["whole"], ["c"]]


def test_runs_of_one_configuration_are_compared_one_by_one(make_run):
    groups = groups_of([make_run("a"), make_run("b", seed=2)])
    assert [group.label for group in groups] == ["distill seed=1", "distill seed=2"]
    assert [group.baseline for group in groups] == [None, 0]


def test_auto_is_the_undistilled_twin(make_run):
    runs = [
        make_run("a", baseline_id="twin"),
        make_run("b", settings={"lam": 0.7}, baseline_id="twin2"),
        make_run("popularity", step="prepare", settings={}),
        make_run("twin", step="backbone", settings={}),
        make_run("twin2", step="backbone", settings={}, seed=2),
    ]
    assert [group.baseline for group in groups_of(runs)] == [3, 3, None, None]


def test_auto_without_any_twin_is_the_first(make_run):
    runs = [make_run("a"), make_run("b", settings={"lam": 0.7}, baseline_id="deleted"), make_run("c", settings={})]
    assert [group.baseline for group in groups_of(runs)] == [None, 0, 0]


def test_a_given_baseline_is_that_of_all_others(make_run):
    runs = [make_run("a"), make_run("b", settings={"lam": 0.7}, baseline_id="a"), make_run("c", settings={})]
    assert [group.baseline for group in groups_of(runs, "c")] == [2, 2, None]
    with pytest.raises(InputError, match="baseline=z"):
        groups_of(runs, "z")


def test_labels_differ(make_run):
    same = [make_run("a" * 32), make_run("b" * 32)]
    assert [group.label for group in groups_of(same)] == ["distill seed=1 aaaaaaaa", "distill seed=1 bbbbbbbb"]


def test_a_name_given_by_hand_stands_before_the_settings(make_run):
    runs = [
        make_run("a", name="mine"),
        make_run("b", settings={"lam": 0.7}),
        make_run("c", step="prepare", settings={}),
    ]
    assert [group.label for group in groups_of(runs)] == ["mine lam=0.5", "distill lam=0.7", "popularity"]


def test_names_of_single_runs_are_not_those_of_their_group(make_run):
    runs = [make_run("a", name="first"), make_run("b", name="second", seed=2), make_run("c", settings={"lam": 0.7})]
    assert groups_of(runs)[0].label == "distill lam=0.5"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fingerprint": "b" * 64, "data": "drawn, chronological"}, "drawn, chronological .bbbbbbbbbbbb"),
        ({"exclude_seen": False}, "exclude_seen=False"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(make_run, changes, said):
    with pytest.raises(InputError, match=rf"first .*other .*{said}") as caught:
        check_comparable([make_run("first"), make_run("other", **changes)])
    assert "\n" not in str(caught.value)

import re

import pandas as pd
from rich.console import Console

from recdistill.report.compared import groups_of
from recdistill.report.results import MetricName, compare_groups
from recdistill.report.text import answer, frame, markdown, order, terminal_table


def test_the_answer_says_who_won_by_how_much_and_whether_it_is_luck(results):
    said = answer(results)
    row = results.row_of(0)
    assert said[0].startswith(f"distill lam=0.7 has the highest NDCG@10: {row.value:.4f}, {100 * row.relative:.1f} %")
    assert said[0].endswith("above backbone, which is not luck.")
    assert f"{row.difference:+.4f}" in said[1]
    assert "every other" in said[2]


def test_luck_is_called_luck_and_single_seeds_are_named(make_run, samples):
    runs = [make_run("plain"), make_run("same", settings={"lam": 0.7})]
    results = compare_groups(groups_of(runs), samples, MetricName("test", "hr", 10), resamples=300)
    said = " ".join(answer(results))
    assert "not luck" not in said
    assert "Not told apart from it: distill" in said
    assert "One seed each" in said


def test_a_best_baseline_is_said_to_be_one(make_run, samples):
    runs = [make_run("good", step="backbone", settings={}), make_run("bad", baseline_id="good")]
    results = compare_groups(groups_of(runs), samples, MetricName("test", "hr", 10), resamples=300)
    first, second, third = answer(results)[:3]
    assert first.startswith("backbone has the highest HR@10: ")
    assert first.endswith("It is a baseline.")
    assert second.startswith("The best challenger is distill: ")
    assert second.endswith("below backbone, which is not luck.")
    assert third.startswith("Difference -0.")


def test_a_best_without_a_baseline_is_not_said_to_have_won(make_run, samples):
    runs = [
        make_run("same", baseline_id="plain"),
        make_run("plain", step="backbone", settings={}),
        make_run("good", step="teacher", settings={}),
    ]
    results = compare_groups(groups_of(runs), samples, MetricName("test", "hr", 10), resamples=300)
    assert answer(results)[0].endswith("It is held against nothing here.")
    assert "which may be luck" in answer(results)[1]


def test_the_table_holds_every_row_unrounded(results):
    table = frame(results)
    assert len(table) == len(results.rows) + len(results.slices) + 2
    assert table["recommender"].iloc[0] == results.groups[order(results)[0]].label
    best = table[(table["recommender"] == "distill lam=0.7") & (table["subgroup_kind"] == "all")]
    row = results.row_of(0)
    assert best.loc[best["metric"] == "NDCG@10", "difference"].item() == row.difference
    assert best["run_ids"].iloc[0] == "good good2"
    assert pd.isna(table.loc[table["recommender"] == "backbone", "difference"]).all()


def test_the_terminal_table_fits_eighty_columns(results):
    console = Console(width=80, record=True, markup=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(results))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"distill lam=0.7 .*NDCG@10 .*better", "\n".join(lines))


def test_names_with_bars_and_brackets_stay_what_they_are(make_run, samples):
    runs = [make_run("good", name="a|b [red]"), make_run("plain", settings={}, name="x")]
    results = compare_groups(groups_of(runs), samples, MetricName("test", "hr", 10), resamples=100)
    assert "a\\|b [red]" in markdown(results)
    console = Console(width=120, record=True, markup=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(results))
    assert "a|b [red]" in console.export_text()


def test_markdown_is_a_table_a_metric_and_a_subgroup(results):
    text = markdown(results)
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| distill")}
    assert widths == {10}
    assert text.count("popularity: cold (0)") == 3


def test_what_is_left_out_is_counted(results):
    assert "and 3 more, in comparison.csv" in markdown(results, most=1)

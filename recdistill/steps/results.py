"""What every evaluated run keeps: metrics, ranks, recommendations, and how both depend on history and popularity."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from recdistill.config import StudentConfig
from recdistill.data.sequences import SequenceData
from recdistill.data.some_users import held_out_users
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.part_metrics import part_metrics
from recdistill.evaluation.rank_table import rank_table
from recdistill.evaluation.recommendation_table import recommendation_table
from recdistill.evaluation.slice_table import slice_table
from recdistill.evaluation.some_users import SOME_USERS, apart
from recdistill.report.slice_figure import FEWEST, slice_figure
from recdistill.runs.datasets import measured_on
from recdistill.runs.logged_models import new_mark
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import log_student_model
from recdistill.students.kept_student import Beside, write_student
from recdistill.students.measure import Fitted
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape


def log_results(
    run: StepRun,
    data: SequenceData,
    validation: Ranked,
    test: Ranked,
    epoch: int = 0,
    *,
    exclude_seen: bool,
    in_full: bool = True,
    model: str = "",
    as_trained: bool = True,
    asked: SequenceData | None = None,
) -> None:
    """Log the metrics of the final ranks of both parts, and each sample's rank.

    ``exclude_seen`` says whether items of the history were left out of the ranking. ``model`` is the mark, or the id,
    of the logged model whose metrics they are, see `runs.logged_models`. Where they are not ranked ``as_trained``,
    these name no data set: who looks for the best model of one must not mix them. ``in_full`` also logs what is
    recommended for the test samples (``test.best``), and `log_slices`. ``asked`` has the samples that were ranked,
    where these are `of_some_users`: then no metric has the name of one over all samples.
    """
    whole = asked is None or asked is data
    held_out = data if asked is None else asked
    parts = measured_on(data) if as_trained and whole else None
    found = {
        "val": part_metrics("val", validation, held_out, exclude_seen=exclude_seen),
        "test": part_metrics("test", test, held_out, exclude_seen=exclude_seen),
    }
    if not whole:
        found = {part: apart(metrics) for part, metrics in found.items()}
        found["test"] |= {f"test/{SOME_USERS}/users": float(len(held_out_users(held_out)))}
    run.log_metrics(found["val"], epoch, model=model, datasets=parts)
    # At no epoch, as all that is one number a run: the UI then draws bars side by side.
    run.log_metrics(found["test"], model=model, datasets=parts)
    run.log_metrics({"data/seen_target_share": data.seen_target_share()})
    tested = rank_table(test, held_out.test, data)
    run.log_ranks({"val": rank_table(validation, held_out.validation, data), "test": tested})
    if not in_full:
        return
    recommended = recommendation_table(test.best, held_out.test, data)

    def write(folder: Path) -> None:
        folder.mkdir()
        recommended.to_parquet(folder / "test.parquet", index=False)

    run.log_folder("recommendations", write)
    log_slices(run, data, {"": tested}, "" if whole else f", {len(held_out_users(held_out)):,} users")


def log_slices(run: StepRun, data: SequenceData, ranks: Mapping[str, pd.DataFrame], of: str = "") -> None:
    """Log HR@10 by length of the history and by popularity of the next item, as a picture and as a table.

    ``ranks`` are those of the test samples, by recommender; the name of a single one is not shown. ``of`` says in the
    title whose samples they are, where they are not all.
    """
    tables = {name: slice_table(table) for name, table in ranks.items()}
    whole = pd.concat(tables, names=["recommender"]).reset_index("recommender")

    def write(folder: Path) -> None:
        folder.mkdir()
        title = f"HR@10 on {data.name} ({data.split}), test{of}; 95 % intervals from {FEWEST} samples on"
        (folder / "slices.png").write_bytes(slice_figure(tables, title))
        whole[whole.columns[len(tables) == 1 :]].to_csv(folder / "slices.csv", index=False)

    run.log_folder("figures", write)


def keep_student(
    run: StepRun,
    config: StudentConfig,
    data: SequenceData,
    fitted: Fitted,
    beside: Beside | None = None,
    terms: str = "",
) -> None:
    """Log what a finished student measured, and keep it as the artifact ``student``.

    ``beside`` writes further files into its folder; ``terms`` are those of the language models it was made with. A run
    that keeps only results has no MLflow model, recommendations or figures.
    """
    epoch = 0 if fitted.progress is None else fitted.progress.epoch
    mark = save_student(run, data, fitted.model, fitted.shape, config.exclude_seen, beside, terms)
    # Behind the model, which they are of.
    in_full, seen = run.kept == "all", config.exclude_seen
    log_results(run, data, fitted.validation, fitted.test, epoch, exclude_seen=seen, in_full=in_full, model=mark)
    run.log_metrics(fitted.measured, model=mark)


def save_student(
    run: StepRun,
    data: SequenceData,
    model: Recommender,
    shape: StudentShape,
    exclude_seen: bool,
    beside: Beside | None = None,
    terms: str = "",
    refit_of: str = "",
) -> str:
    """Keep a student as the artifact ``student`` and, unless the run keeps only results, as an MLflow model.

    Arguments as of `keep_student`; ``refit_of`` is `Catalogue`'s. Returns the mark of the model, '' where there is
    none.
    """
    mark = new_mark() if run.kept == "all" else ""

    def write(folder: Path) -> None:
        write_student(folder, model, shape, beside=beside, terms=terms)

    run.tag_terms(terms)
    run.log_folder("student", write)
    if mark:
        log_student_model(
            run.run_id,
            model,
            shape,
            catalogue=replace(data.catalogue, refit_of=refit_of),
            exclude_seen=exclude_seen,
            beside=beside,
            terms=terms,
            mark=mark,
        )
    return mark

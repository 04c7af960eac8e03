"""The Python interface: load data, train, distil, compare and recommend, with or without MLflow.

The entry points are these functions with a run around them. Inside an active MLflow run they log to it; elsewhere they
log nowhere. Options are those of the steps (`recdistill distill --help`), by the same names and with the same defaults.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor, as_tensor, from_numpy, no_grad

from recdistill.config import (
    BaselineConfig,
    DataConfig,
    DistillConfig,
    StudentConfig,
    TeacherConfig,
    changed,
    config_of,
    narrow,
)
from recdistill.config.base import Config, nearest, option_table
from recdistill.config.lineage import plugin_contents
from recdistill.config.option import SHOWN
from recdistill.config.steps import STEPS
from recdistill.data.catalogue import Catalogue
from recdistill.data.frames import data_from_frames
from recdistill.data.item_texts import item_texts, texts_made_of
from recdistill.data.load import load_data as load_configured
from recdistill.data.pinned_models import terms_of
from recdistill.data.sequences import SequenceData
from recdistill.data.text_columns import text
from recdistill.errors import InputError, one_line
from recdistill.plugins import load_plugins
from recdistill.students.build import read_shape
from recdistill.students.catalogue_file import read_catalogue
from recdistill.students.kept_student import VECTORS_FOLDER, Beside, beside_of, load_kept, write_student
from recdistill.students.mapped import has_own_map, with_own_map, without_map
from recdistill.students.measure import Fitted
from recdistill.students.recommender import Recommender
from recdistill.students.serving import ItemRecommender
from recdistill.students.shape import StudentShape
from recdistill.students.student import Student
from recdistill.students.terms_file import terms_of_student
from recdistill.students.text_vectors import TextVectors
from recdistill.students.training import check_student, fit_recommender
from recdistill.study.terms import models_of_views
from recdistill.teachers.build import load_teacher
from recdistill.teachers.checks import check_teacher
from recdistill.teachers.gate_tables import gate_tables, last_histories, states_of
from recdistill.teachers.outputs import TeacherOutputs, answers_of
from recdistill.teachers.protocol import Teacher
from recdistill.teachers.scoring import make_outputs
from recdistill.teachers.training import train_teacher as fit_teacher
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes
from recdistill.training.recorder import Recorder
from recdistill.views.item_vectors import ItemVectors

if TYPE_CHECKING:
    from recdistill.report.results import Results

#: Options of the data that are no part of their contents: where the files lie.
OF_FILES = ("interactions", "items")
#: Options of runs: how a step makes one, and which it starts from.
OF_RUNS = (
    "estimate",
    "force",
    "register",
    "released",
    "time_budget",
    "ranked_users",
    "backbone_run_id",
    "init_from",
    "refit",
)
#: Options of a comparison, and the least value of each.
DRAWS = {"resamples": 1, "seed": 0}
#: Options of a student that the run of its teacher answers.
OF_TEACHERS_RUN = ("query_share", "rounds", "teacher_run_id", "teacher_files")


def load_data(dataset: str = "ml-100k", **options: Any) -> SequenceData:
    """Read and split a data set.

    Args:
        dataset: name of a source, as ``ml-100k`` or ``csv``.
        options: of the step ``prepare``, as ``interactions``, ``items``, ``split``, ``max_users``.

    Raises:
        InputError: a file or an option cannot be used.
    """
    load_plugins(str(options.get("plugin", "")))
    return load_configured(DataConfig(dataset=dataset, **options).checked())


def load_frame(interactions: pd.DataFrame, items: pd.DataFrame | None = None, **options: Any) -> SequenceData:
    """Split interactions that are at hand.

    Args:
        interactions: columns user, item, timestamp; ids of any kind become text.
        items: columns item, title; without it titles are the ids.
        options: of the step ``prepare``, as ``split``.

    Raises:
        InputError: what is given is no frame, a column is missing, or a value cannot be used.
    """
    return data_from_frames(interactions, items, **options)


def train_student(data: SequenceData, student: str = "sasrec", *, seed: int = 1, **options: Any) -> "TrainedStudent":
    """Train a recommender without a teacher.

    Args:
        data: of `load_data` or `load_frame`.
        student: name of a recommender, as ``sasrec``, ``gru4rec``, ``ease``.
        seed: of every random number.
        options: of the step ``backbone``, as ``epochs``, ``hidden_size``, ``blocks``.

    Raises:
        InputError: ``data`` is no data set, or an option cannot be used.
    """
    check_data_set(data)
    load_plugins(str(options.get("plugin", "")))
    config = BaselineConfig(student=student, seed=seed, **options)
    refuse_unused(config, "backbone")
    check_student(config, data.num_items)
    vectors = item_vectors(config, data)
    texts = text_vectors(vectors, data)
    fitted = fit_recommender(config, data, recorder=recorder("backbone", config), texts=texts)
    return trained("backbone", config, data, fitted, vectors)


def distill(
    data: SequenceData, outputs: TeacherOutputs, student: str = "sasrec", *, seed: int = 1, **options: Any
) -> "TrainedStudent":
    """Train a student from a teacher's outputs by DLLM2Rec (RecSys 2024).

    Args:
        data: that the teacher was trained on.
        outputs: of `TrainedTeacher.outputs`, or `TeacherOutputs.load`.
        student: name of a student, as ``gru4rec``.
        seed: of every random number.
        options: of the step ``distill``, as ``lam``, ``alpha``, ``ed_weight``, ``temperature``, ``selection_policy``.

    Raises:
        InputError: ``data`` is no data set, an option cannot be used, or the outputs are of other data.
    """
    check_data_set(data)
    load_plugins(str(options.get("plugin", "")))
    config = DistillConfig(student=student, seed=seed, **options)
    if not isinstance(outputs, TeacherOutputs):
        raise InputError(f"outputs: is a {type(outputs).__name__}; give those of a teacher, as teacher.outputs()")
    if outputs.manifest.fingerprint != data.fingerprint:
        raise InputError(
            f"outputs: made for data {outputs.manifest.fingerprint[:12]}, not for this data {data.fingerprint[:12]}; "
            "give those of a teacher of this data"
        )
    refuse_unused(config, "distill")
    check_student(config, data.num_items)
    answers = answers_of(config, outputs, data)
    vectors = item_vectors(config, data)
    texts = text_vectors(vectors, data)
    fitted = fit_recommender(config, data, teacher=answers, recorder=recorder("distill", config), texts=texts)
    return trained("distill", config, data, fitted, vectors, outputs.manifest.llm)


def check_data_set(data: object) -> None:
    """Raise InputError unless ``data`` is a data set, as `load_data` and `load_frame` return it."""
    if not isinstance(data, SequenceData):
        raise InputError(f"data: is a {type(data).__name__}; give what load_data or load_frame returns")


def refuse_unused(config: Config, step: str) -> None:
    """Raise InputError where an option is given that would say nothing here, as of the data, which are at hand.

    Nor what nothing reads beside the others (`Config.checked`).
    """
    table = option_table(type(config))
    of_teacher = set(option_table(TeacherConfig)) - set(option_table(BaselineConfig)) if step == "distill" else set()
    for name, value in config.values().items():
        if name not in table or value == table[name].default:
            continue
        said = f"{name}={value}: "
        if name in OF_FILES or table[name].role == "data":
            raise InputError(f"{said}is of the data, which are given; give it to load_data or load_frame")
        if name in OF_TEACHERS_RUN:
            raise InputError(
                f"{said}needs the run of a teacher, which the command distill has; leave it out, or give outputs that "
                "have fewer answers"
            )
        if name in OF_RUNS:
            raise InputError(f"{said}is of the step {step}, whose runs are tracked; leave it out")
        if name in of_teacher:
            raise InputError(f"{said}is of the teacher, whose outputs are given; leave it out")
    config.checked()


def item_vectors(config: StudentConfig, data: SequenceData) -> ItemVectors | None:
    """The vectors of the items' texts that embeddings start from; None where they are drawn. Raises InputError."""
    if not config.starts_from_texts:
        return None
    texts = item_texts(data.titles, data.item_columns, config.item_text, config.text_template)
    return ItemVectors.fit(config, texts, data.trained, device=config.device)


def text_vectors(vectors: ItemVectors | None, data: SequenceData) -> TextVectors | None:
    """The vectors as a student takes them."""
    return None if vectors is None else TextVectors(from_numpy(vectors.table), as_tensor(data.trained))


def train_teacher(
    data: SequenceData, backbone: "FittedStudent", *, llm: str = "smollm2-135m", seed: int = 1, **options: Any
) -> "TrainedTeacher":
    """Train iLoRA (NeurIPS 2024) over an LLM.

    Args:
        data: that the backbone was trained on.
        backbone: a causal student, as ``sasrec``, whose states the gate reads; it stays as it is.
        llm: alias, Hugging Face id or path of a causal LLM.
        seed: of every random number.
        options: of the step ``teacher``, as ``token_budget``, ``experts``, ``teacher``.

    Raises:
        InputError: ``data`` is no data set, an option or the LLM cannot be used, or the backbone is of other data.
    """
    check_data_set(data)
    load_plugins(str(options.get("plugin", "")))
    config = TeacherConfig(llm=llm, seed=seed, **options)
    refuse_unused(config, "teacher")
    check_teacher(config)
    student = without_map(backbone.model) if isinstance(backbone, FittedStudent) else None
    if not isinstance(student, Student):
        raise InputError("backbone: has no states of sequences; give a trained sasrec or gru4rec")
    known, today = backbone.catalogue, data.catalogue
    if known.item_ids != today.item_ids or not (known.item_count == today.item_count).all():
        raise InputError(
            "backbone: was trained on other data, whose items or training targets are not those of this data; train it "
            "on the data that the teacher is to learn from"
        )
    processes = Processes(device=device_of(config))
    frozen = student.requires_grad_(False)
    made, _ = fit_teacher(config, data, frozen, recorder=recorder("teacher", config), processes=processes)
    return TrainedTeacher(made, config, data)


def compare(students: "Sequence[TrainedStudent]", *, metric: str = "test/ndcg_at_10", **options: Any) -> "Results":
    """Test trained recommenders against the first of them, paired by user.

    Args:
        students: trained on the same data; those that differ in nothing but the seed are one recommender.
        metric: that decides: val or test, a metric and a cut-off.
        options: of `recdistill.report.results.compare_evaluated`: ``resamples``, ``seed``.

    Returns the results: printed, a table with intervals and p-values and a sentence; ``.frame()`` has the numbers.

    Raises:
        InputError: fewer than two are given, or they are of different data, or an option cannot be used.
    """
    from recdistill.report.in_memory import compare_fitted

    if isinstance(students, str) or not isinstance(students, Iterable):
        raise InputError(f"students: is a {type(students).__name__}; give a list of at least two students")
    students = list(students)
    for name in options:
        if name not in DRAWS:
            raise InputError(f"{name}: there is no such option{nearest(name, DRAWS)}; options are {', '.join(DRAWS)}")
    options = {name: checked_whole(name, value, DRAWS[name]) for name, value in options.items()}
    return compare_fitted(students, metric=metric, **options)


def compare_runs(
    runs: Sequence[str] = (),
    *,
    filter: str = "",
    baseline: str = "auto",
    metric: str = "test/ndcg_at_10",
    resamples: int = 10_000,
) -> "Results":
    """Test finished runs of the tracking store against their baselines, as the step ``compare`` does.

    Args:
        runs: ids; none for those that ``filter`` finds.
        filter: an MLflow search condition; '' for every evaluated run.
        baseline: 'auto' for each student's undistilled twin and a teacher's backbone; or a run's id.
        metric: that decides: val or test, a metric and a cut-off.
        resamples: bootstrap and permutation draws.

    Raises:
        InputError: a run is unknown, unfinished or of other data, or an option cannot be used.
    """
    if isinstance(runs, str) or not isinstance(runs, Iterable):
        raise InputError(f"runs={one_line(repr(runs), SHOWN)}: is no list; give a list of ids")
    resamples = checked_whole("resamples", resamples, DRAWS["resamples"])
    from recdistill.report.compared import groups_of
    from recdistill.report.results import MetricName, compare_groups
    from recdistill.runs.compared_runs import compared_runs

    name = MetricName.read(metric)
    found = compared_runs(list(runs), filter, baseline, name.part)
    return compare_groups(groups_of(found.runs, found.baseline), found.samples, name, resamples=resamples)


def newest_run(step: str) -> str:
    """Id of the newest finished run of a step, as ``main``. Raises InputError where there is none."""
    from recdistill.runs.finished_runs import newest

    return newest(step)


def load_run(run_id: str, *, device: str = "cpu", plugin: str = "") -> "FittedStudent | TrainedTeacher":
    """The student or teacher of a finished run of the tracking store.

    Args:
        run_id: of a ``backbone``, ``distill`` or ``teacher`` run.
        device: where it computes: ``cpu``, ``cuda`` or ``auto``.
        plugin: your module whose parts it was made with; '' for the one that the run keeps the name of.

    Raises:
        InputError: there is no such run or device, its data, its LLM or the plugin that it was made with are no longer
            to be had, or that plugin is no longer the code that it was trained with.
    """
    from recdistill.runs.finished_runs import check_data, linked_run
    from recdistill.runs.plugins_of_runs import options_with_plugins, same_code
    from recdistill.runs.served_model import student_folder

    load_plugins(plugin)
    run, step, values = options_with_plugins(run_id, ("backbone", "distill", "teacher"))
    same_code(run)
    config = changed(config_of(STEPS[step], values), device=device)
    assert isinstance(config, StudentConfig | TeacherConfig)
    data = load_configured(narrow(config, DataConfig))
    # Items are numbered as the data have them now.
    check_data(run, data.fingerprint, f"run_id={run.run_id}")
    if isinstance(config, StudentConfig):
        folder = run.artifact("student")
        # The model of a refit says of which run it is, so that nothing is measured on what it was trained on.
        catalogue = read_catalogue(student_folder(run.run_id)[0])[0] if config.refit else data.catalogue
        return student_in(folder, catalogue, config.exclude_seen, device_of(config))
    assert isinstance(config, TeacherConfig)
    of = linked_run(run, "backbone")
    same_code(of)
    backbone = without_map(load_kept(of.artifact("student")))
    assert isinstance(backbone, Student)
    teacher = load_teacher(run.artifact("teacher"), config, backbone.requires_grad_(False), data)
    return TrainedTeacher(teacher, config, data)


def load_student(folder: str | Path, *, plugin: str = "") -> "FittedStudent":
    """The recommender of `FittedStudent.save`.

    Args:
        folder: where it was saved.
        plugin: the module that the student is a part of, where it is one of your own and not imported yet.

    Raises:
        InputError: it cannot be read, or the plugin is missing, or no longer the code that it was saved with.
    """
    load_plugins(plugin)
    catalogue, exclude_seen = read_catalogue(folder)
    return student_in(Path(folder), catalogue, exclude_seen, torch.device("cpu"))


def student_in(folder: Path, catalogue: Catalogue, exclude_seen: bool, place: torch.device) -> "FittedStudent":
    """The student in a folder, with what lies beside it, on a device."""
    model, shape = load_kept(folder).to(place), read_shape(folder)
    terms, beside = terms_of_student(folder), beside_of(folder)
    return FittedStudent(model, shape, catalogue, exclude_seen, known_terms=terms, beside=beside)


def ids_of(name: str, lists: Iterable[Iterable[Any] | None]) -> list[list[str] | None]:
    """The ids of each list as text. Raises InputError where one, or all of it, is no list, as a single id."""
    if isinstance(lists, str | bytes) or not isinstance(lists, Iterable):
        raise InputError(f"{name}={one_line(repr(lists), SHOWN)}: is no list; give a list with a list of ids for each")
    found: list[list[str] | None] = []
    for number, ids in enumerate(lists):
        if isinstance(ids, str | bytes) or not (ids is None or isinstance(ids, Iterable)):
            raise InputError(f"{name}: the entry {number} is {ids!r}; give a list of ids in its place")
        found.append(None if ids is None else [text(one) for one in ids])
    return found


def checked_whole(name: str, value: object, least: int) -> int:
    """A whole number of at least ``least``. Raises InputError where it is none."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name}={one_line(repr(value), SHOWN)}: must be a whole number of at least {least}")
    return int(value)


@contextmanager
def written(folder: object) -> Iterator[Path]:
    """A folder that the block writes into. Raises InputError, one line, where that cannot be."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise InputError(f"folder={one_line(repr(folder), SHOWN)}: is no name of a folder; give one to write into")
    try:
        yield Path(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"folder={folder}: cannot be written ({one_line(str(error))}); give another folder") from None


def recorder(step: str, config: Config) -> Recorder:
    """What the training of a step logs to: the active MLflow run, where there is one."""
    from recdistill.runs.active_run import recorder_of_active_run

    return recorder_of_active_run(step, config)


@dataclass(frozen=True, eq=False)
class FittedStudent:
    """A recommender with the ids and titles of its items.

    Attributes:
        model: the recommender, as it is served: a `MappedStudent` where it takes new items by their texts.
        shape: its name and sizes.
        catalogue: its items.
        exclude_seen: whether items of the history are never recommended.
        known_terms: the terms of the language models that it was made with, as its folder has them.
        beside: writes what lies beside it in its folder, as the vectors of its items' texts; None where nothing does.
    """

    model: Recommender
    shape: StudentShape
    catalogue: Catalogue
    exclude_seen: bool
    known_terms: str = field(default="", kw_only=True)
    beside: Beside | None = field(default=None, kw_only=True, repr=False)

    def recommend(
        self,
        histories: Iterable[Iterable[str]],
        k: int = 10,
        exclude: Iterable[Iterable[str]] | None = None,
        allowed_items: Iterable[Iterable[str] | None] | None = None,
    ) -> pd.DataFrame:
        """The best items after each history.

        Args:
            histories: item ids as the data's source writes them, whole numbers too, oldest first; unknown ones are
                skipped. These and the following may be iterators, too.
            k: items for each history.
            exclude: for each history, ids of items never to recommend.
            allowed_items: for each history, ids of the only items to recommend, or None for all.

        Returns a row an item: ``history`` (its number, from 0), ``rank`` (from 1), ``item``, ``title``, ``score``.

        Raises:
            InputError: a history is no list of ids, lists do not fit each other, or ``k`` is below 1.
        """
        k = checked_whole("k", k, 1)
        known = [ids or [] for ids in ids_of("histories", histories)]
        banned = [[] for _ in known] if exclude is None else ids_of("exclude", exclude)
        only = None if allowed_items is None else ids_of("allowed_items", allowed_items)
        for name, lists in (("exclude", banned), ("allowed_items", only)):
            if lists is not None and len(lists) != len(known):
                raise InputError(f"{name}: has {len(lists)} lists for {len(known)} histories; give one for each")
        answers = self._serving.recommend(known, [k] * len(known), [ids or [] for ids in banned], only)
        ids, titles = self.catalogue.item_ids, self.catalogue.titles
        rows = [
            (number, rank, ids[item], titles[item], score)
            for number, answer in enumerate(answers)
            for rank, (item, score) in enumerate(zip(answer.items, answer.scores, strict=True), 1)
        ]
        return pd.DataFrame(rows, columns=["history", "rank", "item", "title", "score"])

    def log_model(self) -> str:
        """Log it to the active MLflow run as the model ``model``, which needs no recdistill where it is served.

        Returns its address, ``models:/<id>``. Raises InputError where no run is active.
        """
        from recdistill.runs.active_run import active_run_id
        from recdistill.runs.served_model import log_student_model

        return log_student_model(
            active_run_id(),
            self.model,
            self.shape,
            catalogue=self.catalogue,
            exclude_seen=self.exclude_seen,
            beside=self.beside,
            terms=self.terms,
        )

    @property
    def terms(self) -> str:
        """The terms of the language models that it was made with; '' where none is known."""
        return self.known_terms

    def save(self, folder: str | Path) -> None:
        """Write the recommender and its catalogue, readable by `load_student`; a teacher's embedding is folded in.

        Raises InputError where ``folder`` cannot be written.
        """
        with written(folder) as place:
            write_student(
                place,
                self.model,
                self.shape,
                catalogue=self.catalogue,
                exclude_seen=self.exclude_seen,
                beside=self.beside,
                terms=self.terms,
            )

    @cached_property
    def _serving(self) -> ItemRecommender:
        counts = self.catalogue.item_count.tolist()
        retired = self.catalogue.retired.tolist()
        return ItemRecommender(self.model.eval(), self.catalogue.item_ids, counts, self.exclude_seen, retired)


@dataclass(frozen=True, eq=False)
class TrainedStudent(FittedStudent):
    """A recommender that was trained here.

    Attributes:
        step: ``backbone`` for one without teacher, else ``distill``.
        config: its options.
        data: what it was trained and measured on.
        fitted: its ranks, and what its training measured.
        teacher: the LLM that it was distilled from; '' for none.
    """

    step: str
    config: StudentConfig
    data: SequenceData
    fitted: Fitted
    teacher: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        """``val/ndcg_at_10``, ``test/hr_at_20``, ``latency_ms`` and so on."""
        return self.fitted.metrics | self.fitted.measured

    @property
    def terms(self) -> str:
        """The terms of the models that it was made with, its teacher's and its views', where they have an alias."""
        return terms_of(self.teacher, *models_of_views(self.config))

    @property
    def settings(self) -> dict[str, Any]:
        """The options that make it the recommender that it is: all that its result depends on but the seed."""
        from recdistill.report.settings import settings_of

        upstream = {"llm": self.teacher} if self.teacher else {}
        return dict(settings_of(self.step, self.config.values(), plugin_contents(self.config), upstream))


def trained(
    step: str,
    config: StudentConfig,
    data: SequenceData,
    fitted: Fitted,
    vectors: ItemVectors | None = None,
    teacher: str = "",
) -> TrainedStudent:
    """A fitted recommender with all that belongs to it.

    One that started from the ``vectors`` of texts and has a map from them is had as it is served.
    """
    model, shape, seen, beside = fitted.model, fitted.shape, config.exclude_seen, None
    if vectors is not None and isinstance(model, Student) and has_own_map(model):
        texts = texts_made_of(data.item_columns, config.item_text, config.text_template)
        model, beside = with_own_map(model, shape, texts, vectors.identity), partial(keep_vectors, vectors)
    return TrainedStudent(model, shape, data.catalogue, seen, step, config, data, fitted, teacher, beside=beside)


def keep_vectors(vectors: ItemVectors, folder: Path) -> None:
    """Write what makes the texts' vectors into a student's folder."""
    vectors.save(folder / VECTORS_FOLDER)


@dataclass(frozen=True, eq=False)
class TrainedTeacher:
    """A teacher that was trained here, over its LLM and its frozen backbone.

    Attributes:
        model: the teacher; see `recdistill.teachers.protocol.Teacher`.
        config: its options.
        data: what it was trained on.
    """

    model: Teacher
    config: TeacherConfig
    data: SequenceData

    def outputs(
        self, *, token_budget: int | None = None, work: str | Path | None = None, **options: Any
    ) -> TeacherOutputs:
        """Have it score training samples, and embed the items.

        Args:
            token_budget: LLM tokens to spend; 0 scores all training samples, None is the option's own default.
            work: folder for parts of the result, from which a killed scoring goes on, by this teacher and with these
                options; None for a temporary one.
            options: ``query_policy``, ``top_n``, ``sequence_embeddings``.
        """
        given = {} if token_budget is None else {"outputs_token_budget": token_budget}
        config = changed(self.config, **given, **options)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "parts" if work is None else Path(work) / self._digest(config, Path(scratch))
            found = make_outputs(self.model, config, folder)
        assert found is not None
        return found

    def _digest(self, config: TeacherConfig, scratch: Path) -> str:
        """What the parts of outputs depend on: options, data and what was learnt."""
        self.model.save(scratch / "teacher")
        found = hashlib.sha256(json.dumps([config.values(), self.data.fingerprint], sort_keys=True).encode())
        for path in sorted((scratch / "teacher").rglob("*")):
            found.update(path.read_bytes() if path.is_file() else b"")
        return found.hexdigest()[:20]

    @no_grad()
    def user_states(self) -> tuple[pd.DataFrame, Tensor]:
        """The backbone's state after the longest history of each user, which the gate reads.

        Returns a row a user: ``user``, ``history`` (the ids of the items that the backbone reads, oldest first); and
        the states [U, D] in the order of the rows.
        """
        data, backbone = self.data, self.model.backbone
        user, history, length = last_histories(data, backbone.max_length)
        windows = zip(history.tolist(), length.tolist(), strict=True)
        ids = [[data.item_ids[item] for item in items[:real]] for items, real in windows]
        users = pd.DataFrame({"user": [data.user_ids[one] for one in user], "history": ids})
        return users, states_of(backbone, history, length)

    def gate_tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The gate's weights at the states of `user_states`, and their means by cluster of these states.

        Returns a row a user, as in `user_states`: ``user``, ``cluster``, ``expert_0`` …; and a row a cluster, the
        largest first: ``cluster``, ``users``, ``expert_0`` …, ``titles``. Where each layer has a gate, weights are
        means over the layers. Raises InputError for a teacher without a gate.
        """
        tables = gate_tables(self.model)
        if tables is None:
            raise InputError(f"teacher={self.config.teacher}: has no gate; give a teacher of iLoRA")
        return tables

    def gate_plot(self) -> bytes:
        """Draw the second table of `gate_tables` as a heat map: PNG. Raises InputError for a teacher without a gate."""
        from recdistill.report.gate_figure import gate_figure

        return gate_figure(self.gate_tables()[1], "Mean gate weights by cluster of users")

    def save(self, folder: str | Path) -> None:
        """Write what was trained: adapter, gate, projector and head; no weight of the LLM.

        Raises InputError where ``folder`` cannot be written.
        """
        with written(folder) as place:
            self.model.save(place)

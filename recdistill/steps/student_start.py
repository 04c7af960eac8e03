"""What a student's training starts from: the items' texts (``item_init``), and an earlier student (``init_from``)."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from recdistill.config import StudentConfig, changed
from recdistill.config.base import option_table
from recdistill.config.views import TOGETHER
from recdistill.data.all_interactions import all_as_training
from recdistill.data.catalogue import Catalogue
from recdistill.data.item_texts import item_texts
from recdistill.data.load import FILTERS
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.runs.finished_runs import options_of_run
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import RUN_ID, student_folder
from recdistill.steps.inputs import texts_in_key
from recdistill.steps.student_texts import VECTORS_FOLDER, StudentTexts, as_tensors, student_texts
from recdistill.students.build import SHAPE_FILE, WEIGHTS_FILE, read_shape
from recdistill.students.catalogue_file import CATALOGUE_FILE, read_catalogue
from recdistill.students.earlier import EarlierStudent, check_same_items, check_shape, rows_of, tensors_of
from recdistill.students.kept_student import load_kept
from recdistill.students.mapped import MAP_FILE, MappedStudent, has_constant
from recdistill.students.measure import Fitted
from recdistill.students.shape import shape_of
from recdistill.students.together import Member
from recdistill.students.training import Report, fit_recommender, help_fit
from recdistill.training.distributed import ALONE, Processes
from recdistill.views.item_vectors import ARRAYS_FILE, ItemVectors
from recdistill.views.text_teacher import TextTeacher
from recdistill.views.vector_cache import digest_rows

Options = TypeVar("Options", bound=StudentConfig)
#: The files of a served student that a training which starts from it depends on.
READ = (WEIGHTS_FILE, SHAPE_FILE, CATALOGUE_FILE, MAP_FILE, f"{VECTORS_FOLDER}/{ARRAYS_FILE}")
#: Steps whose runs keep a student, those first whose options say what data it was trained on.
KEEPING = ("backbone", "distill", "map_items", "add_items", "retire_items")
#: The line of a logged model's description, two folders above its student, that names its run.
MODEL_FILE, OF_MODEL = "MLmodel", re.compile(r"^run_id: (\w+)$", re.MULTILINE)
#: What a key has where some items are the targets of repeats alone, of which nothing is learnt: such items competed in
#: the masks of before.
LEARNT = {"learnt items": "targets of samples that are learnt from"}
#: What a key has where the earlier student's own map has a constant, which was left out before.
CONSTANT = {"earlier map": "with its constant"}


@dataclass(frozen=True, eq=False)
class KeptStudent:
    """An earlier student, as it is served.

    Attributes:
        name: how the user names it.
        folder: where it lies, with its catalogue and, where it has them, its map and its vectors of texts.
    """

    name: str
    folder: Path

    @property
    def digest(self) -> str:
        """Of what is read of it."""
        found = hashlib.sha256()
        for name in READ:
            path = self.folder / name
            found.update(path.read_bytes() if path.is_file() else b"none")
        return found.hexdigest()

    def contents(self, config: StudentConfig) -> dict[str, str]:
        """What the key of a run of these options has of it."""
        found = {"earlier student": self.digest}
        goes_on = config.starts_from_texts and (self.folder / MAP_FILE).is_file()
        return found | CONSTANT if goes_on and has_constant(self.folder) else found

    @cached_property
    def catalogue(self) -> Catalogue:
        """Its items. Raises InputError where they cannot be read."""
        return read_catalogue(self.folder)[0]

    @cached_property
    def splitting(self) -> Mapping[str, object]:
        """The options that say what was held out of its training, as far as they are known.

        A catalogue of before lacks those that leave out users and items: its run has them among its options.
        """
        found = dict(self.catalogue.splitting)
        return found if not found or FILTERS[0] in found else found | self._filters_of_run()

    def _filters_of_run(self) -> dict[str, object]:
        """The options `FILTERS` of the run that trained it; empty where that cannot be told."""
        run_id, described = self.name, self.folder.parents[1] / MODEL_FILE
        if not RUN_ID.fullmatch(run_id) and described.is_file():
            of_model = OF_MODEL.search(described.read_text(encoding="utf-8"))
            run_id = of_model[1] if of_model else ""
        try:
            _, _, values = options_of_run(run_id, KEEPING, "init_from")
            if "model" in values:
                # A student with more items, or fewer, of another one.
                return dict(kept_student(values["model"])._filters_of_run())
        except InputError:
            return {}
        table = option_table(StudentConfig)
        return {name: values.get(name, table[name].default) for name in FILTERS}

    def check_measurable(self, config: StudentConfig, data: SequenceData) -> None:
        """Raise InputError where it was trained on what a run of these options and data is measured on."""
        known = self.catalogue
        if known.refit_of:
            raise InputError(
                f"init_from={self.name}: was trained on all interactions (refit), those that this run is measured on "
                f"included; give {known.refit_of}, the run that it refits, or refit=true"
            )
        then, now = other_splitting(self.splitting, data.splitting)
        if then != now:
            raise InputError(
                f"init_from={self.name}: held out {as_options(then)}, this run {as_options(now)}, so that it may be "
                "trained on what this run is measured on; give the options of data that it had, start from a student "
                "of these, or anew"
            )
        if not config.new_items:
            return
        new = np.union1d(data.new_validation, data.new_test)
        before = rows_of([data.item_ids[item] for item in new], known.item_ids).numpy()
        trained = (before >= 0) & (known.item_count[before] > 0)
        if trained.any():
            first = data.item_ids[new[trained.argmax()]]
            raise InputError(
                f"init_from={self.name}: was trained on {trained.sum():,} of the {len(new):,} items that are new here "
                f"(new_items={config.new_items:g}, new_items_seed={config.new_items_seed}), as {first!r}; start from a "
                "student of the same draw, or anew"
            )

    @property
    def run(self) -> StepRun:
        """What stands for it where a run lists those that it started from."""
        return StepRun(self.name if RUN_ID.fullmatch(self.name) else "", self.digest, "", reused=True)

    def earlier(self, config: StudentConfig, data: SequenceData) -> EarlierStudent:
        """It, by the items of today. Raises InputError, one line, where the student of the options cannot start so."""
        check_shape(read_shape(self.folder), shape_of(config), self.name)
        model = load_kept(self.folder)
        own_map = None
        if isinstance(model, MappedStudent) and model.new_item_map.terms is None:
            own_map = model.new_item_map.map
        if config.starts_from_texts and own_map is None:
            raise InputError(
                f"item_init=views: the student of init_from={self.name} has no map from texts of its own; "
                "leave item_init out, or start anew"
            )
        rows = rows_of(data.item_ids, self.catalogue.item_ids)
        check_same_items(rows, data.item_ids, data.titles, self.catalogue, self.name)
        return EarlierStudent(tensors_of(model), rows, self._new_rows(model, rows, config, data), own_map)

    def _new_rows(
        self, model: object, rows: torch.Tensor, config: StudentConfig, data: SequenceData
    ) -> torch.Tensor | None:
        """Embeddings [V, D] of items that it lacks, by its map from texts; None where it has none, or lacks no item."""
        missing = (rows < 0).nonzero().squeeze(1).tolist()
        if not isinstance(model, MappedStudent) or not missing:
            return None
        about = model.new_item_map.texts
        for name in about["columns"]:
            if name not in data.item_columns:
                raise InputError(
                    f"init_from={self.name}: makes texts of the column {name!r}, which the items lack; add it"
                )
        columns = {name: [data.item_columns[name][item] for item in missing] for name in about["columns"]}
        titles = [data.titles[item] for item in missing]
        texts = item_texts(titles, columns, about["item_text"], about["text_template"])
        vectors = ItemVectors.load(self.folder / VECTORS_FOLDER, device=config.device).of(texts)
        found = torch.zeros(len(rows), model.student.items.hidden_size)
        found[missing] = model.new_item_map.map(torch.from_numpy(vectors))
        return found

    def vectors(self, config: StudentConfig, texts: StudentTexts) -> ItemVectors:
        """The vectors of today's texts by the earlier student's views. Raises InputError where these are others."""
        found = ItemVectors.load(self.folder / VECTORS_FOLDER, texts.teacher, config.device)
        if list(found.names) != config.views.split(TOGETHER):
            raise InputError(
                f"views={config.views}: the student of init_from={self.name} reads {TOGETHER.join(found.names)}; give "
                "these, or start anew"
            )
        table = np.ascontiguousarray(found.of(texts.texts))
        costs = {name: view.cost(texts.texts) for name, view in found.views.items()}
        return replace(found, table=table, digests=digest_rows(texts.texts), costs=costs)


@dataclass(frozen=True, eq=False)
class StudentStart:
    """What a training starts from.

    Attributes:
        texts: of the items; None where embeddings are drawn.
        kept: the earlier student; None where there is none.
        earlier: it, by the items of today.
        learnt: what a key has of the items that are learnt, see `learnt_items`.
        of_kept: what a key has of the earlier student, see `KeptStudent.contents`.
        member: the training among those that train together; None for one alone.
    """

    texts: StudentTexts | None = None
    kept: KeptStudent | None = None
    earlier: EarlierStudent | None = None
    learnt: Mapping[str, str] = field(default_factory=dict)
    of_kept: Mapping[str, str] = field(default_factory=dict)
    member: Member[Any] | None = None

    @property
    def contents(self) -> dict[str, str]:
        """What a run's key and settings have of it."""
        company = {} if self.member is None else self.member.contents
        return {**self.learnt, **({} if self.texts is None else self.texts.contents), **self.of_kept, **company}

    def say_of_earlier(self, data: SequenceData) -> None:
        """Print how many items the earlier student knows, and which it had retired: a training knows nothing of that.

        Nothing where there is none.
        """
        if self.kept is None or self.earlier is None:
            return
        known, matched = self.kept.catalogue, int((self.earlier.rows >= 0).sum())
        print(f"init_from={self.kept.name}: {matched:,} of {data.num_items:,} items matched by id", flush=True)
        ids = set(data.item_ids)
        back = [known.item_ids[item] for item in known.retired if known.item_ids[item] in ids]
        if back:
            print(
                f"init_from={self.kept.name}: {len(back):,} items that were retired there are recommended again, as "
                f"{back[0]!r}; retire them in the new version, too (retire_items)",
                flush=True,
            )

    @property
    def upstream(self) -> dict[str, StepRun]:
        """The runs that it is of, by name."""
        return {} if self.kept is None else {"student": self.kept.run}

    def vectors(self, config: StudentConfig, data: SequenceData, work: Path) -> ItemVectors | None:
        """The vectors of the items' texts; None where embeddings are drawn."""
        if self.texts is None:
            return None
        return self.texts.vectors(config, data, work) if self.kept is None else self.kept.vectors(config, self.texts)

    def fit(
        self,
        config: StudentConfig,
        data: SequenceData,
        run: StepRun,
        report: Report | None = None,
        teacher: TeacherAnswers | None = None,
        processes: Processes | None = None,
    ) -> tuple[Fitted, ItemVectors | None]:
        """The student trained from here, and the vectors of the items' texts.

        Of several processes the main one calls this, the others `help_fit`.
        """
        self.say_of_earlier(data)
        vectors = (processes or ALONE).main_first(lambda: self.vectors(config, data, run.work))
        fitted = fit_recommender(
            config,
            data,
            teacher=teacher,
            recorder=run,
            report=report,
            texts=as_tensors(vectors, data),
            earlier=self.earlier,
            processes=processes,
            member=self.member,
        )
        return fitted, vectors

    def help_fit(
        self,
        config: StudentConfig,
        data: SequenceData,
        run: StepRun,
        processes: Processes,
        teacher: TeacherAnswers | None = None,
    ) -> None:
        """What the other processes do while the main one calls `fit`."""
        vectors = processes.main_first(lambda: self.vectors(config, data, run.work))
        help_fit(
            config,
            data,
            teacher=teacher,
            recorder=run,
            texts=as_tensors(vectors, data),
            earlier=self.earlier,
            processes=processes,
        )


def whole_path_contents(config: StudentConfig, data: SequenceData) -> dict[str, str]:
    """What the key of a whole path has beside options and data: the items' texts and the student that it starts from.

    Raises InputError where there is no such student.
    """
    found = texts_in_key(config, data) | learnt_items(config, data)
    return found | (kept_student(config.init_from).contents(config) if config.init_from else {})


def learnt_items(config: StudentConfig, data: SequenceData) -> dict[str, str]:
    """What a key has where items are targets of samples alone that are left out; nothing where there is no such item.

    Nor of a student that does not ask which items are learnt.
    """
    if config.student not in STUDENTS.names(gradient=True) or not (config.mask_untrained or config.starts_from_texts):
        return {}
    learnt_from = [data, all_as_training(data)] if config.refit else [data]
    return LEARNT if any(has_unlearnt(one, config.exclude_seen) for one in learnt_from) else {}


def has_unlearnt(data: SequenceData, exclude_seen: bool) -> bool:
    """Whether some items are targets of samples alone that nothing is learnt from (`SequenceData.learnt`)."""
    return not np.array_equal(data.learnt(exclude_seen), data.trained)


def other_splitting(
    before: Mapping[str, object], today: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """What two data sets held out, in the options by which they differ; two empty ones where they do not.

    The split and its own options are said whole. What one of them does not know is not compared.
    """
    if not before or not today:
        return {}, {}
    apart = [name for name in FILTERS if name in before and name in today and before[name] != today[name]]
    split, split_today = ({name: one[name] for name in one if name not in FILTERS} for one in (before, today))
    if split == split_today and not apart:
        return {}, {}
    return split | {name: before[name] for name in apart}, split_today | {name: today[name] for name in apart}


def as_options(values: Mapping[str, object]) -> str:
    """Options as they are given: ``split=user-holdout holdout=0.1``."""
    return " ".join(f"{name}={value}" for name, value in values.items())


def kept_student(name: str) -> KeptStudent:
    """The earlier student that ``init_from`` names. Raises InputError."""
    try:
        return KeptStudent(name, student_folder(name)[0])
    except InputError as error:
        raise InputError(str(error).replace("model=", "init_from=", 1)) from None


def measured(config: Options) -> Options:
    """The options of the run that a refit of these refits, which is measured: its start knows nothing held out.

    Raises InputError where ``init_from`` names no student.
    """
    before = kept_student(config.init_from).catalogue.refit_of if config.init_from else ""
    return changed(config, refit=False, register="", force=False, init_from=before or config.init_from)


def student_start(config: StudentConfig, data: SequenceData, teacher: TextTeacher | None = None) -> StudentStart:
    """What the options say. Raises InputError, one line, where that does not fit, before anything is trained."""
    texts, learnt = student_texts(config, data, teacher), learnt_items(config, data)
    if not config.init_from:
        return StudentStart(texts, learnt=learnt)
    kept = kept_student(config.init_from)
    if not config.refit:
        kept.check_measurable(config, data)
    earlier = kept.earlier(config, data)
    if texts is not None:
        kept.vectors(config, texts)
    return StudentStart(texts, kept, earlier, learnt, kept.contents(config))


def keys_of(upstream: Mapping[str, StepRun]) -> dict[str, str]:
    """The keys of runs, by name."""
    return {name: run.key for name, run in upstream.items()}

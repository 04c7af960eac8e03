"""A student's folder, as steps and Python keep it: the recommender, its items, and what lies beside them."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from recdistill.config.own_files import module_name, part_digest
from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.build import NEW_ITEMS_FILE, SHAPE_FILE, load_recommender, save_recommender
from recdistill.students.catalogue_file import write_catalogue
from recdistill.students.mapped import MAP_FILE
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape
from recdistill.students.terms_file import TERMS_FILE, write_terms
from recdistill.whole_files import whole_folder

#: In a student's folder, where it takes new items by their texts: what makes the texts' vectors.
VECTORS_FOLDER = "item_vectors"
#: In a student's ``student.json``, where a user's module has it: the module's name, and a digest of its files.
PLUGIN = "plugin"
#: Writes what lies beside a student into its folder.
Beside = Callable[[Path], None]


def write_student(
    folder: Path,
    model: Recommender,
    shape: StudentShape,
    *,
    catalogue: Catalogue | None = None,
    exclude_seen: bool = True,
    beside: Beside | None = None,
    terms: str = "",
) -> None:
    """Write a student into a folder, made if absent; what an earlier student left there does not stay.

    Args:
        folder: where to.
        model: as fitted; an injected teacher is folded in, so that whoever loads the student needs no teacher.
        shape: its shape.
        catalogue: its items; None where the folder is kept with the data that have them.
        exclude_seen: whether items of the history are never recommended; kept with the catalogue.
        beside: writes further files into the folder, as the vectors of the items' texts.
        terms: of the language models that it was made with; see `write_terms`.
    """
    for name in (NEW_ITEMS_FILE, MAP_FILE, TERMS_FILE):
        (folder / name).unlink(missing_ok=True)
    save_recommender(folder, model, shape, fold=True)
    write_plugin(folder, shape.student)
    if catalogue is not None:
        write_catalogue(folder, catalogue, exclude_seen)
    if beside is not None:
        beside(folder)
    write_terms(folder, terms)


def write_plugin(folder: Path, student: str) -> None:
    """Add to ``student.json`` which module of a user's the student is a part of; nothing for a student of ours."""
    declared = STUDENTS.declaration(student)
    if declared.is_ours:
        return
    described = json.loads((folder / SHAPE_FILE).read_text(encoding="utf-8"))
    described[PLUGIN] = {"module": module_name(declared), "digest": part_digest(declared)}
    (folder / SHAPE_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_kept(folder: str | Path) -> Recommender:
    """The recommender of `write_student`, as `load_recommender` has it, by the code that it was kept with.

    Raises InputError, one line, also where it is a part of a user's module that is not imported, or is other code now:
    then the same weights would give other scores.
    """
    folder = Path(folder)
    check_plugin(folder)
    return load_recommender(folder)


def check_plugin(folder: Path) -> None:
    """Raise InputError where the student in a folder is a user's own, and its code is missing or another one now."""
    try:
        described = json.loads((folder / SHAPE_FILE).read_text(encoding="utf-8"))
        student, plugin = described["shape"]["student"], described.get(PLUGIN, {})
        module, digest = plugin.get("module", ""), plugin.get("digest", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # `load_recommender` says what is wrong. Students of versions that kept no name of a module have none.
        return
    if digest and student not in STUDENTS:
        raise InputError(
            f"{folder}: its student {student!r} is a part of your module {module}; give it as plugin={module}.py, or "
            "where it lies now"
        )
    if digest and part_digest(STUDENTS.declaration(student)) != digest:
        raise InputError(
            f"{folder}: its student {student!r} is no longer the code that it was kept with (module {module}); give "
            "plugin= with that code, or train again"
        )


def beside_of(folder: Path) -> Beside | None:
    """What writes that which lies beside a kept student beside another one; None where nothing does."""
    return partial(copy_vectors, folder.resolve()) if (folder / VECTORS_FOLDER).is_dir() else None


def copy_vectors(source: Path, target: Path) -> None:
    """Copy what makes the texts' vectors from a student's folder to another's, which may be the same.

    Raises InputError where it is there no longer.
    """
    if not (source / VECTORS_FOLDER).is_dir():
        raise InputError(f"{source / VECTORS_FOLDER}: is gone, which the student takes new items by; load it again")
    with whole_folder(target / VECTORS_FOLDER, replace=True) as complete:
        shutil.copytree(source / VECTORS_FOLDER, complete, dirs_exist_ok=True)

"""A student's folder, as steps and Python keep it: the recommender, its items, and what lies beside them."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError
from recdistill.students.build import NEW_ITEMS_FILE, save_recommender
from recdistill.students.catalogue_file import write_catalogue
from recdistill.students.mapped import MAP_FILE
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape
from recdistill.students.terms_file import TERMS_FILE, write_terms
from recdistill.whole_files import whole_folder

#: In a student's folder, where it takes new items by their texts: what makes the texts' vectors.
VECTORS_FOLDER = "item_vectors"
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
    if catalogue is not None:
        write_catalogue(folder, catalogue, exclude_seen)
    if beside is not None:
        beside(folder)
    write_terms(folder, terms)


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

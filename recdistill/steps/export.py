"""``export``: a student as an ONNX model, or data and a teacher's outputs in DLLM2Rec's own files, for its users."""

import hashlib
import shutil
from pathlib import Path

from recdistill.config import ExportConfig, TeacherConfig, changed, config_of
from recdistill.config.paths import place_to_write
from recdistill.errors import InputError
from recdistill.release.dllm2rec_data import write_dllm2rec
from recdistill.release.teacher_files import write_teacher_files
from recdistill.runs.finished_runs import newest
from recdistill.runs.plugins_of_runs import options_with_plugins
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import student_folder
from recdistill.runs.step_runs import step_run
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.students.catalogue_file import CATALOGUE_FILE, read_catalogue
from recdistill.students.kept_student import load_kept
from recdistill.students.onnx_file import check_onnx, write_onnx

ONNX_FILE = "student.onnx"
#: Options that one format alone reads.
READ_BY = {"teacher_run_id": "dllm2rec", "allow_partial": "dllm2rec", "model": "onnx"}


def export(config: ExportConfig) -> StepRun:
    """Write the files into the folder; a run says which teacher or student they are of."""
    if not config.folder:
        raise InputError("folder=: say where to write; set folder=<folder>")
    for name, read_by in READ_BY.items():
        if getattr(config, name) and config.format != read_by:
            raise InputError(f"{name}={getattr(config, name)}: is of format={read_by}; leave it out, or set that")
    folder = place_to_write(config, "folder")
    return export_student(config, folder) if config.format == "onnx" else export_data(config, folder)


def export_student(config: ExportConfig, folder: Path) -> StepRun:
    """Write ``student.onnx`` and the ``catalogue.json`` that tells which item a score is of."""
    check_onnx()
    student, address = student_folder(config.model or newest("distill"))
    catalogue, _ = read_catalogue(student)
    fingerprint = hashlib.sha256("\n".join(catalogue.item_ids).encode("utf-8", "surrogatepass")).hexdigest()
    with step_run("export", changed(config, model=address, force=True), data=fingerprint) as run:
        folder.mkdir(parents=True, exist_ok=True)
        difference = write_onnx(folder / ONNX_FILE, load_kept(student))
        shutil.copy(student / CATALOGUE_FILE, folder / CATALOGUE_FILE)
        run.log_metrics({"export/largest_difference": difference})
        run.log_text("files.txt", f"{CATALOGUE_FILE}\n{ONNX_FILE}\n")
    print(f"{folder}: {CATALOGUE_FILE}, {ONNX_FILE}; scores within {difference:.1e} of the student's", flush=True)
    return run


def export_data(config: ExportConfig, folder: Path) -> StepRun:
    """Write a teacher's outputs and its data as DLLM2Rec's release reads them."""
    found, _, values = options_with_plugins(config.teacher_run_id or newest("teacher"), ("teacher",))
    data = data_of(config_of(TeacherConfig, values))
    options = changed(config, teacher_run_id=found.run_id, force=True)
    with step_run("export", options, data=data, upstream={"teacher": found}) as run:
        write_teacher_files(folder, teacher_outputs_of(found, data), allow_partial=config.allow_partial)
        write_dllm2rec(folder, data)
        files = "\n".join(sorted(path.name for path in folder.iterdir()))
        run.log_text("files.txt", files + "\n")
    print(f"{folder}: {', '.join(files.split())}", flush=True)
    return run

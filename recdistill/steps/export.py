"""``export``: a data set and a teacher's outputs in DLLM2Rec's own files, for users of its release."""

from dataclasses import replace
from pathlib import Path

from recdistill.config import ExportConfig, TeacherConfig
from recdistill.data.sources.dllm2rec import write_dllm2rec
from recdistill.errors import InputError
from recdistill.steps.evaluate import read_options
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.release.teacher_files import write_teacher_files
from recdistill.runs.step_runs import StepRun, newest, options_of_run, step_run

CODE = ["data", "teacher_files.py", "teacher_outputs.py", "steps/export.py"]


def export(config: ExportConfig) -> StepRun:
    """Write the files into the folder; a run says which teacher they are of."""
    if not config.folder:
        raise InputError("folder=: say where to write; set folder=<folder>")
    found, _, values = options_of_run(config.teacher_run_id or newest("teacher"), ("teacher",))
    data = data_of(read_options(TeacherConfig, values))
    options = replace(config, teacher_run_id=found.run_id, force=True)
    with step_run("export", options, data=data, settings=["folder"], code=CODE, upstream={"teacher": found}) as run:
        folder = Path(config.folder).expanduser()
        write_teacher_files(folder, teacher_outputs_of(found, data), allow_partial=config.allow_partial)
        write_dllm2rec(folder, data)
        files = "\n".join(sorted(path.name for path in folder.iterdir()))
        run.log_text("files.txt", files + "\n")
    print(f"{folder}: {', '.join(files.split())}", flush=True)
    return run

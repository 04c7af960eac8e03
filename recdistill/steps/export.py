"""``export``: a data set and a teacher's outputs in DLLM2Rec's own files, for users of its release."""

from pathlib import Path

from recdistill.config import ExportConfig, TeacherConfig, changed, config_of
from recdistill.errors import InputError
from recdistill.release.dllm2rec_data import write_dllm2rec
from recdistill.release.teacher_files import write_teacher_files
from recdistill.runs.finished_runs import newest, options_of_run
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.inputs import data_of, teacher_outputs_of


def export(config: ExportConfig) -> StepRun:
    """Write the files into the folder; a run says which teacher they are of."""
    if not config.folder:
        raise InputError("folder=: say where to write; set folder=<folder>")
    found, _, values = options_of_run(config.teacher_run_id or newest("teacher"), ("teacher",))
    data = data_of(config_of(TeacherConfig, values))
    options = changed(config, teacher_run_id=found.run_id, force=True)
    with step_run("export", options, data=data, upstream={"teacher": found}) as run:
        folder = Path(config.folder).expanduser()
        write_teacher_files(folder, teacher_outputs_of(found, data), allow_partial=config.allow_partial)
        write_dllm2rec(folder, data)
        files = "\n".join(sorted(path.name for path in folder.iterdir()))
        run.log_text("files.txt", files + "\n")
    print(f"{folder}: {', '.join(files.split())}", flush=True)
    return run

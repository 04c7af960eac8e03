"""``time_budget``: token budgets of a teacher that fill a time on this machine, set once and kept."""

import json
from typing import TypeVar

from recdistill.config import DistillConfig, TeacherConfig, changed, narrow
from recdistill.config.durations import seconds_of, spoken
from recdistill.errors import InputError
from recdistill.registry import TEACHERS
from recdistill.steps.inputs import data_of
from recdistill.steps.paces import OF_BUDGETS, pace_file, pace_of_teacher
from recdistill.whole_files import write_text

Taught = TypeVar("Taught", bound=TeacherConfig)
#: Share of the tokens that a teacher is trained on; the others score samples. That of the default budgets.
LEARNT = 0.4
ROUND = 1000


def within_time(config: Taught) -> Taught:
    """The options with the token budgets that their ``time_budget`` pays for; as they are where they have none.

    The same options on the same machine get the same budgets, so that a killed run goes on and a finished one is found.
    Raises InputError where the time does not pay for what has no budget, as the evaluation.
    """
    named = isinstance(config, DistillConfig) and (config.teacher_run_id or config.teacher_files)
    if not config.time_budget or named:
        return config
    data = data_of(config)
    # What a loss term has the teacher keep of its states costs no tokens: the same budgets with it and without.
    options = narrow(config, TeacherConfig, sequence_embeddings=False)
    path = pace_file(f"budgets-{config.time_budget.replace(' ', '')}", options, data, OF_BUDGETS)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        learnt, scored = int(known["token_budget"]), int(known["outputs_token_budget"])
    except (OSError, ValueError, KeyError, TypeError):  # none yet
        learnt, scored = budgets_of(options)
        write_text(path, json.dumps({"token_budget": learnt, "outputs_token_budget": scored}))
    print(f"time_budget={config.time_budget}: token_budget={learnt:,} and outputs_token_budget={scored:,}", flush=True)
    return changed(config, token_budget=learnt, outputs_token_budget=scored)


def budgets_of(config: TeacherConfig) -> tuple[int, int]:
    """Tokens to train on, and tokens to score samples with."""
    pace = pace_of_teacher(config, data_of(config))
    if pace is None:
        asked = TEACHERS.declaration(config.teacher).about.get("queries")
        instead = "a teacher behind a server has query_budget instead" if asked else "it reads no LLM; leave it out"
        raise InputError(f"time_budget={config.time_budget}: teacher={config.teacher}: {instead}")
    contrast = int(config.values().get("contrast_token_budget", 0))
    fixed = pace.seconds(contrast, 0)
    tokens = (seconds_of("time_budget", config.time_budget) - fixed) / (LEARNT / pace.learn + (1 - LEARNT) / pace.score)
    learnt, scored = (int(share * tokens) // ROUND * ROUND for share in (LEARNT, 1 - LEARNT))
    if learnt < max(ROUND, config.tokens_per_batch):
        least = max(ROUND, config.tokens_per_batch)
        needed = pace.seconds(contrast + 4 * least, 6 * least)
        asked = ", the contrast" if contrast else ""
        raise InputError(
            f"time_budget={config.time_budget}: ranking validation and test{asked} and reading the items' texts take "
            f"{spoken(fixed)} here; give {spoken(needed)} or more"
        )
    return learnt, scored

"""``promote``: the alias ``champion`` goes to a version that a paired test finds better than the present one."""

from recdistill.config import PromoteConfig, changed
from recdistill.errors import InputError
from recdistill.report.compared import groups_of
from recdistill.report.results import MetricName, Row, compare_groups
from recdistill.runs.champion import (
    CHAMPION,
    Version,
    best_on_validation,
    champion_of,
    make_champion,
    of_same_data,
    versions_of,
)
from recdistill.runs.compared_runs import compared_runs, runs_by_id, unfit
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.registered import registered


def promote(config: PromoteConfig) -> StepRun:
    """Move the alias, or say what is missing.

    Raises InputError where there is no such version, or without ``override`` where it cannot be tested: it was measured
    on other data or another split, or on none, as one that `add_items` made.
    """
    if not config.name:
        raise InputError("name=: give the name of a registered student")
    metric = MetricName.read(config.metric)
    champion = champion_of(config.name)
    challenger = version_of(config, champion)
    row, untested = None, ""
    if champion is not None:
        try:
            row = tested(config, metric, challenger, champion)
        except InputError as error:
            if not config.override:
                raise
            untested = str(error).partition("; ")[0]  # without what to do instead
    moves = config.override or row is None or proved(row, config.margin)
    said = sentence(config, challenger, champion, row, moves)
    if untested:
        said = f"{challenger.address} is the {CHAMPION} of {config.name} now, by override, untested: {untested}."
    # Who is the champion is in no key: each promotion is a run of its own.
    with step_run("promote", changed(config, force=True), data=challenger.address) as run:
        run.log_text("promotion.md", said)
        run.log_metrics({"promote/moved": float(moves)} | numbers(row))
        run.tag("promoted", challenger.address if moves else "")
        run.describe(said)
        if moves:
            make_champion(challenger, champion, override=config.override)
    print(said, flush=True)
    return run


def version_of(config: PromoteConfig, champion: Version | None) -> Version:
    """The version that is to be the champion."""
    versions = versions_of(config.name)
    if config.version:
        found = next((version for version in versions if version.number == config.version), None)
        if found is None:
            known = ", ".join(version.number for version in versions)
            raise InputError(f"version={config.version}: {config.name} has {known}; give one of them")
        if found == champion:
            raise InputError(f"version={config.version}: is the {CHAMPION} already; give another one")
        return found
    others = [version for version in versions if version != champion]
    if not others:
        raise InputError(f"name={config.name}: its only version is the {CHAMPION} already; register another one")
    return best_on_validation(others if champion is None else of_same_data(others, champion), config.metric)


def tested(config: PromoteConfig, metric: MetricName, challenger: Version, champion: Version) -> Row:
    """The challenger against the champion, by the paired test of ``compare``."""
    refuse_unfit(challenger, champion)
    ids = [challenger.run_id, champion.run_id]
    compared = compared_runs(ids, "", champion.run_id, metric.part)
    groups = groups_of(compared.runs, compared.baseline)
    results = compare_groups(groups, compared.samples, metric, resamples=config.resamples, seed=config.seed)
    found = next((row for index in range(len(groups)) if (row := results.row_of(index)) is not None), None)
    if found is None:
        raise InputError(f"version={challenger.number}: is of the same run as the {CHAMPION}; give another one")
    return found


def refuse_unfit(challenger: Version, champion: Version) -> None:
    """Raise InputError where one cannot be compared, as a version that `retire_items` made: nothing measured it."""
    runs = runs_by_id([challenger.run_id, champion.run_id])
    for version, begin in ((challenger, f"version={challenger.number}: "), (champion, f"the {CHAMPION} ")):
        run = runs.get(version.run_id)
        reason = "is gone" if run is None else unfit(run)
        if reason:
            raise InputError(
                f"{begin}{version.address} cannot be tested: its run {version.run_id} {reason}; give a version that "
                "was measured, or override=true, which moves the alias untested"
            )


def proved(row: Row, margin: float) -> bool:
    """Whether the whole interval of the difference lies above the margin, and the test is significant."""
    return row.verdict == "better" and row.low > margin * row.baseline_value


def numbers(row: Row | None) -> dict[str, float]:
    """What the test found, as metrics."""
    if row is None:
        return {}
    found = {"difference": row.difference, "low": row.low, "high": row.high, "p_value": row.adjusted}
    return {f"promote/{name}": value for name, value in found.items()}


def sentence(config: PromoteConfig, challenger: Version, champion: Version | None, row: Row | None, moves: bool) -> str:
    """What happened, and where nothing did, what is missing."""
    if champion is None or row is None:
        return f"{challenger.address} is the {CHAMPION} of {config.name}, the first one."
    told = (
        f"{config.metric} {row.value:.4f} against {row.baseline_value:.4f} of {champion.address}: difference "
        f"{row.difference:+.4f} (95 % interval {row.low:+.4f} to {row.high:+.4f}, p {row.adjusted:.3f})"
    )
    if moves and proved(row, config.margin):
        return f"{challenger.address} is the {CHAMPION} of {config.name} now. {told}."
    if moves:
        return f"{challenger.address} is the {CHAMPION} of {config.name} now, by override. {told}."
    wanted = f"the interval must lie above {config.margin * row.baseline_value:+.4f}"
    return f"{champion.address} stays the {CHAMPION} of {config.name}: {wanted}. {challenger.address}: {told}."


def promote_run(run_id: str, name: str, metric: str, seed: int) -> None:
    """Register a run's student, and promote its version where the test says that it is better than the champion."""
    run = StepRun(run_id, "", "", reused=True)
    number = registered(run, name).rpartition("/")[2]
    champion = champion_of(name)
    if champion is not None and champion.number == number:
        print(f"{champion.address} is the {CHAMPION} of {name} already.", flush=True)
    else:
        promote(PromoteConfig(name=name, version=number, metric=metric, seed=seed))

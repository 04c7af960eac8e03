"""The one way from the options of the data to its samples."""

from recdistill.config.data import DataConfig
from recdistill.data.fingerprint import fingerprint
from recdistill.data.interactions import Interactions, keep_users
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import SOURCES, SPLITS

#: Options that mean nothing where the files came split, and their defaults.
OF_SPLITTING = ("min_interactions", "max_users", "split")


def load_data(config: DataConfig) -> SequenceData:
    """Read and split a data set.

    Items that nobody interacted with stay in the catalogue. Raises InputError, one line, for bad files or options.
    """
    found = SOURCES.get(config.dataset)(config)
    if isinstance(found, SequenceData):
        for name in OF_SPLITTING:
            if getattr(config, name) != getattr(DataConfig(), name):
                raise InputError(
                    f"{name}={getattr(config, name)}: {config.dataset} files are split already and name no users; "
                    "leave it out"
                )
        return found
    return split_data(found, config)


def split_data(interactions: Interactions, config: DataConfig) -> SequenceData:
    """Interactions split as the options say. Raises InputError where a part is empty."""
    kept = keep_users(interactions, config.min_interactions, config.max_users)
    parts = SPLITS.get(config.split)(kept)
    for name, samples in zip(("training", "validation", "test"), parts, strict=True):
        if not len(samples):
            raise InputError(
                f"{kept.source}: split={config.split} leaves no {name} sample; give users with longer histories"
            )
    return SequenceData(
        name=config.dataset,
        split=config.split,
        num_items=len(kept.titles),
        titles=kept.titles,
        item_ids=kept.item_ids,
        user_ids=kept.user_ids,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        fingerprint=fingerprint(kept.item_ids, kept.titles, parts),
    )

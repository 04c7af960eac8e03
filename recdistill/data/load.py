"""The one way from a data set's name and options to its samples."""

from recdistill.data.csv_files import read_csv_files
from recdistill.data.dllm2rec_files import read_dllm2rec
from recdistill.data.fingerprint import fingerprint
from recdistill.data.ilora_files import read_ilora
from recdistill.data.interactions import keep_users
from recdistill.data.ml100k import read_ml100k
from recdistill.data.sequences import SequenceData
from recdistill.data.splits import SPLITS
from recdistill.errors import InputError

DATASETS = ("ml-100k", "csv", "dllm2rec", "ilora")


def load_data(
    dataset: str = "ml-100k",
    interactions: str = "",
    items: str = "",
    split: str = "leave-one-out",
    min_interactions: int = 0,
    max_users: int = 0,
) -> SequenceData:
    """Read and split a data set.

    Args:
        dataset: 'ml-100k'; 'csv', with ``interactions`` and ``items``; 'dllm2rec', with ``interactions`` a folder
            of split files and ``items`` optional; or 'ilora', with ``interactions`` a folder of split files and titles.
        split: 'leave-one-out' or 'chronological'.
        min_interactions: leaves out users with fewer.
        max_users: keeps the first so many of the users left, by first appearance; 0 keeps all.

    Items that nobody interacted with stay in the catalogue. Raises InputError, one line, for bad files or
    options.
    """
    if dataset not in DATASETS:
        raise InputError(f"dataset={dataset}: must be one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise InputError(f"split={split}: must be one of {', '.join(SPLITS)}")
    if dataset in ("dllm2rec", "ilora"):
        given = {"min_interactions": min_interactions, "max_users": max_users}
        refused = [f"{name}={value}" for name, value in given.items() if value]
        refused += [f"split={split}"] if split != "leave-one-out" else []
        if refused:
            raise InputError(f"{refused[0]}: {dataset} files are split already and name no users; leave it out")
        if dataset == "dllm2rec":
            return read_dllm2rec(interactions, items)
        if items:
            raise InputError(f"items={items}: dataset=ilora has its titles in the folder; leave it out")
        return read_ilora(interactions)
    if dataset == "ml-100k":
        if interactions or items:
            raise InputError("dataset=ml-100k: reads no interactions= or items=; set dataset=csv")
        source = read_ml100k()
    else:
        source = read_csv_files(interactions, items)
    kept = keep_users(source, min_interactions, max_users)
    parts = SPLITS[split](kept)
    for name, samples in zip(("training", "validation", "test"), parts, strict=True):
        if not len(samples):
            raise InputError(f"{kept.source}: split={split} leaves no {name} sample; give users with longer histories")
    return SequenceData(
        name=dataset,
        split=split,
        num_items=len(kept.titles),
        titles=kept.titles,
        item_ids=kept.item_ids,
        user_ids=kept.user_ids,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        fingerprint=fingerprint(kept.item_ids, kept.titles, parts),
    )

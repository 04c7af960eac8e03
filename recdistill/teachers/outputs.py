"""A teacher's outputs: rankings, distances and item embeddings for the data of a student, in memory and on disk.

One folder with two files: ``teacher_outputs.safetensors`` (the tensors) and ``teacher_outputs.json`` (the manifest).
"""

import importlib.metadata
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.config.distill import DistillConfig
from recdistill.data.pinned_models import terms_of
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.errors import InputError, one_line
from recdistill.whole_files import whole_folder

TENSORS_FILE = "teacher_outputs.safetensors"
MANIFEST_FILE = "teacher_outputs.json"
CONFIDENCE = "-log p(item) of the teacher's softmax over the catalogue, nats; small is sure"
#: More samples or items than any data set has.
MOST = 2**40
#: What the manifest holds for readers, beside the fields of `Manifest`.
SHOWN = {"covered", "covered_share", "top_n", "terms"}
PACKAGES = ("recdistill", "torch", "transformers", "peft")


def answers_of(config: DistillConfig, outputs: "TeacherOutputs", data: SequenceData) -> TeacherAnswers:
    """The answers that a student of the options learns from, on the data that its targets come from."""
    among = torch.from_numpy(data.learnt(config.exclude_seen)) if config.leaves_new_out else None
    return outputs.answers(config.candidate_topk, among).shuffled(config.teacher_shuffle, config.seed)


def installed_versions() -> dict[str, str]:
    """Versions of the packages that a teacher's outputs depend on, those that are not installed left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Manifest:
    """The teacher, the data and the packages that outputs come from.

    Attributes:
        fingerprint: of the data that the teacher was made for (``SequenceData.fingerprint``).
        llm: the base LLM, or the file names of an imported teacher.
        num_items: V.
        num_samples: N, training samples of the data; the teacher covers M of them.
        split: how the data were split (``SequenceData.split``).
        teacher: kind of teacher, e.g. ``ranking``, ``generative`` or ``imported``.
        confidence: how the distances are defined, in words; small is sure, whatever the definition.
        versions: package name to version, of the packages that made them.
    """

    fingerprint: str
    llm: str
    num_items: int
    num_samples: int
    split: str = ""
    teacher: str = "ranking"
    confidence: str = CONFIDENCE
    versions: dict[str, str] = field(default_factory=installed_versions)

    @property
    def terms(self) -> str:
        """The terms of the base LLM, which whatever is made with it shares; '' where it has no alias."""
        return terms_of(self.llm)

    def __post_init__(self) -> None:
        texts = [self.fingerprint, self.llm, self.split, self.teacher, self.confidence]
        sizes = [self.num_items, self.num_samples]
        if not all(isinstance(text, str) for text in texts):
            raise InputError("teacher outputs: the manifest holds something else where a text is due; make them again")
        if not all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < MOST for size in sizes):
            raise InputError(
                f"teacher outputs: num_items and num_samples must be whole numbers below {MOST}; make them again"
            )
        if not isinstance(self.versions, dict) or not all(isinstance(one, str) for one in self.versions.values()):
            raise InputError("teacher outputs: versions must be texts by name; make them again")


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """A teacher's answers for M of the N training samples, and its embeddings of all V items.

    Attributes:
        manifest: where they come from.
        sample: int64 [M], ascending, indices into the training samples.
        ranking: int64 [M, C], the best items, best first, seen ones left out.
        distance: float32 [M, C], small is sure, as ``manifest.confidence`` defines it: ``-log p(item)`` under the
            teacher's softmax over the catalogue, or an imported teacher's own.
        item_embedding: float32 [V, E].
        sequence_embedding: float32 [M, F], the teacher's state of each sample, or None.
        item_view: float32 [V, H], the teacher's vector of each item by its text alone, or None.

    Raises:
        InputError: shapes do not fit, ids are out of range, or a number is not finite.
    """

    manifest: Manifest
    sample: Tensor
    ranking: Tensor
    distance: Tensor
    item_embedding: Tensor
    sequence_embedding: Tensor | None = None
    item_view: Tensor | None = None

    def __post_init__(self) -> None:
        num_items, num_samples = self.manifest.num_items, self.manifest.num_samples
        covered = len(self.sample)
        shapes_fit = (
            self.sample.ndim == 1
            and self.ranking.ndim == 2
            and self.ranking.shape == self.distance.shape
            and len(self.ranking) == covered
            and self.item_embedding.ndim == 2
            and len(self.item_embedding) == num_items
            and (self.sequence_embedding is None or len(self.sequence_embedding) == covered)
            and (self.item_view is None or (self.item_view.ndim == 2 and len(self.item_view) == num_items))
        )
        if not shapes_fit:
            raise InputError(
                f"teacher outputs: {covered} samples, ranking {list(self.ranking.shape)}, distances "
                f"{list(self.distance.shape)} and item embeddings {list(self.item_embedding.shape)} do not fit "
                f"{num_items} items; make them again"
            )
        if covered and (int(self.sample.min()) < 0 or int(self.sample.max()) >= num_samples):
            raise InputError(f"teacher outputs: a sample is not in 0..{num_samples - 1}; make them for this data")
        if covered > 1 and not bool((self.sample[1:] > self.sample[:-1]).all()):
            raise InputError("teacher outputs: samples must be ascending and distinct; make them again")
        if covered and (int(self.ranking.min()) < 0 or int(self.ranking.max()) >= num_items):
            raise InputError(f"teacher outputs: an item is not in 0..{num_items - 1}; make them for this data")
        for name in ("distance", "item_embedding", "sequence_embedding", "item_view"):
            tensor = getattr(self, name)
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise InputError(f"teacher outputs: {name} holds NaN or infinity; make them again")

    @property
    def top_n(self) -> int:
        """C, the candidates kept for each sample."""
        return self.ranking.shape[1]

    @property
    def covered_share(self) -> float:
        """M / N, in [0, 1]."""
        return len(self.sample) / self.manifest.num_samples if self.manifest.num_samples else 0.0

    def with_more(self, further: Self) -> Self:
        """These answers and those of the same teacher for further samples.

        Raises InputError where a sample is in both, or they are of different teachers.
        """
        # Packages may have moved on since the first were asked.
        same = replace(further.manifest, versions=self.manifest.versions) == self.manifest
        if not same or (self.sequence_embedding is None) != (further.sequence_embedding is None):
            raise InputError("teacher outputs: are of two teachers; ask the same one again")
        order = torch.cat([self.sample, further.sample]).argsort()

        def both(name: str) -> Tensor:
            return torch.cat([getattr(self, name), getattr(further, name)])[order]

        return replace(
            self,
            sample=both("sample"),
            ranking=both("ranking"),
            distance=both("distance"),
            sequence_embedding=None if self.sequence_embedding is None else both("sequence_embedding"),
        )

    def only(self, sample: Tensor) -> Self:
        """The answers for these samples, int64 [any], alone; those for others that are named are not there."""
        kept = torch.isin(self.sample, sample)
        return replace(
            self,
            sample=self.sample[kept],
            ranking=self.ranking[kept],
            distance=self.distance[kept],
            sequence_embedding=None if self.sequence_embedding is None else self.sequence_embedding[kept],
        )

    def answers(self, candidate_topk: int, among: Tensor | None = None) -> TeacherAnswers:
        """The first ``candidate_topk`` items of each ranking, laid out by training sample, as students read them;
        all items where the catalogue has no more.

        With ``among``, bool [V], the first of these items; where a ranking has too few of them, its others follow.
        Rankings and distances are 0 where the teacher did not answer. Raises InputError where rankings are shorter.
        """
        # A small catalogue has no more to offer.
        candidate_topk = min(candidate_topk, self.manifest.num_items)
        if candidate_topk > self.top_n:
            raise InputError(
                f"candidate_topk={candidate_topk}: the teacher kept {self.top_n}; "
                "ask for fewer, or make teacher outputs with a larger top_n"
            )
        num_samples = self.manifest.num_samples
        covered = torch.zeros(num_samples, dtype=torch.bool)
        ranking = torch.zeros(num_samples, candidate_topk, dtype=torch.int64)
        distance = torch.zeros(num_samples, candidate_topk)
        covered[self.sample] = True
        ranking[self.sample] = self.ranking[:, :candidate_topk].long()
        distance[self.sample] = self.distance[:, :candidate_topk].float()
        if among is not None:
            mixed = (~among[ranking[self.sample]]).any(dim=1).nonzero().squeeze(1)
            whole = self.ranking[mixed].long()
            order = among[whole].int().argsort(dim=1, descending=True, stable=True)[:, :candidate_topk]
            ranking[self.sample[mixed]] = whole.gather(1, order)
            distance[self.sample[mixed]] = self.distance[mixed].float().gather(1, order)
        return TeacherAnswers(
            covered=covered,
            ranking=ranking,
            distance=distance,
            item_embedding=self.item_embedding,
            sample=self.sample,
            sequence_embedding=self.sequence_embedding,
            llm=self.manifest.llm,
            covered_share=self.covered_share,
        )

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` reads; see `write_teacher_outputs`."""
        write_teacher_outputs(folder, self)

    @classmethod
    def load(cls, folder: str | Path, fingerprint: str | None = None) -> Self:
        """The outputs that `save` wrote, checked against the fingerprint of the data at hand, where one is given.

        Raises InputError where a file is missing or damaged, or the outputs were made for other data.
        """
        directory = Path(folder)
        try:
            described = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
            if not isinstance(described, dict):
                raise InputError(f"{directory}: {MANIFEST_FILE} must hold a JSON object; make the outputs again")
            unknown = described.keys() - Manifest.__dataclass_fields__.keys() - SHOWN
            if unknown:
                raise InputError(
                    f"{directory}: {MANIFEST_FILE} holds {one_line(min(unknown), 60)!r}, which no manifest has; make "
                    "the outputs again"
                )
            # The versions of a file without any are unknown; they are not those of the installed packages.
            known = {name: described[name] for name in Manifest.__dataclass_fields__ if name in described}
            manifest = Manifest(**({"versions": {}} | known))
            tensors = load_file(directory / TENSORS_FILE)
            if fingerprint is not None and manifest.fingerprint != fingerprint:
                raise InputError(
                    f"{directory}: made for data {manifest.fingerprint[:12]}, not {fingerprint[:12]}; "
                    "choose a teacher of this data"
                )
            return cls(
                manifest=manifest,
                sample=tensors["sample"].long(),
                ranking=tensors["ranking"].long(),
                distance=tensors["distance"],
                item_embedding=tensors["item_embedding"],
                sequence_embedding=tensors.get("sequence_embedding"),
                item_view=tensors.get("item_view"),
            )
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(
                f"{directory}: no readable teacher outputs ({one_line(error)}); make them again"
            ) from error


def write_teacher_outputs(directory: str | Path, outputs: TeacherOutputs) -> None:
    """Write the folder, replacing what is there; it appears only when complete."""
    tensors = {
        "sample": outputs.sample,
        "ranking": outputs.ranking.to(torch.int32),
        "distance": outputs.distance.float(),
        "item_embedding": outputs.item_embedding.float(),
    }
    if outputs.sequence_embedding is not None:
        tensors["sequence_embedding"] = outputs.sequence_embedding.float()
    if outputs.item_view is not None:
        tensors["item_view"] = outputs.item_view.float()
    described = asdict(outputs.manifest) | {
        "covered": len(outputs.sample),
        "covered_share": outputs.covered_share,
        "top_n": outputs.top_n,
        "terms": outputs.manifest.terms,
    }
    with whole_folder(Path(directory), replace=True) as complete:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, complete / TENSORS_FILE)
        (complete / MANIFEST_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def read_teacher_outputs(directory: str | Path, fingerprint: str | None = None) -> TeacherOutputs:
    """See `TeacherOutputs.load`."""
    return TeacherOutputs.load(directory, fingerprint)

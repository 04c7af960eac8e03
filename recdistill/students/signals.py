"""What a student knows of the training samples: the signals that selection policies read."""

import torch
from torch import Tensor

from recdistill.data.batches import batches, seen_items
from recdistill.data.sequences import SequenceData
from recdistill.distillation.selection import StudentSignals, student_signals
from recdistill.students.student import Student

# Samples and scores of a batch; a few tensors of so many scores are held at a time.
MOST_SAMPLES, MOST_SCORES = 1024, 1 << 25


def signals_before_answers(
    model: Student, data: SequenceData, eligible: Tensor, seed: int, exclude_seen: bool
) -> StudentSignals:
    """What a query policy looks at: a student's loss and entropy, where no teacher has answered yet.

    Arguments as of `signals_of_student`.
    """
    none_yet = torch.zeros(len(eligible), 0, dtype=torch.int64)
    return signals_of_student(model, data, eligible, none_yet, seed, exclude_seen)[0]


@torch.no_grad()
def signals_of_student(
    model: Student, data: SequenceData, eligible: Tensor, ranking: Tensor, seed: int, exclude_seen: bool
) -> tuple[StudentSignals, Tensor]:
    """A student's loss and entropy on training samples, and its log-probabilities of given items.

    Args:
        model: the student; it is put in evaluation mode.
        data: N training samples.
        eligible: bool [N], the samples to look at; rows of the others are 0.
        ranking: item ids int64 [N, K], K may be 0.
        seed: of policies that draw.
        exclude_seen: give the items of a history no probability.

    Returns the signals, and the log-probabilities of ``ranking`` [N, K], on the CPU.
    """
    model.eval()
    device = next(model.parameters()).device
    samples = len(data.train)
    loss, entropy, log_probs = torch.zeros(samples), torch.zeros(samples), torch.zeros(ranking.shape)
    for batch in batches(
        data.train,
        length=model.max_length,
        batch_size=max(1, min(MOST_SAMPLES, MOST_SCORES // model.num_items)),
        stride=max(1, model.max_length // 2) if model.causal else 1,
        padding_id=data.padding_id,
        seed=0,
        epoch=0,
        shuffle=False,
        index=eligible.nonzero().squeeze(1).numpy(),
    ):
        index, batch = batch.sample, batch.to(device)
        excluded = seen_items(data.train, index, device) if exclude_seen else None
        _, logits = model.scored(batch.history, batch.length, batch.row, batch.column)
        found = student_signals(logits, batch.target, ranking[index].to(device), excluded)
        for kept, values in zip((loss, entropy, log_probs), found, strict=True):
            kept[index] = values.cpu()
    signals = StudentSignals(
        student_loss=loss,
        student_entropy=entropy,
        target=torch.as_tensor(data.train.targets),
        item_count=torch.as_tensor(data.item_count),
        eligible=eligible,
        seed=seed,
    )
    return signals, log_probs

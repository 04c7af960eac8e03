"""When a training stops, and which epoch's weights it keeps: rules over the validation metric of its epochs."""

from collections.abc import Sequence


def smoothed(values: Sequence[float], window: int) -> float:
    """The mean of the last ``window`` values, of all where there are fewer: what the rules compare.

    Args:
        values: the validation metric of each epoch so far, the last one last; at least one.
        window: 1 for the last value itself.
    """
    last = values[-max(1, window) :]
    return sum(last) / len(last)


def goes_on(epoch: int, best_epoch: int, *, patience: int, least_epochs: int = 0) -> bool:
    """Whether to train the epoch with number ``epoch``, from 0.

    Args:
        epoch: epochs done.
        best_epoch: the number of the best one so far; -1 before the first.
        patience: epochs without a better one before stopping; 0 never stops.
        least_epochs: epochs before which nothing stops.
    """
    return patience == 0 or epoch < least_epochs or epoch - best_epoch <= patience


def kept_epoch(values: Sequence[float], *, patience: int, least_epochs: int = 0, smoothing: int = 1) -> tuple[int, int]:
    """The epoch whose weights are kept, and the number of epochs trained, of a whole curve of validation metrics.

    What `fit` decides epoch by epoch. One curve, trained to the end, so answers for every rule.
    """
    best, best_epoch, epoch = float("-inf"), -1, 0
    while epoch < len(values) and goes_on(epoch, best_epoch, patience=patience, least_epochs=least_epochs):
        value = smoothed(values[: epoch + 1], smoothing)
        if value > best:
            best, best_epoch = value, epoch
        epoch += 1
    return best_epoch, epoch

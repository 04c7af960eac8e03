"""What every split keeps to, on random logs."""

from hypothesis import given, settings
from hypothesis import strategies as st
from interaction_logs import log_of

from recdistill.data.splits.chronological import chronological
from recdistill.data.splits.leave_one_out import leave_one_out
from recdistill.errors import InputError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 6)), min_size=30, max_size=60))
def test_no_split_looks_ahead(rows):
    log = log_of([(user, item, 0) for user in range(4) for item in range(3)] + rows)
    by_user = {
        user: sorted(
            (time, place)
            for place, (u, _, time) in enumerate(zip(log.user, log.item, log.timestamp, strict=True))
            if u == user
        )
        for user in range(4)
    }
    for split in (leave_one_out, chronological):
        try:
            parts = split(log)
        except InputError:
            continue
        targets = []
        latest = -1
        for samples in parts:
            times = []
            for user, start, end in zip(samples.user, samples.start, samples.end, strict=True):
                sequence = by_user[int(user)]
                position = end - start
                expected = [int(log.item[place]) for _, place in sequence[: position + 1]]
                assert samples.items[start : end + 1].tolist() == expected
                targets.append((int(user), int(position)))
                times.append(sequence[position][0])
            if split is chronological:
                assert min(times) >= latest
                latest = max(times)
        assert len(set(targets)) == len(targets)
        assert len(targets) == len(log) - 4  # all but each user's first

"""The items alone."""

import numpy as np
import pytest

from recdistill.data.catalogue import Catalogue


def test_its_length_is_the_number_of_items():
    assert len(Catalogue(("a", "b"), ("A", "B"), np.array([3, 0]))) == 2


@pytest.mark.parametrize(("ids", "titles", "count"), [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
def test_lengths_that_differ_are_refused(ids, titles, count):
    with pytest.raises(ValueError, match=f"{ids}, {titles}, {count} items"):
        Catalogue(("a",) * ids, ("A",) * titles, np.zeros(count, dtype=np.int64))

"""The view ``teacher``: vectors that a trained teacher gives the items' texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views.text_teacher import TextTeacher
from recdistill.views.view import Float32Array, View, ViewContext


@VIEWS.register("teacher")
class TeacherView(View):
    """The teacher's vectors as they come, [n, E]; what the teacher is comes with them (`text_teacher.TextTeacher`)."""

    def __init__(self, options: None, context: ViewContext) -> None:
        super().__init__(options, context)
        self._known: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise InputError where no teacher is at hand."""
        self._teacher()

    def vectors(self, texts: Sequence[str]) -> Float32Array:
        """float32 [n, E]. Raises InputError where no teacher is at hand, or it has no vectors for these texts."""
        return np.asarray(self._teacher().vectors(texts), dtype=np.float32)

    def identity(self) -> dict[str, Any]:
        """The teacher's."""
        if self._known is not None and self.context.teacher is None:
            return self._known
        return dict(self._teacher().identity())

    def restore(self, identity: Any, values: Any, arrays: Any) -> None:
        """Take over which teacher it was; one that is at hand must be the same. Raises InputError."""
        self._known = dict(identity)
        super().restore(identity, values, arrays)

    def _teacher(self) -> TextTeacher:
        if self.context.teacher is None:
            raise InputError(
                "views=teacher: no teacher is at hand; give a teacher run that keeps vectors of items' texts, or "
                "choose views without it"
            )
        return self.context.teacher

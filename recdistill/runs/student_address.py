"""Leads from where a student's model was before it had a name of its own to the model.

A run keeps a copy of this file as its artifact ``model``, so that ``runs:/<run id>/model`` is an MLflow model whose
answers are those of the logged one. As `student_model`, it imports none of recdistill.
"""

from typing import Any

import mlflow
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class StudentAddress(PythonModel):
    """Answers as the logged model does whose address it keeps."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load that model, from the tracking store at hand."""
        self.model = mlflow.pyfunc.load_model(context.model_config["model"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """That model's answer."""
        return pd.DataFrame(self.model.predict(model_input))


set_model(StudentAddress())

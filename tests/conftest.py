"""What every test starts from: MLflow's experiment 0, whatever the store; `runs/test_experiment.py` has others."""

import os

os.environ["MLFLOW_EXPERIMENT_ID"] = "0"
os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)

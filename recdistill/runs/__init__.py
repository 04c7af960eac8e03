"""Runs, lineage and artifacts: the only importer of mlflow."""

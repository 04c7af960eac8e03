"""Policies that choose samples: those that are distilled, and those that a teacher is asked to score."""

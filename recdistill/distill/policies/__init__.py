"""Policies that choose samples: which are distilled, and which a teacher is asked to score."""

"""Visits of subjects: which scans belong together, in which frame, and whether they moved."""

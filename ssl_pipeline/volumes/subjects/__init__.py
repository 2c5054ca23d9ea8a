"""Subjects of scans: grouping of names, assignment, and splits."""

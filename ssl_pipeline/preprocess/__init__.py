"""Preprocessing: from a scan as read to int16 intensities and mask bits on the stored grid."""

"""Near-duplicate detection: keypoints of scans, and comparison of them."""

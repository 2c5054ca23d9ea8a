"""Raw scans: discovery, reading, quality control, subjects and splits, and the inventory.

`readers` turn files of many formats into a `Volume`; `geometry` brings its axes into one order.
`config` is the `data` section of a study; `discovery`, `metadata_rules`, `metadata_table` and
`label_matching` find its scans and what is known of them. `scan_check` and `quality_control` decide
which scans are usable, `duplicates` finds near duplicates, `subjects` assigns subjects and splits.
`inventory` puts it all in one table, `pseudonyms` keeps names out of it, and `fingerprint` notices
changed raw files. Nothing here imports torch, and nothing here changes a voxel.
"""

"""Raw scans in: reading them, judging them, and knowing whose they are.

`readers` turn files of many formats into a `Volume`; `geometry` brings its axes into one order;
`identity`, `dataset`, `table`, `candidates` and `labels` say which scan is whose; `verdicts` say
which are fit to learn from; `inventory` puts it all in one table, and `listing` notices new files.
Nothing here knows of torch, and nothing here changes a voxel.
"""

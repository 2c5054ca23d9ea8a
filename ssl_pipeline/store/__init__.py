"""The volume store: Zarr arrays on disk, their catalog, and a fast crop reader."""

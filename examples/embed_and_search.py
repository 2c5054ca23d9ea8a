"""Embed a folder of scans, and find the scans that are most similar to one of them.

python examples/embed_and_search.py build/demo/pretrain/encoder FOLDER QUERY --modality CT
"""

import argparse
from pathlib import Path

import numpy as np

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.readers import find_sources


def most_similar(
    bundle: Path, folder: Path, query: Path, modality: str | None
) -> list[tuple[float, Path]]:
    """Scans of a folder with their cosine similarity to the query, most similar first."""
    encoder = load_encoder(bundle)
    wanted = encoder.embed(query, modality).vector
    found = []
    for source in find_sources(folder):
        try:
            vector = encoder.embed(source.path, modality).vector
        except UserError as error:  # a scan that cannot be read or used
            print(f"skipped: {error}")
            continue
        cosine = wanted @ vector / (np.linalg.norm(wanted) * np.linalg.norm(vector))
        found.append((float(cosine), source.path))
    return sorted(found, reverse=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="encoder bundle")
    parser.add_argument("folder", type=Path, help="folder of scans")
    parser.add_argument("query", type=Path, help="scan to compare with")
    parser.add_argument("--modality", choices=("CT", "MR"), help="where files do not say it")
    for cosine, path in most_similar(**vars(parser.parse_args())):
        print(f"{cosine:.3f}  {path}")

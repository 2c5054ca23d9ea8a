"""The command `ssl-pipeline`: a short name for `python -m stages`, which lives in a clone.

The wheel holds the library alone; the pipeline with its workflow is run from a clone, which
`pip install -e .` puts on the path. This is the one place of the library that reaches for it.
"""

import runpy
import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line of `stages`."""
    if find_spec("stages") is None or find_spec("cluster") is None:
        print(
            "ssl-pipeline: only the library is installed; the pipeline runs from a clone: "
            "clone the repository and run `make setup` in it.",
            file=sys.stderr,
        )
        sys.exit(2)
    runpy.run_module("stages", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()

"""Points as 3D Slicer reads them: its markups files, `.mrk.json`.

They are written in LPS, as Slicer writes them itself, so that readers which take that for granted
are right. Source: Slicer's markups schema 1.0.3.
"""

import json
from collections.abc import Mapping

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)


def slicer_points(points: Mapping[str, tuple[float, float, float]]) -> str:
    """The text of a markups file with points by their names, (R, A, S) in mm."""
    controls = [
        {
            "id": str(number),
            "label": name,
            "position": [-right, -front, top],
            "positionStatus": "defined",
        }
        for number, (name, (right, front, top)) in enumerate(points.items(), start=1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": controls}
    return json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=1) + "\n"

"""labelme's own examples: datasets that labelme, labelme2coco.py and labelme2voc.py wrote of the same annotations.

They are under the GPL and are none of this repository's files: `python -m tests.labelme_examples` fetches them from the
Debian package labelme-examples, where apt is at hand and has it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.labelme_tool import FOLDER

PACKAGE = "labelme-examples"
EXAMPLES = FOLDER / "examples"
_INSIDE = Path("usr/share/doc/labelme-examples/examples")
_FETCH = ["apt-get", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20", "-q", "download", PACKAGE]


def fetch() -> str | None:
    """Put them into `EXAMPLES`, unless they are there; what went wrong, if anything did."""
    if EXAMPLES.is_dir():
        return None
    EXAMPLES.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=EXAMPLES.parent) as name:
        folder = Path(name)
        try:
            subprocess.run(_FETCH, cwd=folder, check=True, capture_output=True, timeout=120)
            (package,) = folder.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True, capture_output=True, timeout=60)
            (folder / _INSIDE).rename(EXAMPLES)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    wrong = fetch()
    if wrong is not None:
        print(f"labelme's examples are not to be had ({wrong}): the tests on them will be skipped.", file=sys.stderr)

"""What a submitted job runs, beside its configuration, as ``job.py COMMAND CONFIG.yaml``.

A copy of this file travels with the job, so that a cluster without this package, or with another version of it, says
so in one sentence. Nothing but the standard library is imported before that is known.
"""

import json
import sys
from importlib import metadata
from pathlib import Path


def main(folder: Path, words: list[str]) -> None:
    """Run a command of ``ecgdist``, if the cluster has the version that submitted it."""
    made = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if made["with_code"]:
        advice = "this is a defect: the code that was sent along is not the one that is used"
    else:
        advice = (
            "give the cluster an image with this version, or send yours along: `ecgdist submit --with-code`"
        )
    try:
        there = metadata.version("ecgdist")
    except metadata.PackageNotFoundError:
        sys.exit(
            f"error: {sys.executable} on the cluster has no ecgdist: name another interpreter with --python, or "
            f"{advice}"
        )
    if there != made["ecgdist"]:
        sys.exit(
            f"error: the cluster has ecgdist {there}, the job was submitted by {made['ecgdist']}: {advice}"
        )

    from ecgdist.cli import app
    from ecgdist.jobs.code import code_digest

    if code_digest() != made["digest"]:
        if made["with_code"]:
            sys.exit(f"error: {advice}")
        print(
            f"warning: the code of ecgdist {there} on the cluster is not the one of where the job was submitted; "
            "`ecgdist submit --with-code` sends that along",
            file=sys.stderr,
        )
    app(words, prog_name="ecgdist")


if __name__ == "__main__":
    main(Path(__file__).parent, sys.argv[1:])

"""``python -m bench [--quick] [--only NAME ...] [--to FOLDER]``: ours and what one would put in its place."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench import accepting, density, growth, large, small, waiting
from bench.artifacts import artifacts
from bench.progress import doing, done
from bench.report import text_of, write_report
from bench.stand import PEERS_PYTHON, PROJECT, Stand

BENCHES = {each.NAME: each for each in (large, small, accepting, waiting, density, growth)}
COMMANDS = ("curl", "openssl", "sha256sum")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes, smaller sizes, and docs/ is left alone")
    parser.add_argument("--only", nargs="+", choices=BENCHES, metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--to", type=Path, help="folder for the report (default: docs/ for a whole run)")
    asked = parser.parse_args()
    if not PEERS_PYTHON.exists():
        sys.exit("The peers are not installed: run `make bench` or `make bench-quick`.")
    lacking = frozenset(each for each in COMMANDS if shutil.which(each) is None)
    for each in sorted(lacking):
        print(f"{each} is not on this machine: what needs it is left out", file=sys.stderr)
    sections = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        doing("starting the artifact host")
        with artifacts(folder, large_mib=256 if asked.quick else 1024) as served:
            stand = Stand(asked.quick, folder, served, lacking)
            for each in asked.only or BENCHES:
                section = BENCHES[each].run(stand)
                done()
                print(text_of(section), flush=True)
                sections.append(section)
    whole = not asked.quick and not asked.only
    to = asked.to or (PROJECT / "docs" if whole else Path(tempfile.mkdtemp(prefix="bench-report-")))
    print(f"\nThe report is in {write_report(sections, to, quick=asked.quick, lacking=lacking)}")


if __name__ == "__main__":
    main()

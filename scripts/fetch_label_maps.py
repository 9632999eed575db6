"""Fetch SynthSeg's label maps: ``python scripts/fetch_label_maps.py FOLDER``.

Twenty heads at 1 mm, Apache-2.0, from the release that `qsmnet.simulate.head.known_maps` names. A
file whose SHA-256 is not the known one is not kept; one that is there already is not fetched again.
The maps show faces: crop published pictures to the brain.
"""

import argparse
import hashlib
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from qsmnet.errors import InconsistentError, QsmnetError, UnreadableError
from qsmnet.io.files import atomic_write
from qsmnet.simulate.head.known_maps import LICENCE, SHA256, SOURCE


def fetch(name: str, folder: Path, source: str = SOURCE) -> bool:
    """Fetch one map into ``folder``; False where it is there already."""
    path = folder / name
    if path.exists():
        _check(path, path.read_bytes(), "remove it, and fetch it again")
        return False
    address = source.rstrip("/") + "/" + name
    try:
        with urllib.request.urlopen(address) as stream:  # noqa: S310 the user may name a mirror
            content = stream.read()
    except OSError as error:
        reason = " ".join(str(error).split())
        raise UnreadableError(address, f"cannot be fetched: {reason}", "try --source") from error
    _check(address, content, "fetch from another --source")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, overwrite=False) as part:
        part.write_bytes(content)
    return True


def _check(source: str | Path, content: bytes, fix: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    name = Path(str(source)).name
    if found != SHA256[name]:
        raise InconsistentError(source, f"its SHA-256 is {found[:12]}..., not the known one", fix)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--maps", type=int, nargs="+", help="numbers, 1 to 20; all by default")
    parser.add_argument("--source", default=SOURCE, help="address of the folder that holds them")
    args = parser.parse_args(argv)
    wanted = {int(name[-9:-7]): name for name in SHA256}
    try:
        for number in args.maps or sorted(wanted):
            if number not in wanted:
                raise UnreadableError("--maps", f"there is no map {number}", "name 1 to 20")
            new = fetch(wanted[number], args.folder, args.source)
            print(f"{args.folder / wanted[number]}: {'fetched' if new else 'there already'}")
    except QsmnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"licence: {LICENCE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

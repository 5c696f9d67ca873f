#!/usr/bin/env python3
"""Lists the advisories of the RustSec database that concern a version in Cargo.lock. Needs no network.

    scripts/advisories.py ADVISORY_DB [CARGO_LOCK]

ADVISORY_DB is a clone of https://github.com/RustSec/advisory-db, with or without a work tree. Needs git and Python
3.11 or newer. Prints one line per advisory and crate; exits with 1 if one is a vulnerability, not only a notice about
maintenance or soundness. `cargo deny check advisories` does the same and more where it can be installed.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path


def version(text):
    """A version as a tuple that compares: a pre-release comes before its release."""
    core, _, pre = text.split("+")[0].partition("-")
    numbers = [int(part) for part in core.split(".")]
    numbers += [0] * (3 - len(numbers))
    return (*numbers, not pre, pre)


def next_incompatible(bound):
    """The first version that `^bound` leaves out."""
    major, minor, patch = (bound.split("-")[0].split(".") + ["0", "0"])[:3]
    if major != "0":
        return f"{int(major) + 1}.0.0"
    if minor != "0":
        return f"0.{int(minor) + 1}.0"
    return f"0.0.{int(patch) + 1}"


def matches(found, requirement):
    """Whether a version fits a requirement such as `>= 1.2.3, < 2`."""
    for part in requirement.split(","):
        operator, bound = re.fullmatch(r"\s*(>=|<=|>|<|=|\^|~)?\s*([0-9][^\s]*)\s*", part).groups()
        low = version(bound)
        if operator == "~":
            numbers = bound.split(".")
            high = f"{numbers[0]}.{int(numbers[1]) + 1}.0" if len(numbers) > 1 else f"{int(numbers[0]) + 1}.0.0"
        else:
            high = next_incompatible(bound)
        fits = {
            ">=": found >= low,
            "<=": found <= low,
            ">": found > low,
            "<": found < low,
            "=": found == low,
        }.get(operator, low <= found < version(high))
        if not fits:
            return False
    return True


def advisories(database):
    """The advisories of the newest commit: crate, id, title, kind, and the versions that are not affected."""
    git = ["git", "-C", str(database)]
    names = subprocess.run([*git, "ls-tree", "-r", "--name-only", "HEAD", "crates/"], check=True, capture_output=True)
    names = [name for name in names.stdout.decode().split() if name.endswith(".md")]
    batch = "".join(f"HEAD:{name}\n" for name in names).encode()
    texts = subprocess.run([*git, "cat-file", "--batch"], input=batch, check=True, capture_output=True).stdout
    for name in names:
        header, texts = texts.split(b"\n", 1)
        size = int(header.split()[2])
        text, texts = texts[:size].decode(), texts[size + 1 :]
        # ```toml ... ``` and then the title.
        fields, _, description = text.split("```toml", 1)[1].partition("```")
        fields = tomllib.loads(fields)
        title = re.search(r"^# (.*)$", description, re.MULTILINE)
        advisory, versions = fields["advisory"], fields.get("versions", {})
        if "withdrawn" not in advisory:
            safe = versions.get("patched", []) + versions.get("unaffected", [])
            yield advisory["package"], advisory["id"], title and title[1], advisory.get("informational"), safe


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    lock = Path(sys.argv[2] if len(sys.argv) == 3 else Path(__file__).parent.parent / "Cargo.lock")
    packages = tomllib.loads(lock.read_text())["package"]
    used = {}
    for package in packages:
        used.setdefault(package["name"], []).append(package["version"])
    read, found, vulnerable = 0, 0, 0
    for crate, name, title, kind, safe in advisories(Path(sys.argv[1])):
        read += 1
        for text in used.get(crate, []):
            if not any(matches(version(text), requirement) for requirement in safe):
                found += 1
                vulnerable += kind is None
                print(f"{name}: {crate} {text}: {kind or 'vulnerability'}: {title}")
    print(f"{read} advisories, {len(packages)} packages: {found} concern one, {vulnerable} of them vulnerabilities")
    sys.exit(vulnerable > 0)


if __name__ == "__main__":
    main()

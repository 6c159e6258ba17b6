"""What is published: the sdist that a packager builds from, the wheel, and what an uninstallation leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from conditions import missing

TOP = Path(__file__).parents[2]
ONLY_HERE = (".ci/", ".pre-commit-config.yaml")
"""What the repository needs and a package does not."""


def build(target: str, source: Path, where: Path) -> Path:
    """A wheel or an sdist of a source tree, by the build backend that pip would call."""
    if find_spec("hatchling") is None:
        missing("hatchling is missing: pip install hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(where)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (built,) = where.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", TOP, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, where)
    (folder,) = where.iterdir()
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", TOP, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_built_from_the_sdist_is_that_of_the_tree(unpacked: Path, wheel: Path, tmp_path: Path) -> None:
    again = build("wheel", unpacked, tmp_path / "again")
    assert again.name == wheel.name
    assert contents(again) == contents(wheel)


def test_the_sdist_holds_what_the_repository_holds(unpacked: Path) -> None:
    if not (TOP / ".git").exists():
        pytest.skip("this is no checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True, timeout=60).stdout.split("\n")
    kept = {name for name in listed if name and not name.startswith(ONLY_HERE) and (TOP / name).exists()}
    packed = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert packed - {"PKG-INFO"} == kept


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    name = wheel.name.removesuffix("-py3-none-any.whl")
    assert {path.partition("/")[0] for path in contents(wheel)} == {"iot", f"{name}.dist-info"}
    assert not any(path.endswith((".pyc", "iot/__init__.py", "sftp/__init__.py")) for path in contents(wheel))


def test_an_uninstallation_leaves_no_file_and_no_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """The namespaces `iot` and `iot/sftp` go, too, and stay where a sibling package uses them."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    python = tmp_path / "venv/bin/python"
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")

    def pip(*words: str) -> None:
        command = [python, "-B", "-m", "pip", "--disable-pip-version-check", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    def installed() -> None:
        pip("install", "--no-deps", "--no-index", str(wheel))
        subprocess.run([python, "-B", "-c", "import iot.transfer.errors"], check=True, timeout=60)

    def entries() -> list[Path]:
        return sorted((tmp_path / "venv").rglob("*"))

    before = entries()
    installed()
    assert (packages / "iot/sftp/client/__init__.py").exists()
    pip("uninstall", "--yes", "iot-sftp-client")
    assert entries() == before
    installed()
    sibling = packages / "iot/sftp/sibling.py"
    sibling.write_text("")
    pip("uninstall", "--yes", "iot-sftp-client")
    assert entries() == sorted([*before, packages / "iot", packages / "iot/sftp", sibling])

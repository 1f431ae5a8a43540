from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from ck_mlperf.common.archives import unpack
from ck_mlperf.common.errors import UserError


def make_tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as packed:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                packed.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                packed.addfile(info, io.BytesIO(member[1]))
    return path


def make_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def assert_refused(archive: Path, match: str) -> None:
    folder = archive.parent / "new" / "folder"
    with pytest.raises(UserError, match=match):
        unpack(archive, folder)
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []


GOOD = (("./a.txt", b"a"), ("sub/deep/b.txt", b"bb"))


@pytest.mark.parametrize("name", ["good.tar", "good.tar.gz", "good.zip"])
def test_an_archive_gives_its_files(tmp_path, name):
    make = make_zip if name.endswith("zip") else make_tar
    archive = make(tmp_path / name, *GOOD)
    unpack(archive, tmp_path / "new")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"a"
    assert (tmp_path / "new" / "sub" / "deep" / "b.txt").read_bytes() == b"bb"


def test_the_same_archive_again_changes_nothing(tmp_path):
    archive = make_tar(tmp_path / "good.tar", *GOOD)
    unpack(archive, tmp_path / "new")
    (tmp_path / "new" / "more.txt").write_text("by the user")
    unpack(archive, tmp_path / "new")
    assert (tmp_path / "new" / "more.txt").exists()


def test_another_archive_replaces_what_was_unpacked_here(tmp_path):
    folder = tmp_path / "new" / "folder"
    unpack(make_tar(tmp_path / "good.tar", *GOOD), folder)
    with pytest.raises(UserError):
        unpack(make_tar(tmp_path / "evil.tar", ("../evil", b"")), folder)
    assert (folder / "a.txt").exists()
    unpack(make_tar(tmp_path / "other.tar", ("c.txt", b"c")), folder)
    assert sorted(os.listdir(folder)) == [".unpacked", "c.txt"]
    assert os.listdir(folder.parent) == ["folder"]


def test_a_folder_of_the_user_is_never_replaced(tmp_path):
    (tmp_path / "new").mkdir()
    archive = make_tar(tmp_path / "good.tar", *GOOD)
    (tmp_path / "new" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        unpack(archive, tmp_path / "new")
    (tmp_path / "new" / "mine.txt").unlink()
    unpack(archive, tmp_path / "new")
    assert (tmp_path / "new" / "a.txt").exists()


def test_modes_and_owners_of_the_archive_do_not_count(tmp_path):
    info = tarfile.TarInfo("a.txt")
    info.mode, info.uid = 0o6777, 12345
    unpack(make_tar(tmp_path / "mode.tar", info), tmp_path / "new")
    status = (tmp_path / "new" / "a.txt").stat()
    assert status.st_uid == os.getuid()
    assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


NAMES_OUTSIDE = ["/etc/evil", "../evil", "a/../../evil", "..", "a//b", "a\\..\\evil", "a/./b"]


@pytest.mark.parametrize("name", NAMES_OUTSIDE)
def test_a_name_that_leads_outside(tmp_path, name):
    assert_refused(make_tar(tmp_path / "evil.tar", *GOOD, (name, b"evil")), "points outside")
    (tmp_path / "new").rmdir()
    assert_refused(make_zip(tmp_path / "evil.zip", *GOOD, (name, b"evil")), "points outside")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "member",
    [
        special("a", tarfile.SYMTYPE, "/etc/passwd"),
        special("a", tarfile.SYMTYPE, "b"),
        special("a", tarfile.LNKTYPE, "/etc/passwd"),
        special("a", tarfile.CHRTYPE),
        special("a", tarfile.BLKTYPE),
        special("a", tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices(tmp_path, member):
    assert_refused(make_tar(tmp_path / "evil.tar", *GOOD, member), "link, a device")


def test_a_link_in_a_zip(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert_refused(make_zip(tmp_path / "evil.zip", (link, b"/etc/passwd")), "link, a device")


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"), (".unpacked",)]
)
def test_a_name_that_occurs_twice(tmp_path, names):
    archive = make_tar(tmp_path / "evil.tar", *((name, b"x") for name in names))
    assert_refused(archive, "occurs twice")


@pytest.mark.parametrize("name", ["bomb.tar.gz", "bomb.zip"])
def test_an_archive_that_grows_absurdly(tmp_path, name):
    make = make_zip if name.endswith("zip") else make_tar
    archive = make(tmp_path / name, ("zeros", bytes(16 << 20)))
    assert archive.stat().st_size < 100_000
    assert_refused(archive, "100 times its size")


@pytest.mark.parametrize("name", ["cut.tar", "cut.tar.gz", "cut.zip"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_an_archive_that_is_cut_off(tmp_path, name, share):
    make = make_zip if name.endswith("zip") else make_tar
    archive = make(tmp_path / name, *((f"{number}", os.urandom(50_000)) for number in range(4)))
    os.truncate(archive, int(archive.stat().st_size * share))
    assert_refused(archive, "cut off")


def test_a_zip_with_a_changed_byte(tmp_path):
    archive = make_zip(tmp_path / "bad.zip", ("a", os.urandom(50_000)))
    data = bytearray(archive.read_bytes())
    data[20_000] ^= 1
    archive.write_bytes(data)
    assert_refused(archive, "damaged")


@pytest.mark.parametrize("content", [b"", b"<html>", b"text" * 1000])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "page.tar").write_bytes(content)
    assert_refused(tmp_path / "page.tar", "no tar or zip")


def test_an_empty_archive(tmp_path):
    assert_refused(make_tar(tmp_path / "empty.tar"), "nothing in it")


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT RUN: needs the right to mount a small disk")
    try:
        archive = make_tar(tmp_path / "big.tar", *((f"{n}", bytes(300_000)) for n in range(9)))
        with pytest.raises(UserError, match="Make room"):
            unpack(archive, disk / "new")
        many = make_tar(tmp_path / "many.tar", *((f"{n}", b"x") for n in range(2000)))
        with pytest.raises(UserError, match="No space left"):  # by blocks, not by bytes
            unpack(many, disk / "new")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)

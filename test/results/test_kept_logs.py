"""Logs in an experiment entry: kept whole, found by their hash, and never taken for others."""

import base64
import gzip
import hashlib

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.results import kept_logs
from ck_mlperf.results.kept_logs import keep_file, locate, pack_kept, read_kept, unpack_kept
from ck_mlperf.results.record import Log

CONTENT = b":::MLLOG {}\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LOG = Log(file="mlperf_log_detail.txt", sha256=SHA256, bytes=len(CONTENT))


@pytest.fixture
def log(tmp_path):
    path = tmp_path / LOG.file
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def entry(tmp_path):
    folder = tmp_path / "entry"
    folder.mkdir()
    return folder


def test_what_was_kept_is_read(entry, log):
    keep_file(entry, log, SHA256)
    assert read_kept(entry, LOG) == CONTENT
    (path,) = (entry / "logs").iterdir()
    assert path.name == f"{SHA256}.gz"
    assert path.stat().st_size < len(CONTENT) / 10


def test_the_same_log_is_the_same_file(entry, log, tmp_path):
    keep_file(entry, log, SHA256)
    first = locate(entry, SHA256).read_bytes()
    locate(entry, SHA256).unlink()
    keep_file(entry, log, SHA256)
    assert locate(entry, SHA256).read_bytes() == first


def test_another_file_than_the_record_names_is_not_kept(entry, log):
    with pytest.raises(UserError, match=f"its sha256 is {SHA256}, and the record says {'0' * 64}"):
        keep_file(entry, log, "0" * 64)
    assert list(entry.iterdir()) == []


def test_a_log_that_was_not_kept(entry):
    with pytest.raises(UserError, match="missing: the mlperf_log_detail"):
        read_kept(entry, LOG)


ANOTHER, CUT_OFF = gzip.compress(b"another", mtime=0), gzip.compress(CONTENT, mtime=0)[:-9]


@pytest.mark.parametrize(
    "content",
    [b"", b"plain text", CUT_OFF, ANOTHER],
    ids=["empty", "plain text", "cut off", "another"],
)
def test_a_damaged_log(entry, log, content):
    keep_file(entry, log, SHA256)
    locate(entry, SHA256).write_bytes(content)
    with pytest.raises(UserError, match=rf"{SHA256}\.gz: damaged"):
        read_kept(entry, LOG)


def test_logs_travel_to_another_machine(entry, log, tmp_path):
    keep_file(entry, log, SHA256)
    other = tmp_path / "other"
    other.mkdir()
    unpack_kept(other, pack_kept(entry), "node1")
    assert read_kept(other, LOG) == CONTENT
    assert pack_kept(tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ANOTHER, "its sha256 is [0-9a-f]{64}, and the record says"),
        (CUT_OFF, "damaged"),
        (b"plain", "damaged"),
        (gzip.compress(bytes(1 << 20)), r"damaged \(more than 100,000 bytes\)"),
    ],
    ids=["another", "cut off", "plain text", "expands without end"],
)
def test_a_log_that_was_damaged_on_the_way(entry, content, said, monkeypatch):
    monkeypatch.setattr(kept_logs, "MOST_LOG_BYTES", 100_000)
    packed = {SHA256: base64.b64encode(content).decode()}
    with pytest.raises(UserError, match=f"a log from node1: {said}"):
        unpack_kept(entry, packed, "node1")
    assert list(entry.iterdir()) == []

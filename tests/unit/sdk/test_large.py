"""Large values by file: only whole regular files count, everything else streams."""

from __future__ import annotations

from alight.sdk import large


def test_a_file_is_written_whole_and_read_back_writable(tmp_path):
    path = str(tmp_path / "value")
    assert large._write(path, [b"ab", memoryview(b"cd")], 4)
    found = large._read(path, 4)
    found[0:1] = b"z"
    assert bytes(memoryview(found)) == b"zbcd"
    assert not large._write(path, [b"again"], 5)  # never over another's


def test_what_is_not_the_file_that_was_promised_is_not_read(tmp_path):
    (tmp_path / "short").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "short")
    assert large._read(str(tmp_path / "short"), 4) is None
    assert large._read(str(tmp_path / "link"), 3) is None
    assert large._read(str(tmp_path / "gone"), 3) is None
    assert large._read(str(tmp_path), 3) is None

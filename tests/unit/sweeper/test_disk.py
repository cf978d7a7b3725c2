"""What the disk has: sizes of folders that change while they are counted."""

import os
import shutil

from sweeper import disk


def test_bytes_of_a_file_a_folder_and_of_names_that_end_so(tmp_path):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "a" / "one.json").write_bytes(b"1" * 10)
    (below / "two.safetensors").write_bytes(b"2" * 300)
    assert disk.bytes_below(tmp_path) == disk.bytes_below(tmp_path / "a") == 310
    assert disk.bytes_below(below / "two.safetensors") == 300
    assert disk.bytes_below(tmp_path / "gone") == 0


def test_links_are_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "large").write_bytes(b"x" * 100_000)
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    inside = tmp_path / "folder"
    inside.mkdir()
    (inside / "link").symlink_to(elsewhere / "large")
    assert disk.bytes_below(link) == link.lstat().st_size < 100_000
    assert disk.bytes_below(inside) < 100_000


def test_what_vanishes_meanwhile_is_left_out(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * 10)
    walk = os.walk

    def walked(path):
        for number, found in enumerate(walk(path)):
            if number == 1:  # one of the two, its names read and its file not yet looked at
                shutil.rmtree(found[0])
            yield found

    monkeypatch.setattr(disk.os, "walk", walked)
    assert disk.bytes_below(tmp_path) == 10


def test_what_is_free_where_a_folder_will_be(tmp_path):
    assert disk.free_bytes(tmp_path / "not" / "yet") > 0
    assert disk.nearest(tmp_path / "not" / "yet") == tmp_path

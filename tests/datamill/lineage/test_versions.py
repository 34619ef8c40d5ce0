import hashlib
import json

import pytest

from datamill.lineage import versions


def store(root, content: bytes) -> str:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def store_folder(root, members) -> str:
    listing = [{"md5": store(root, content), "relpath": name} for name, content in sorted(members.items())]
    text = json.dumps(listing, sort_keys=True).encode()
    digest = hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"
    path = root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return digest


def test_digests_are_those_of_dvc(tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/b.txt").write_text("b")
    (folder / "a.txt").write_text("a")
    assert versions.digest_of(folder / "a.txt") == "0cc175b9c0f1b6a831c399e269772661"
    assert versions.digest_of(folder) == store_folder(tmp_path, {"a.txt": b"a", "sub/b.txt": b"b"})


def test_a_file_and_a_folder_are_found_in_the_cache_without_checking_out(tmp_path):
    cache = versions.Cache(tmp_path)
    digest = store(tmp_path, b"hello")
    assert cache.find(digest).read_bytes() == b"hello"
    folder = cache.find(store_folder(tmp_path, {"a.txt": b"a", "sub/b.txt": b"b"}))
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.txt")} == {
        "a.txt": b"a",
        "sub/b.txt": b"b",
    }


def test_a_folder_of_which_a_byte_is_missing_is_not_found(tmp_path):
    digest = store_folder(tmp_path, {"a.txt": b"a", "b.txt": b"b"})
    assert versions.Cache(tmp_path).find(digest) is not None
    gone = hashlib.md5(b"b", usedforsecurity=False).hexdigest()
    (tmp_path / ".dvc/cache/files/md5" / gone[:2] / gone[2:]).unlink()
    assert versions.Cache(tmp_path).find(digest) is None
    assert versions.Cache(tmp_path).find("0" * 32) is None


def test_a_listing_that_points_out_of_its_folder_is_not_followed(tmp_path):
    digest = store_folder(tmp_path, {"../../evil.txt": b"x", "a.txt": b"a"})
    view = versions.Cache(tmp_path).find(digest)
    assert [path.name for path in view.rglob("*.txt")] == ["a.txt"]
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_digest_that_is_a_path_is_not_followed(tmp_path):
    (tmp_path / ".dvc/cache/files/md5").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    assert versions.Cache(tmp_path).find(f"..{tmp_path}/secret") is None
    listing = store(tmp_path, json.dumps([{"md5": f"..{tmp_path}/secret", "relpath": "a"}]).encode())
    folder = tmp_path / ".dvc/cache/files/md5" / listing[:2]
    (folder / listing[2:]).rename(folder / f"{listing[2:]}.dir")
    assert versions.Cache(tmp_path).find(f"{listing}.dir") is None
    lock = {"make": {"outs": [{"path": "data", "md5": "../../secret"}, {"path": "kept", "md5": "0" * 32}]}}
    assert versions.digests(lock) == {"kept": "0" * 32}


@pytest.mark.parametrize("name", ["config", "config.local"])
def test_the_cache_may_lie_elsewhere(tmp_path, name):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / name).write_text("[core]\n    analytics = false\n[cache]\n    dir = ../elsewhere\n")
    path = tmp_path / "elsewhere/files/md5/5d/41402abc4b2a76b9719d911017c592"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"hello")
    assert versions.Cache(tmp_path).find("5d41402abc4b2a76b9719d911017c592").read_bytes() == b"hello"

"""The champion's files on disk."""

import hashlib

import pytest
import yaml

from datamill.errors import DataError, StageError
from datamill.promotion import champions
from tests.datamill.promotion.candidates import contents, write_workspace


@pytest.fixture
def root(tmp_path):
    return write_workspace(tmp_path, bias=0)


def admit(root):
    folder, version = champions.stage_candidate(root)
    champions.admit(folder, version=version, root=root, card={"run": "r1"})
    return version


def test_the_champion_is_a_whole_copy_with_a_card_that_names_every_hash(root):
    (root / "models/evaluate/reference").mkdir(parents=True)
    (root / "models/evaluate/reference/rows.parquet").write_bytes(b"rows")
    version = admit(root)
    champions.switch(root, version=version)
    folder = champions.champion_folder(root)
    assert folder == (root / "models/champions" / version).resolve()
    assert set(contents(folder)) == {
        "best.safetensors", "champion.json", "example.npy", "interface.json", "model.onnx", "network.json",
        "predictions.parquet", "preprocessor.json", "reference/rows.parquet",
    }  # fmt: skip
    assert (folder / "model.onnx").read_bytes() == (root / "models/export/model.onnx").read_bytes()
    card = champions.read_card(folder)
    assert card["version"] == version
    assert card["run"] == "r1"
    assert card["files"]["reference/rows.parquet"] == hashlib.sha256(b"rows").hexdigest()
    assert not list((root / "models/champions").glob(".*"))


def test_equal_models_have_the_same_version_and_a_changed_weight_another(root):
    version = admit(root)
    assert admit(root) == version
    champions.discard_candidate(root)
    (root / "models/train/best.safetensors").write_bytes(b"other")
    assert admit(root) != version
    assert len(champions.kept(root)) == 2


def test_a_reader_that_resolved_the_champion_keeps_it_through_a_switch(root):
    first = admit(root)
    champions.switch(root, version=first)
    read = champions.champion_folder(root)
    write_workspace(root, bias=8)
    champions.switch(root, version=admit(root))
    assert champions.champion_folder(root) != read
    assert champions.read_card(read)["version"] == first
    assert (read / "model.onnx").exists()


def test_without_a_champion_there_is_none(root):
    assert champions.champion_folder(root) is None
    assert champions.current(root) is None


def test_a_damaged_or_missing_version_does_not_become_champion(root):
    version = admit(root)
    (root / "models/champions" / version / "model.onnx").write_bytes(b"junk")
    with pytest.raises(DataError, match=f"champion {version} is damaged: model.onnx in"):
        champions.switch(root, version=version)
    with pytest.raises(DataError, match=f"champion 123 is not in .*; kept there: {version}"):
        champions.switch(root, version="123")
    assert champions.current(root) is None


def test_a_damaged_version_is_healed_by_the_same_model(root):
    version = admit(root)
    (root / "models/champions" / version / "model.onnx").unlink()
    assert admit(root) == version
    champions.switch(root, version=version)


def test_a_folder_in_the_links_place_is_not_overwritten(root):
    version = admit(root)
    (root / "models/champion").mkdir()
    with pytest.raises(DataError, match="is a folder, and should be a link that datamill makes; move it away"):
        champions.switch(root, version=version)


def test_an_unfinished_pipeline_has_no_candidate(root):
    (root / "models/export/model.onnx").unlink()
    with pytest.raises(StageError, match=r"model\.onnx is not there, so there is no model to judge; `datamill run`"):
        champions.stage_candidate(root)


def test_a_model_and_predictions_of_different_runs_are_refused(root):
    best = (root / "models/train/best.safetensors").read_bytes()
    deps = [{"path": "models/train/best.safetensors", "md5": hashlib.md5(best).hexdigest()}]  # noqa: S324 - DVC's
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate": {"deps": deps}}}))
    champions.stage_candidate(root)
    (root / "models/train/best.safetensors").write_bytes(b"trained again, not evaluated")
    with pytest.raises(StageError, match=r"models/train/best\.safetensors is not the one that evaluate ran with"):
        champions.stage_candidate(root)


def test_only_the_newest_champions_are_kept(root):
    order = []
    for bias in range(5):
        write_workspace(root, bias=bias)
        order.append(admit(root))
    champions.switch(root, version=order[-1])
    champions.prune(root, order=order, keep=2)
    assert set(champions.kept(root)) == set(order[2:])
    champions.switch(root, version=order[2])
    champions.prune(root, order=[*order[2:], order[2]], keep=1)
    assert set(champions.kept(root)) == {order[2], order[4]}

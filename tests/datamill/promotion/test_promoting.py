"""Promotion and rollback in a workspace, whatever happens meanwhile."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from filelock import FileLock

from datamill.errors import DataError, ParamsError, StageError
from datamill.promotion import champions, history, promoting
from datamill.promotion.promoting import Author
from datamill.tracking import Session
from tests.datamill.promotion.candidates import contents, policy, write_workspace

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ADA = Author("Ada", Session("one", "first run"))
GOOD, WORSE = 0.0, 17.0  # biases of models: right about every test sample, and about half of them


@pytest.fixture
def root(tmp_path):
    return tmp_path


def promote(root, *, bias=None, **options):
    if bias is not None:
        write_workspace(root, bias=bias)
    return promoting.promote(root, policy=options.pop("policy", policy()), author=ADA, now=NOW, **options)


def is_changed(outcome):
    return outcome.entry is not None and outcome.entry["action"] != "refused" and outcome.champion != outcome.challenger


def rollback(root, *, to=None, because="it failed"):
    return promoting.rollback(root, to=to, because=because, author=ADA, now=NOW)


def test_the_first_model_becomes_champion_and_a_better_one_after_it(root):
    first = promote(root, bias=WORSE)
    assert is_changed(first)
    second = promote(root, bias=GOOD)
    assert second.decision.promotes
    assert champions.current(root) == second.challenger
    entries = history.read(root)
    assert [(entry["action"], entry["from"], entry["to"]) for entry in entries] == [
        ("promoted", None, first.challenger),
        ("promoted", first.challenger, second.challenger),
    ]
    card = champions.read_card(champions.champion_folder(root))
    assert card["run"] == "one"
    assert card["evidence"]["metrics"]["accuracy"] == 1.0
    assert {row["property"] for row in card["evidence"]["slices"]} >= {"class", "group", "height"}


def test_a_worse_model_is_refused_and_leaves_the_champion_alone(root):
    good = promote(root, bias=GOOD)
    before = contents(root / "models/champion")
    worse = promote(root, bias=WORSE)
    assert not is_changed(worse)
    assert contents(root / "models/champion") == before
    assert champions.kept(root) == [good.challenger]
    assert history.read(root)[-1]["action"] == "refused"
    assert not (root / "models/champions/.partial-candidate").exists()


def test_the_same_model_twice_changes_nothing(root):
    promote(root, bias=GOOD)
    again = promote(root)
    assert not is_changed(again)
    assert again.decision.reasons[0].check == "model"


def test_dry_records_and_changes_nothing(root):
    outcome = promote(root, bias=GOOD, is_dry=True)
    assert outcome.decision.promotes
    assert outcome.entry is None
    assert champions.current(root) is None
    assert not (root / history.HISTORY).exists()


def test_force_promotes_what_the_evidence_refuses_and_says_who_and_why(root):
    promote(root, bias=GOOD)
    outcome = promote(root, bias=WORSE, is_forced=True, because="the old one is a legal risk")
    assert champions.current(root) == outcome.challenger
    entry = history.read(root)[-1]
    assert entry["action"] == "forced"
    assert entry["reasons"][-1]["found"] == "forced by Ada: the old one is a legal risk"
    refusing = [reason for reason in entry["reasons"] if not reason["passes"]]
    assert [reason["check"] for reason in refusing] == ["headline"] + 6 * ["slice"]
    assert refusing[1]["found"].startswith("class 0: accuracy -0.6750 over 40 samples (27 lost, 0 won")
    assert refusing[-1]["found"] == "19 more slices lose too much"


def test_force_and_rollback_need_a_reason(root):
    write_workspace(root, bias=GOOD)
    with pytest.raises(ParamsError, match="needs a reason: add --because TEXT"):
        promote(root, is_forced=True, because=" ")
    with pytest.raises(ParamsError, match="rolling back needs a reason: add --because TEXT"):
        rollback(root, because="")


def test_rolling_back_restores_the_very_bytes_without_mlflow_or_the_pipeline(root):
    promote(root, bias=WORSE)
    before = contents(root / "models/champion")
    second = promote(root, bias=GOOD)
    for folder in ("models/export", "models/train", "data"):
        subprocess.run(["rm", "-r", str(root / folder)], check=True)
    outcome = rollback(root)
    assert contents(root / "models/champion") == before
    assert outcome.champion == second.challenger
    entry = history.read(root)[-1]
    assert (entry["action"], entry["from"], entry["because"]) == ("rolled back", second.challenger, "it failed")
    rollback(root, to=second.challenger[:6])
    assert champions.current(root) == second.challenger


def test_rolling_back_goes_down_the_line_and_ends_with_a_message(root):
    first = promote(root, bias=WORSE)
    promote(root, bias=GOOD)
    rollback(root)
    with pytest.raises(
        StageError, match=f"no champion before the present one; name one with --to, of: .*{first.challenger}"
    ):
        rollback(root)
    with pytest.raises(ParamsError, match="--to 'xyz' names 0 champions; kept are: "):
        rollback(root, to="xyz")


def test_a_damaged_earlier_champion_is_no_way_back(root):
    first = promote(root, bias=WORSE)
    second = promote(root, bias=GOOD)
    (root / "models/champions" / first.challenger / "network.json").write_text("{}")
    with pytest.raises(DataError, match=r"is damaged: network\.json"):
        rollback(root)
    assert champions.current(root) == second.challenger
    assert len(history.read(root)) == 2


def test_an_edited_history_stops_everything(root):
    promote(root, bias=WORSE)
    path = root / history.HISTORY
    path.write_text(path.read_text().replace("Ada", "Eve"))
    write_workspace(root, bias=GOOD)
    before = path.read_bytes()
    for act in (promote, rollback):
        with pytest.raises(DataError, match="line 1 was edited"):
            act(root)
    assert path.read_bytes() == before


def test_a_new_history_begins_with_the_champion_there_is(root):
    first = promote(root, bias=WORSE).challenger
    (root / history.HISTORY).unlink()
    (root / history.HEAD).unlink()
    second = promote(root, bias=GOOD, policy=policy(keep=1))
    assert second.entry["from"] == first
    assert rollback(root).challenger == first


def test_a_champion_on_record_whose_files_are_elsewhere_is_not_replaced_by_chance(root):
    promote(root, bias=GOOD)
    subprocess.run(["rm", "-r", str(root / "models/champion"), str(root / "models/champions")], check=True)  # a clone
    outcome = promote(root, bias=WORSE)
    assert not outcome.decision.promotes
    (reason,) = outcome.decision.reasons
    assert reason.found == f"the champion on record, {outcome.champion}, is not here"
    assert is_changed(promote(root, is_forced=True, because="begin anew here"))


def test_what_a_kill_left_between_record_and_change_is_made_good(root):
    first = promote(root, bias=WORSE)
    second = promote(root, bias=GOOD)
    champions.switch(root, version=first.challenger)  # as if the link had not been moved yet
    assert not is_changed(promote(root))
    assert champions.current(root) == second.challenger


def test_a_damaged_champion_is_not_compared_with_and_leaves_both_ways_out(root):
    first = promote(root, bias=WORSE).challenger
    second = promote(root, bias=GOOD).challenger
    (root / "models/champions" / second / "network.json").write_text("{}")
    third = promote(root, bias=GOOD + 1)
    (reason,) = third.decision.reasons
    assert not reason.passes
    assert f"champion {second} is damaged: network.json" in reason.found
    assert promote(root, is_forced=True, because="it is damaged").challenger == third.challenger
    assert rollback(root, to=first).challenger == first


NURSERY = """
import os, sys
from pathlib import Path
from datetime import UTC, datetime
from datamill.promotion import champions, promoting
from datamill.promotion.reasons import Decision
from datamill.promotion.promoting import Author
from datamill.tracking import Session
from tests.datamill.promotion.candidates import policy

root, ada = Path(sys.argv[1]), Author("Ada", Session("one", "run"))
promoting.judge = lambda *_, **__: (Decision(True, ()), {"metrics": {}})  # the disk is tested here, not the judge

def live(first):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    for number in range(first, first + 1000):
        (root / "models/train/best.safetensors").write_bytes(str(number).encode())
        promoting.promote(root, policy=policy(), author=ada, now=now)
        other = min(set(champions.kept(root)) - {champions.current(root)})
        promoting.rollback(root, to=other, because="test", author=ada, now=now)

print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(int(line))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def test_a_kill_at_any_moment_leaves_one_whole_champion_and_a_whole_history(root):
    promote(root, bias=WORSE)
    promote(root, bias=GOOD)
    rng = random.Random(0)
    command = [sys.executable, "-c", NURSERY, str(root)]  # imports once; each of its children is a process to kill
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        assert nursery.stdout.readline() == "ready\n"
        lengths = []
        for attempt in range(20):
            print(attempt * 1000, file=nursery.stdin, flush=True)
            child = int(nursery.stdout.readline())
            time.sleep(0.05 + rng.random() * 0.3)
            os.kill(child, signal.SIGKILL)
            while nursery.stdout.readline() not in {"gone\n", ""}:
                pass  # what the killed one said
            folder = champions.champion_folder(root)
            champions.verify(root, version=folder.name)
            entries = history.read(root)
            assert folder.name in {entry["to"] for entry in entries}
            lengths.append(len(entries))
    assert lengths == sorted(lengths)
    assert lengths[-1] > 20
    on_record = history.champion(history.read(root))
    promote(root, is_dry=True)
    assert champions.current(root) == on_record


def test_of_two_promoters_at_once_one_promotes_and_the_other_finds_it_done(root):
    write_workspace(root, bias=GOOD)
    with ThreadPoolExecutor(2) as pool:
        actions = sorted(done.entry["action"] for done in pool.map(lambda _: promote(root), range(2)))
    assert actions == ["promoted", "refused"]
    assert [entry["number"] for entry in history.read(root)] == [1, 2]


def test_whoever_promotes_too_long_is_named_to_the_one_who_waits(root, monkeypatch):
    monkeypatch.setattr(promoting, "LOCK_TIMEOUT_S", 0.1)
    write_workspace(root, bias=GOOD)
    (root / ".datamill").mkdir()
    with FileLock(root / ".datamill/promotion.lock"), pytest.raises(StageError, match="has been promoting in"):
        promote(root)


def test_a_workspace_is_given_back_when_a_decision_fails(root):
    write_workspace(root, bias=GOOD)
    path = root / "data/evaluate/predictions.parquet"
    path.write_bytes(b"junk")
    with pytest.raises(Exception, match="Parquet"):
        promote(root)
    assert not list(Path(root / "models/champions").glob(".*"))
    assert is_changed(promote(root, bias=GOOD))

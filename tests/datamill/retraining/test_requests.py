import subprocess
import sys

import pytest

from datamill.errors import StageError
from datamill.retraining import requests
from tests.datamill.retraining.test_guards import retrain_params
from tests.verdicts import AT_RISK, HOUR, START

HOLDER = """
import sys, time
from pathlib import Path
from datamill.retraining.requests import training
with training(Path(sys.argv[1])):
    print("training", flush=True)
    time.sleep(60)
"""


def consider(root, *, hours=0.0, **changes):
    return requests.consider(
        root, verdict=AT_RISK, num_new=100, window="", now=START + hours * HOUR, params=retrain_params(**changes)
    )


def unanswered(root, *, hours=0.0):
    return requests.unanswered(root, now=START + hours * HOUR, params=retrain_params())


def ended(root):
    text = (root / ".datamill/watch/retraining.json").read_bytes()
    return [request.ended for request in requests.State.model_validate_json(text).requests]


def test_a_request_waits_on_disk_until_somebody_was_told(tmp_path):
    request = consider(tmp_path).request
    assert unanswered(tmp_path) == request
    requests.mark_sent(tmp_path, request)
    assert unanswered(tmp_path) is None
    assert ended(tmp_path) == ["pending"]


def test_a_training_answers_the_requests_that_were_told(tmp_path):
    requests.mark_sent(tmp_path, consider(tmp_path).request)
    with requests.training(tmp_path):
        assert ended(tmp_path) == ["started"]
        assert requests.is_training(tmp_path)
    assert ended(tmp_path) == ["finished"]
    assert not requests.is_training(tmp_path)


def test_a_training_that_began_before_the_new_data_was_there_answers_nothing(tmp_path):
    consider(tmp_path)
    with requests.training(tmp_path):
        assert ended(tmp_path) == ["pending"]
    assert ended(tmp_path) == ["pending"]


def test_a_training_that_fails_is_recorded_as_such(tmp_path):
    requests.mark_sent(tmp_path, consider(tmp_path).request)
    with pytest.raises(RuntimeError), requests.training(tmp_path):
        raise RuntimeError
    assert ended(tmp_path) == ["failed"]


def test_while_a_training_is_at_work_there_is_no_other_and_a_killed_one_blocks_nobody(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    with process, process.stdout:
        assert process.stdout.readline() == b"training\n"
        assert consider(tmp_path).reasons == ("a training is at work",)
        process.kill()
        process.wait()
    assert consider(tmp_path, hours=1).result == "requested"


def test_a_request_whose_training_was_killed_is_asked_for_again_once_it_is_dead(tmp_path):
    request = consider(tmp_path).request
    requests.mark_sent(tmp_path, request)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    with process, process.stdout:
        assert process.stdout.readline() == b"training\n"
        assert unanswered(tmp_path) is None
        process.kill()
        process.wait()
    again = unanswered(tmp_path)
    assert (again.id, again.attempts, again.is_sent) == (request.id, 1, False)
    requests.mark_sent(tmp_path, again)
    with requests.training(tmp_path):
        pass
    assert ended(tmp_path) == ["finished"]
    assert unanswered(tmp_path, hours=1) is None


def test_two_trainings_that_wait_for_each_other_both_count(tmp_path):
    with requests.training(tmp_path):
        with requests.training(tmp_path):
            pass
        assert requests.is_training(tmp_path)


def test_of_many_that_consider_at_once_one_asks(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.datamill.retraining.test_requests import consider\n"
        "print(consider(Path(sys.argv[1])).result)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    results = [process.communicate(timeout=100)[0].strip() for process in processes]
    assert sorted(results) == ["refused", "refused", "requested"]


def test_a_damaged_state_is_one_clear_error(tmp_path):
    (tmp_path / ".datamill/watch").mkdir(parents=True)
    (tmp_path / ".datamill/watch/retraining.json").write_text("{")
    with pytest.raises(StageError, match="is damaged; move it away, and cool-down and budget begin anew"):
        consider(tmp_path)

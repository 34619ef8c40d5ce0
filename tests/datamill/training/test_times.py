from datamill.training.times import Times, summarise


def test_shares_and_rates_are_over_all_epochs() -> None:
    times = [
        Times(seconds=3.0, training_s=2.0, loading_s=1.0, num_rows=100, step_ms=10.0),
        Times(seconds=5.0, training_s=4.0, loading_s=0.5, num_rows=100, step_ms=30.0),
    ]
    assert summarise(times) == {
        "seconds": 8.0,
        "epochs": 2,
        "samples_per_s": 33.3,
        "loading_share": 0.25,
        "step_ms_median": 20.0,
    }

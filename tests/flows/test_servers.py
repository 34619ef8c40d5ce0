from flows import servers


def test_the_address_of_a_database_is_no_argument_of_a_process(tmp_path, monkeypatch):
    started = []

    def start(command, *, log, uri):
        started.append((command, uri))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    address = "postgresql+psycopg2://admin:secret@host/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(servers, "_start", start)
    monkeypatch.setattr(servers, "_wait", interrupt)
    monkeypatch.setattr(servers, "_stop", lambda process: None)
    monkeypatch.setattr(servers.signal, "signal", lambda *_: None)
    servers.serve(root=tmp_path, mlflow_port=5000, prefect_port=4200)
    assert [command[2] for command, _ in started] == ["prefect", "mlflow"]
    assert {uri for _, uri in started} == {address}
    assert not [word for command, _ in started for word in command if "secret" in word]


def test_a_server_reads_the_address_from_its_environment(tmp_path):
    show = "import os; print(os.environ['MLFLOW_BACKEND_STORE_URI'])"
    servers._start([servers.sys.executable, "-c", show], log=tmp_path / "log", uri="sqlite:///x.db").wait()
    assert (tmp_path / "log").read_text() == "sqlite:///x.db\n"

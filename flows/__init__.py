"""When stages run, in what order, with what retries: Prefect flows, and the ``datamill`` command."""

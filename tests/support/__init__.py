"""What every suite stands on: it starts sandbox and gateway, invents people, makes certificates, and holds errors to the
contract.

    process, sandbox, server, certs, stage   the programs; Python's own library is enough for them
    gateway, people, protos                  calls; `protos` makes the Python stubs of proto/, so that every other module
                                             may import `userintent.v1` as if it were installed
    canary, check, errors, wire              what a test holds an answer, a log or a connection to
    ledger_tool, grpcurl                     other programs
    postgres, pg_proxy                       PostgreSQL with a standby, and a network before it that can fail

Suites in Python find the package by tests/ on their path (`pythonpath` in their pytest.ini). Other languages and shell
start `python3 -m support.stage` there and read one line of JSON.
"""

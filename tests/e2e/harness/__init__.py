"""What the end-to-end tests stand on: processes, people, certificates and the contract's rules for errors.

`from harness import protos` first makes the Python stubs of proto/ (see protos.py), so every other module may import
`userintent.v1` as if it were installed.
"""

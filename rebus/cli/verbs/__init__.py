"""One file per command: its docstring is the help, `EXAMPLE` an example, `arguments` its options, `run` its work."""

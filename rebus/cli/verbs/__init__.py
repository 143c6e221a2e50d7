"""One file per verb: its docstring is the help, `EXAMPLE` a command, `arguments` its options, `run` its work."""

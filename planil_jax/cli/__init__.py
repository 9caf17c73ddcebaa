"""The command line: flags, help, errors in one sentence; a file a command."""

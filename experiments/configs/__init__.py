"""Config files: `get_config()` returns an Experiment, thawed for the command line."""

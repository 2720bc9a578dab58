"""Two-stage runs as TOML files: the keys are the command-line options."""

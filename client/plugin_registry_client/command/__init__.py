"""The command `plugin-registry`, as far as it is a client."""

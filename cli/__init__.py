"""The command `plugin-registry`, for people and CI. May import all."""

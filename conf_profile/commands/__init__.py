"""The groups of commands that `conf_profile.cli` puts together."""

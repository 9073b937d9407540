"""The groups of commands that `conf_profile.cli.main` puts together."""

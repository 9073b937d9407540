"""`python -m conf_profile`: the same as `conf-profile`."""

from conf_profile.cli.main import main

if __name__ == "__main__":
    main()

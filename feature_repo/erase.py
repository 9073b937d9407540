"""`python -m feature_repo.erase --users FILE`: users out of a feature repository, online and inferred tags, and proof.

For a repository that belongs to no run, as on a cluster; `conf-profile erase` does the same for a run's folder. The
ids stand in a file, one on each line, so that neither a command line nor a log has them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from conf_profile.erasure import erasure
from conf_profile.errors import DataError
from feature_repo import erasure as feast_stores
from feature_repo import jobs


def read_users(file: Path) -> list[str]:
    """The ids, each once; DataError where there are none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read: {error.strerror}; it holds the users to erase, an id on each line "
            "(on a cluster: a Secret with the key `users`)"
        ) from error
    users = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not users:
        raise DataError(f"{file}: holds no user; write an id on each line")
    return users


def main(given: Sequence[str] | None = None) -> None:
    """The program; status 2 where anything is left, or a user can put something right."""
    parser = argparse.ArgumentParser(prog="python -m feature_repo.erase")
    parser.add_argument("--repository", type=Path, default=jobs.REPOSITORY, help="folder with feature_store.yaml")
    parser.add_argument("--users", type=Path, required=True, help="file with an id on each line")
    options = parser.parse_args(given)
    jobs.run_job("erase", lambda: _erase(options.repository, read_users(options.users)))


def _erase(repository: Path, users: Sequence[str]) -> None:
    left = 0
    with jobs.repository(repository):
        for number, user in enumerate(users, start=1):
            for outcome in erasure.erase(user, feast_stores.stores(repository)):
                print(f"user {number} of {len(users)}: {outcome.store}: {outcome.removed} removed, {outcome.left} left")
                left += outcome.left
    if left:
        raise DataError(f"{left} row(s) are left; somebody may be writing them: try again")


if __name__ == "__main__":
    main()

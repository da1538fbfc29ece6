"""`python -m postqueue_api` is the command `postqueue-api`."""

from postqueue_api.cli import main

main(prog_name="postqueue-api")
